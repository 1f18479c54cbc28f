//! Whether a store is whole, and how one that is not is put aside.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::Connection;

use super::{Store, StoreError};
use crate::sys::aside;

/// Up to this size each page is looked at; in a larger file that would take too long at each start.
const LOOKED_THROUGH_BYTES: u64 = 256 << 20;

/// Looks whether a store can be worked with: SQLite at its pages, the rows that the service begins with by being read.
///
/// # Errors
/// [`StoreError::is_damage`] where it cannot; where it cannot be read at all.
pub(super) fn check(store: &Store) -> Result<(), StoreError> {
    let path = &store.path;
    if fs::metadata(path).is_ok_and(|file| file.len() <= LOOKED_THROUGH_BYTES) {
        let finding = quick_check(&store.connection);
        let finding = finding.map_err(|source| StoreError::database(path, source))?;
        if finding != "ok" {
            return Err(StoreError::Damaged {
                path: path.clone(),
                finding,
            });
        }
    }
    match store.unfinished() {
        Err(StoreError::Database { source, .. }) if is_of_the_rows(&source) => {
            Err(StoreError::Damaged {
                path: path.clone(),
                finding: source.to_string(),
            })
        }
        read => read.map(drop),
    }
}

/// The first thing that is wrong with the pages; `ok` where nothing is (sqlite.org/pragma.html, quick_check).
fn quick_check(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
}

/// Whether an error says that there is something in a row which nobody has put there.
fn is_of_the_rows(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..)
    )
}

/// Puts a store aside, under a name that nothing has; gives that.
///
/// # Errors
/// Where it cannot be renamed.
pub(super) fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = aside::put_aside(path)?;
    // What belongs to the damaged file is not to be taken for the new one's.
    for suffix in ["-wal", "-shm"] {
        let of = |path: &Path| format!("{}{suffix}", path.display());
        let _ = fs::rename(of(path), of(&aside));
    }
    Ok(aside)
}
