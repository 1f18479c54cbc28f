//! Everything that is known about how a run ended, before anybody judges it.
//!
//! [`Evidence`] is plain data: the kernel side's facts, the cgroup's counters, the wait status, and
//! what the runner itself did. `attribution` turns it into a verdict and touches nothing else, so
//! each ending can be written down as a table without a kernel. Absent is `None`, never 0.
//! Monotonic times (`at_ns`) are CLOCK_MONOTONIC, the clock of `bpf_ktime_get_ns()`.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use sandbox_ebpf as wire;
use serde::{Deserialize, Serialize};

use crate::limits::{EffectiveLimits, EnclosingLimits, Limits, OnPidsLimit, OomScope};

/// How much the kernel side sees, and so how sure a verdict can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// cgroup counters and wait status only.
    Inferred,
    /// Tracepoints (`tp_btf`), without the brackets that tell OOM and cgroup.kill apart.
    Strong,
    /// Tracepoints and fentry/fexit brackets.
    Exact,
}

impl Confidence {
    /// The record's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inferred => "inferred",
            Self::Strong => "strong",
            Self::Exact => "exact",
        }
    }
}

/// A cgroup, by the two names it goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupRef {
    /// Path from the root of the cgroup2 mount, beginning with `/`.
    pub path: String,
    /// Its id: the inode number of its directory.
    pub id: u64,
}

/// How the main process ended, in the terms of wait(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitStatus {
    /// It called exit with this status.
    Exited {
        /// 0 to 255.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether it left a core dump.
        core_dumped: bool,
    },
}

/// Why the runner itself ended the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentReason {
    /// The wall clock ran out.
    Walltime,
    /// The CPU time budget was used up.
    Cputime,
    /// A fork was denied by the leaf's own `pids.max` (`--on-pids-limit kill`).
    Pids,
    /// A fork was denied by an enclosing `pids.max`.
    PidsAncestor,
    /// A task left the leaf.
    Escaped,
    /// Ctrl-C, hangup, SIGTERM to `sandbox` …
    Cancelled,
    /// The main process had ended; what was left over is removed.
    LeftOver,
    /// The supervisor is gone and its guardian ends the run.
    RunnerLost,
    /// The start failed after the clone.
    SetupFailed,
}

impl IntentReason {
    /// Its name in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Walltime => "walltime",
            Self::Cputime => "cputime",
            Self::Pids => "pids",
            Self::PidsAncestor => "pids_ancestor",
            Self::Escaped => "escaped",
            Self::Cancelled => "cancelled",
            Self::LeftOver => "left_over",
            Self::RunnerLost => "runner_lost",
            Self::SetupFailed => "setup_failed",
        }
    }

    /// The number that stands for it in [`wire::Intent::reason`] (0 is no intent).
    pub const fn to_wire(self) -> u32 {
        match self {
            Self::Walltime => 1,
            Self::Cputime => 2,
            Self::Pids => 3,
            Self::PidsAncestor => 4,
            Self::Escaped => 5,
            Self::Cancelled => 6,
            Self::LeftOver => 7,
            Self::RunnerLost => 8,
            Self::SetupFailed => 9,
        }
    }

    /// The reason behind a wire number; `None` for 0 and for numbers of another version.
    pub const fn from_wire(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Walltime,
            2 => Self::Cputime,
            3 => Self::Pids,
            4 => Self::PidsAncestor,
            5 => Self::Escaped,
            6 => Self::Cancelled,
            7 => Self::LeftOver,
            8 => Self::RunnerLost,
            9 => Self::SetupFailed,
            _ => return None,
        })
    }
}

/// `*.pressure` of the leaf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// `cpu.pressure`.
    pub cpu: Option<PressureTotals>,
    /// `memory.pressure`.
    pub memory: Option<PressureTotals>,
    /// `io.pressure`.
    pub io: Option<PressureTotals>,
}

