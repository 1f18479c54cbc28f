//! Maps of the kernel side that have no room left: what cannot be kept is counted, and doubted aloud.

use nix::sys::signal::Signal;
use sandbox_tests::{FullMap, Guest, Outsider, Record, Sandbox, assert_has};
use serde_json::json;

/// That a record says so, and is not as sure as it would be otherwise.
#[track_caller]
fn assert_doubted(record: &Record, confidence: &str, phrase: &str) {
    assert_eq!(record.confidence(), confidence, "{record}");
    let degraded = record.list("/tracing/degraded");
    let is_named =
        |text: &serde_json::Value| text.as_str().is_some_and(|text| text.contains(phrase));
    assert!(degraded.iter().any(is_named), "{phrase:?}: {record}");
}

#[test]
fn a_kill_that_found_no_room_is_counted_and_lowers_the_confidence() {
    let _guest = Guest::enter();
    let script = "victim sleep & wait $!; exit 3";
    let running = Sandbox::new().start(["bash", "-c", script]);
    let child = running.ready();
    let full = FullMap::named("VICTIMS");
    Outsider::signals(child, Signal::SIGKILL);
    let outcome = running.finish();
    drop(full);
    let record = outcome.record();
    assert_eq!(record.reason(), "exit_code", "{record}");
    assert_doubted(&record, "strong", "1 map updates of the kernel side failed");
}

#[test]
fn the_signal_that_ended_main_is_known_from_the_ring_where_its_map_is_full() {
    let _guest = Guest::enter();
    let running = Sandbox::new().start_victim(["sleep"]);
    let main = running.ready();
    let full = FullMap::named("VICTIMS");
    let sender = Outsider::signals(main, Signal::SIGKILL);
    let outcome = running.finish();
    drop(full);
    let record = outcome.record();
    assert_eq!(record.reason(), "external_kill", "{record}");
    assert_has(record.fatal(), &json!({"sender": sender.as_sender()}));
    assert_doubted(&record, "strong", "map updates of the kernel side failed");
}

#[test]
fn an_oom_kill_that_cannot_be_marked_is_still_one() {
    let _guest = Guest::enter();
    let running = Sandbox::new().options(["--memory", "64MiB"]).start([
        "bash",
        "-c",
        "trap go=1 USR1; echo ready $$; until [ \"$go\" ]; do sleep 0.05; done; victim eat 100MiB",
    ]);
    let _main = running.ready();
    let full = FullMap::named("OOMS");
    running.signal(Signal::SIGUSR1);
    let outcome = running.finish();
    drop(full);
    let record = outcome.record();
    assert_eq!(record.reason(), "memory", "{record}");
    assert_has(
        record.fatal(),
        &json!({"cause": "oom", "oom": {"scope": "leaf", "group": true}}),
    );
    assert_doubted(
        &record,
        "strong",
        "on this host found no room to be marked as such",
    );
}
