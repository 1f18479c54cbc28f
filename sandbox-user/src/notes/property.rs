//! Whatever a record holds, its note names nothing else. (That it is one line of at most 500 bytes,
//! fit to print, is tested with the verdict, in `attribution::property`.)
//!
//! Numbers are what a reader acts on: every pid, uid, signal, size, time and count in a note has to
//! stand in the record, as it is or in the words for it.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::errno::Errno;
use proptest::prelude::*;
use serde_json::Value;

use super::units::{format_bytes, format_bytes_precise, format_duration};
use crate::attribution::property::any_case;
use crate::escape::escape_untrusted;
use crate::record::{Finding, RunRecord, signal_name};

/// The runs of digits in a text. One that an ellipsis cuts off is left out: it may be half of one.
fn numbers(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let run = &rest[start..];
        let end = run.find(|c: char| !c.is_ascii_digit()).unwrap_or(run.len());
        if !run[end..].starts_with('…') {
            found.insert(run[..end].to_owned());
        }
        rest = &run[end..];
    }
    found
}

/// What follows each `mark` in a note, as far as it is a number.
fn numbers_after(note: &str, mark: &str) -> Vec<u32> {
    let after = note.split(mark).skip(1);
    let digits = after.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    digits.filter_map(|digits| digits?.parse().ok()).collect()
}

/// Every number that a note on this record may show.
fn numbers_held(record: &RunRecord) -> BTreeSet<String> {
    let mut record = record.clone();
    record.completion_notes.clear();
    let mut held = BTreeSet::new();
    // `and 2 more`: of what the record lists.
    held.extend((1..=record.kills.len().max(record.escaped.len())).map(|more| more.to_string()));
    collect(
        &serde_json::to_value(&record).expect("a record is JSON"),
        &mut held,
    );
    for finding in &record.termination.evidence {
        if let Finding::SetupFailure {
            errno: Some(errno), ..
        } = finding
        {
            held.extend(numbers(Errno::from_raw(*errno).desc()));
        }
    }
    held
}

fn collect(value: &Value, held: &mut BTreeSet<String>) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => {
            held.extend(numbers(&number.to_string()));
            if let Some(number) = number.as_u64() {
                held.extend(numbers(&format_bytes(number)));
                held.extend(numbers(&format_bytes_precise(number)));
                held.extend(numbers(&format_duration(Duration::from_nanos(number))));
                held.extend(numbers(&format_duration(Duration::from_secs(number))));
                if let Ok(signal) = i32::try_from(number) {
                    held.extend(numbers(&signal_name(signal)));
                }
            }
        }
        Value::String(text) => held.extend(numbers(&escape_untrusted(text))),
        Value::Array(values) => values.iter().for_each(|value| collect(value, held)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, held)),
    }
}

fn pids_held(record: &RunRecord) -> BTreeSet<u32> {
    let kills = record.kills.iter().flat_map(|kill| {
        let sender = kill.sender.as_ref().and_then(|sender| sender.pid);
        [Some(kill.victim.pid), sender]
    });
    let escaped = record.escaped.iter().map(|escaped| Some(escaped.pid));
    kills.chain(escaped).flatten().collect()
}

fn signals_held(record: &RunRecord) -> BTreeSet<String> {
    let kills = record.kills.iter().map(|kill| kill.signal);
    let evidence = record.termination.evidence.iter().filter_map(|finding| {
        if let Finding::OwnAction { signal, .. } = finding {
            *signal
        } else {
            None
        }
    });
    let signals = kills.chain(evidence).chain(record.exit.signal);
    signals.map(signal_name).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_note_names_only_what_the_record_holds(case in any_case()) {
        let record = case.record();
        let note = &record.completion_notes;
        let (shown, held) = (numbers(note), numbers_held(&record));
        prop_assert!(shown.is_subset(&held), "{:?} of {note}", shown.difference(&held));
        let pids = pids_held(&record);
        for pid in numbers_after(note, "(pid ") {
            prop_assert!(pids.contains(&pid), "pid {pid}: {note}");
        }
        let signals = signals_held(&record);
        for word in note.split(|c: char| !(c.is_ascii_alphanumeric() || c == '+')) {
            if word.starts_with("SIG") {
                prop_assert!(signals.contains(word), "{word}: {note}");
            }
        }
    }
}
