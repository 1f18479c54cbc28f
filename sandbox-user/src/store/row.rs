//! One run in the store.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Row, types::Type};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::spec::RunId;

/// The columns of [`Run`], in its order.
pub(super) const COLUMNS: &str = "run_id, state, uid, user, analysis_id, labels, command, memory_bytes, cpus, pids, accepted_at, started_at, ended_at, boot_id, \
     reason, confidence, exit_code, exit_signal, notes, hook_problem";

/// A run that is about to be started.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// Its id.
    pub run_id: RunId,
    /// Who asked for it.
    pub uid: u32,
    /// Whether it has to wait.
    pub state: RunState,
    /// Whom it is to run as.
    pub user: Option<String>,
    /// The analysis's id.
    pub analysis_id: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its memory limit, bytes.
    pub memory_bytes: Option<u64>,
    /// Its CPU limit, cores.
    pub cpus: Option<f64>,
    /// Its limit of processes and threads.
    pub pids: Option<u64>,
    /// What was asked for besides, as people read it.
    pub spec: Value,
    /// When.
    pub accepted_at: Timestamp,
    /// In which boot.
    pub boot_id: String,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It waits to be started.
    Queued,
    /// It goes on, as far as is known.
    Running,
    /// It is over.
    Ended,
}

/// What the store has of a run, its record apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub run_id: RunId,
    /// How far it is.
    pub state: RunState,
    /// Who asked for it.
    pub uid: u32,
    /// Whom it ran as.
    pub user: Option<String>,
    /// The analysis's id.
    pub analysis_id: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Program and arguments, as many as are some 4 KiB.
    pub command: Vec<String>,
    /// Its memory limit, bytes, as it was asked for.
    pub memory_bytes: Option<u64>,
    /// Its CPU limit, cores.
    pub cpus: Option<f64>,
    /// Its limit of processes and threads.
    pub pids: Option<u64>,
    /// When it was accepted, RFC 3339.
    pub accepted_at: String,
    /// When it started.
    pub started_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// In which boot it was accepted.
    pub boot_id: String,
    /// Why it ended.
    pub reason: Option<String>,
    /// How sure that is.
    pub confidence: Option<String>,
    /// The exit code of its main process.
    pub exit_code: Option<i32>,
    /// The signal that its main process died of.
    pub exit_signal: Option<i32>,
    /// The completion notes.
    pub notes: Option<String>,
    /// How its completion hooks failed.
    pub hook_problem: Option<String>,
    /// What was asked for besides, where one run is told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Value>,
    /// How it is just now, where it has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<Now>,
}

/// How a run is that has not ended: nothing of this is stored. Null = not known, or not so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// How many are before it, where it waits for its turn.
    pub ahead: Option<usize>,
    /// When its wall clock runs out, RFC 3339.
    pub deadline: Option<String>,
    /// Who or what holds it still.
    pub frozen_by: Option<String>,
    /// `memory.current`, page cache included.
    pub memory_bytes: Option<u64>,
    /// `usage_usec` of cpu.stat: CPU time so far.
    pub cpu_usage_us: Option<u64>,
    /// `pids.current`: processes and threads.
    pub pids: Option<u64>,
}

impl Run {
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let state: String = row.get(1)?;
        Ok(Self {
            run_id: run_id(row, 0)?,
            state: match state.as_str() {
                "queued" => RunState::Queued,
                "running" => RunState::Running,
                _ => RunState::Ended,
            },
            uid: row.get(2)?,
            user: row.get(3)?,
            analysis_id: row.get(4)?,
            labels: from_json(row, 5)?,
            command: from_json(row, 6)?,
            memory_bytes: unsigned(row, 7)?,
            cpus: row.get(8)?,
            pids: unsigned(row, 9)?,
            accepted_at: row.get(10)?,
            started_at: row.get(11)?,
            ended_at: row.get(12)?,
            boot_id: row.get(13)?,
            reason: row.get(14)?,
            confidence: row.get(15)?,
            exit_code: row.get(16)?,
            exit_signal: row.get(17)?,
            notes: row.get(18)?,
            hook_problem: row.get(19)?,
            spec: None,
            now: None,
        })
    }
}

/// Program and arguments as the column has them.
pub(super) fn command(words: &[String]) -> String {
    json(&excerpt(words))
}

/// Program and arguments: so many as are some 4 KiB, since lists have to be short. The record has them all.
pub(crate) fn excerpt(words: &[String]) -> Vec<&str> {
    const SHOWN_BYTES: usize = 4096;
    let mut shown = Vec::new();
    let mut left = SHOWN_BYTES;
    for word in words {
        // As execve(2) counts them: an empty one is not nothing.
        let bytes = word.len() + 1;
        if bytes > left {
            shown.push("…");
            break;
        }
        left -= bytes;
        shown.push(word.as_str());
    }
    shown
}

/// Strings, as a column has them.
pub(super) fn json(strings: &impl Serialize) -> String {
    // Lists and maps of strings always serialise.
    serde_json::to_string(strings).unwrap_or_default()
}

/// The id of a run, as a column has it.
pub(super) fn run_id(row: &Row<'_>, column: usize) -> rusqlite::Result<RunId> {
    let text: String = row.get(column)?;
    RunId::parse_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
    })
}

fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
    })
}

/// What a column of whole numbers, which are signed, has of a limit.
pub(super) fn number(limit: u64) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    let number: Option<i64> = row.get(column)?;
    Ok(number.and_then(|number| u64::try_from(number).ok()))
}

/// RFC 3339, UTC, always as long, so that it sorts as text.
pub(super) fn time(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// The word that the record has for this.
pub(super) fn word(value: &impl Serialize) -> Option<String> {
    let value = serde_json::to_value(value).ok()?;
    value.as_str().map(ToOwned::to_owned)
}
