//! Who was in the run, as the event stream tells it: names, programs, parents, ends, use.
//!
//! Detail only: verdicts rest on the maps. Bounded: beyond [`MOST`] processes those that have ended are
//! let go of, unless a signal that could be fatal names them; beyond [`MOST_AT_ONCE`] those too.

use std::collections::HashMap;

use crate::{
    evidence::{ClockAnchor, Process, Signal, WaitStatus},
    record::{Exit, ProcessNode},
    trace::{Argv, CpuTime, Event, EventKind},
};

/// How many processes the tree holds.
const MOST: usize = 1024;
/// How many are remembered at once, the living included.
const MOST_AT_ONCE: usize = 8 * MOST;

/// The processes of one run.
#[derive(Debug, Default)]
pub(super) struct ProcessTable {
    members: HashMap<Key, Member>,
}

/// Pid and start time.
type Key = (u32, u64);

/// One process.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) process: Process,
    parent: Option<Key>,
    /// What it executed, and with which arguments.
    argv: Option<Argv>,
    pub(super) born_at_ns: Option<u64>,
    pub(super) ended_at_ns: Option<u64>,
    status: Option<WaitStatus>,
    /// Its tasks that were seen to be born and not seen to exit.
    tasks: u64,
    cpu: CpuTime,
    /// Of what it held at most, what was before its last exec.
    max_rss_before_bytes: u64,
    /// What it held at most since then.
    pub(super) max_rss_bytes: Option<u64>,
    /// What it held when memory ran out, as it was read then.
    pub(super) looks: Vec<Look>,
    named: Named,
}

/// What a process held at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Its resident memory.
    pub(super) rss_bytes: u64,
    /// When.
    pub(super) at_ns: u64,
}

/// Whether a signal names a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    BySignal,
    Nowhere,
}

impl Member {
    fn new(process: &Process) -> Self {
        Self {
            process: process.clone(),
            parent: None,
            argv: None,
            born_at_ns: None,
            ended_at_ns: None,
            status: None,
            tasks: 1,
            cpu: CpuTime::default(),
            max_rss_before_bytes: 0,
            max_rss_bytes: None,
            looks: Vec::new(),
            named: Named::Nowhere,
        }
    }

    /// Whether none of its tasks is left.
    pub(super) const fn has_ended(&self) -> bool {
        self.ended_at_ns.is_some() && self.tasks == 0
    }

    fn node(&self, clock: &ClockAnchor) -> ProcessNode {
        let ended = self.ended_at_ns.is_some();
        let us = |ns: u64| ended.then_some(ns / 1000);
        ProcessNode {
            pid: self.process.pid,
            start_time: self.process.start_time_ns,
            parent_pid: self.parent.map(|(pid, _)| pid),
            parent_start_time: self.parent.map(|(_, start_time)| start_time),
            comm: self.process.comm.clone(),
            exe: self.process.exe.clone(),
            argv: self.argv.as_ref().map(|argv| argv.words.clone()),
            argv_cut: self.argv.as_ref().map(|argv| argv.cut),
            born_at: self.born_at_ns.map(|at_ns| clock.date(at_ns)),
            ended_at: self.ended_at_ns.map(|at_ns| clock.date(at_ns)),
            exit: match self.status {
                Some(status) if ended => Exit::from(status),
                Some(_) | None => Exit::default(),
            },
            cpu_user_us: us(self.cpu.user_ns),
            cpu_system_us: us(self.cpu.system_ns),
            max_rss_bytes: self.max_rss_bytes,
        }
    }
}

