//! From wire records to what the rest of the engine speaks of.
//!
//! Any bytes are answered with an event or an error, never a panic: the ring is shared memory, and
//! the object on the other side may one day be of another build.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use bytemuck::Pod;
use sandbox_ebpf as wire;

use crate::evidence::{
    Delivery, IntentReason, OomContext, Process, Signal, SignalInfo, WaitStatus,
};
use crate::record::lossless;

/// One event of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Position in the leaf's sequence, from 1; a gap is a loss.
    pub seq: u64,
    /// CLOCK_MONOTONIC, ns.
    pub at_ns: u64,
    /// The leaf.
    pub cgroup_id: u64,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A task was born.
    Birth {
        /// The new task.
        child: Process,
        /// Who forked.
        parent: Process,
    },
    /// A process executed another program.
    Exec {
        /// The task after it.
        process: Process,
        /// The thread id before it.
        old_tid: u32,
        /// What was executed, cut at [`wire::FILENAME_LEN`].
        filename: String,
        /// Its arguments; `None` where they could not be read.
        argv: Option<Argv>,
        /// Highest resident set of the process before, bytes.
        max_rss_before_bytes: u64,
    },
    /// A task exited.
    Exit {
        /// The task.
        process: Process,
        /// How this task ended.
        status: WaitStatus,
        /// How its process ends, where it does so as a whole: exit_group(2), a fatal signal.
        group_status: Option<WaitStatus>,
        /// Tasks of its process that had not begun to exit.
        live: u32,
        /// Highest resident set of the process, bytes, over all its execs; known to its last task
        /// only.
        max_rss_bytes: Option<u64>,
        /// What the task used.
        cpu: CpuTime,
    },
    /// A signal was generated.
    Signal(Signal),
    /// A fork was denied.
    ForkDenied {
        /// Who wanted to fork.
        process: Process,
        /// The cgroup whose limit it was; `None` where that could not be told.
        limiting_cgroup_id: Option<u64>,
    },
    /// A task left the leaf.
    Escape {
        /// The task, in its new cgroup.
        process: Process,
    },
    /// The OOM killer chose a process of the leaf.
    Oom {
        /// Who asked for memory.
        trigger: Process,
        /// Who was chosen.
        chosen: Process,
        /// Whose memory ran out.
        oom: OomContext,
    },
}

/// The arguments of an exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argv {
    /// As far as they were read; what is no UTF-8 in them is replaced.
    pub words: Vec<String>,
    /// Whether there are more of them, or the last one is longer.
    pub cut: bool,
}

/// The CPU time of a task, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In user mode.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
}

impl CpuTime {
    /// Ticks tell user from system, the scheduler's clock how much it was in all: as getrusage(2)
    /// has it (`cputime_adjust`, kernel/sched/cputime.c).
    fn of(event: &wire::ExitEvent) -> Self {
        let (user, system) = (u128::from(event.user_ns), u128::from(event.system_ns));
        let runtime_ns = event.runtime_ns;
        let system_ns = match user + system {
            0 => 0,
            ticks => u128::from(runtime_ns) * system / ticks,
        };
        let system_ns = u64::try_from(system_ns).unwrap_or(runtime_ns);
        Self {
            user_ns: runtime_ns.saturating_sub(system_ns),
            system_ns,
        }
    }
}

/// Why bytes of the ring are no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the event of that kind has.
    #[error("an event of kind {kind} with {len} bytes is cut short")]
    Short {
        /// The kind, 0 where even the head was cut.
        kind: u32,
        /// Bytes that came.
        len: usize,
    },
    /// A kind of another version.
    #[error("unknown event kind {0}")]
    UnknownKind(u32),
}

/// Decodes one entry of the ring; it may be longer than the event.
///
/// # Errors
/// Where the bytes are too few or of an unknown kind.
pub(super) fn event(bytes: &[u8]) -> Result<Event, DecodeError> {
    let header: wire::Header = read(bytes, 0)?;
    let kind = wire::EventKind::try_from(header.kind).map_err(DecodeError::UnknownKind)?;
    let kind = match kind {
        wire::EventKind::Birth => {
            let event: wire::BirthEvent = read(bytes, header.kind)?;
            EventKind::Birth {
                child: process(&event.child),
                parent: process(&event.parent),
            }
        }
        wire::EventKind::Exec => {
            let event: wire::ExecEvent = read(bytes, header.kind)?;
            EventKind::Exec {
                process: process(&event.task),
                old_tid: event.old_pid,
                filename: text(&event.filename),
                argv: argv(&event),
                max_rss_before_bytes: bytes_of(event.max_rss_pages),
            }
        }
        wire::EventKind::Exit => {
            let event: wire::ExitEvent = read(bytes, header.kind)?;
            let as_a_whole = event.signal_flags & wire::SIGNAL_GROUP_EXIT != 0;
            EventKind::Exit {
                process: process(&event.task),
                status: wait_status(event.exit_code),
                group_status: as_a_whole.then(|| wait_status(event.group_exit_code)),
                live: event.live,
                max_rss_bytes: (event.live == 0).then(|| bytes_of(event.max_rss_pages)),
                cpu: CpuTime::of(&event),
            }
        }
        wire::EventKind::Signal => {
            let event: wire::SignalEvent = read(bytes, header.kind)?;
            EventKind::Signal(signal(&event.kill))
        }
        wire::EventKind::ForkDenied => {
            let event: wire::ForkDeniedEvent = read(bytes, header.kind)?;
            EventKind::ForkDenied {
                process: process(&event.task),
                limiting_cgroup_id: (event.limiting_cgroup_id != 0)
                    .then_some(event.limiting_cgroup_id),
            }
        }
        wire::EventKind::Escape => {
            let event: wire::EscapeEvent = read(bytes, header.kind)?;
            EventKind::Escape {
                process: process(&event.task),
            }
        }
        wire::EventKind::Oom => {
            let event: wire::OomEvent = read(bytes, header.kind)?;
            EventKind::Oom {
                trigger: process(&event.trigger),
                chosen: process(&event.chosen),
                oom: oom(&event.oom, 0),
            }
        }
    };
    Ok(Event {
        seq: header.seq,
        at_ns: header.at_ns,
        cgroup_id: header.cgroup_id,
        kind,
    })
}

