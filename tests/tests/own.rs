//! Endings that main made itself: exits, crashes, signals from within.

use nix::sys::signal::Signal;
use sandbox_tests::{Guest, Outsider, Sandbox, assert_has};
use serde_json::json;

#[test]
fn a_main_process_that_exits_0_has_completed() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new().victim(["exit", "0"]);
    let record = outcome.ended(0, "completed", "none");
    assert_has(
        record.at("/exit"),
        &json!({"code": 0, "signal": null, "core_dumped": null}),
    );
    assert_has(record.finding("main_exited"), &json!({"code": 0}));
    assert!(record.kills().is_empty(), "{record}");
    assert_has(
        record.at("/processes"),
        &json!({"births": 1, "execs": 1, "exits": 1, "left_over": 0}),
    );
    assert_eq!(record.text("/cleanup/method"), "already_empty");
    record.assert_notes(&["Completed after "]);
}

#[test]
fn an_exit_code_comes_through_as_it_is() {
    let _guest = Guest::enter();
    for code in [1, 42, 126, 127, 137, 255] {
        let outcome = Sandbox::new().victim(["exit", &code.to_string()]);
        let record = outcome.ended(code, "exit_code", "none");
        assert_has(record.at("/exit"), &json!({"code": code, "signal": null}));
        record.assert_notes(&[&format!(
            "Failed: the main process exited with code {code} after "
        )]);
    }
}

#[test]
fn a_signal_that_main_sends_to_itself_is_its_own() {
    let _guest = Guest::enter();
    for (signal, number) in [("KILL", 9), ("TERM", 15), ("USR2", 12)] {
        let outcome = Sandbox::new().victim(["kill-self", signal]);
        let record = outcome.ended(128 + number, "signal", "none");
        let main = record.fatal()["victim"]["pid"].clone();
        assert_has(
            record.fatal(),
            &json!({
                "signal": number, "cause": "process", "delivered": true,
                "victim": {"is_main": true, "comm": "victim"},
                "sender": {"kind": "process", "pid": main, "comm": "victim", "uid": 1000, "in_run": true},
            }),
        );
        record.assert_notes(&[
            &format!("got SIG{signal} after "),
            "which it sent to itself",
        ]);
    }
}

#[test]
fn a_signal_from_a_sibling_is_the_runs_own() {
    let _guest = Guest::enter();
    for (signal, number) in [("KILL", 9), ("TERM", 15)] {
        let outcome = Sandbox::new().victim(["sibling-kill", signal]);
        let record = outcome.ended(128 + number, "signal", "none");
        assert_has(
            record.fatal(),
            &json!({
                "signal": number, "cause": "process", "delivered": true,
                "victim": {"is_main": true},
                "sender": {"kind": "process", "comm": "victim", "uid": 1000, "in_run": true},
            }),
        );
        let kill = record.fatal();
        assert_ne!(kill["sender"]["pid"], kill["victim"]["pid"], "{record}");
        record.assert_notes(&["sent by victim (pid ", "a process of the analysis"]);
    }
}

#[test]
fn a_crash_is_told_with_its_signal() {
    let _guest = Guest::enter();
    for (act, number, name) in [("segv", 11, "SIGSEGV"), ("abort", 6, "SIGABRT")] {
        let outcome = Sandbox::new().victim([act]);
        let record = outcome.ended(128 + number, "signal", "none");
        assert_has(
            record.fatal(),
            &json!({"signal": number, "delivered": true, "victim": {"is_main": true}}),
        );
        assert_has(
            record.at("/exit"),
            &json!({"signal": number, "signal_name": name}),
        );
        record.assert_notes(&["Died: the main process got ", name, "of its own."]);
    }
}

#[test]
fn a_broken_pipe_is_the_runs_own_affair() {
    let _guest = Guest::enter();
    // Main is the writer; the reader goes at once.
    let script = "exec > >(exec true); wait $!; exec yes";
    let outcome = Sandbox::new().command(["bash", "-c", script]);
    let record = outcome.ended(141, "signal", "none");
    assert_has(
        record.fatal(),
        &json!({"signal": 13, "cause": "kernel", "delivered": true}),
    );
    record.assert_notes(&["SIGPIPE", "having written to a pipe that nobody reads"]);
}

