//! The events in the ring: a head that is the same for all, and a record a kind.

use bytemuck::{Pod, Zeroable};

use crate::{Kill, Oom, Task};

/// Bytes of an exec's filename that an event carries; longer names are cut.
pub const FILENAME_LEN: usize = 128;
/// Bytes of an exec's arguments that an event carries, their NULs included; what is longer is cut.
pub const ARGV_LEN: usize = 512;

/// What an event is about.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// [`BirthEvent`].
    Birth = 1,
    /// [`ExecEvent`].
    Exec = 2,
    /// [`ExitEvent`].
    Exit = 3,
    /// [`SignalEvent`].
    Signal = 4,
    /// [`ForkDeniedEvent`].
    ForkDenied = 5,
    /// [`EscapeEvent`].
    Escape = 6,
    /// [`OomEvent`].
    Oom = 7,
}

impl TryFrom<u32> for EventKind {
    type Error = u32;

    /// Gives back what stands for no kind.
    fn try_from(kind: u32) -> Result<Self, u32> {
        match kind {
            1 => Ok(Self::Birth),
            2 => Ok(Self::Exec),
            3 => Ok(Self::Exit),
            4 => Ok(Self::Signal),
            5 => Ok(Self::ForkDenied),
            6 => Ok(Self::Escape),
            7 => Ok(Self::Oom),
            other => Err(other),
        }
    }
}

/// Head of every event in the ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Header {
    /// Position in the leaf's sequence, from 1; a gap is a loss.
    pub seq: u64,
    /// When.
    pub at_ns: u64,
    /// The leaf.
    pub cgroup_id: u64,
    /// An [`EventKind`].
    pub kind: u32,
    /// Bytes of the whole event, this head included.
    pub len: u32,
}

/// A task was born in the leaf.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct BirthEvent {
    /// Head.
    pub header: Header,
    /// The new task.
    pub child: Task,
    /// Who forked.
    pub parent: Task,
}

/// A process executed another program.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ExecEvent {
    /// Head.
    pub header: Header,
    /// The task after the exec.
    pub task: Task,
    /// Its pid before: differs where a thread that is not the leader executes.
    pub old_pid: u32,
    /// Bytes of `argv` that could be read.
    pub argv_read: u32,
    /// Bytes of all arguments (`mm->arg_end − mm->arg_start`).
    pub argv_len: u64,
    /// `signal->maxrss`, pages: what the process held at most before this exec, in memory that it
    /// may have shared with whoever forked it.
    pub max_rss_pages: u64,
    /// `bprm->filename`, NUL-terminated, cut at [`FILENAME_LEN`].
    pub filename: [u8; FILENAME_LEN],
    /// The arguments, each NUL-terminated, cut at [`ARGV_LEN`].
    pub argv: [u8; ARGV_LEN],
}

/// A task exited.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ExitEvent {
    /// Head.
    pub header: Header,
    /// The task.
    pub task: Task,
    /// `task->exit_code`, wait(2) status format.
    pub exit_code: u32,
    /// `signal->group_exit_code`.
    pub group_exit_code: u32,
    /// `signal->flags`.
    pub signal_flags: u32,
    /// Tasks of the process that had not exited yet.
    pub live: u32,
    /// `signal->maxrss`, pages; the highest of the process, known once its last task exits.
    pub max_rss_pages: u64,
    /// CPU time of this task in user mode, ns; counted by ticks.
    pub user_ns: u64,
    /// CPU time of this task in the kernel, ns; counted by ticks.
    pub system_ns: u64,
    /// CPU time of this task in both (`se.sum_exec_runtime`), ns; counted by the scheduler's clock.
    pub runtime_ns: u64,
}

/// A signal was generated for a task of the leaf.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SignalEvent {
    /// Head.
    pub header: Header,
    /// What the maps keep too.
    pub kill: Kill,
}

/// A fork was denied by a `pids.max`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ForkDeniedEvent {
    /// Head.
    pub header: Header,
    /// Who wanted to fork.
    pub task: Task,
    /// The cgroup whose limit it was, 0 where that could not be told.
    pub limiting_cgroup_id: u64,
}

/// A task left the leaf for another cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct EscapeEvent {
    /// Head.
    pub header: Header,
    /// The task; its `cgroup_id` is the one it went to.
    pub task: Task,
}

/// The OOM killer chose a process of the leaf. It may yet find that it is going anyway, and then
/// sends no signal.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct OomEvent {
    /// Head.
    pub header: Header,
    /// Who asked for memory; may be in another cgroup.
    pub trigger: Task,
    /// Who was chosen.
    pub chosen: Task,
    /// Whose memory ran out.
    pub oom: Oom,
}

const _: () = {
    assert!(size_of::<Header>() == 32);
    assert!(size_of::<BirthEvent>() == 32 + 96);
    assert!(size_of::<ExecEvent>() == 32 + 48 + 24 + 128 + 512);
    assert!(size_of::<ExitEvent>() == 32 + 48 + 16 + 32);
    assert!(size_of::<SignalEvent>() == 32 + 200);
    assert!(size_of::<ForkDeniedEvent>() == 32 + 48 + 8);
    assert!(size_of::<EscapeEvent>() == 32 + 48);
    assert!(size_of::<OomEvent>() == 32 + 96 + 48);
};
