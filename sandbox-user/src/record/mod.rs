//! The record of one run, `schema_version` 1: what a machine reads, and what the notes are
//! rendered from.
//!
//! Field names are a contract. What is not known is null, never absent and never 0, so that a reader
//! can tell "none" from "nobody looked". Sizes are bytes, durations carry their unit in their name,
//! dates are RFC 3339. [`RunRecord::assemble`] is the only way to make one; it asks no clock.

mod assemble;
mod command;
mod exit_status;
mod finding;
mod intervention;
mod kill;
mod processes;
mod terms;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use assemble::{ProcessesPart, RunContext, RunParts, TracingPart};
pub(crate) use assemble::{exit_of, nanos};
pub use command::lossless;
pub use exit_status::exit_status;
pub use finding::{DenyingLevel, Finding};
#[cfg(test)]
pub(crate) use intervention::tests::at_second;
pub use intervention::{Deed, Intervention, frozen_for, held_by};
pub use kill::{
    Holder, HolderSource, KillCause, KillEntry, OomEntry, OomLevel, Sender, SenderKind, Victim,
};
pub use processes::{ProcessNode, Processes};
pub use terms::{NearestTerms, Reason, RetryHint, signal_name};
pub use usage::{MemoryNeeded, NeededSource, Pressure, PressureTotals, Usage};

use crate::evidence::{CgroupRef, Confidence, FlatKeyed, WaitStatus};
use crate::host::HostInfo;
use crate::limits::{Enclosing, Source};

/// The `schema_version` of every record that this version writes.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything about one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// This run (UUIDv7).
    pub run_id: Uuid,
    /// The analysis that it is a run of, as its submitter names it.
    pub analysis_id: Option<String>,
    /// The submitter's labels.
    pub labels: BTreeMap<String, String>,
    /// Which attempt at the analysis this is, from 1.
    pub attempt: Option<u32>,
    /// The run that this one repeats.
    pub retry_of: Option<Uuid>,
    /// The command and its arguments; see [`lossless`] for words that are not UTF-8.
    pub command: Vec<String>,
    /// Its working directory.
    pub cwd: String,
    /// Whom it ran as.
    pub user: User,
    /// Its leaf; null where the setup failed before there was one.
    pub cgroup: Option<CgroupRef>,
    /// Where it ran.
    pub host: HostInfo,
    /// When it was asked for.
    pub accepted_at: Timestamp,
    /// When its exec succeeded; null where it never did.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Timestamp,
    /// From `started_at` to the main process's end, by the monotonic clock.
    pub walltime_ns: Option<u64>,
    /// Its limits.
    pub limits: LimitsRecord,
    /// What people had done to it while it went on, by time.
    #[serde(default)]
    pub interventions: Vec<Intervention>,
    /// How the main process ended.
    pub exit: Exit,
    /// The verdict.
    pub termination: Termination,
    /// Signals that could be fatal, to members of the leaf, by time.
    pub kills: Vec<KillEntry>,
    /// Limits that were met.
    pub limits_hit: Vec<LimitHit>,
    /// What it used.
    pub usage: Usage,
    /// The cgroup's event counters, raw.
    pub counters: Counters,
    /// Its processes.
    pub processes: Processes,
    /// Who left the leaf.
    pub escaped: Vec<Escaped>,
    /// How the leaf was emptied and removed.
    pub cleanup: Cleanup,
    /// Where the time went (`--timings`): step to ns; null where nobody asked.
    pub timings: Option<BTreeMap<String, u64>>,
    /// How it was watched.
    pub tracing: Tracing,
    /// The verdict in one line for people, at most 500 bytes, safe to print.
    pub completion_notes: String,
}

/// An identity to run as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Login name; null where the uid has none.
    pub name: Option<String>,
}

/// One limit: what was asked for, what the leaf has, and what stands above it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitRecord<T> {
    /// What was asked for, in defaults, metadata or command line, or since by `sandbox update`; null = no limit.
    pub requested: Option<T>,
    /// What was read back from the leaf, where the host's ceiling may have lowered it; null = no limit.
    /// The runner keeps the two times itself, so there it is what applies.
    pub effective: Option<T>,
    /// Who set it.
    pub source: Source,
    /// The tightest limit of an enclosing cgroup; null = none.
    pub enclosing: Option<Enclosing<T>>,
}