impl ProcessTable {
    /// Takes in an event; they come in their order.
    pub(super) fn take(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Birth { child, parent } => {
                if child.pid == child.tid {
                    self.birth(child, parent, event.at_ns);
                } else if let Some(member) = self.members.get_mut(&key(child)) {
                    member.tasks += 1;
                }
            }
            EventKind::Exec {
                process,
                filename,
                argv,
                max_rss_before_bytes,
                ..
            } => {
                if let Some(member) = self.member(process) {
                    member.process.comm.clone_from(&process.comm);
                    member.process.exe = Some(filename.clone());
                    member.argv.clone_from(argv);
                    member.max_rss_before_bytes = *max_rss_before_bytes;
                    // A leader that a thread's exec replaced has ended; the process has not.
                    member.status = None;
                }
            }
            EventKind::Exit {
                process,
                status,
                group_status,
                live,
                max_rss_bytes,
                cpu,
            } => {
                if let Some(member) = self.member(process) {
                    member.tasks = member.tasks.saturating_sub(1);
                    member.cpu.user_ns = member.cpu.user_ns.saturating_add(cpu.user_ns);
                    member.cpu.system_ns = member.cpu.system_ns.saturating_add(cpu.system_ns);
                    if process.pid == process.tid {
                        member.process.comm.clone_from(&process.comm);
                        member.status = Some(*status);
                    }
                    // As wait(2) has it: the group's end, else the leader's.
                    member.status = group_status.or(member.status);
                    // True of the last one, and of others that exit at the same time.
                    if *live == 0 {
                        member.ended_at_ns = Some(event.at_ns);
                        // The kernel keeps one maximum over all execs, and a process that was
                        // started by vfork(2) begins with its parent's.
                        let more =
                            max_rss_bytes.filter(|bytes| *bytes > member.max_rss_before_bytes);
                        member.max_rss_bytes = member.max_rss_bytes.max(more);
                    }
                }
            }
            EventKind::Signal(signal) => {
                if let Some(member) = self.members.get_mut(&key(&signal.victim)) {
                    member.named = Named::BySignal;
                }
            }
            EventKind::ForkDenied { .. } | EventKind::Escape { .. } | EventKind::Oom { .. } => {}
        }
    }

    fn birth(&mut self, child: &Process, parent: &Process, at_ns: u64) {
        let inherited = self
            .members
            .get(&key(parent))
            .map(|parent| (parent.process.exe.clone(), parent.argv.clone()));
        if let Some(member) = self.member(child) {
            member.parent = Some(key(parent));
            member.born_at_ns = Some(at_ns);
            if let Some((exe, argv)) = inherited {
                member.process.exe = exe;
                member.argv = argv;
            }
        }
    }

    /// The member that a process is, known or not; `None` where there is no room.
    fn member(&mut self, process: &Process) -> Option<&mut Member> {
        let key = key(process);
        if self.members.len() >= MOST_AT_ONCE && !self.members.contains_key(&key) {
            self.let_go_of_the_earliest();
            if self.members.len() >= MOST_AT_ONCE {
                return None;
            }
        }
        Some(
            self.members
                .entry(key)
                .or_insert_with(|| Member::new(process)),
        )
    }

    /// Lets go of a process whose end was taken in, where there are more than the tree will hold.
    pub(super) fn let_go(&mut self, event: &Event) {
        let EventKind::Exit {
            process, live: 0, ..
        } = &event.kind
        else {
            return;
        };
        let key = key(process);
        let is_over = |member: &Member| member.has_ended() && member.named == Named::Nowhere;
        if self.members.len() > MOST && self.members.get(&key).is_some_and(is_over) {
            self.members.remove(&key);
        }
    }

    /// Lets go of half of those that have ended, so that this is not done for each one that is born.
    fn let_go_of_the_earliest(&mut self) {
        let ended = self.members.iter().filter(|(_, member)| member.has_ended());
        let mut ended: Vec<(Option<u64>, Key)> = ended
            .map(|(key, member)| (member.ended_at_ns, *key))
            .collect();
        ended.sort_unstable();
        for (_, key) in &ended[..ended.len().div_ceil(2)] {
            self.members.remove(key);
        }
    }

    /// Adds what is known of the programs to the signals' senders and victims.
    pub(super) fn name(&self, signals: &mut [Signal]) {
        for signal in signals {
            for process in [&mut signal.sender, &mut signal.victim] {
                process.exe = self
                    .members
                    .get(&key(process))
                    .and_then(|member| member.process.exe.clone());
            }
        }
    }

    /// What is known of a process.
    pub(super) fn get(&self, process: &Process) -> Option<&Member> {
        self.members.get(&key(process))
    }

    /// All of them.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Those that live, to be looked at.
    pub(super) fn living(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members
            .values_mut()
            .filter(|member| member.ended_at_ns.is_none())
    }

    /// The tree, by birth.
    pub(super) fn tree(&self, clock: &ClockAnchor) -> Vec<ProcessNode> {
        let mut members: Vec<&Member> = self.members.values().collect();
        members.sort_by_key(|member| (member.process.start_time_ns, member.process.pid));
        let tree = members.into_iter().take(MOST);
        tree.map(|member| member.node(clock)).collect()
    }
}

