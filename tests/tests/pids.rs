//! PID limits: the leaf's own and an enclosing one, with `--on-pids-limit kill` and `deny`.

use sandbox_tests::{Enclosing, Guest, Record, Sandbox, assert_has, enclosing};
use serde_json::json;

#[track_caller]
fn assert_killed_for(record: &Record, reason: &str, level: &str, cgroup: &str) {
    assert_has(
        record.fatal(),
        &json!({
            "signal": 9, "cause": "runner", "delivered": true,
            "victim": {"is_main": true}, "sender": {"kind": "runner", "in_run": false},
        }),
    );
    assert_has(record.finding("own_action"), &json!({"reason": reason}));
    let denied = record.finding("denied_forks");
    assert_has(denied, &json!({"level": level, "cgroup": cgroup}));
    assert!(denied["count"].as_i64() >= Some(1), "{record}");
    assert!(!denied["first_at"].is_null(), "{record}");
    assert_eq!(record.limit_hit(reason)["fatal"], true);
    assert!(!record.notes().contains("left behind"), "{record}");
}

#[test]
fn a_fork_bomb_is_ended_at_its_first_denied_fork() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new()
        .options(["--pids", "30"])
        .victim(["fork-bomb"]);
    let record = outcome.ended(137, "pids", "more_pids");
    assert_killed_for(&record, "pids", "leaf", record.text("/cgroup/path"));
    assert_eq!(record.number("/processes/peak"), 30, "{record}");
    record.assert_notes(&[
        "Killed: limit of 30 processes and threads (--pids) reached, ",
        "denied; the analysis was stopped after ",
        "Raise it with --pids.",
        "--thread-env",
    ]);
}

#[test]
fn a_fork_bomb_that_is_only_denied_goes_on_until_its_deadline() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new()
        .options([
            "--pids",
            "30",
            "--on-pids-limit",
            "deny",
            "--timeout",
            "2s",
            "--grace",
            "0",
        ])
        .victim(["fork-bomb"]);
    let record = outcome.ended(137, "walltime", "more_time");
    assert_has(record.finding("denied_forks"), &json!({"level": "leaf"}));
    assert_eq!(record.limit_hit("pids")["fatal"], false);
    record.assert_notes(&[
        "wall clock limit of 2 s",
        "forks were denied by the limit of 30 processes",
    ]);
}

#[test]
fn denied_forks_are_counted_one_by_one_and_leave_the_ending_to_main() {
    let _guest = Guest::enter();
    for act in ["children", "threads"] {
        let outcome = Sandbox::new()
            .options(["--pids", "10", "--on-pids-limit", "deny"])
            .victim([act, "14", "--exit", "4"]);
        let record = outcome.ended(4, "exit_code", "none");
        assert!(outcome.stdout.contains("denied 5\n"), "{}", outcome.stdout);
        assert_has(
            record.finding("denied_forks"),
            &json!({"level": "leaf", "count": 5}),
        );
        assert_has(
            record.limit_hit("pids"),
            &json!({"count": 5, "fatal": false}),
        );
        record.assert_notes(&[
            "exited with code 4",
            "5 forks were denied by the limit of 10",
        ]);
    }
}

#[test]
fn threads_count_against_the_limit_as_processes_do() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new()
        .options(["--pids", "10"])
        .victim(["threads", "20"]);
    let record = outcome.ended(137, "pids", "more_pids");
    assert_killed_for(&record, "pids", "leaf", record.text("/cgroup/path"));
    assert_eq!(record.number("/processes/births"), 10, "{record}");
}

#[test]
fn a_denied_fork_is_the_reason_even_where_main_exits_by_itself_first() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new()
        .options(["--pids", "4"])
        .victim(["threads", "4", "--exit", "0"]);
    let record = outcome.record();
    // Main and the runner race here; the reason is the same, whoever wins.
    record.assert_verdict("pids", "more_pids");
    assert!(matches!(outcome.code(), 124 | 137), "{record}");
    record.assert_notes(&["limit of 4 processes and threads (--pids) reached"]);
}

#[test]
fn the_pid_limit_of_an_enclosing_cgroup_is_told_from_the_leafs_own() {
    let _guest = Guest::enter();
    let _limit = Enclosing::limit(enclosing::RUNS, "pids.max", "8");
    let outcome = Sandbox::new().victim(["children", "20"]);
    let record = outcome.ended(137, "pids_ancestor", "same");
    assert_killed_for(&record, "pids_ancestor", "ancestor", enclosing::RUNS);
    assert_has(
        record.at("/limits/pids"),
        &json!({"effective": 100, "enclosing": {"value": 8, "cgroup": enclosing::RUNS}}),
    );
    record.assert_notes(&[
        "Killed: PID limit of the enclosing cgroup /sandbox/runs reached",
        "Its own limit was not what ended it",
    ]);
}

#[test]
fn forks_that_an_enclosing_limit_denies_leave_the_ending_to_main_with_deny() {
    let _guest = Guest::enter();
    let _limit = Enclosing::limit(enclosing::RUNS, "pids.max", "8");
    let outcome = Sandbox::new()
        .options(["--on-pids-limit", "deny"])
        .victim(["children", "10", "--exit", "0"]);
    let record = outcome.ended(0, "completed", "none");
    assert!(outcome.stdout.contains("denied 3\n"), "{}", outcome.stdout);
    assert_has(
        record.finding("denied_forks"),
        &json!({"level": "ancestor", "count": 3, "cgroup": enclosing::RUNS}),
    );
    record.assert_notes(&["3 forks were denied by the PID limit of an enclosing cgroup."]);
}

#[test]
fn children_that_main_has_its_parent_have_count_no_longer_than_they_live() {
    let _guest = Guest::enter();
    // CLONE_PARENT makes them children of `sandbox`, which has to wait for them; main looks on.
    let script = format!(
        "import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
for _ in range(12):
    child = libc.syscall({}, {}, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    if child < 0:
        raise OSError(ctypes.get_errno(), 'clone')
    while os.path.exists(f'/proc/{{child}}'):
        time.sleep(0.02)",
        nix::libc::SYS_clone,
        nix::libc::CLONE_PARENT | nix::libc::SIGCHLD,
    );
    let outcome = Sandbox::new()
        .options(["--pids", "8", "--timeout", "60s"])
        .command(["python3", "-c", &script]);
    let record = outcome.ended(0, "completed", "none");
    assert_eq!(record.at("/processes/births"), 13, "{record}");
}
