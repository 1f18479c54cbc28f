//! The service's store: every run from the moment it is accepted, with its record once that is in.
//!
//! One SQLite file in WAL mode, synced at each commit, so that what was stored stays. It is made to
//! be read by people with sqlite3(1) too: one row a run, plain columns for what is asked for, the
//! whole record beside them.

mod error;
mod filter;
mod row;
mod schema;
mod whole;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, ToSql, named_params, params};
use serde_json::Value;

pub(crate) use self::row::excerpt;
pub use self::{
    error::StoreError,
    filter::{Filter, Whose},
    row::{Accepted, Now, Run, RunState},
};
use crate::{
    record::{Reason, RunRecord},
    spec::RunId,
};

/// The directory of the host's; the audit log lies there too.
pub const DIRECTORY: &str = "/var/lib/sandbox";
/// Its file's name.
const FILE: &str = "runs.sqlite";

/// An open store.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
}

/// How much is to be kept of ended runs, and what lies beside the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Most {
    /// Records and what lies beside them may be so many bytes together.
    pub bytes: u64,
    /// What lies beside the record of each run, bytes.
    pub beside: HashMap<RunId, u64>,
}

/// A run that is over.
struct Ended {
    run_id: RunId,
    at: String,
    record_bytes: u64,
}

/// What opening one came to.
#[derive(Debug)]
pub struct Opened {
    /// It.
    pub store: Store,
    /// Where a file that could not be read was put; a new one took its place.
    pub aside: Option<PathBuf>,
}

impl Store {
    /// Opens the store in a directory, which is made where it is not there. One that is damaged is put
    /// aside, never overwritten.
    ///
    /// # Errors
    /// Where it cannot be opened, or a later version made it.
    pub fn open(directory: &Path) -> Result<Opened, StoreError> {
        crate::sys::own_dir::own(directory, 0o700)
            .map_err(|source| StoreError::directory(directory, source))?;
        let path = directory.join(FILE);
        let opened = Self::open_file(&path).and_then(|store| {
            whole::check(&store)?;
            Ok(store)
        });
        match opened {
            Ok(store) => Ok(Opened { store, aside: None }),
            Err(error) if error.is_damage() => {
                let aside = whole::put_aside(&path)
                    .map_err(|source| StoreError::directory(directory, source))?;
                let store = Self::open_file(&path)?;
                Ok(Opened {
                    store,
                    aside: Some(aside),
                })
            }
            Err(error) => Err(error),
        }
    }

    fn open_file(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::database(path, source);
        let mut connection = Connection::open(path).map_err(failed)?;
        schema::prepare(&mut connection, path)?;
        Ok(Self {
            connection,
            path: path.to_owned(),
        })
    }

