//! The records that cross the kernel boundary: one definition, used by the eBPF programs that
//! write them and by user space that reads them.
//!
//! Every record is `#[repr(C)]`, has no implicit padding and a size that is asserted below, so
//! that a change of layout is a compile error and not a wrong verdict. Bytes that are not used are
//! named (`_pad`) and zero. Times are nanoseconds; [`Task::start_time_ns`] is `task->start_boottime`
//! of the thread-group leader (CLOCK_BOOTTIME, field 22 of `/proc/PID/stat` in finer grain), every
//! `at_ns` is `bpf_ktime_get_ns()` (CLOCK_MONOTONIC).
#![no_std]

use bytemuck::{Pod, Zeroable};

mod event;
#[cfg(feature = "user")]
mod pod;

pub use event::*;

/// Bytes of `task->comm`, the final NUL included (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM_LEN: usize = 16;
/// How many victims (with their signals) one leaf may put into [`VictimKey`]'s map besides its
/// main process; what comes after is counted in [`Facts::victims_left_out`], and the last of it kept.
pub const VICTIMS_PER_LEAF: u64 = 1024;

/// Identity of a task: `(tgid, start_time_ns)` names a process for the time of one boot, where a
/// pid alone is reused.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Task {
    /// `start_boottime` of the thread-group leader, ns since boot.
    pub start_time_ns: u64,
    /// Id of the cgroup v2 (`kernfs_node.id`, the inode of its directory) that the task is in.
    pub cgroup_id: u64,
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// Thread id in the initial PID namespace.
    pub pid: u32,
    /// Real user id in the initial user namespace; only known for the current task, else `u32::MAX`.
    pub uid: u32,
    /// Zero.
    pub _pad: u32,
    /// `task->comm`, NUL-terminated; chosen by the analysis, so never to be printed raw.
    pub comm: [u8; COMM_LEN],
}

/// What user space declares before it kills, so that the kernel side can stamp it on the kill.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Intent {
    /// When the intent was written, CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// The reason, as user space numbers it; never 0.
    pub reason: u32,
    /// Zero.
    pub _pad: u32,
}

/// Counters of one leaf; its presence in the map is what makes a leaf watched.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Facts {
    /// Thread-group leaders born in the leaf.
    pub births: u64,
    /// Other tasks born in the leaf: threads, io_uring workers.
    pub threads: u64,
    /// Tasks that left by exiting, of either kind.
    pub exits: u64,
    /// Successful execs.
    pub execs: u64,
    /// Tasks moved into the leaf from another cgroup.
    pub joined: u64,
    /// Tasks moved out of the leaf into another cgroup.
    pub escapes: u64,
    /// Delivered SIGKILLs of the OOM killer.
    pub oom_kills: u64,
    /// Delivered SIGKILLs of `cgroup.kill`.
    pub cgroup_kills: u64,
    /// Delivered SIGKILLs of anybody else.
    pub other_kills: u64,
    /// Forks that the leaf's own `pids.max` denied.
    pub denied_by_leaf: u64,
    /// Forks that an enclosing cgroup's `pids.max` denied.
    pub denied_by_ancestor: u64,
    /// Forks denied where the level could not be told.
    pub denied_unknown: u64,
    /// The enclosing cgroup that denied last, 0 when none did.
    pub denying_cgroup_id: u64,
    /// The leaf's own `pids.max` when it denied last.
    pub denied_max: u64,
    /// When the first fork was denied, 0 when none was.
    pub first_denied_ns: u64,
    /// The last sequence number given to an event.
    pub last_seq: u64,
    /// Events that found no room in the ring (or no ring).
    pub dropped: u64,
    /// Map updates that the kernel refused.
    pub failed_updates: u64,
    /// Victims' entries written so far, the main process's apart.
    pub victims: u64,
    /// Victims beyond [`VICTIMS_PER_LEAF`].
    pub victims_left_out: u64,
    /// Victims' entries of the main process written so far.
    pub main_victims: u64,
}