/// The `total=` of a pressure file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureTotals {
    /// While at least one task waited.
    pub some_us: u64,
    /// While all did; null where the kernel does not tell.
    pub full_us: Option<u64>,
}

/// What the runner did to the run, in the order in which it did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnAction {
    /// Why.
    pub reason: IntentReason,
    /// When the intent was written, before the first signal.
    pub at_ns: u64,
    /// The signal that made the runner act: the SIGINT, SIGHUP or SIGTERM that it was itself sent.
    /// `None` where no signal did (a deadline, a request, a client that went).
    pub signal: Option<i32>,
    /// Who sent that; `None` where it came from the kernel (a terminal), or no signal did.
    pub asked_by: Option<u32>,
    /// More for people: which signal asked for the cancellation and from whom, who escaped where …
    pub detail: Option<String>,
}

/// The process that a start came to nothing in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupFailure {
    /// What was being done, for people: `execve /usr/bin/foo`, `mount tmpfs on /dev/shm` …
    pub step: String,
    /// `errno` of that step; `None` where it failed in another way, which `step` then says.
    pub errno: Option<i32>,
    /// What the failure means for the exit status: 126, 127 or 125.
    pub kind: SetupFailureKind,
}

/// What kind of failure kept the command from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetupFailureKind {
    /// execve found no such file: exit 127.
    CommandNotFound,
    /// execve would not have it: exit 126.
    CommandNotExecutable,
    /// Out of memory (ENOMEM) before exec, within the leaf's own limit or an ancestor's.
    OutOfMemory,
    /// Out of PIDs (EAGAIN at clone).
    OutOfPids,
    /// Anything else: ours.
    Other,
}

/// A task as the kernel side saw it; comm is what the analysis chose, so escape it when printing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id (thread-group id).
    pub pid: u32,
    /// `start_boottime` of the leader, ns since boot.
    pub start_time_ns: u64,
    /// Thread that acted or was hit; equals `pid` for the leader.
    pub tid: u32,
    /// Name of that task.
    pub comm: String,
    /// What it had executed last (`bprm->filename`), where that was seen.
    pub exe: Option<String>,
    /// Real uid; `None` where it was not recorded.
    pub uid: Option<u32>,
    /// Cgroup it was in.
    pub cgroup_id: u64,
}

/// One signal, as it was generated for a task of the leaf. See [`wire::Kill`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// When.
    pub at_ns: u64,
    /// Number.
    pub signal: i32,
    /// `si_code`, where there was a siginfo.
    pub si_code: Option<i32>,
    /// What stood in place of the siginfo.
    pub info: SignalInfo,
    /// To the whole process, or to one thread.
    pub group: bool,
    /// What became of it.
    pub result: Delivery,
    /// The current task: who sent it; for the OOM killer who asked for memory.
    pub sender: Process,
    /// The target.
    pub victim: Process,
    /// The victim is the run's main process.
    pub victim_is_main: bool,
    /// The sender was in the same leaf.
    pub sender_in_leaf: bool,
    /// The sender was exiting.
    pub sender_exiting: bool,
    /// The target had never run: it was being forked.
    pub target_new: bool,
    /// The same signal was waiting for the target thread alone already, which is taken first.
    pub behind_another: bool,
    /// The sender was in rt_sigqueueinfo(2) or one of its kin: whatever `si_code` says, it is who sent it. Known
    /// only where `si_code` says that no process did.
    pub by_sigqueue: bool,
    /// The sender traced the victim, and had it go on with this signal in place of another (ptrace(2)).
    pub injected: bool,
    /// The victim's RLIMIT_CPU, soft for SIGXCPU and hard for SIGKILL, where the kernel sent it.
    pub cpu_limit_s: Option<u64>,
    /// The cgroup whose `cgroup.kill` was being written by the sender, if any.
    pub cgroup_kill: Option<u64>,
    /// The OOM killer's context, if it was at work.
    pub oom: Option<OomContext>,
    /// The runner's intent in force at that moment.
    pub intent: Option<IntentReason>,
}

