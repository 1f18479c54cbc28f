//! Runs that somebody asked `sandbox` to end.

use nix::sys::signal::Signal;
use sandbox_tests::{Guest, Record, Sandbox, assert_has};
use serde_json::json;

#[track_caller]
fn assert_cancelled_by(record: &Record, signal: Signal) {
    let own = record.finding("own_action");
    assert_has(
        own,
        &json!({"reason": "cancelled", "signal": signal as i32}),
    );
    let us = format!("from pid {}", std::process::id());
    assert_eq!(own["detail"].as_str(), Some(us.as_str()), "{record}");
    record.assert_notes(&[
        "Cancelled after ",
        &format!(": sandbox got {signal} ({us})."),
    ]);
    assert!(!record.notes().contains("left behind"), "{record}");
}

#[test]
fn a_signal_to_sandbox_ends_the_analysis_by_the_same_signal() {
    let _guest = Guest::enter();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let running = Sandbox::new().start_victim(["sleep"]);
        let pid = running.ready();
        running.signal(signal);
        let number = signal as i32;
        let record = running.finish().ended(128 + number, "cancelled", "same");
        assert_has(
            record.fatal(),
            &json!({
                "signal": number, "cause": "runner", "delivered": true,
                "victim": {"pid": pid, "is_main": true},
                "sender": {"kind": "runner", "in_run": false},
            }),
        );
        assert_cancelled_by(&record, signal);
    }
}

#[test]
fn a_main_process_that_exits_0_when_cancelled_was_cancelled_all_the_same() {
    let _guest = Guest::enter();
    for (signal, status) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let running = Sandbox::new().start_victim(["handle", signal.as_str(), "0"]);
        let _pid = running.ready();
        running.signal(signal);
        let outcome = running.finish();
        let record = outcome.ended(status, "cancelled", "same");
        assert!(outcome.stdout.contains("handled SIG"), "{}", outcome.stdout);
        assert_has(record.at("/exit"), &json!({"code": 0, "signal": null}));
        assert_cancelled_by(&record, signal);
    }
}

#[test]
fn a_second_signal_ends_the_grace_and_loses_no_record() {
    let _guest = Guest::enter();
    let running = Sandbox::new().options(["--grace", "100s"]).start([
        "bash",
        "-c",
        "trap 'echo told' TERM; victim ignore-term & wait; wait",
    ]);
    let _pid = running.ready();
    running.signal(Signal::SIGTERM);
    let _told = running.line("told");
    running.signal(Signal::SIGTERM);
    let record = running.finish().ended(137, "cancelled", "same");
    assert_has(
        record.fatal(),
        &json!({"signal": 9, "cause": "runner", "delivered": true, "victim": {"is_main": true}}),
    );
    assert_cancelled_by(&record, Signal::SIGTERM);
}

#[test]
fn a_child_that_ignores_the_signal_is_killed_after_the_grace() {
    let _guest = Guest::enter();
    let running = Sandbox::new()
        .options(["--grace", "1s"])
        .start_victim(["ignore-term"]);
    let pid = running.ready();
    running.signal(Signal::SIGTERM);
    let record = running.finish().ended(137, "cancelled", "same");
    assert_has(
        record.fatal(),
        &json!({"signal": 9, "cause": "runner", "delivered": true, "victim": {"pid": pid}}),
    );
    assert_cancelled_by(&record, Signal::SIGTERM);
}

#[test]
fn signals_that_cancel_nothing_are_passed_on_to_main() {
    let _guest = Guest::enter();
    let running = Sandbox::new().start_victim(["handle", "USR2", "6"]);
    let _pid = running.ready();
    running.signal(Signal::SIGUSR2);
    let outcome = running.finish();
    let _record = outcome.ended(6, "exit_code", "none");
    assert!(
        outcome.stdout.contains("handled SIGUSR2\n"),
        "{}",
        outcome.stdout
    );
}