/// The main process: the first task born in the leaf.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Main {
    /// Its identity at birth.
    pub task: Task,
    /// When its exec succeeded, 0 before.
    pub exec_at_ns: u64,
    /// When its last task so far exited, 0 before.
    pub exit_at_ns: u64,
    /// `task->exit_code` of the leader (wait(2) status format), valid once `leader_exited` is 1.
    pub leader_exit_code: u32,
    /// `signal->group_exit_code`, valid where `signal_flags` has [`SIGNAL_GROUP_EXIT`].
    pub group_exit_code: u32,
    /// `signal->flags` once they have [`SIGNAL_GROUP_EXIT`], before that 0.
    pub signal_flags: u32,
    /// 1 once the leader itself has exited.
    pub leader_exited: u32,
    /// 1 once a task exited that was the last of the process (`signal->live` 0).
    pub all_exited: u32,
    /// Zero.
    pub _pad: u32,
}

/// `SIGNAL_GROUP_EXIT` of include/linux/sched/signal.h: the process ends as a whole, with
/// `group_exit_code`.
pub const SIGNAL_GROUP_EXIT: u32 = 0x0000_0004;

/// What `info` was at `signal_generate`: `SEND_SIG_NOINFO`.
pub const INFO_NOINFO: u32 = 0;
/// What `info` was at `signal_generate`: `SEND_SIG_PRIV`, the kernel itself.
pub const INFO_PRIV: u32 = 1;
/// What `info` was at `signal_generate`: a pointer, so that `si_code` is known.
pub const INFO_POINTER: u32 = 2;

/// The sender was exiting (PF_EXITING): a PR_SET_PDEATHSIG, or the teardown of a namespace.
pub const KILL_SENDER_EXITING: u32 = 1 << 0;
/// Sent from within `cgroup_kill_write` by the current task.
pub const KILL_IN_CGROUP_KILL: u32 = 1 << 1;
/// Sent from within `oom_kill_process` by the current task.
pub const KILL_IN_OOM: u32 = 1 << 2;
/// The target had not run yet (TASK_NEW): a `cgroup.kill` that raced its fork.
pub const KILL_TARGET_NEW: u32 = 1 << 3;
/// The sender was in the victim's leaf.
pub const KILL_SENDER_IN_LEAF: u32 = 1 << 4;
/// The victim is the leaf's main process.
pub const KILL_OF_MAIN: u32 = 1 << 5;
/// The same signal was pending for the target thread alone already, which is taken first (`dequeue_signal`,
/// kernel/signal.c): this one is not what a process of one thread dies of.
pub const KILL_BEHIND_ANOTHER: u32 = 1 << 6;

/// The sender was in rt_sigqueueinfo(2) or one of its kin, which may claim any negative `si_code`. Looked for
/// only where `si_code` would say that it was sent by no process.
pub const KILL_BY_SIGQUEUE: u32 = 1 << 7;
/// The sender traces the victim, and had it go on with this signal in place of the one that it had stopped for
/// (ptrace(2)).
pub const KILL_INJECTED: u32 = 1 << 8;

/// The OOM killer's context at a kill, from `struct oom_control` (include/linux/oom.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Oom {
    /// The memcg that was out of memory; 0 = the host.
    pub cgroup_id: u64,
    /// `memcg->memory.usage` in pages at that moment; 0 where the host was out of memory.
    pub usage_pages: u64,
    /// `memcg->memory.max` in pages; 0 where the host was out of memory.
    pub max_pages: u64,
    /// `oc->totalpages`: what the points are relative to.
    pub total_pages: u64,
    /// `oc->chosen_points` of the task first chosen.
    pub points: i64,
    /// The process that the killer chose first (others die with it under `memory.oom.group`).
    pub chosen_tgid: u32,
    /// 1 where nothing had run out and somebody asked for it (sysrq f, `oc->order` -1), else 0.
    pub demanded: u32,
}