/// The `info` argument of `signal_generate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalInfo {
    /// SEND_SIG_NOINFO: cgroup.kill, PDEATHSIG, kill(2) from 7.x on …
    NoInfo,
    /// SEND_SIG_PRIV: the kernel (OOM, RLIMIT_CPU, PID namespace teardown …).
    Priv,
    /// A siginfo, with its `si_code`.
    Siginfo,
}

/// `TRACE_SIGNAL_*` of include/trace/events/signal.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Queued for its target.
    Delivered,
    /// Ignored: the target ignores it, or is already going.
    Ignored,
    /// The same signal was already pending.
    AlreadyPending,
    /// The queue was full: nothing, or only the number, came through.
    Overflowed,
}

/// The OOM killer's state at a kill; `cgroup_id` `None` = the host was out of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomContext {
    /// The memcg whose limit was hit.
    pub cgroup_id: Option<u64>,
    /// Its usage then, bytes; `None` for the host.
    pub usage_bytes: Option<u64>,
    /// Its limit then, bytes; `None` for the host.
    pub max_bytes: Option<u64>,
    /// Badness of the chosen process.
    pub points: i64,
    /// The process chosen first.
    pub chosen_pid: u32,
    /// Nothing had run out: somebody asked for it (sysrq f).
    pub demanded: bool,
    /// Resident memory of the victim at that moment; `None` where it was not to be had.
    pub victim_rss_bytes: Option<u64>,
    /// The largest members of the run at that moment, largest first; only with the first kill of an
    /// OOM and with main's.
    pub holders: Vec<Holder>,
}

/// A member of the run that held memory when it ran out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Its resident memory.
    pub rss_bytes: u64,
    /// When that was so.
    pub at_ns: u64,
    /// How it is known.
    pub source: HolderSource,
}

/// How a holder's memory is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HolderSource {
    /// It was killed for it: its resident memory at that very moment.
    Kill,
    /// Read right after the kill from /proc/PID/stat.
    Sample,
    /// The highest that it ever had, known from its exit.
    ExitPeak,
}

/// A flat-keyed cgroup file (`memory.events` …): key to value.
pub type FlatKeyed = BTreeMap<String, u64>;

/// A cgroup's event counters at one moment; `None` where the file was not there or not readable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCounters {
    /// `memory.events`: this cgroup and all below it.
    pub memory_events: Option<FlatKeyed>,
    /// `memory.events.local`: this cgroup alone.
    pub memory_events_local: Option<FlatKeyed>,
    /// `pids.events`.
    pub pids_events: Option<FlatKeyed>,
    /// `pids.events.local` (6.12 and later).
    pub pids_events_local: Option<FlatKeyed>,
}

/// Counters before the start and after the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterSpan {
    /// Before the child was born.
    pub before: EventCounters,
    /// After the leaf was empty.
    pub after: EventCounters,
}

/// A fork denied by a `pids.max`, as far as it is known who denied how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeniedForks {
    /// By the leaf's own limit.
    pub by_leaf: u64,
    /// By an enclosing cgroup's limit.
    pub by_ancestor: u64,
    /// Level unknown.
    pub unknown: u64,
    /// The enclosing cgroup, where known.
    pub ancestor: Option<CgroupRef>,
    /// The leaf's own `pids.max` when it denied last, where that was seen.
    pub leaf_max: Option<u64>,
    /// When the first one was seen.
    pub first_at_ns: Option<u64>,
}

/// A process that left the leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fugitive {
    /// Process id.
    pub pid: u32,
    /// `start_boottime` of the leader, ns.
    pub start_time_ns: u64,
    /// Its name.
    pub comm: String,
    /// The cgroup it went to, path if it could be found.
    pub cgroup: String,
    /// When.
    pub at_ns: u64,
    /// Whether the runner saw it dead in the end.
    pub killed: bool,
}