/// A task.
pub(super) fn process(task: &wire::Task) -> Process {
    Process {
        pid: task.tgid,
        start_time_ns: task.start_time_ns,
        tid: task.pid,
        comm: text(&task.comm),
        exe: None,
        uid: (task.uid != u32::MAX).then_some(task.uid),
        cgroup_id: task.cgroup_id,
    }
}

/// A signal.
pub(super) fn signal(kill: &wire::Kill) -> Signal {
    let has = |flag| kill.flags & flag != 0;
    Signal {
        at_ns: kill.at_ns,
        signal: kill.signal,
        si_code: (kill.info == wire::INFO_POINTER).then_some(kill.si_code),
        info: match kill.info {
            wire::INFO_NOINFO => SignalInfo::NoInfo,
            wire::INFO_PRIV => SignalInfo::Priv,
            _ => SignalInfo::Siginfo,
        },
        group: kill.group != 0,
        result: match kill.result {
            0 => Delivery::Delivered,
            1 => Delivery::Ignored,
            2 => Delivery::AlreadyPending,
            _ => Delivery::Overflowed,
        },
        sender: process(&kill.sender),
        victim: process(&kill.victim),
        victim_is_main: has(wire::KILL_OF_MAIN),
        sender_in_leaf: has(wire::KILL_SENDER_IN_LEAF),
        sender_exiting: has(wire::KILL_SENDER_EXITING),
        target_new: has(wire::KILL_TARGET_NEW),
        behind_another: has(wire::KILL_BEHIND_ANOTHER),
        by_sigqueue: has(wire::KILL_BY_SIGQUEUE),
        injected: has(wire::KILL_INJECTED),
        cpu_limit_s: Some(kill.cpu_limit_s).filter(|limit| !matches!(*limit, 0 | u64::MAX)),
        cgroup_kill: has(wire::KILL_IN_CGROUP_KILL).then_some(kill.kill_cgroup_id),
        oom: has(wire::KILL_IN_OOM).then(|| oom(&kill.oom, kill.victim_rss_pages)),
        intent: IntentReason::from_wire(kill.intent),
    }
}

fn argv(event: &wire::ExecEvent) -> Option<Argv> {
    let read = usize::try_from(event.argv_read).ok()?;
    let bytes = event.argv.get(..read).filter(|bytes| !bytes.is_empty())?;
    let whole = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    Some(Argv {
        words: whole
            .split(|byte| *byte == 0)
            .map(|word| lossless(OsStr::from_bytes(word)))
            .collect(),
        cut: event.argv_len > u64::from(event.argv_read),
    })
}

fn oom(oom: &wire::Oom, victim_rss_pages: u32) -> OomContext {
    let in_cgroup = oom.cgroup_id != 0;
    let bytes = |pages: u64| in_cgroup.then(|| bytes_of(pages));
    OomContext {
        cgroup_id: in_cgroup.then_some(oom.cgroup_id),
        usage_bytes: bytes(oom.usage_pages),
        max_bytes: bytes(oom.max_pages),
        points: oom.points,
        chosen_pid: oom.chosen_tgid,
        demanded: oom.demanded != 0,
        victim_rss_bytes: (victim_rss_pages != 0).then(|| bytes_of(victim_rss_pages.into())),
        holders: Vec::new(),
    }
}

/// How the main process ended, once its last task has exited: what wait(2) reports
/// (`wait_task_zombie`, kernel/exit.c).
pub(super) fn main_status(main: &wire::Main) -> Option<WaitStatus> {
    if main.leader_exited == 0 || main.all_exited == 0 {
        None
    } else if main.signal_flags & wire::SIGNAL_GROUP_EXIT != 0 {
        Some(wait_status(main.group_exit_code))
    } else {
        Some(wait_status(main.leader_exit_code))
    }
}