#[test]
fn a_seccomp_filter_that_kills_is_told_as_that() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new().victim(["seccomp"]);
    let record = outcome.ended(159, "signal", "none");
    assert_eq!(record.text("/exit/signal_name"), "SIGSYS");
    record.assert_notes(&["SIGSYS", "a system call that its seccomp filter forbids"]);
}

#[test]
fn strict_seccomp_which_sends_no_signal_is_nobodys_kill() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new().victim(["strict-seccomp"]);
    assert_eq!(outcome.code(), 137, "{}", outcome.stderr);
    let record = outcome.record();
    assert_eq!(record.reason(), "signal", "{record}");
    assert_eq!(record.confidence(), "strong", "{record}");
    assert!(record.kills().is_empty(), "{record}");
    record.assert_notes(&["SIGKILL", "which nobody sent", "strict seccomp forbade"]);
}

#[test]
fn a_sigterm_from_outside_that_main_handles_leaves_the_ending_to_main() {
    let _guest = Guest::enter();
    for (status, reason) in [(0, "completed"), (7, "exit_code")] {
        let running = Sandbox::new().start_victim(["handle", "TERM", &status.to_string()]);
        let pid = running.ready();
        let outsider = Outsider::signals(pid, Signal::SIGTERM);
        let outcome = running.finish();
        let record = outcome.ended(status, reason, "none");
        assert!(
            outcome.stdout.contains("handled SIGTERM\n"),
            "{}",
            outcome.stdout
        );
        assert_has(
            record.kill_in("handled_signal"),
            &json!({
                "signal": 15, "delivered": true,
                "victim": {"pid": pid, "is_main": true}, "sender": outsider.as_sender(),
            }),
        );
        record.assert_notes(&[&format!(
            "it had handled SIGTERM from outside, sent by bash (pid {}, uid 0)",
            outsider.pid
        )]);
    }
}

#[test]
fn a_daemon_that_main_leaves_behind_is_killed_and_counted() {
    let _guest = Guest::enter();
    let running = Sandbox::new().start_victim(["daemonise"]);
    let daemon: i64 = running.line("daemon ").parse().expect("a pid");
    let outcome = running.finish();
    let record = outcome.ended(0, "completed", "none");
    assert_has(
        record.at("/processes"),
        &json!({"births": 3, "exits": 3, "left_over": 1}),
    );
    assert_eq!(record.text("/cleanup/method"), "cgroup_kill");
    let killed = record
        .kills()
        .iter()
        .find(|kill| kill["victim"]["pid"] == daemon);
    assert_has(
        killed.expect("the daemon's end is in kills"),
        &json!({
            "signal": 9, "cause": "runner", "delivered": true,
            "victim": {"is_main": false}, "sender": {"kind": "runner", "in_run": false},
        }),
    );
    record.assert_notes(&[
        "Completed after ",
        "A process that it left behind was killed.",
    ]);
}

#[test]
fn a_main_thread_that_ends_before_its_threads_does_not_end_the_run() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new().victim(["outlive-main-thread", "5"]);
    let record = outcome.ended(5, "exit_code", "none");
    assert!(outcome.stdout.contains("outlived "), "{}", outcome.stdout);
    assert_has(record.at("/exit"), &json!({"code": 5}));
    assert_has(record.at("/processes"), &json!({"births": 2, "exits": 2}));
}

#[test]
fn a_thread_that_executes_another_program_takes_mains_place() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new().victim(["exec-in-thread", "--", "kill-self", "TERM"]);
    let record = outcome.ended(143, "signal", "none");
    assert_has(
        record.fatal(),
        &json!({"signal": 15, "victim": {"is_main": true}}),
    );
    assert_eq!(record.number("/processes/execs"), 2, "{record}");
}

#[test]
fn a_death_signal_is_told_from_a_kill() {
    let _guest = Guest::enter();
    let running = Sandbox::new().start_victim(["death-signal"]);
    let parent: i64 = running.line("parent ").parse().expect("a pid");
    let grandchild: i64 = running.line("grandchild ").parse().expect("a pid");
    let record = running.finish().ended(0, "completed", "none");
    let killed = record
        .kills()
        .iter()
        .find(|kill| kill["victim"]["pid"] == grandchild);
    assert_has(
        killed.expect("the grandchild's end is in kills"),
        &json!({
            "signal": 9, "cause": "kernel", "delivered": true, "victim": {"is_main": false},
            "sender": {"kind": "kernel", "pid": parent, "in_run": true},
        }),
    );
}