/// One moment on both clocks, so that kernel times can be written as dates without asking a clock
/// again: a step of the wall clock during the run then moves nothing in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockAnchor {
    /// CLOCK_MONOTONIC, ns.
    pub monotonic_ns: u64,
    /// CLOCK_REALTIME at that moment.
    pub wall: Timestamp,
}

impl ClockAnchor {
    /// The date of a CLOCK_MONOTONIC time; the anchor's own where that lies beyond all dates.
    pub fn date(&self, at_ns: u64) -> Timestamp {
        let nanos = i128::from(at_ns) - i128::from(self.monotonic_ns);
        SignedDuration::try_from_nanos_i128(nanos)
            .and_then(|offset| self.wall.checked_add(offset).ok())
            .unwrap_or(self.wall)
    }
}

/// Everything that a verdict may rest on.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Turns `at_ns` into dates.
    pub clock: ClockAnchor,
    /// How much the kernel side saw. Lowered by whoever gathers when something was missed.
    pub confidence: Confidence,
    /// The leaf; `None` where the setup failed before there was one.
    pub leaf: Option<CgroupRef>,
    /// Its ancestors, nearest first.
    pub ancestors: Vec<CgroupRef>,
    /// What was asked for.
    pub limits: Limits,
    /// What the leaf has.
    pub effective: EffectiveLimits,
    /// What its ancestors have.
    pub enclosing: EnclosingLimits,
    /// What a denied fork means.
    pub on_pids_limit: OnPidsLimit,
    /// Whom the OOM killer takes.
    pub oom_scope: OomScope,
    /// The start came to nothing, and why.
    pub setup_failure: Option<SetupFailure>,
    /// The main process; `None` where it was never born.
    pub main: Option<Process>,
    /// When its exec succeeded.
    pub exec_at_ns: Option<u64>,
    /// How it ended; `None` where nobody could see that.
    pub status: Option<WaitStatus>,
    /// When it ended.
    pub exit_at_ns: Option<u64>,
    /// The kernel's own account of the end, where the kernel side has it.
    pub kernel_status: Option<WaitStatus>,
    /// The runner's own processes: supervisor and guardian.
    pub runner_pids: Vec<u32>,
    /// What the runner did.
    pub own_actions: Vec<OwnAction>,
    /// Signals generated for members of the leaf that could be fatal, by time; the last delivered
    /// of each kind for each victim, from within and from outside (see [`wire::VictimKey`]). Empty
    /// without a kernel side.
    pub signals: Vec<Signal>,
    /// The kernel side's counters; `None` without a kernel side.
    pub facts: Option<wire::Facts>,
    /// The leaf's counters.
    pub counters: CounterSpan,
    /// The ancestors' counters, in the order of `ancestors`.
    pub ancestor_counters: Vec<CounterSpan>,
    /// Host-wide OOM kills meanwhile (`oom_kill` of /proc/vmstat), where it could be read.
    pub host_oom_kills: Option<u64>,
    /// Denied forks.
    pub denied_forks: DeniedForks,
    /// Who left the leaf.
    pub fugitives: Vec<Fugitive>,
    /// RLIMIT_CPU that the main process started with, soft and hard, seconds; `None` = infinity.
    pub rlimit_cpu_seconds: (Option<u64>, Option<u64>),
    /// CPU time that the leaf used, µs (`usage_usec` of cpu.stat).
    pub cpu_usage_us: Option<u64>,
    /// What was missing or went wrong with watching, one sentence each.
    pub degraded: Vec<String>,
}

impl Evidence {
    /// Whether it was our own code in the child that ended: the command then has no exit code.
    pub const fn gave_up_before_exec(&self) -> bool {
        self.setup_failure.is_some() && self.exec_at_ns.is_none()
    }

    /// The leaf's path, where there is a leaf.
    pub fn leaf_path(&self) -> Option<String> {
        self.leaf.as_ref().map(|leaf| leaf.path.clone())
    }
}