/// One signal that was generated for a task of a watched leaf.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Kill {
    /// When.
    pub at_ns: u64,
    /// The cgroup whose `cgroup.kill` was being written, 0 when none.
    pub kill_cgroup_id: u64,
    /// The victim's RLIMIT_CPU where it may be what the signal is for (SIGXCPU: the soft one, SIGKILL: the hard
    /// one), seconds; else 0.
    pub cpu_limit_s: u64,
    /// The signal's number.
    pub signal: i32,
    /// `si_code` where `info` is [`INFO_POINTER`], else 0.
    pub si_code: i32,
    /// One of [`INFO_NOINFO`], [`INFO_PRIV`], [`INFO_POINTER`].
    pub info: u32,
    /// 1 when sent to the process, 0 when sent to one thread.
    pub group: u32,
    /// `TRACE_SIGNAL_*` (include/trace/events/signal.h): 0 delivered, 1 ignored, 2 already
    /// pending, 3 and 4 overflow.
    pub result: i32,
    /// `KILL_*` flags.
    pub flags: u32,
    /// [`Intent::reason`] in force at that moment, 0 when none.
    pub intent: u32,
    /// Resident pages of the victim (file, anonymous and shared memory, as the kernel's own log
    /// counts them); 0 unless [`KILL_IN_OOM`] is set.
    pub victim_rss_pages: u32,
    /// The current task at that moment; for the OOM killer that is who asked for memory.
    pub sender: Task,
    /// The target.
    pub victim: Task,
    /// All zero unless [`KILL_IN_OOM`] is set.
    pub oom: Oom,
}

/// Key of the victims' map; the value is the last delivered [`Kill`] with that signal, from within
/// the leaf and from elsewhere apart.
///
/// Last, since a signal that is fatal makes every later one ignored (`prepare_signal`,
/// kernel/signal.c): of several delivered ones the earlier were handled, unless one is
/// [`KILL_BEHIND_ANOTHER`], which takes the place of none. Apart, since a handler
/// often ends by sending its own process the same signal again, and who meant it is who sent the
/// first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
pub struct VictimKey {
    /// The leaf.
    pub cgroup_id: u64,
    /// The victim's [`Task::start_time_ns`].
    pub start_time_ns: u64,
    /// The victim's process id.
    pub tgid: u32,
    /// The signal's number.
    pub signal: u16,
    /// 1 where the sender was in the leaf too.
    pub from_leaf: u16,
}

/// Key of a process that left its leaf, or was born of one that did.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
pub struct ProcessKey {
    /// [`Task::start_time_ns`].
    pub start_time_ns: u64,
    /// Process id.
    pub tgid: u32,
    /// Zero.
    pub _pad: u32,
}

/// A process that left its leaf, or was born outside of one that had.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Fugitive {
    /// The leaf that it left.
    pub leaf_id: u64,
    /// Where it was seen last.
    pub cgroup_id: u64,
    /// When it left, or was born.
    pub at_ns: u64,
    /// `task->comm`.
    pub comm: [u8; COMM_LEN],
}