/// All limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitsRecord {
    /// `memory.max`.
    pub memory_bytes: LimitRecord<u64>,
    /// `memory.swap.max`.
    pub swap_bytes: LimitRecord<u64>,
    /// `cpu.max`, in cores.
    pub cpus: LimitRecord<f64>,
    /// `pids.max`.
    pub pids: LimitRecord<u64>,
    /// Wall clock.
    pub walltime_ns: LimitRecord<u64>,
    /// CPU time of the leaf.
    pub cputime_ns: LimitRecord<u64>,
}

/// How the main process ended, as wait(2) has it; 128+N is never folded into `code`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code; null where a signal ended it, or nobody could see.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// That signal's name.
    pub signal_name: Option<String>,
    /// Whether it left a core dump; null where no signal ended it.
    pub core_dumped: Option<bool>,
}

impl From<WaitStatus> for Exit {
    fn from(status: WaitStatus) -> Self {
        match status {
            WaitStatus::Exited { code } => Self {
                code: Some(code),
                ..Self::default()
            },
            WaitStatus::Signaled {
                signal,
                core_dumped,
            } => Self {
                code: None,
                signal: Some(signal),
                signal_name: Some(signal_name(signal)),
                core_dumped: Some(core_dumped),
            },
        }
    }
}

/// The verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Termination {
    /// Why it ended.
    pub reason: Reason,
    /// How sure that is.
    pub confidence: Confidence,
    /// What it rests on.
    pub evidence: Vec<Finding>,
    /// What to change before it is run again.
    pub retry_hint: RetryHint,
    /// What others would call it.
    pub nearest_terms: NearestTerms,
}

/// A limit that the run met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitHit {
    /// Which.
    pub limit: LimitKind,
    /// How often; null where it was not counted. For memory: how often the OOM killer was called.
    pub count: Option<u64>,
    /// When first; null where that was not seen.
    pub first_at: Option<Timestamp>,
    /// Whether it is why the run ended.
    pub fatal: bool,
}

/// What was limited, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// The leaf's `memory.max`.
    Memory,
    /// An enclosing `memory.max`.
    MemoryAncestor,
    /// The leaf's `cpu.max`: it was throttled.
    Cpus,
    /// The leaf's `pids.max`.
    Pids,
    /// An enclosing `pids.max`.
    PidsAncestor,
    /// The wall clock.
    Walltime,
    /// The CPU time budget, or RLIMIT_CPU.
    Cputime,
}

/// A counter file at both ends of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRecord {
    /// Before the child was born; null = not readable.
    pub before: Option<FlatKeyed>,
    /// After the leaf was empty; null = not readable.
    pub after: Option<FlatKeyed>,
}

/// The leaf's event counters, raw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// `memory.events`.
    pub memory_events: CounterRecord,
    /// `memory.events.local`.
    pub memory_events_local: CounterRecord,
    /// `pids.events`.
    pub pids_events: CounterRecord,
    /// `pids.events.local`.
    pub pids_events_local: CounterRecord,
}

/// A process that left the leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escaped {
    /// Process id.
    pub pid: u32,
    /// Start time, ns since boot.
    pub start_time: u64,
    /// Its name.
    pub comm: String,
    /// Where it went.
    pub cgroup: String,
    /// When.
    pub at: Timestamp,
    /// Whether it was seen dead in the end.
    pub killed: bool,
}

/// How the leaf was emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CleanupMethod {
    /// It was empty when main had ended.
    AlreadyEmpty,
    /// By `cgroup.kill`.
    CgroupKill,
}

/// What became of the leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleanup {
    /// How it was emptied; null where there never was a leaf.
    pub method: Option<CleanupMethod>,
    /// How long emptying and removing took.
    pub wall_ms: Option<u64>,
    /// Whether it is gone.
    pub removed: bool,
}

/// How the run was watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracing {
    /// What the attached programs could tell at best.
    pub mode: Confidence,
    /// Their names.
    pub programs: Vec<String>,
    /// Events of this leaf; null without a kernel side.
    pub events: Option<u64>,
    /// Events that found no room: detail that was lost, never a fact.
    pub dropped: Option<u64>,
    /// Runs of a program that the kernel skipped (`recursion_misses`); host-wide.
    pub missed: Option<u64>,
    /// What was missing or went wrong with watching, one sentence each.
    pub degraded: Vec<String>,
}
