//! A signal to a member of the leaf, as the record tells it.

pub use crate::evidence::HolderSource;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One signal that could be fatal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillEntry {
    /// When it was generated.
    pub at: Timestamp,
    /// Its number.
    pub signal: i32,
    /// `si_code`, where there was a siginfo.
    pub si_code: Option<i32>,
    /// What stood behind it.
    pub cause: KillCause,
    /// Whether it was queued for its target, which may yet have handled it; null where the queue
    /// overflowed.
    pub delivered: Option<bool>,
    /// The sender traced the victim, and had it go on with this signal in place of the one that it had stopped
    /// for (ptrace(2)).
    #[serde(default)]
    pub injected: bool,
    /// Whom it was for.
    pub victim: Victim,
    /// Who sent it; null where the current task says nothing about that.
    pub sender: Option<Sender>,
    /// The OOM killer's state; null where it was not the OOM killer.
    pub oom: Option<OomEntry>,
}

/// What stood behind a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillCause {
    /// The OOM killer.
    Oom,
    /// Somebody's `cgroup.kill` who is not the runner.
    CgroupKill,
    /// The runner: its intent was in force and it was the sender.
    Runner,
    /// A process: kill(2) and kin.
    Process,
    /// The kernel on its own account: faults, RLIMIT_CPU, timers, PDEATHSIG, the terminal …
    Kernel,
}

/// The target of a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victim {
    /// Process id.
    pub pid: u32,
    /// Start time, ns since boot (CLOCK_BOOTTIME): with the pid its identity.
    pub start_time: u64,
    /// Its name, as it chose it.
    pub comm: String,
    /// What it had executed last; null where that was not seen.
    pub exe: Option<String>,
    /// Whether it is the run's main process.
    pub is_main: bool,
}

/// What kind of sender it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SenderKind {
    /// The kernel.
    Kernel,
    /// `sandbox`, or its guardian.
    Runner,
    /// Any other process.
    Process,
}

/// The sender of a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// What it was.
    pub kind: SenderKind,
    /// Process id. Of the kernel's signals only where a dying process stood behind them.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Its real uid.
    pub uid: Option<u32>,
    /// Whether it belonged to the run; null for the kernel.
    pub in_run: Option<bool>,
}

/// Whose memory ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OomLevel {
    /// The leaf's own limit.
    Leaf,
    /// An enclosing cgroup's limit.
    Ancestor,
    /// The host's memory.
    Host,
}

/// The OOM killer's state at a kill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomEntry {
    /// Whose memory ran out; null where that could not be told.
    pub scope: Option<OomLevel>,
    /// Path of the cgroup whose limit it was; null for the host, or where it is unknown.
    pub cgroup: Option<String>,
    /// What that cgroup used then.
    pub usage_bytes: Option<u64>,
    /// What it was allowed.
    pub max_bytes: Option<u64>,
    /// Nothing had run out: somebody had the kernel kill the largest process (sysrq f).
    pub demanded: bool,
    /// Who asked for the memory that was not to be had; may be outside the run.
    pub trigger_pid: Option<u32>,
    /// Whether the leaf dies as one (`memory.oom.group`).
    pub group: bool,
    /// The ten largest members of the run at that moment, largest first; given with the first kill
    /// of an OOM and with the main process's.
    pub holders: Vec<Holder>,
}

/// A member of the run that held memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Its resident memory.
    pub rss_bytes: u64,
    /// When that was so.
    pub at: Timestamp,
    /// How it is known.
    pub source: HolderSource,
}
