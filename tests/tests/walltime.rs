//! The wall clock against processes that will not hear of it, and what wins over it.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sandbox_tests::{Guest, Record, Sandbox, assert_has, wait};
use serde_json::json;

const SECOND: i64 = 1_000_000_000;

fn timed(timeout: &str, grace: &str) -> Sandbox {
    Sandbox::new().options(["--timeout", timeout, "--grace", grace])
}

/// The runner's own signal ended main, after its intent.
#[track_caller]
fn assert_by_runner(record: &Record, signal: i64) {
    assert_has(
        record.fatal(),
        &json!({
            "signal": signal, "cause": "runner", "delivered": true, "oom": null,
            "victim": {"is_main": true}, "sender": {"kind": "runner", "in_run": false},
        }),
    );
    assert_intent(record);
}

#[track_caller]
fn assert_intent(record: &Record) {
    assert_has(
        record.finding("own_action"),
        &json!({"reason": "walltime", "signal": null}),
    );
    assert_has(
        record.limit_hit("walltime"),
        &json!({"count": 1, "fatal": true}),
    );
}

/// It was not ended before its time, nor long after it.
#[track_caller]
fn assert_walltime(record: &Record, at_least_s: i64) {
    let walltime = record.number("/walltime_ns");
    let range = at_least_s * SECOND - SECOND / 10..(at_least_s + 20) * SECOND;
    assert!(range.contains(&walltime), "{record}");
}

#[test]
fn a_process_that_ignores_sigterm_is_killed_after_the_grace() {
    let _guest = Guest::enter();
    let outcome = timed("1s", "1s").victim(["ignore-term"]);
    let record = outcome.ended(137, "walltime", "more_time");
    assert_by_runner(&record, 9);
    assert_walltime(&record, 2);
    record.assert_notes(&[
        "Killed: wall clock limit of 1 s (--timeout) reached; the analysis was killed after ",
        "Raise it with --timeout.",
    ]);
    assert!(!record.notes().contains("left behind"), "{record}");
}

#[test]
fn a_process_that_spins_ends_on_sigterm() {
    let _guest = Guest::enter();
    let outcome = timed("1s", "10s").victim(["spin"]);
    let record = outcome.ended(143, "walltime", "more_time");
    assert_by_runner(&record, 15);
    assert_walltime(&record, 1);
    record.assert_notes(&["the analysis ended on SIGTERM after "]);
}

#[test]
fn a_process_that_is_stopped_ends_all_the_same() {
    let _guest = Guest::enter();
    let outcome = timed("1s", "10s").victim(["stop-self"]);
    let record = outcome.ended(143, "walltime", "more_time");
    assert_by_runner(&record, 15);
    assert_walltime(&record, 1);
}

#[test]
fn who_held_it_still_until_its_deadline_is_named() {
    let _guest = Guest::enter();
    let running = timed("6s", "1s").start_victim(["sleep"]);
    let leaf = running.cgroup_of(running.ready());
    fs::write(leaf.join("cgroup.freeze"), "1").expect("root may freeze it");
    let record = running.finish().ended(143, "walltime", "more_time");
    assert_by_runner(&record, 15);
    let by = format!("frozen by cgroup.freeze of {}", record.text("/cgroup/path"));
    assert_has(record.finding("own_action"), &json!({"detail": by}));
    record.assert_notes(&[&format!("At its deadline: {by}.")]);
}

#[test]
fn a_process_that_exits_0_within_the_grace_has_timed_out_all_the_same() {
    let _guest = Guest::enter();
    for (code, status) in [(0, 124), (5, 5)] {
        let outcome = timed("1s", "20s").victim(["handle", "TERM", &code.to_string()]);
        let record = outcome.ended(status, "walltime", "more_time");
        assert!(
            outcome.stdout.contains("handled SIGTERM\n"),
            "{}",
            outcome.stdout
        );
        assert_intent(&record);
        assert_has(record.at("/exit"), &json!({"code": code, "signal": null}));
        assert_walltime(&record, 1);
        record.assert_notes(&[
            "wall clock limit of 1 s (--timeout) reached",
            &format!("told to end, the main process exited with code {code}"),
        ]);
    }
}

