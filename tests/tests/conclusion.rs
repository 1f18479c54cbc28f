//! A `sandbox` that is killed while it concludes a run, at each of the steps that matter: there is one
//! whole record, and nothing else is left.

use sandbox_tests::{Guest, Record, Scene, wait};

/// Kills `sandbox` as it enters the nth call of this name, while it concludes a run that exits 3.
#[track_caller]
fn dies_at(call: &str, nth: u32) -> Record {
    dies(&format!(
        "-e trace={call} -e inject={call}:signal=KILL:when={nth}"
    ))
}

/// The same, of the calls on this file.
#[track_caller]
fn dies_at_file(path: &str, call: &str, nth: u32) -> Record {
    dies(&format!(
        "-P {path} -e trace={call} -e inject={call}:signal=KILL:when={nth}"
    ))
}

#[track_caller]
fn dies(fault: &str) -> Record {
    let scene = Scene::new();
    let said = scene.bash(&format!(
        "strace -qq -o trace {fault} \
         sandbox run --user ana --record record.json --on-complete 'echo told >>hook' -- bash -c 'exit 3'",
    ));
    let trace = scene.read("trace");
    assert!(
        trace.contains("killed by SIGKILL"),
        "{fault} was never reached: {trace} {said}"
    );
    wait::until("the guardian to finish the record", || {
        scene
            .files()
            .into_iter()
            .eq(["hook", "record.json", "trace"].map(str::to_owned))
    });
    let record = wait::for_some("all of it", || {
        let text = scene.read("record.json");
        text.ends_with("}\n").then(|| Record::parse(&text))
    });
    assert_eq!(
        scene.read("hook"),
        "told\n",
        "whoever is left tells, and once"
    );
    assert_eq!(record.at("/exit/code"), 3, "{record}");
    assert_eq!(record.at("/cleanup/removed"), true, "{record}");
    record
}

#[test]
fn before_the_record_is_drafted_the_guardian_judges() {
    let _guest = Guest::enter();
    // Read for its OOM kills when a run begins, and again once it has ended.
    let record = dies_at_file("/proc/vmstat", "openat", 2);
    assert_eq!(record.reason(), "exit_code", "{record}");
    assert_eq!(record.confidence(), "exact", "{record}");
    assert!(
        record.list("/processes/tree").is_empty(),
        "it has no ring: {record}"
    );
}

#[test]
fn once_it_is_drafted_the_guardian_finishes_the_draft() {
    let _guest = Guest::enter();
    // The draft is made durable, the leaf is removed, the record is made durable and renamed (as the run's
    // state was in the beginning: without a leaf, with one, and once that was watched).
    for (call, nth) in [("fsync", 2), ("unlinkat", 1), ("fsync", 3), ("rename", 4)] {
        let record = dies_at(call, nth);
        assert_eq!(record.reason(), "exit_code", "{call} {nth}: {record}");
        // Who had judged was the supervisor: it alone has a ring.
        assert_eq!(
            record.list("/processes/tree").len(),
            1,
            "{call} {nth}: {record}"
        );
    }
}

#[test]
fn once_it_is_published_the_guardian_only_clears_away() {
    let _guest = Guest::enter();
    // It is put in its place, what is left to be done is kept, once more as its hook begins, and in the end what was
    // kept of the run is removed.
    for (call, nth) in [("fsync", 4), ("rename", 5), ("rename", 6), ("unlink", 1)] {
        let record = dies_at(call, nth);
        assert_eq!(record.reason(), "exit_code", "{call} {nth}: {record}");
    }
}

#[test]
fn a_record_that_finds_no_room_is_said_to_be_lost_and_the_leaf_goes_all_the_same() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        "mkdir small && mount -t tmpfs -o size=4k,mode=1777 none small && \
         sandbox run --user ana --record small/record.json -- bash -c 'exit 3'; \
         status=$?; ls -A small; umount small; exit $status",
    );
    assert_eq!(said.code(), 125, "{said}");
    assert_eq!(said.out(), "", "no part of a record is left: {said}");
    assert!(said.err().contains("small/record.json"), "{said}");
    assert!(said.err().contains("No space left"), "{said}");
}
