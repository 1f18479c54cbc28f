//! What an entry says: one line of JSON, of which each field is bounded, so that the line is.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Hash;
use crate::{
    evidence::Confidence,
    limits::Source,
    record::{LimitRecord, LimitsRecord, Reason, RunRecord},
    spec::RunId,
    store::excerpt,
};

/// The longest line, with its newline. Each entry that is written is shorter, whatever is in it.
pub(super) const MAX_LINE_BYTES: usize = 64 << 10;
/// The most that is kept of a text, bytes.
const MAX_TEXT_BYTES: usize = 1024;

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, from 1.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// The hash of the line before, without its newline; [`Hash::ZERO`] in the first.
    pub prev: Hash,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened. What is not known, or is not there, is null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A service began. None tells that it ends, since it may be killed: the next one of these does.
    ServiceStarted {
        /// The version of sandbox.
        version: Excerpt,
        /// The host's boot.
        boot_id: Excerpt,
        /// That of the host's configuration; null where there is none.
        config_sha256: Option<Hash>,
    },
    /// The host's configuration is another one now.
    ConfigLoaded {
        /// Its hash; null where it was taken away.
        config_sha256: Option<Hash>,
    },
    /// A run is about to be started.
    Accepted {
        /// Its id.
        run_id: RunId,
        /// Who asked for it, as the kernel says.
        uid: u32,
        /// The client's process.
        pid: i32,
        /// Whom it is to run as (`--user`); null = who asked for it.
        user: Option<Excerpt>,
        /// Program and arguments.
        command: Words,
        /// That of the configuration whose policy it is held to; null where there is none.
        config_sha256: Option<Hash>,
    },
    /// An accepted run came to nothing before there was anything to record.
    Withdrawn {
        /// Its id.
        run_id: RunId,
        /// Why.
        reason: Excerpt,
    },
    /// A run is over, and its record in the store.
    Ended(Box<Ended>),
    /// A run is over, and nobody is left who could say how.
    Lost {
        /// Its id.
        run_id: RunId,
        /// What is known.
        notes: Excerpt,
    },
    /// The completion hooks of a run failed, as often as they were run.
    HookFailed {
        /// Its id.
        run_id: RunId,
        /// How.
        problem: Excerpt,
    },
    /// Something was asked for and not done.
    Refused {
        /// Who asked.
        uid: u32,
        /// The client's process.
        pid: i32,
        /// For what.
        what: Excerpt,
        /// Why not.
        reason: Excerpt,
    },
    /// Somebody had the service do something to a run.
    Ordered {
        /// Who.
        uid: u32,
        /// The client's process.
        pid: i32,
        /// The run's id.
        run_id: RunId,
        /// What.
        order: Order,
        /// What there is to be said of it, such as the new limit, or the reason that was given.
        detail: Option<Excerpt>,
    },
    /// What somebody was to have done to a run came to nothing.
    Declined {
        /// Who.
        uid: u32,
        /// The client's process.
        pid: i32,
        /// The run's id.
        run_id: RunId,
        /// What.
        order: Order,
        /// What there is to be said of it, as of one that was done.
        detail: Option<Excerpt>,
        /// Why.
        reason: Excerpt,
    },
    /// A log before did not end as its writer leaves one, or was taken away under it; it is kept beside this, of which
    /// this is the next entry.
    Damaged {
        /// How long it is.
        bytes: u64,
        /// Its hash.
        sha256: Hash,
        /// The file that it is kept in, in the log's directory.
        kept_in: Excerpt,
    },
    /// A crash had torn the last line; it is kept beside the log.
    Torn {
        /// How long what is kept is.
        bytes: u64,
        /// Its hash.
        sha256: Hash,
        /// The file that it is kept in, in the log's directory.
        kept_in: Excerpt,
    },
}

/// What is done to a run that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// It is ended.
    Kill,
    /// It is held still.
    Freeze,
    /// It goes on.
    Thaw,
    /// Its limits are changed.
    Update,
}

/// How a run ended and what it was held to, from its record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Its id.
    pub run_id: RunId,
    /// Whom it ran as.
    pub ran_as_uid: u32,
    /// Why it ended.
    pub reason: Reason,
    /// How sure that is.
    pub confidence: Confidence,
    /// How its main process ended.
    pub exit: Exit,
    /// Its limits.
    pub limits: Limits,
    /// The hash of the record as the store has it.
    pub record_sha256: Hash,
    /// The completion notes.
    pub notes: Excerpt,
}

/// How a main process ended; both null where nobody could see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// A limit that a run was held to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit<T> {
    /// What applied; null = no limit.
    pub effective: Option<T>,
    /// Who set it.
    pub source: Source,
}

/// All of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// `memory.max`.
    pub memory_bytes: Limit<u64>,
    /// `memory.swap.max`.
    pub swap_bytes: Limit<u64>,
    /// `cpu.max`, in cores.
    pub cpus: Limit<f64>,
    /// `pids.max`.
    pub pids: Limit<u64>,
    /// Wall clock.
    pub walltime_ns: Limit<u64>,
    /// CPU time of the leaf.
    pub cputime_ns: Limit<u64>,
}

impl Event {
    /// The end of a run that has a record, with the bytes that the store has of it.
    pub fn ended(record: &RunRecord, stored: &[u8]) -> Self {
        Self::Ended(Box::new(Ended {
            run_id: record.run_id,
            ran_as_uid: record.user.uid,
            reason: record.termination.reason,
            confidence: record.termination.confidence,
            exit: Exit {
                code: record.exit.code,
                signal: record.exit.signal,
            },
            limits: Limits::from(&record.limits),
            record_sha256: Hash::of(stored),
            notes: Excerpt::from(record.completion_notes.as_str()),
        }))
    }
}

impl From<&LimitsRecord> for Limits {
    fn from(limits: &LimitsRecord) -> Self {
        fn of<T: Copy>(limit: &LimitRecord<T>) -> Limit<T> {
            Limit {
                effective: limit.effective,
                source: limit.source,
            }
        }
        Self {
            memory_bytes: of(&limits.memory_bytes),
            swap_bytes: of(&limits.swap_bytes),
            cpus: of(&limits.cpus),
            pids: of(&limits.pids),
            walltime_ns: of(&limits.walltime_ns),
            cputime_ns: of(&limits.cputime_ns),
        }
    }
}

/// A text, cut after 1 KiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Excerpt(String);

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Excerpt {
    fn from(text: &str) -> Self {
        if text.len() <= MAX_TEXT_BYTES {
            return Self(text.to_owned());
        }
        let end = text.floor_char_boundary(MAX_TEXT_BYTES);
        Self(format!("{}…", &text[..end]))
    }
}

/// Program and arguments, as many as the store's lists show of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Words(Vec<String>);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

impl From<&[String]> for Words {
    fn from(words: &[String]) -> Self {
        Self(excerpt(words).into_iter().map(ToOwned::to_owned).collect())
    }
}
