//! CPU time: the budget of the whole leaf, and RLIMIT_CPU of one process.

use sandbox_tests::{Guest, Sandbox, assert_has};
use serde_json::json;

#[test]
fn the_budget_is_that_of_all_processes_together() {
    let _guest = Guest::enter();
    for (grace, signal) in [("0", 9), ("10s", 15)] {
        let outcome = Sandbox::new()
            .options(["--cpu-time", "2s", "--cpus", "2", "--grace", grace])
            .victim(["spin-group", "3"]);
        let record = outcome.ended(128 + signal, "cputime", "more_time");
        assert_has(
            record.fatal(),
            &json!({
                "signal": signal, "cause": "runner", "delivered": true,
                "victim": {"is_main": true}, "sender": {"kind": "runner", "in_run": false},
            }),
        );
        assert_has(record.finding("own_action"), &json!({"reason": "cputime"}));
        assert_has(
            record.limit_hit("cputime"),
            &json!({"count": 1, "fatal": true}),
        );
        let used = record.number("/usage/cpu_user_us") + record.number("/usage/cpu_system_us");
        // Not before its time, and not as much as each of them alone would have had.
        assert!((2_000_000..5_000_000).contains(&used), "{record}");
        record.assert_notes(&[
            "Killed: CPU time limit of 2 s (--cpu-time) used up; the analysis ",
            "Raise it with --cpu-time.",
        ]);
        assert!(!record.notes().contains("left behind"), "{record}");
    }
}

#[test]
fn the_soft_rlimit_ends_it_by_sigxcpu() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new().victim(["rlimit-cpu", "1", "20"]);
    let record = outcome.ended(152, "cputime", "more_time");
    assert_has(
        record.fatal(),
        &json!({
            "signal": 24, "cause": "kernel", "delivered": true,
            "victim": {"is_main": true}, "sender": {"kind": "kernel", "pid": null},
        }),
    );
    assert_has(
        record.finding("rlimit_cpu"),
        &json!({"soft_seconds": null, "hard_seconds": null, "reached_seconds": 1}),
    );
    record.assert_notes(&[
        "Killed: RLIMIT_CPU of 1 s used up; the main process got SIGXCPU from the kernel",
        "It did not start with one",
    ]);
}

#[test]
fn the_hard_rlimit_ends_it_by_sigkill() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new().victim(["rlimit-cpu", "1", "1"]);
    let record = outcome.ended(137, "cputime", "more_time");
    assert_has(
        record.fatal(),
        &json!({
            "signal": 9, "cause": "kernel", "delivered": true, "oom": null,
            "victim": {"is_main": true}, "sender": {"kind": "kernel", "pid": null},
        }),
    );
    record.assert_notes(&["RLIMIT_CPU of 1 s", "SIGKILL from the kernel"]);
}

#[test]
fn an_rlimit_that_the_analysis_lowered_is_not_told_as_the_callers() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new()
        .rlimit_cpu(1000, 1000)
        .victim(["rlimit-cpu", "1", "20"]);
    let record = outcome.ended(152, "cputime", "more_time");
    assert_has(
        record.finding("rlimit_cpu"),
        &json!({"soft_seconds": 1000, "hard_seconds": 1000, "reached_seconds": 1}),
    );
    record.assert_notes(&["RLIMIT_CPU of 1 s", "less than it started with"]);
}

#[test]
fn an_rlimit_that_the_caller_set_is_named() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new().rlimit_cpu(2, 8).victim(["spin"]);
    let record = outcome.ended(152, "cputime", "more_time");
    assert_has(
        record.finding("rlimit_cpu"),
        &json!({"soft_seconds": 2, "hard_seconds": 8}),
    );
    record.assert_notes(&["RLIMIT_CPU of 2 s used up", "ulimit -t"]);
}
