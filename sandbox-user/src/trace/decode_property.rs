//! Any bytes of a ring are an event or an error, and an event says what its bytes say.
//!
//! How many bytes a kind has is asked of the decoder itself, so that a kind that is new is tested
//! too; which fields it reads is tested for each kind against the record of `sandbox-ebpf`.

use bytemuck::Pod;
use proptest::collection::vec;
use proptest::prelude::*;
use sandbox_ebpf as wire;

use super::decode::{self, DecodeError, Event, EventKind, text, wait_status};
use crate::evidence::Process;

const HEAD: usize = size_of::<wire::Header>();
/// More than any event has.
const MOST: usize = 1024;

fn with_kind(mut bytes: Vec<u8>, kind: u32) -> Vec<u8> {
    bytes.resize(bytes.len().max(HEAD), 0);
    let at = std::mem::offset_of!(wire::Header, kind);
    bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
    bytes
}

/// How many bytes an event of this kind has; `None` where there is no such kind.
fn size_of_kind(kind: u32) -> Option<usize> {
    (HEAD..=MOST).find(|len| decode::event(&with_kind(vec![0; *len], kind)).is_ok())
}

/// A whole event of this kind, of arbitrary bytes, and what the decoder makes of it.
fn whole<T: Pod + std::fmt::Debug>(kind: wire::EventKind) -> impl Strategy<Value = (T, Event)> {
    vec(any::<u8>(), size_of::<T>()).prop_map(move |bytes| {
        let bytes = with_kind(bytes, kind as u32);
        let event = decode::event(&bytes).expect("a whole event");
        (bytemuck::pod_read_unaligned(&bytes), event)
    })
}

fn is_of(process: &Process, task: &wire::Task) -> bool {
    process.pid == task.tgid
        && process.tid == task.pid
        && process.start_time_ns == task.start_time_ns
        && process.cgroup_id == task.cgroup_id
        && process.uid.unwrap_or(u32::MAX) == task.uid
        && process.comm == text(&task.comm)
}

fn head_is(event: &Event, head: &wire::Header) -> bool {
    (event.seq, event.at_ns, event.cgroup_id) == (head.seq, head.at_ns, head.cgroup_id)
}

