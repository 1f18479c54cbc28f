//! The tables, and how an older store becomes one of this version.

use std::path::Path;

use rusqlite::Connection;

use super::StoreError;

/// What each version adds to the one before; the first makes the tables.
pub(super) const MIGRATIONS: &[&str] = &["
CREATE TABLE runs (
    run_id      TEXT PRIMARY KEY,  -- UUIDv7: sorts by time
    state       TEXT NOT NULL CHECK (state IN ('queued', 'running', 'ended')),
    uid         INTEGER NOT NULL,  -- who asked for it
    user        TEXT,              -- whom it ran as
    analysis_id TEXT,
    labels      TEXT NOT NULL,     -- a JSON object
    command     TEXT NOT NULL,     -- a JSON array
    memory_bytes INTEGER,          -- its limits as they were asked for; NULL = none
    cpus        REAL,
    pids        INTEGER,
    accepted_at TEXT NOT NULL,     -- times are RFC 3339, UTC
    started_at  TEXT,
    ended_at    TEXT,
    boot_id     TEXT NOT NULL,
    reason      TEXT,              -- termination.reason
    confidence  TEXT,              -- termination.confidence
    exit_code   INTEGER,
    exit_signal INTEGER,
    notes       TEXT,              -- completion_notes
    record      TEXT               -- the whole record, JSON
) STRICT;
CREATE INDEX runs_by_uid ON runs (uid, accepted_at);
CREATE INDEX runs_by_time ON runs (accepted_at);
CREATE INDEX runs_by_analysis ON runs (analysis_id, accepted_at) WHERE analysis_id IS NOT NULL;
CREATE INDEX runs_unfinished ON runs (state) WHERE state <> 'ended';
", "
ALTER TABLE runs ADD COLUMN hook_problem TEXT; -- how its completion hooks failed; NULL = they did not
", "
ALTER TABLE runs ADD COLUMN spec TEXT; -- what was asked for besides, a JSON object
"];

/// Brings a store to this version, whatever earlier one made it.
///
/// # Errors
/// Where it cannot be read or written, or is of a later version.
pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::database(path, source);
    connection
        .busy_timeout(std::time::Duration::from_secs(10))
        .map_err(failed)?;
    connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
        .and_then(|()| connection.pragma_update(None, "synchronous", "FULL"))
        .map_err(failed)?;
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed)?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(StoreError::TooNew {
            path: path.to_owned(),
            found,
            known,
        });
    }
    let missing = MIGRATIONS
        .iter()
        .zip(1..)
        .skip(usize::try_from(found).unwrap_or(0));
    for (migration, version) in missing {
        let transaction = connection.transaction().map_err(failed)?;
        transaction
            .execute_batch(migration)
            .and_then(|()| transaction.pragma_update(None, "user_version", version))
            .and_then(|()| transaction.commit())
            .map_err(failed)?;
    }
    Ok(())
}