/// Takes a wait(2) status apart: 0x7f of it are the signal, 0x80 the core dump, the next byte the
/// exit code.
pub(super) fn wait_status(status: u32) -> WaitStatus {
    match i32::try_from(status & 0x7f).unwrap_or_default() {
        0 => WaitStatus::Exited {
            code: i32::try_from(status >> 8 & 0xff).unwrap_or_default(),
        },
        signal => WaitStatus::Signaled {
            signal,
            core_dumped: status & 0x80 != 0,
        },
    }
}

fn bytes_of(pages: u64) -> u64 {
    pages.saturating_mul(crate::procfs::page_size())
}

/// A NUL-terminated name, as JSON can hold it.
pub fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    lossless(OsStr::from_bytes(text))
}

fn read<T: Pod>(bytes: &[u8], kind: u32) -> Result<T, DecodeError> {
    bytes
        .get(..size_of::<T>())
        .map(bytemuck::pod_read_unaligned)
        .ok_or(DecodeError::Short {
            kind,
            len: bytes.len(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_cut_short_anywhere_is_an_error() {
        let sizes = [
            size_of::<wire::BirthEvent>(),
            size_of::<wire::ExecEvent>(),
            size_of::<wire::ExitEvent>(),
            size_of::<wire::SignalEvent>(),
            size_of::<wire::ForkDeniedEvent>(),
            size_of::<wire::EscapeEvent>(),
            size_of::<wire::OomEvent>(),
        ];
        for (kind, size) in (1u32..).zip(sizes) {
            let header = wire::Header {
                kind,
                ..Default::default()
            };
            let mut bytes = bytemuck::bytes_of(&header).to_vec();
            bytes.resize(size, 0xff);
            assert!(event(&bytes).is_ok(), "kind {kind} whole");
            for len in 0..size {
                assert!(
                    event(&bytes[..len]).is_err(),
                    "kind {kind} with {len} bytes"
                );
            }
        }
    }

    #[test]
    fn a_name_that_is_no_utf8_keeps_its_bytes() {
        assert_eq!(text(b"gr\xf6n\0rest"), "gr\\xf6n");
        assert_eq!(text("grün\0".as_bytes()), "grün");
    }

    #[test]
    fn an_unknown_kind_is_named() {
        let header = wire::Header {
            kind: 77,
            ..Default::default()
        };
        assert_eq!(
            event(bytemuck::bytes_of(&header)),
            Err(DecodeError::UnknownKind(77))
        );
    }

    #[test]
    fn a_core_dump_is_told_from_its_signal() {
        assert_eq!(
            wait_status(0x8b),
            WaitStatus::Signaled {
                signal: 11,
                core_dumped: true
            }
        );
        assert_eq!(wait_status(42 << 8), WaitStatus::Exited { code: 42 });
    }

    #[test]
    fn arguments_are_taken_apart_and_a_cut_is_said() {
        let mut exec = wire::ExecEvent {
            argv_len: 9,
            argv_read: 9,
            ..bytemuck::Zeroable::zeroed()
        };
        exec.argv[..9].copy_from_slice(b"sh\0\0-c x\0");
        let words = ["sh", "", "-c x"].map(str::to_owned).to_vec();
        let whole = argv(&exec);
        assert_eq!(whole, Some(Argv { words, cut: false }));
        exec.argv_len = 700;
        exec.argv_read = 7;
        let words = ["sh", "", "-c "].map(str::to_owned).to_vec();
        assert_eq!(argv(&exec), Some(Argv { words, cut: true }));
        exec.argv_read = 0;
        assert_eq!(argv(&exec), None);
        exec.argv_read = u32::MAX;
        assert_eq!(argv(&exec), None);
    }

    #[test]
    fn ticks_divide_the_cpu_time_that_the_scheduler_counted() {
        let cpu = |user_ns, system_ns, runtime_ns| {
            let exit = wire::ExitEvent {
                user_ns,
                system_ns,
                runtime_ns,
                ..Default::default()
            };
            let cpu = CpuTime::of(&exit);
            (cpu.user_ns, cpu.system_ns)
        };
        assert_eq!(cpu(0, 0, 900), (900, 0));
        assert_eq!(cpu(3, 1, 1000), (750, 250));
        assert_eq!(cpu(0, 4, 10), (0, 10));
        assert_eq!(cpu(u64::MAX, u64::MAX, u64::MAX).0, u64::MAX / 2 + 1);
    }

    #[test]
    fn a_leader_that_left_before_its_threads_ends_with_the_groups_code() {
        let mut main = wire::Main {
            leader_exited: 1,
            all_exited: 0,
            ..Default::default()
        };
        assert_eq!(main_status(&main), None);
        main.all_exited = 1;
        main.group_exit_code = 7 << 8;
        assert_eq!(main_status(&main), Some(WaitStatus::Exited { code: 0 }));
        main.signal_flags = wire::SIGNAL_GROUP_EXIT;
        assert_eq!(main_status(&main), Some(WaitStatus::Exited { code: 7 }));
    }
}