#[test]
fn the_kinds_are_numbered_from_one_without_a_gap() {
    let kinds: Vec<u32> = (0..64)
        .filter(|kind| size_of_kind(*kind).is_some())
        .collect();
    assert!(kinds.len() >= 7, "{kinds:?}");
    assert!(
        (1..).zip(&kinds).all(|(place, kind)| place == *kind),
        "{kinds:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes_are_an_event_or_the_right_error(
        kind in prop_oneof![0..16_u32, any::<u32>()],
        bytes in vec(any::<u8>(), 0..MOST),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = with_kind(bytes, kind);
        let len = cut.index(bytes.len() + 1);
        let expected = match size_of_kind(kind) {
            _ if len < HEAD => Some(DecodeError::Short { kind: 0, len }),
            None => Some(DecodeError::UnknownKind(kind)),
            Some(size) if len < size => Some(DecodeError::Short { kind, len }),
            Some(_) => None,
        };
        prop_assert_eq!(decode::event(&bytes[..len]).err(), expected);
    }

    #[test]
    fn what_follows_an_event_does_not_change_it(
        kind in 1..=7_u32,
        bytes in vec(any::<u8>(), MOST),
    ) {
        let bytes = with_kind(bytes, kind);
        let size = size_of_kind(kind).expect("a known kind");
        prop_assert_eq!(decode::event(&bytes), decode::event(&bytes[..size]));
    }

    #[test]
    fn a_birth_names_child_and_parent(
        (wire, event) in whole::<wire::BirthEvent>(wire::EventKind::Birth)
    ) {
        let EventKind::Birth { child, parent, .. } = &event.kind else {
            return Err(TestCaseError::fail(format!("{event:?}")));
        };
        prop_assert!(head_is(&event, &wire.header));
        prop_assert!(is_of(child, &wire.child) && is_of(parent, &wire.parent), "{event:?}");
    }

    #[test]
    fn an_exec_names_what_was_executed(
        (wire, event) in whole::<wire::ExecEvent>(wire::EventKind::Exec)
    ) {
        let EventKind::Exec { process, old_tid, filename, argv, .. } = &event.kind else {
            return Err(TestCaseError::fail(format!("{event:?}")));
        };
        prop_assert!(head_is(&event, &wire.header) && is_of(process, &wire.task), "{event:?}");
        prop_assert_eq!((*old_tid, filename), (wire.old_pid, &text(&wire.filename)));
        let read = (1..=wire.argv.len() as u64).contains(&u64::from(wire.argv_read));
        prop_assert_eq!(argv.is_some(), read);
        if let Some(argv) = argv {
            prop_assert_eq!(argv.cut, wire.argv_len > u64::from(wire.argv_read));
        }
    }

    #[test]
    fn an_exit_has_its_status_and_figures(
        (wire, event) in whole::<wire::ExitEvent>(wire::EventKind::Exit)
    ) {
        let EventKind::Exit { process, status, group_status, live, max_rss_bytes, cpu } = &event.kind
        else {
            return Err(TestCaseError::fail(format!("{event:?}")));
        };
        prop_assert!(head_is(&event, &wire.header) && is_of(process, &wire.task), "{event:?}");
        prop_assert_eq!(*status, wait_status(wire.exit_code));
        let as_a_whole = wire.signal_flags & wire::SIGNAL_GROUP_EXIT != 0;
        prop_assert_eq!(*group_status, as_a_whole.then(|| wait_status(wire.group_exit_code)));
        prop_assert_eq!(*live, wire.live);
        prop_assert_eq!(max_rss_bytes.is_some(), wire.live == 0);
        prop_assert_eq!(cpu.user_ns + cpu.system_ns, wire.runtime_ns);
    }

    #[test]
    fn a_signal_names_sender_and_victim_and_claims_no_flag_that_is_not_set(
        (wire, event) in whole::<wire::SignalEvent>(wire::EventKind::Signal)
    ) {
        let EventKind::Signal(signal) = &event.kind else {
            return Err(TestCaseError::fail(format!("{event:?}")));
        };
        let kill = &wire.kill;
        let has = |flag| kill.flags & flag != 0;
        prop_assert!(head_is(&event, &wire.header));
        prop_assert!(is_of(&signal.sender, &kill.sender) && is_of(&signal.victim, &kill.victim));
        prop_assert_eq!((signal.at_ns, signal.signal), (kill.at_ns, kill.signal));
        prop_assert_eq!(signal.oom.is_some(), has(wire::KILL_IN_OOM));
        prop_assert_eq!(signal.cgroup_kill.is_some(), has(wire::KILL_IN_CGROUP_KILL));
        prop_assert_eq!(signal.victim_is_main, has(wire::KILL_OF_MAIN));
        prop_assert_eq!(signal.sender_in_leaf, has(wire::KILL_SENDER_IN_LEAF));
        prop_assert_eq!(signal.sender_exiting, has(wire::KILL_SENDER_EXITING));
        prop_assert_eq!(signal.target_new, has(wire::KILL_TARGET_NEW));
        prop_assert_eq!(signal.behind_another, has(wire::KILL_BEHIND_ANOTHER));
        prop_assert_eq!(signal.by_sigqueue, has(wire::KILL_BY_SIGQUEUE));
        prop_assert_eq!(signal.injected, has(wire::KILL_INJECTED));
        let limit = signal.cpu_limit_s.unwrap_or(0);
        prop_assert!(limit == kill.cpu_limit_s || kill.cpu_limit_s == u64::MAX);
        if let Some(oom) = &signal.oom {
            prop_assert_eq!(oom.demanded, kill.oom.demanded != 0);
        }
    }

    #[test]
    fn a_denied_fork_and_an_escape_name_the_task(
        (denied, denial) in whole::<wire::ForkDeniedEvent>(wire::EventKind::ForkDenied),
        (escaped, escape) in whole::<wire::EscapeEvent>(wire::EventKind::Escape),
    ) {
        let EventKind::ForkDenied { process, limiting_cgroup_id, .. } = &denial.kind else {
            return Err(TestCaseError::fail(format!("{denial:?}")));
        };
        prop_assert!(head_is(&denial, &denied.header) && is_of(process, &denied.task));
        prop_assert_eq!(limiting_cgroup_id.unwrap_or(0), denied.limiting_cgroup_id);
        let EventKind::Escape { process, .. } = &escape.kind else {
            return Err(TestCaseError::fail(format!("{escape:?}")));
        };
        prop_assert!(head_is(&escape, &escaped.header) && is_of(process, &escaped.task));
    }

    #[test]
    fn an_oom_names_who_asked_who_was_chosen_and_whose_memory_ran_out(
        (wire, event) in whole::<wire::OomEvent>(wire::EventKind::Oom)
    ) {
        let EventKind::Oom { trigger, chosen, oom } = &event.kind else {
            return Err(TestCaseError::fail(format!("{event:?}")));
        };
        prop_assert!(head_is(&event, &wire.header));
        prop_assert!(is_of(trigger, &wire.trigger) && is_of(chosen, &wire.chosen), "{event:?}");
        prop_assert_eq!(oom.cgroup_id.unwrap_or(0), wire.oom.cgroup_id);
        prop_assert_eq!(oom.usage_bytes.is_some(), wire.oom.cgroup_id != 0);
    }

    #[test]
    fn a_wait_status_is_taken_apart_into_one_that_can_be(status: u32) {
        let (code, signal) = match wait_status(status) {
            crate::evidence::WaitStatus::Exited { code } => (code, 0),
            crate::evidence::WaitStatus::Signaled { signal, .. } => (0, signal),
        };
        prop_assert!((0..256).contains(&code) && (0..128).contains(&signal), "{code} {signal}");
    }
}