/// Offsets of the running kernel's structs, patched into the programs before they are loaded.
///
/// Field names are `struct_member`; [`ABSENT`] marks what this kernel does not have.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[allow(
    missing_docs,
    reason = "the kernel's own names, each `struct_member`, say it all"
)]
pub struct Offsets {
    pub task_struct_pid: u32,
    pub task_struct_tgid: u32,
    pub task_struct_flags: u32,
    pub task_struct_state: u32,
    pub task_struct_group_leader: u32,
    pub task_struct_start_boottime: u32,
    pub task_struct_comm: u32,
    pub task_struct_cgroups: u32,
    pub task_struct_exit_code: u32,
    pub task_struct_signal: u32,
    pub task_struct_utime: u32,
    pub task_struct_stime: u32,
    /// Of `se.sum_exec_runtime`.
    pub task_struct_runtime: u32,
    pub task_struct_mm: u32,
    pub task_struct_pending_signal: u32,
    pub task_struct_last_siginfo: u32,
    pub mm_struct_arg_start: u32,
    pub mm_struct_arg_end: u32,
    /// Of the count of `rss_stat[MM_FILEPAGES]`.
    pub mm_struct_rss_file: u32,
    /// Of the count of `rss_stat[MM_ANONPAGES]`.
    pub mm_struct_rss_anon: u32,
    /// Of the count of `rss_stat[MM_SHMEMPAGES]`.
    pub mm_struct_rss_shmem: u32,
    pub signal_struct_group_exit_code: u32,
    pub signal_struct_flags: u32,
    pub signal_struct_live: u32,
    pub signal_struct_maxrss: u32,
    /// Of `rlim[RLIMIT_CPU]`.
    pub signal_struct_rlimit_cpu: u32,
    pub css_set_dfl_cgrp: u32,
    /// Of `subsys[pids_cgrp_id]`.
    pub css_set_pids_css: u32,
    pub cgroup_kn: u32,
    pub kernfs_node_id: u32,
    /// `parent`, or `__parent` from 6.15 on.
    pub kernfs_node_parent: u32,
    pub kernfs_open_file_kn: u32,
    pub css_cgroup: u32,
    pub css_parent: u32,
    pub mem_cgroup_memory: u32,
    pub page_counter_usage: u32,
    pub page_counter_max: u32,
    pub oom_control_memcg: u32,
    pub oom_control_totalpages: u32,
    pub oom_control_chosen: u32,
    pub oom_control_chosen_points: u32,
    pub oom_control_order: u32,
    pub kernel_siginfo_si_signo: u32,
    pub kernel_siginfo_si_code: u32,
    pub pids_cgroup_counter: u32,
    pub pids_cgroup_limit: u32,
    pub linux_binprm_filename: u32,
}

/// An offset that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

const _: () = {
    assert!(size_of::<Task>() == 48);
    assert!(size_of::<Intent>() == 16);
    assert!(size_of::<Facts>() == 21 * 8);
    assert!(size_of::<Main>() == 48 + 16 + 24);
    assert!(size_of::<Oom>() == 48);
    assert!(size_of::<Kill>() == 24 + 32 + 96 + 48);
    assert!(size_of::<VictimKey>() == 24);
    assert!(size_of::<ProcessKey>() == 16);
    assert!(size_of::<Fugitive>() == 24 + 16);
    assert!(size_of::<Offsets>() == 47 * 4);
};

impl Offsets {
    /// What stands in the object before the loader patches it.
    pub const NONE: Self = Self {
        task_struct_pid: 0,
        task_struct_tgid: 0,
        task_struct_flags: 0,
        task_struct_state: 0,
        task_struct_group_leader: 0,
        task_struct_start_boottime: 0,
        task_struct_comm: 0,
        task_struct_cgroups: 0,
        task_struct_exit_code: 0,
        task_struct_signal: 0,
        task_struct_utime: 0,
        task_struct_stime: 0,
        task_struct_runtime: 0,
        task_struct_mm: 0,
        task_struct_pending_signal: 0,
        task_struct_last_siginfo: 0,
        mm_struct_arg_start: 0,
        mm_struct_arg_end: 0,
        mm_struct_rss_file: 0,
        mm_struct_rss_anon: 0,
        mm_struct_rss_shmem: 0,
        signal_struct_group_exit_code: 0,
        signal_struct_flags: 0,
        signal_struct_live: 0,
        signal_struct_maxrss: 0,
        signal_struct_rlimit_cpu: 0,
        css_set_dfl_cgrp: 0,
        css_set_pids_css: 0,
        cgroup_kn: 0,
        kernfs_node_id: 0,
        kernfs_node_parent: 0,
        kernfs_open_file_kn: 0,
        css_cgroup: 0,
        css_parent: 0,
        mem_cgroup_memory: 0,
        page_counter_usage: 0,
        page_counter_max: 0,
        oom_control_memcg: 0,
        oom_control_totalpages: 0,
        oom_control_chosen: 0,
        oom_control_chosen_points: 0,
        oom_control_order: 0,
        kernel_siginfo_si_signo: 0,
        kernel_siginfo_si_code: 0,
        pids_cgroup_counter: 0,
        pids_cgroup_limit: 0,
        linux_binprm_filename: 0,
    };
}