#[test]
fn without_a_grace_it_is_killed_at_once() {
    let _guest = Guest::enter();
    let outcome = timed("1s", "0").victim(["handle", "TERM", "0"]);
    let record = outcome.ended(137, "walltime", "more_time");
    assert_by_runner(&record, 9);
    assert!(!outcome.stdout.contains("handled"), "{}", outcome.stdout);
    let terms = record.kills().iter().filter(|kill| kill["signal"] == 15);
    assert_eq!(terms.count(), 0, "{record}");
}

/// Of such a process Linux 6.1's `cgroup.kill` tells only the thread that is dead.
#[test]
fn a_process_whose_main_thread_has_ended_is_killed_all_the_same() {
    let _guest = Guest::enter();
    let outcome = timed("2s", "0").victim(["outlive-main-thread"]);
    let record = outcome.ended(137, "walltime", "more_time");
    assert_by_runner(&record, 9);
    assert_walltime(&record, 2);
}

#[test]
fn every_member_is_told_at_the_deadline() {
    let _guest = Guest::enter();
    let script = "victim handle TERM 0 & victim handle TERM 0 & trap : TERM; wait; wait; exit 3";
    let outcome = timed("2s", "20s").command(["bash", "-c", script]);
    let record = outcome.ended(3, "walltime", "more_time");
    assert_eq!(
        outcome.stdout.matches("handled SIGTERM\n").count(),
        2,
        "{}",
        outcome.stdout
    );
    assert_intent(&record);
    assert!(!record.notes().contains("left behind"), "{record}");
}

#[test]
fn an_exit_before_the_deadline_wins_however_late_it_is_looked_at() {
    let _guest = Guest::enter();
    let running = timed("4s", "20s").start_victim(["handle", "USR1", "0"]);
    let pid = running.ready();
    let ready = Instant::now();
    // From here on `sandbox` sees neither the exit nor the deadline, until both have passed.
    running.signal(Signal::SIGSTOP);
    let main = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(main, Signal::SIGUSR1).expect("main is there");
    wait::until("main to have exited", || {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    });
    assert!(
        ready.elapsed() < Duration::from_secs(3),
        "the guest is too slow for this test"
    );
    wait::until("the deadline to pass", || {
        ready.elapsed() > Duration::from_secs(4)
    });
    running.signal(Signal::SIGCONT);
    let record = running.finish().ended(0, "completed", "none");
    assert!(record.number("/walltime_ns") < 4 * SECOND, "{record}");
    assert!(!record.has_finding("own_action"), "{record}");
}

#[test]
fn a_warning_comes_before_the_deadline_and_leaves_the_ending_to_main() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new()
        .options(["--timeout", "60s", "--warn", "USR1@59s"])
        .victim(["handle", "USR1", "0"]);
    let record = outcome.ended(0, "completed", "none");
    assert!(
        outcome.stdout.contains("handled SIGUSR1\n"),
        "{}",
        outcome.stdout
    );
    assert!(record.number("/walltime_ns") >= SECOND * 9 / 10, "{record}");

    let outcome = Sandbox::new()
        .options(["--timeout", "60s", "--warn", "USR1@59s"])
        .victim(["sleep"]);
    let record = outcome.ended(138, "signal", "none");
    assert_has(
        record.fatal(),
        &json!({"signal": 10, "delivered": true, "sender": {"kind": "runner", "in_run": false}}),
    );
    record.assert_notes(&[
        "SIGUSR1",
        "which sandbox had sent as a warning or passed on",
    ]);
}

#[test]
fn a_crowd_is_asked_to_end_before_it_is_killed() {
    let _guest = Guest::enter();
    let script = "import os, signal
for _ in range(200):
    if not os.fork():
        signal.pause()
signal.signal(signal.SIGTERM, lambda *_: (print('told', flush=True), os._exit(0)))
print('ready', os.getpid(), flush=True)
while True:
    signal.pause()";
    let running = Sandbox::new()
        .options([
            "--pids",
            "none",
            "--cpus",
            "none",
            "--timeout",
            "15s",
            "--grace",
            "10s",
        ])
        .start(["python3", "-c", script]);
    let _ready = running.ready();
    let outcome = running.finish();
    let _record = outcome.ended(124, "walltime", "more_time");
    assert!(outcome.stdout.contains("told"), "{}", outcome.stdout);
}