pub(super) const fn key(process: &Process) -> Key {
    (process.pid, process.start_time_ns)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const CLOCK: ClockAnchor = ClockAnchor {
        monotonic_ns: 0,
        wall: Timestamp::UNIX_EPOCH,
    };

    fn task(pid: u32, tid: u32) -> Process {
        Process {
            pid,
            start_time_ns: u64::from(pid),
            tid,
            comm: format!("c{tid}"),
            exe: None,
            uid: None,
            cgroup_id: 1,
        }
    }

    fn event(kind: EventKind) -> Event {
        Event {
            seq: 0,
            at_ns: 5,
            cgroup_id: 1,
            kind,
        }
    }

    fn birth(pid: u32, tid: u32, parent: u32) -> Event {
        event(EventKind::Birth {
            child: task(pid, tid),
            parent: task(parent, parent),
        })
    }

    fn exec(pid: u32, max_rss_before_bytes: u64) -> Event {
        event(EventKind::Exec {
            process: task(pid, pid),
            old_tid: pid,
            filename: "/bin/x".to_owned(),
            argv: None,
            max_rss_before_bytes,
        })
    }

    fn exit(pid: u32, tid: u32, status: i32, group: Option<i32>, live: u32, rss: u64) -> Event {
        let exited = |code| WaitStatus::Exited { code };
        event(EventKind::Exit {
            process: task(pid, tid),
            status: exited(status),
            group_status: group.map(exited),
            live,
            max_rss_bytes: (live == 0).then_some(rss),
            cpu: CpuTime {
                user_ns: 1000,
                system_ns: 2000,
            },
        })
    }

    fn tree(events: &[Event]) -> Vec<ProcessNode> {
        let mut table = ProcessTable::default();
        for event in events {
            table.take(event);
            table.let_go(event);
        }
        table.tree(&CLOCK)
    }

    #[test]
    fn a_leader_that_goes_first_ends_as_its_group_does() {
        let tree = tree(&[
            birth(7, 7, 1),
            birth(7, 8, 7),
            exit(7, 7, 0, None, 1, 0),
            exit(7, 8, 3, Some(3), 0, 900),
        ]);
        let [node] = &tree[..] else {
            panic!("one process, two threads: {tree:?}");
        };
        assert_eq!((node.exit.code, node.parent_pid), (Some(3), Some(1)));
        assert_eq!(
            (node.cpu_user_us, node.cpu_system_us),
            (Some(2), Some(4)),
            "of both"
        );
        assert_eq!(node.max_rss_bytes, Some(900));
    }

    #[test]
    fn a_thread_that_goes_last_by_itself_leaves_the_leaders_status() {
        let tree = tree(&[
            birth(7, 7, 1),
            birth(7, 8, 7),
            exit(7, 7, 4, None, 1, 0),
            exit(7, 8, 9, None, 0, 0),
        ]);
        assert_eq!(tree[0].exit.code, Some(4));
    }

    #[test]
    fn a_leader_replaced_by_its_threads_exec_has_not_ended_the_process() {
        let tree = tree(&[
            birth(7, 7, 1),
            birth(7, 8, 7),
            exit(7, 7, 9, None, 1, 0),
            exec(7, 0),
        ]);
        assert_eq!((tree[0].exit.code, tree[0].ended_at), (None, None));
        assert_eq!(tree[0].exe.as_deref(), Some("/bin/x"));
    }

    #[test]
    fn memory_from_before_an_exec_is_not_the_programs() {
        let of = |rss| {
            let tree = tree(&[birth(7, 7, 1), exec(7, 500), exit(7, 7, 0, None, 0, rss)]);
            tree[0].max_rss_bytes
        };
        assert_eq!(of(500), None, "it never was more than before");
        assert_eq!(of(501), Some(501));
    }

    #[test]
    fn the_tree_is_bounded_and_keeps_who_lives_and_whom_a_signal_names() {
        let most = u32::try_from(MOST).expect("a small number");
        let mut table = ProcessTable::default();
        table.take(&birth(1, 1, 0));
        for pid in 2..4 * most {
            for event in [birth(pid, pid, 1), exit(pid, pid, 0, None, 0, 0)] {
                table.take(&event);
                table.let_go(&event);
            }
        }
        assert!(table.members().count() <= MOST + 1);
        assert!(table.members().any(|member| member.process.pid == 1));
        assert_eq!(table.tree(&CLOCK).len(), MOST);
    }

    #[test]
    fn there_is_room_for_who_comes_however_many_were_named() {
        let most = u32::try_from(MOST_AT_ONCE).expect("a small number");
        let mut table = ProcessTable::default();
        table.take(&birth(1, 1, 0));
        for pid in 2..2 * most {
            let event = birth(pid, pid, 1);
            table.take(&event);
            let EventKind::Birth { child, .. } = &event.kind else {
                panic!("a birth");
            };
            table.member(child).expect("there is room").named = Named::BySignal;
            let event = exit(pid, pid, 0, None, 0, 0);
            table.take(&event);
            table.let_go(&event);
        }
        assert!(table.members().count() <= MOST_AT_ONCE);
        for pid in [1, 2 * most - 1] {
            assert!(
                table.members().any(|member| member.process.pid == pid),
                "{pid}"
            );
        }
    }

    #[test]
    fn whoever_was_born_unseen_has_no_parent() {
        let tree = tree(&[exit(7, 7, 2, Some(2), 0, 0)]);
        assert_eq!((tree[0].parent_pid, tree[0].born_at), (None, None));
        assert_eq!(tree[0].exit.code, Some(2));
    }
}
