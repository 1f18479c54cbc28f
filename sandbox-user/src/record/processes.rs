//! The processes of a run, as the record tells of them: how many, and as a tree.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Exit;

/// The processes of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    /// Tasks born in the leaf: processes and threads, as `exits` counts both.
    pub births: Option<u64>,
    /// Tasks that somebody moved in from another cgroup: they exit here too.
    pub joined: Option<u64>,
    /// Successful execs.
    pub execs: Option<u64>,
    /// Tasks that exited.
    pub exits: Option<u64>,
    /// SIGKILLs that were delivered to its tasks, whoever sent them.
    pub killed: Option<u64>,
    /// The most tasks at a time (`pids.peak`).
    pub peak: Option<u64>,
    /// Processes that were still there when main had ended.
    pub left_over: Option<u64>,
    /// Who started whom, by birth, as far as it was seen and up to 1,024 of them.
    pub tree: Vec<ProcessNode>,
    /// Processes that are not in the tree: beyond its size, or their events were dropped.
    pub tree_left_out: Option<u64>,
}

/// A process of the run. Names and arguments are what the analysis chose: escape them when printing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessNode {
    /// Process id.
    pub pid: u32,
    /// Start time, ns since boot.
    pub start_time: u64,
    /// The pid of who started it; null where that was not seen.
    pub parent_pid: Option<u32>,
    /// That one's start time.
    pub parent_start_time: Option<u64>,
    /// Its last name.
    pub comm: String,
    /// What it executed last, itself or whoever forked it.
    pub exe: Option<String>,
    /// The arguments of that, up to 512 bytes.
    pub argv: Option<Vec<String>>,
    /// Whether there were more of them; null where `argv` is.
    pub argv_cut: Option<bool>,
    /// When it was born; null where that was not seen.
    pub born_at: Option<Timestamp>,
    /// When its last task exited; null where that was not seen.
    pub ended_at: Option<Timestamp>,
    /// How it ended; all null where that was not seen.
    pub exit: Exit,
    /// CPU time in user mode, of all its threads.
    pub cpu_user_us: Option<u64>,
    /// CPU time in the kernel, of all its threads.
    pub cpu_system_us: Option<u64>,
    /// Its highest resident memory since its last exec; null where that was never more than what it
    /// had before, maybe shared with whoever forked it: the kernel keeps one maximum over both.
    pub max_rss_bytes: Option<u64>,
}
