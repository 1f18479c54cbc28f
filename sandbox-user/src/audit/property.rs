//! Any one edit of a log is found, and a log that nobody edited is whole; whatever an entry says fits in a
//! line, and any file can be verified.

use std::time::Duration;

use jiff::Timestamp;
use proptest::{collection::vec, option::of, prelude::*, sample::Index};

use super::{
    Event, Excerpt, Head, Order, Words,
    chain::Chain,
    event::MAX_LINE_BYTES,
    finding::Witness,
    tests::Memory,
    verify::{Known, Report, verify},
};
use crate::{attribution::case::Case, spec::RunId};

/// Texts of the kinds that make JSON long.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        Just("\u{1}".repeat(5000)),
        Just("é\\\"".repeat(2000)),
        Just(String::new())
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let command = prop_oneof![
        vec(text(), 0..4),
        Just(vec![String::new(); 10_000]),
        Just(vec!["\u{1}".to_owned(); 10_000]),
    ];
    let run_id = any::<u128>().prop_map(RunId::from_u128);
    let what = (
        run_id,
        any::<u32>(),
        any::<i32>(),
        text(),
        of(text()),
        command,
    );
    (what, 0..7).prop_map(|((run_id, uid, pid, text, other, command), kind)| {
        let long = Excerpt::from(text.as_str());
        let other = other.as_deref().map(Excerpt::from);
        match kind {
            0 => Event::Accepted {
                run_id,
                uid,
                pid,
                user: other,
                command: Words::from(command.as_slice()),
                config_sha256: None,
            },
            1 => Event::Refused {
                uid,
                pid,
                what: long.clone(),
                reason: long,
            },
            2 => Event::Ordered {
                uid,
                pid,
                run_id,
                order: Order::Update,
                detail: other,
            },
            3 => Event::Lost {
                run_id,
                notes: long,
            },
            4 => Event::Declined {
                uid,
                pid,
                run_id,
                order: Order::Update,
                detail: other,
                reason: long,
            },
            5 => Event::ServiceStarted {
                version: long.clone(),
                boot_id: long,
                config_sha256: None,
            },
            _ => {
                let mut record = Case::named("exits").exits(3).record();
                record.completion_notes = text.clone();
                Event::ended(&record, text.as_bytes())
            }
        }
    })
}

/// A log with these entries, as it is in its file.
fn log(events: &[Event]) -> (Vec<u8>, Option<Head>) {
    let mut memory = Memory::default();
    let mut chain = Chain::behind(&mut memory, None);
    for event in events {
        chain
            .append(event, Timestamp::UNIX_EPOCH)
            .expect("appended");
    }
    let head = chain.head();
    (memory.bytes, head)
}

fn verified(log: &[u8], head: Option<Head>) -> Report {
    let known = head.map(|head| Known {
        head,
        witness: Witness::CommandLine,
    });
    verify(log, known.into_iter().collect(), Duration::ZERO).expect("memory is read")
}

/// What somebody may do to a log.
#[derive(Clone, Debug)]
enum Edit {
    Byte(Index, u8),
    InsertedByte(Index, u8),
    RemovedByte(Index),
    Removed(Index),
    Swapped(Index, Index),
    Moved(Index, Index),
    Repeated(Index),
    Cut(Index),
    CutBehind(Index),
    Begun(Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let index = any::<Index>;
    let byte = || prop_oneof![any::<u8>(), Just(b'\n'), b'0'..=b'9', Just(b' ')];
    prop_oneof![
        (index(), byte()).prop_map(|(at, byte)| Edit::Byte(at, byte)),
        (index(), byte()).prop_map(|(at, byte)| Edit::InsertedByte(at, byte)),
        index().prop_map(Edit::RemovedByte),
        index().prop_map(Edit::Removed),
        (index(), index()).prop_map(|(one, other)| Edit::Swapped(one, other)),
        (index(), index()).prop_map(|(one, other)| Edit::Moved(one, other)),
        index().prop_map(Edit::Repeated),
        index().prop_map(Edit::Cut),
        index().prop_map(Edit::CutBehind),
        index().prop_map(Edit::Begun),
    ]
}

fn edited(log: &[u8], edit: &Edit) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
    let count = lines.len();
    match edit {
        Edit::Byte(at, byte) => {
            let mut log = log.to_vec();
            let at = at.index(log.len());
            log[at] = *byte;
            return log;
        }
        Edit::InsertedByte(at, byte) => {
            let mut log = log.to_vec();
            log.insert(at.index(log.len() + 1), *byte);
            return log;
        }
        Edit::RemovedByte(at) => {
            let mut log = log.to_vec();
            log.remove(at.index(log.len()));
            return log;
        }
        Edit::Cut(at) => return log[..at.index(log.len())].to_vec(),
        Edit::Removed(at) => drop(lines.remove(at.index(count))),
        Edit::Swapped(one, other) => lines.swap(one.index(count), other.index(count)),
        Edit::Moved(from, to) => {
            let line = lines.remove(from.index(count));
            lines.insert(to.index(count), line);
        }
        Edit::Repeated(at) => {
            let at = at.index(count);
            lines.insert(at, lines[at]);
        }
        Edit::CutBehind(at) => lines.truncate(at.index(count)),
        Edit::Begun(at) => drop(lines.drain(..=at.index(count))),
    }
    lines.concat()
}

/// Whether all lines but the last are as they were, which nothing but the head tells from an untouched log.
fn only_end_differs(log: &[u8], edited: &[u8]) -> bool {
    let last = log.len() - 1;
    let before_last = log[..last]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |newline| newline + 1);
    let before = &log[..before_last];
    edited.starts_with(before) || before.starts_with(edited)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_log_that_nobody_touched_is_whole(events in vec(event(), 0..6)) {
        let (log, head) = log(&events);
        for known in [None, head] {
            let report = verified(&log, known);
            prop_assert_eq!(&report.findings, &[]);
            prop_assert_eq!((report.head, report.entries), (head, events.len() as u64));
        }
    }

    #[test]
    fn whatever_an_entry_says_fits_in_a_line(event in event()) {
        let (log, _) = log(&[event]);
        prop_assert!(log.len() < MAX_LINE_BYTES, "{} bytes", log.len());
    }

    #[test]
    fn any_file_can_be_verified(log in vec(any::<u8>(), 0..200), head in any::<u64>()) {
        let head = Head { seq: head.max(1), hash: super::Hash::ZERO };
        let report = verified(&log, Some(head));
        prop_assert!(!report.findings.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_one_edit_is_found(kinds in vec(0..3_u8, 1..8), edit in edit()) {
        let events: Vec<Event> = kinds.iter().map(|kind| super::tests::event(*kind)).collect();
        let (log, head) = log(&events);
        let edited = edited(&log, &edit);
        prop_assume!(edited != log);
        let report = verified(&edited, head);
        prop_assert!(!report.findings.is_empty(), "{:?}", String::from_utf8_lossy(&edited));
        if !only_end_differs(&log, &edited) {
            let report = verified(&edited, None);
            prop_assert!(!report.findings.is_empty(), "without the head: {:?}", String::from_utf8_lossy(&edited));
        }
    }
}
