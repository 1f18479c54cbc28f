//! What holds for every record, whatever ended its run.
//!
//! Checked wherever a test reads a record, so that no test can forget to.

use serde_json::Value;

use crate::record::Record;

/// The longest that a note may get.
const NOTE_BYTES: usize = 500;
/// Longer than any test lets a run take.
const LONGEST_NS: i64 = 3_600_000_000_000;
const SOURCES: &[&str] = &[
    "default",
    "host",
    "metadata",
    "command_line",
    "update",
    "ceiling",
];
const LIMITS: &[&str] = &[
    "memory_bytes",
    "swap_bytes",
    "cpus",
    "pids",
    "walltime_ns",
    "cputime_ns",
];

/// Fails the test where a record contradicts itself, or says that something went wrong in a run that
/// nothing went wrong in.
#[track_caller]
pub(crate) fn assert_sound(record: &Record) {
    let found = flaws(record);
    assert!(found.is_empty(), "{}:\n{record}", found.join(", "));
    // That root may leave its cgroup, who would have ended the run in an emergency, how many signals found no
    // place, and which limits
    // somebody else set, make nothing less known.
    let harmless = |line: &Value| {
        line.as_str().is_some_and(|line| {
            line.contains("guardian")
                || line.contains("are not in kills")
                || line.contains("somebody changed")
                || record.at("/user/uid") == 0 && line.starts_with("runs as root")
        })
    };
    assert!(
        record.confidence() != "exact" || record.list("/tracing/degraded").iter().all(harmless),
        "exact, and degraded all the same:\n{record}"
    );
}

/// In what a record contradicts itself.
#[track_caller]
pub(crate) fn flaws(record: &Record) -> Vec<String> {
    let mut found = Vec::new();
    check_all(record, &mut |holds, what| {
        if !holds {
            found.push(what.to_owned());
        }
    });
    found
}

#[track_caller]
fn check_all(record: &Record, check: &mut dyn FnMut(bool, &str)) {
    check(record.number("/schema_version") == 1, "an unknown schema");
    check(
        record.text("/run_id").as_bytes().get(14) == Some(&b'7'),
        "run_id is no UUIDv7",
    );
    check_notes(record, check);
    check_times(record, check);
    check_exit(record, check);
    check_kills(record, check);

    let started = !record.at("/started_at").is_null();
    check(
        !started
            || record
                .text("/cgroup/path")
                .ends_with(record.text("/run_id")),
        "a run that started has a leaf of its own",
    );
    check(
        record.at("/cgroup").is_null() || record.at("/cleanup/removed") == true,
        "the leaf was not removed",
    );
    for limit in LIMITS {
        let source = record.text(&format!("/limits/{limit}/source"));
        check(SOURCES.contains(&source), "a limit of an unknown source");
        for field in ["requested", "effective", "enclosing"] {
            let _there = record.at(&format!("/limits/{limit}/{field}"));
        }
    }
    check(
        !record.list("/termination/evidence").is_empty(),
        "a verdict without evidence",
    );
    if record.confidence() == "exact" {
        let came = record.number("/processes/births") + record.number("/processes/joined");
        check(
            // Who left the leaf exits elsewhere.
            came == record.number("/processes/exits") || record.reason() == "escaped",
            "births and exits differ",
        );
    }
}

fn check_notes(record: &Record, check: &mut dyn FnMut(bool, &str)) {
    let notes = record.notes();
    check(!notes.is_empty(), "no notes");
    check(notes.len() <= NOTE_BYTES, "the notes are too long");
    check(
        !notes.chars().any(char::is_control),
        "the notes are no single clean line",
    );
}

fn check_times(record: &Record, check: &mut dyn FnMut(bool, &str)) {
    // RFC 3339 in UTC sorts as text once the Z is off, however many digits a second has.
    let date = |pointer: &str| {
        let date = record.at(pointer).as_str();
        date.map(|date| date.trim_end_matches('Z').to_owned())
    };
    let (accepted, started, ended) = (date("/accepted_at"), date("/started_at"), date("/ended_at"));
    check(
        accepted.is_some() && accepted <= ended,
        "it ended too early",
    );
    if started.is_some() {
        check(accepted <= started, "it started before it was asked for");
        check(started <= ended, "it ended before it started");
        let walltime = record.number("/walltime_ns");
        check((1..LONGEST_NS).contains(&walltime), "an odd walltime");
    }
}

fn check_exit(record: &Record, check: &mut dyn FnMut(bool, &str)) {
    let (code, signal) = (record.at("/exit/code"), record.at("/exit/signal"));
    let name = record.at("/exit/signal_name");
    check(code.is_null() || signal.is_null(), "exited and signalled");
    check(signal.is_null() == name.is_null(), "a signal without name");
    let may_be_unknown = record.at("/started_at").is_null();
    check(
        may_be_unknown || !code.is_null() || !signal.is_null(),
        "nobody knows how main ended",
    );
}

fn check_kills(record: &Record, check: &mut dyn FnMut(bool, &str)) {
    let positive = |kill: &Value, pointer: &str| {
        kill.pointer(pointer)
            .and_then(Value::as_i64)
            .is_some_and(|number| number > 0)
    };
    for kill in record.kills() {
        for field in ["/signal", "/victim/pid", "/victim/start_time"] {
            check(positive(kill, field), "a kill without signal or victim");
        }
        let is_oom = kill.pointer("/cause").is_some_and(|cause| cause == "oom");
        let context = kill.pointer("/oom").is_some_and(|oom| !oom.is_null());
        check(
            is_oom == context,
            "an OOM kill has its context, others none",
        );
    }
    for finding in record.list("/termination/evidence") {
        if let Some(kill) = finding.pointer("/kill").and_then(Value::as_u64) {
            let count = record.kills().len() as u64;
            check(kill < count, "evidence that is not in kills");
        }
    }
}
