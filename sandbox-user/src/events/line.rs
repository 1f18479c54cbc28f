//! The schema of the event stream, version 1. Field names are a contract, as the record's are: what
//! is not known is null, sizes are bytes, durations carry their unit in their name.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    cgroup::LeafStats,
    evidence::{Confidence, Delivery, Pressure, Process, SignalInfo, WaitStatus},
    record::{Exit, KillCause, OomLevel, Reason, signal_name},
};

/// What `schema` of the first line says.
pub const SCHEMA: &str = "sandbox.events";
/// What `version` of the first line says; it rises where a field changes its meaning or goes.
pub const VERSION: u32 = 1;

/// A line. Before these fields it has `n`, its number, from 1; a gap is a loss between `sandbox` and its reader.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// Number of the event in the kernel's own order, from 1; null where the line is `sandbox`'s.
    /// What is missing in it stands in a `dropped` line.
    pub seq: Option<u64>,
    /// When, as a date.
    pub at: Timestamp,
    /// When, CLOCK_MONOTONIC, ns.
    pub mono_ns: u64,
    /// The rest of the line.
    #[serde(flatten)]
    pub what: &'a What<'a>,
}

impl Line<'_> {
    /// All but its number: each reader misses others, and so has numbers of its own.
    pub(super) fn encode(&self) -> Unnumbered {
        // Strings, numbers and lists of them all serialise.
        Unnumbered(serde_json::to_string(self).unwrap_or_default())
    }
}

/// A line that has no number yet: the JSON of a [`Line`].
#[derive(Debug)]
pub(super) struct Unnumbered(String);

impl Unnumbered {
    /// The whole line, with this number.
    pub(super) fn numbered(&self, n: u64) -> String {
        let fields = self.0.strip_prefix('{').unwrap_or_default();
        format!("{{\"n\":{n},{fields}\n")
    }
}

/// What a line tells, by its `type`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum What<'a> {
    /// The first line.
    Start {
        /// [`SCHEMA`].
        schema: &'static str,
        /// [`VERSION`].
        version: u32,
        /// The run.
        run_id: Uuid,
        /// The analysis, as its submitter names it.
        analysis_id: Option<&'a str>,
        /// Path of the leaf.
        cgroup: Option<&'a str>,
        /// How much the kernel side sees.
        tracing: Confidence,
    },
    /// A task was born: a process, or a thread where `tid` is not `pid`.
    Birth {
        /// The new task.
        task: Task<'a>,
        /// Who forked.
        parent: Task<'a>,
    },
    /// A process executed another program.
    Exec {
        /// The task after it.
        task: Task<'a>,
        /// The thread id before it, which differs where a thread executed.
        old_tid: u32,
        /// What was executed, cut at 127 bytes.
        filename: &'a str,
        /// Its arguments, cut at 512 bytes; null where they could not be read.
        argv: Option<&'a [String]>,
        /// Whether there are more.
        argv_cut: Option<bool>,
    },
    /// A task exited.
    Exit {
        /// The task.
        task: Task<'a>,
        /// Its exit code; null where a signal ended it.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// Whether it left a core dump.
        core_dumped: Option<bool>,
        /// Whether it was the last task of its process.
        last: bool,
        /// How long its process has run; null where its birth was not seen.
        run_time_ns: Option<u64>,
        /// The highest resident memory of its process since its last exec, where it was the last
        /// task; null where that is not known apart from what it had before.
        max_rss_bytes: Option<u64>,
        /// CPU time of this task in user mode.
        cpu_user_us: u64,
        /// CPU time of this task in the kernel.
        cpu_system_us: u64,
    },
    /// A signal was generated that could be fatal.
    Signal {
        /// Its number.
        signal: i32,
        /// Its name.
        signal_name: String,
        /// What stands behind it, as far as it alone tells: the record's `kills` may know better.
        cause: KillCause,
        /// Whether it reached its target.
        delivery: Delivery,
        /// `si_code`, where there was a siginfo.
        si_code: Option<i32>,
        /// What stood in the place of a siginfo.
        info: SignalInfo,
        /// Whether a tracer had its tracee go on with it in place of another.
        injected: bool,
        /// Who sent it; of the OOM killer's who asked for memory.
        sender: Task<'a>,
        /// The sender's real uid.
        sender_uid: Option<u32>,
        /// Whether the sender was in the run.
        sender_in_run: bool,
        /// Whom it was for.
        target: Task<'a>,
        /// Whether that is the main process.
        target_is_main: bool,
        /// Resident memory of the target, where the OOM killer sent it.
        target_rss_bytes: Option<u64>,
    },
    /// The OOM killer chose a process of the run.
    Oom {
        /// Who asked for memory; may be outside the run.
        trigger: Task<'a>,
        /// Who was chosen; a `signal` line follows unless it was going anyway.
        chosen: Task<'a>,
        /// Whose memory ran out; null where that could not be told.
        scope: Option<OomLevel>,
        /// Path of the cgroup whose limit it was.
        cgroup: Option<&'a str>,
        /// What that cgroup used.
        usage_bytes: Option<u64>,
        /// What it was allowed.
        max_bytes: Option<u64>,
    },
    /// A fork was denied by a `pids.max`.
    ForkDenied {
        /// Who wanted to fork.
        task: Task<'a>,
        /// Path of the cgroup whose limit it was; null where that could not be told.
        cgroup: Option<&'a str>,
    },
    /// A task left the leaf.
    Escape {
        /// The task.
        task: Task<'a>,
        /// Id of the cgroup that it went to.
        to_cgroup_id: u64,
    },
    /// Tasks were held back by `cpu.max` since the last time that this was looked at.
    Throttled {
        /// In so many periods.
        periods: u64,
        /// For so long, all tasks together.
        throttled_us: u64,
    },
    /// What the run used at that moment.
    Sample(Sample),
    /// Something is missing here.
    Dropped {
        /// Where it was lost.
        #[serde(rename = "where")]
        place: DroppedAt,
        /// How many events or lines.
        count: u64,
        /// The first `seq` that is missing; null for lines.
        from_seq: Option<u64>,
        /// The last one.
        to_seq: Option<u64>,
    },
    /// The last line; a stream without it was cut.
    End {
        /// Why the run ended.
        reason: Reason,
        /// Events in all, as the kernel side numbered them.
        events: Option<u64>,
        /// Events of those that found no room in the ring.
        dropped: Option<u64>,
        /// Lines that the reader did not take in time.
        lines_lost: u64,
    },
}

