//! What can go wrong with the store.

use std::{
    io,
    path::{Path, PathBuf},
};

use rusqlite::ErrorCode;

use super::is_damage;

/// Why the store could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its directory.
    #[error("the store's directory {}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Its file.
    #[error("the store {}: {source}{}", path.display(), hint(source))]
    Database {
        /// Which.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// It can be opened, and not be worked with.
    #[error("the store {} is damaged: {finding}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What was found first.
        finding: String,
    },
    /// A later version of sandbox made it.
    #[error(
        "the store {} is of version {found}, this sandbox knows {known} at most: use the version that made it",
        path.display()
    )]
    TooNew {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The latest that is known.
        known: i64,
    },
    /// A record that is no JSON.
    #[error("a record for the store {}: {source}", path.display())]
    Record {
        /// Which store.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
}

/// What to look at, where SQLite does not say it.
fn hint(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
            ": is that a read-only file system, or not root's?"
        }
        Some(ErrorCode::DiskFull) => ": make room on that disk",
        Some(_) | None => "",
    }
}

impl StoreError {
    pub(super) fn directory(path: &Path, source: io::Error) -> Self {
        Self::Directory {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn database(path: &Path, source: rusqlite::Error) -> Self {
        Self::Database {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn record(path: &Path, source: serde_json::Error) -> Self {
        Self::Record {
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the file is damaged, or no store at all.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Database { source, .. } => is_damage(source),
            Self::Damaged { .. } => true,
            Self::Directory { .. } | Self::TooNew { .. } | Self::Record { .. } => false,
        }
    }
}