    /// Stores a run that is about to be started.
    ///
    /// # Errors
    /// Where it cannot be written; the run is not to be started then.
    pub fn accept(&self, run: &Accepted) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO runs (run_id, state, uid, user, analysis_id, labels, command, memory_bytes, cpus, pids,
                               spec, accepted_at, boot_id)
             VALUES (:run_id, :state, :uid, :user, :analysis_id, :labels, :command, :memory_bytes, :cpus, :pids,
                     :spec, :accepted_at, :boot_id)",
            named_params! {
                ":run_id": run.run_id.to_string(),
                ":state": row::word(&run.state),
                ":uid": run.uid,
                ":user": run.user,
                ":analysis_id": run.analysis_id,
                ":labels": row::json(&run.labels),
                ":command": row::command(&run.command),
                ":memory_bytes": run.memory_bytes.map(row::number),
                ":cpus": run.cpus,
                ":pids": run.pids.map(row::number),
                ":spec": row::json(&run.spec),
                ":accepted_at": row::time(run.accepted_at),
                ":boot_id": run.boot_id,
            },
        )
        .map(drop)
    }

    /// Takes back a run that came to nothing: it was not used rightly, so that there is no record.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn withdraw(&self, run_id: RunId) -> Result<(), StoreError> {
        self.execute(
            "DELETE FROM runs WHERE run_id = ?1 AND record IS NULL",
            params![run_id.to_string()],
        )
        .map(drop)
    }

    /// Stores how a run ended, durably; one that was not known is added for `uid`. Gives the record as it is stored.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn conclude(&self, record: &RunRecord, uid: u32) -> Result<String, StoreError> {
        let text =
            serde_json::to_string(record).map_err(|error| StoreError::record(&self.path, error))?;
        let reason = record.termination.reason;
        self.execute(
            "INSERT INTO runs (run_id, state, uid, user, analysis_id, labels, command, accepted_at, started_at,
                               ended_at, boot_id, reason, confidence, exit_code, exit_signal, notes, record)
             VALUES (:run_id, 'ended', :uid, :user, :analysis_id, :labels, :command, :accepted_at, :started_at,
                     :ended_at, :boot_id, :reason, :confidence, :exit_code, :exit_signal, :notes, :record)
             ON CONFLICT (run_id) DO UPDATE SET
                 state = 'ended', user = excluded.user, analysis_id = excluded.analysis_id,
                 command = excluded.command, started_at = excluded.started_at,
                 ended_at = excluded.ended_at, reason = excluded.reason,
                 confidence = excluded.confidence, exit_code = excluded.exit_code,
                 exit_signal = excluded.exit_signal, notes = excluded.notes, record = excluded.record",
            named_params! {
                ":run_id": record.run_id.to_string(),
                ":uid": uid,
                ":user": record.user.name,
                ":analysis_id": record.analysis_id,
                ":labels": row::json(&record.labels),
                ":command": row::command(&record.command),
                ":accepted_at": row::time(record.accepted_at),
                ":started_at": record.started_at.map(row::time),
                ":ended_at": row::time(record.ended_at),
                ":boot_id": record.host.boot_id.clone().unwrap_or_default(),
                ":reason": row::word(&reason),
                ":confidence": row::word(&record.termination.confidence),
                ":exit_code": record.exit.code,
                ":exit_signal": record.exit.signal,
                ":notes": record.completion_notes,
                ":record": &text,
            },
        )?;
        Ok(text)
    }

    /// Stores how the completion hooks of a run failed. Says whether that is new; of a run that is not known it is not.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn note_hook_problem(&self, run_id: RunId, problem: &str) -> Result<bool, StoreError> {
        let changed = self.execute(
            "UPDATE runs SET hook_problem = ?2 WHERE run_id = ?1 AND hook_problem IS NOT ?2",
            params![run_id.to_string(), problem],
        )?;
        Ok(changed > 0)
    }

    /// Removes ended runs: those that were over before then, and the oldest of those that are more than is to be
    /// kept. Gives their ids.
    ///
    /// # Errors
    /// Where it cannot be read or written; none is removed then.
    pub fn expire(
        &self,
        before: Option<Timestamp>,
        most: Option<&Most>,
    ) -> Result<Vec<RunId>, StoreError> {
        let failed = |source| StoreError::database(&self.path, source);
        let before = before.map(row::time);
        let mut bytes = 0;
        let mut expired = self.ended().map_err(failed)?;
        expired.retain(|ended| {
            let beside = most.and_then(|most| most.beside.get(&ended.run_id));
            bytes += ended.record_bytes + beside.unwrap_or(&0);
            before.as_ref().is_some_and(|before| ended.at < *before)
                || most.is_some_and(|most| bytes > most.bytes)
        });
        let expired: Vec<RunId> = expired.into_iter().map(|ended| ended.run_id).collect();
        self.remove(&expired).map_err(failed)?;
        Ok(expired)
    }

    /// The runs that are over, the latest first.
    fn ended(&self) -> rusqlite::Result<Vec<Ended>> {
        let mut statement = self.connection.prepare(
            "SELECT run_id, ended_at, COALESCE(LENGTH(CAST(record AS BLOB)), 0)
                    + COALESCE(LENGTH(CAST(spec AS BLOB)), 0) FROM runs
             WHERE state = 'ended' ORDER BY ended_at DESC, run_id DESC",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(Ended {
                run_id: row::run_id(row, 0)?,
                at: row.get(1)?,
                record_bytes: row.get::<_, i64>(2)?.unsigned_abs(),
            })
        })?;
        rows.collect()
    }

    fn remove(&self, run_ids: &[RunId]) -> rusqlite::Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        let mut statement = transaction.prepare("DELETE FROM runs WHERE run_id = ?1")?;
        for run_id in run_ids {
            statement.execute(params![run_id.to_string()])?;
        }
        drop(statement);
        transaction.commit()
    }

    /// Marks a run as over that has no record, and will have none.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn lose(&self, run_id: RunId, reason: Reason, notes: &str) -> Result<(), StoreError> {
        self.execute(
            "UPDATE runs SET state = 'ended', reason = ?2, notes = ?3, ended_at = ?4
             WHERE run_id = ?1 AND state <> 'ended'",
            params![
                run_id.to_string(),
                row::word(&reason),
                notes,
                row::time(Timestamp::now())
            ],
        )
        .map(drop)
    }

    /// Says that a run which waited is being started.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn start(&self, run_id: RunId) -> Result<(), StoreError> {
        self.execute(
            "UPDATE runs SET state = 'running' WHERE run_id = ?1 AND state = 'queued'",
            params![run_id.to_string()],
        )
        .map(drop)
    }

    /// The runs that are meant, the latest first, at most so many.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn list(&self, whose: Whose, filter: &Filter, most: u32) -> Result<Vec<Run>, StoreError> {
        let parameters = filter.parameters(whose, most);
        let parameters: Vec<(&str, &dyn ToSql)> = parameters
            .iter()
            .map(|(name, value)| (*name, value as &dyn ToSql))
            .collect();
        self.query(filter::CONDITION, parameters.as_slice())
    }

    /// One run; `None` where there is none of this id.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn run(&self, run_id: RunId) -> Result<Option<Run>, StoreError> {
        let run_id = run_id.to_string();
        Ok(self.query("run_id = ?1", params![run_id])?.pop())
    }

    /// The runs that have not ended, as far as is known.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn unfinished(&self) -> Result<Vec<Run>, StoreError> {
        self.query("state <> 'ended'", [])
    }

    /// The record of a run, JSON; `None` where there is none yet.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn record(&self, run_id: RunId) -> Result<Option<String>, StoreError> {
        self.text(run_id, "record")
    }

    /// What was asked for besides, where that is known.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn spec(&self, run_id: RunId) -> Result<Option<Value>, StoreError> {
        let text = self.text(run_id, "spec")?;
        let spec = text.map(|text| serde_json::from_str(&text)).transpose();
        spec.map_err(|error| StoreError::record(&self.path, error))
    }

    fn text(&self, run_id: RunId, column: &str) -> Result<Option<String>, StoreError> {
        self.connection
            .query_row(
                &format!("SELECT {column} FROM runs WHERE run_id = ?1"),
                params![run_id.to_string()],
                |row| row.get(0),
            )
            .optional()
            .map(Option::flatten)
            .map_err(|source| StoreError::database(&self.path, source))
    }

    fn query(
        &self,
        condition: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<Run>, StoreError> {
        let failed = |source| StoreError::database(&self.path, source);
        let mut statement = self
            .connection
            .prepare(&format!(
                "SELECT {} FROM runs WHERE {condition}",
                row::COLUMNS
            ))
            .map_err(failed)?;
        let rows = statement.query_map(params, Run::from_row).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }

    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize, StoreError> {
        self.connection
            .prepare(sql)
            .and_then(|mut statement| statement.execute(params))
            .map_err(|source| StoreError::database(&self.path, source))
    }
}

/// Whether an error of SQLite's says that the file is none of its own, or not whole.
fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
    )
}

#[cfg(test)]
mod tests;