/// Where something was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DroppedAt {
    /// Events: the ring between the kernel and `sandbox` was full.
    Ring,
    /// Lines: the reader did not take them in time.
    Writer,
    /// Lines: no more of the stream is kept (`events-bytes` of the host's configuration).
    Bound,
}

/// A task. Its name is what the analysis chose: escape it when printing.
#[derive(Debug, Serialize)]
pub struct Task<'a> {
    /// Process id.
    pub pid: u32,
    /// Start time of the process, ns since boot: with the pid its identity.
    pub start_time: u64,
    /// Thread id.
    pub tid: u32,
    /// Its name.
    pub comm: &'a str,
}

impl<'a> From<&'a Process> for Task<'a> {
    fn from(process: &'a Process) -> Self {
        Self {
            pid: process.pid,
            start_time: process.start_time_ns,
            tid: process.tid,
            comm: &process.comm,
        }
    }
}

/// What a run used.
#[derive(Debug, Serialize)]
pub struct Sample {
    /// `memory.current`, page cache included.
    pub memory_current_bytes: Option<u64>,
    /// `anon` of memory.stat.
    pub memory_anon_bytes: Option<u64>,
    /// `file` of memory.stat.
    pub memory_file_bytes: Option<u64>,
    /// `shmem` of memory.stat, a part of `file`.
    pub memory_shmem_bytes: Option<u64>,
    /// `kernel` of memory.stat.
    pub memory_kernel_bytes: Option<u64>,
    /// What could not have been reclaimed.
    pub memory_needed_bytes: Option<u64>,
    /// `memory.swap.current`.
    pub swap_current_bytes: Option<u64>,
    /// `user_usec` of cpu.stat, since the start.
    pub cpu_user_us: Option<u64>,
    /// `system_usec`.
    pub cpu_system_us: Option<u64>,
    /// `throttled_usec`.
    pub throttled_us: Option<u64>,
    /// `pids.current`.
    pub pids_current: Option<u64>,
    /// `rbytes` of io.stat, since the start.
    pub io_read_bytes: Option<u64>,
    /// `wbytes`.
    pub io_write_bytes: Option<u64>,
    /// The totals of `*.pressure`, since the start.
    pub pressure: Pressure,
}

impl From<&LeafStats> for Sample {
    fn from(stats: &LeafStats) -> Self {
        Self {
            memory_current_bytes: stats.memory_current_bytes,
            memory_anon_bytes: stats.memory_anon_bytes,
            memory_file_bytes: stats.memory_file_bytes,
            memory_shmem_bytes: stats.memory_shmem_bytes,
            memory_kernel_bytes: stats.memory_kernel_bytes,
            memory_needed_bytes: stats.memory_needed_bytes(),
            swap_current_bytes: stats.swap_current_bytes,
            cpu_user_us: stats.cpu_user_us,
            cpu_system_us: stats.cpu_system_us,
            throttled_us: stats.cpu_throttled_us,
            pids_current: stats.pids_current,
            io_read_bytes: stats.io_read_bytes,
            io_write_bytes: stats.io_write_bytes,
            pressure: stats.pressure.clone(),
        }
    }
}

/// An `exit` line of a task that ended so.
pub(crate) fn exit<'a>(
    task: Task<'a>,
    status: WaitStatus,
    last: bool,
    run_time_ns: Option<u64>,
    max_rss_bytes: Option<u64>,
    (cpu_user_us, cpu_system_us): (u64, u64),
) -> What<'a> {
    let Exit {
        code,
        signal,
        core_dumped,
        signal_name: _,
    } = status.into();
    What::Exit {
        task,
        code,
        signal,
        core_dumped,
        last,
        run_time_ns,
        max_rss_bytes,
        cpu_user_us,
        cpu_system_us,
    }
}

/// A `signal` line.
pub(crate) fn signal(signal: &crate::evidence::Signal, cause: KillCause) -> What<'_> {
    What::Signal {
        signal: signal.signal,
        signal_name: signal_name(signal.signal),
        cause,
        delivery: signal.result,
        si_code: signal.si_code,
        info: signal.info,
        injected: signal.injected,
        sender: (&signal.sender).into(),
        sender_uid: signal.sender.uid,
        sender_in_run: signal.sender_in_leaf,
        target: (&signal.victim).into(),
        target_is_main: signal.victim_is_main,
        target_rss_bytes: signal.oom.as_ref().and_then(|oom| oom.victim_rss_bytes),
    }
}
