//! One whole record as it is written, the exit status of each kind of run, and the way back.

use nix::libc::{EACCES, ENOENT, ENOMEM, SIGHUP, SIGINT, SIGKILL, SIGSEGV, SIGTERM};
use serde_json::Value;

use super::{RunRecord, exit_status, signal_name};
use crate::attribution::case::{Case, Kill, LEAF};
use crate::evidence::{IntentReason, SetupFailureKind};

fn memory() -> RunRecord {
    let mut case = Case::named("own limit")
        .dies_at(192_000, SIGKILL)
        .with(Kill::oom(false, Some(LEAF)).at(191_990))
        .with(Kill::oom(true, Some(LEAF)).at(191_991))
        .counts_own_oom()
        .knows_tree();
    case.evidence.signals[0].victim.exe = Some("/usr/bin/python3".to_owned());
    case.record()
}

#[test]
fn a_whole_record_reads_like_this() {
    let written = serde_json::to_string_pretty(&memory()).expect("a record is JSON");
    assert_eq!(
        written,
        include_str!("snapshot.json").trim_end(),
        "{written}"
    );
}

#[test]
fn a_record_is_read_back_as_it_was() {
    for case in [
        Case::named("completed"),
        Case::named("nobody watching").dies_of(SIGSEGV).inferred(),
        Case::named("escaped").loses("x", 1),
        Case::named("unseen").unseen_end(),
    ] {
        let record = case.record();
        let json = serde_json::to_string(&record).expect("a record is JSON");
        let back: RunRecord = serde_json::from_str(&json).expect("and is read back");
        assert_eq!(back, record);
    }
}

#[test]
fn what_is_not_known_is_null_and_never_absent() {
    let record = Case::named("nobody watching")
        .unseen_end()
        .inferred()
        .record();
    let json = serde_json::to_value(&record).expect("a record is JSON");
    for pointer in [
        "/retry_of",
        "/walltime_ns",
        "/limits/memory_bytes/enclosing",
        "/limits/cputime_ns/effective",
        "/exit/code",
        "/exit/signal",
        "/exit/core_dumped",
        "/usage/memory_peak_bytes",
        "/usage/memory_needed_bytes",
        "/usage/pressure/io",
        "/processes/births",
        "/timings",
        "/tracing/events",
        "/tracing/dropped",
    ] {
        assert_eq!(json.pointer(pointer), Some(&Value::Null), "{pointer}");
    }
}

#[test]
fn the_exit_status_is_zero_only_for_completed() {
    use SetupFailureKind::{CommandNotExecutable, CommandNotFound, OutOfMemory};
    let ended = |reason| Case::named("ended").acts(reason, 10).exits_at(11, 0);
    let cancelled = |signal| {
        Case::named("cancelled")
            .acts_on(IntentReason::Cancelled, 10, signal)
            .exits_at(11, 0)
    };
    let setup = |errno, kind| {
        Case::named("setup")
            .fails_setup("execve", errno, kind)
            .exits_at(1, 127)
    };
    for (case, status) in [
        (Case::named("completed"), 0),
        (Case::named("its own code").exits(3), 3),
        (Case::named("its own 127").exits(127), 127),
        (Case::named("a shell's 137").exits(137), 137),
        (Case::named("crash").dies_of(SIGSEGV), 139),
        (Case::named("killed").dies_of(SIGKILL), 137),
        (ended(IntentReason::Walltime), 124),
        (ended(IntentReason::Cputime), 124),
        (ended(IntentReason::Pids), 124),
        (ended(IntentReason::PidsAncestor), 124),
        (ended(IntentReason::Escaped), 125),
        (ended(IntentReason::RunnerLost), 125),
        (ended(IntentReason::Cancelled), 143),
        (cancelled(SIGINT), 130),
        (cancelled(SIGTERM), 143),
        (cancelled(SIGHUP), 143),
        (
            Case::named("told to end, exits 5")
                .acts(IntentReason::Walltime, 10)
                .exits_at(11, 5),
            5,
        ),
        (
            Case::named("told to end, dies")
                .acts(IntentReason::Walltime, 10)
                .dies_at(11, SIGTERM),
            143,
        ),
        (setup(ENOENT, CommandNotFound), 127),
        (setup(EACCES, CommandNotExecutable), 126),
        (setup(ENOMEM, OutOfMemory), 125),
        (Case::named("unseen").unseen_end(), 125),
    ] {
        assert_eq!(exit_status(&case.record()), status, "{case:?}");
    }
}

#[test]
fn signals_have_the_kernels_names() {
    for (signal, name) in [
        (9, "SIGKILL"),
        (24, "SIGXCPU"),
        (32, "signal 32"),
        (34, "SIGRTMIN"),
        (40, "SIGRTMIN+6"),
        (0, "signal 0"),
        (-1, "signal -1"),
    ] {
        assert_eq!(signal_name(signal), name);
    }
}
