//! Endings by memory: whose limit it was, whom the OOM killer took, and what only looks like it.

use nix::sys::signal::Signal;
use sandbox_tests::{
    Enclosing, Guest, Outsider, Record, Sandbox, Withheld, assert_has, enclosing, wait,
};
use serde_json::{Value, json};

const MIB: i64 = 1 << 20;
const KERNEL: fn() -> Value = || json!({"kind": "kernel", "pid": null, "in_run": null});

fn limited(options: &[&str]) -> Sandbox {
    Sandbox::new()
        .options(["--memory", "64MiB"])
        .options(options)
}

/// An OOM kill by the leaf's own limit of 64 MiB.
#[track_caller]
fn assert_own_oom(record: &Record, kill: &Value, group: bool) {
    assert_has(
        kill,
        &json!({
            "signal": 9, "cause": "oom", "delivered": true, "sender": KERNEL(),
            "oom": {
                "scope": "leaf", "cgroup": record.text("/cgroup/path"),
                "max_bytes": 64 * MIB, "group": group,
            },
        }),
    );
    let usage = kill["oom"]["usage_bytes"].as_i64().unwrap_or_default();
    assert!((60 * MIB..=64 * MIB).contains(&usage), "{record}");
    assert_has(record.limit_hit("memory"), &json!({"limit": "memory"}));
}

#[track_caller]
fn delivered_ooms(record: &Record) -> usize {
    let is_delivered = |kill: &&Value| kill["cause"] == "oom" && kill["delivered"] == true;
    record.kills().iter().filter(is_delivered).count()
}

#[test]
fn one_process_that_takes_more_than_the_limit_is_killed_for_it() {
    let _guest = Guest::enter();
    let outcome = limited(&[]).victim(["eat", "100MiB"]);
    let record = outcome.ended(137, "memory", "more_memory");
    assert_own_oom(&record, record.fatal(), true);
    assert_has(
        record.fatal(),
        &json!({"victim": {"is_main": true, "comm": "victim", "exe": "/payload/bin/victim"}}),
    );
    assert_eq!(
        record.fatal()["oom"]["trigger_pid"],
        record.fatal()["victim"]["pid"]
    );
    assert_eq!(record.limit_hit("memory")["fatal"], true);
    // Not always all of it: what other processors had charged ahead is given back at the last moment
    // (drain_all_stock, mm/memcontrol.c).
    let usage = record.fatal()["oom"]["usage_bytes"].as_i64();
    let hundredths = (usage.expect("it is known") * 100 + MIB / 2) / MIB;
    let used = format!("at {}.{:02} MiB; ", hundredths / 100, hundredths % 100);
    record.assert_notes(&[
        "Killed: memory limit of 64 MiB (--memory) reached. The kernel OOM killer killed victim (pid ",
        &used,
        "the whole analysis was stopped after ",
        "Raise it with --memory.",
    ]);
    assert_eq!(record.number("/usage/memory_peak_bytes"), 64 * MIB);
}

#[test]
fn threads_that_take_more_than_the_limit_together_die_as_one_process() {
    let _guest = Guest::enter();
    let outcome = limited(&[]).victim(["eat-threads", "4", "100MiB"]);
    let record = outcome.ended(137, "memory", "more_memory");
    assert_own_oom(&record, record.fatal(), true);
    assert_eq!(record.fatal()["victim"]["is_main"], true);
    assert_eq!(delivered_ooms(&record), 1, "{record}");
    assert!(record.number("/processes/births") >= 5, "{record}");
}

#[test]
fn the_whole_group_dies_where_one_of_its_members_was_too_much() {
    let _guest = Guest::enter();
    let outcome = limited(&[]).victim(["eat-group", "3", "150MiB"]);
    let record = outcome.ended(137, "memory", "more_memory");
    assert_own_oom(&record, record.fatal(), true);
    assert_eq!(record.fatal()["victim"]["is_main"], true);
    let members = record.kills().iter().filter(|kill| kill["cause"] == "oom");
    let mut victims: Vec<_> = members.map(|kill| kill["victim"]["pid"].as_i64()).collect();
    victims.sort_unstable();
    victims.dedup();
    assert!(
        (2..=4).contains(&victims.len()),
        "main and its children:\n{record}"
    );
    record.assert_notes(&["a child of victim ", "the whole analysis was stopped"]);
}

#[test]
fn a_child_that_the_oom_killer_takes_does_not_end_main_which_completes() {
    let _guest = Guest::enter();
    let outcome = limited(&["--oom", "process"]).victim(["eat-in-child", "100MiB", "--exit", "0"]);
    let record = outcome.ended(0, "completed", "none");
    assert!(outcome.stdout.contains("SIGKILL"), "{}", outcome.stdout);
    let kill = record.kill_in("member_oom_killed");
    assert_own_oom(&record, kill, false);
    assert_eq!(kill["victim"]["is_main"], false);
    assert_eq!(record.limit_hit("memory")["fatal"], false);
    record.assert_notes(&[
        "Completed after ",
        "The kernel OOM killer killed victim (pid ",
        "a child of victim ",
        "the memory limit of 64 MiB (--memory) being reached",
    ]);
}

#[test]
fn a_child_that_the_oom_killer_takes_is_named_where_main_then_fails() {
    let _guest = Guest::enter();
    let outcome = limited(&["--oom", "process"]).victim(["eat-in-child", "100MiB", "--exit", "3"]);
    let record = outcome.ended(3, "exit_code", "more_memory");
    assert_own_oom(&record, record.kill_in("member_oom_killed"), false);
    assert_has(record.at("/exit"), &json!({"code": 3, "signal": null}));
    record.assert_notes(&[
        "exited with code 3",
        "OOM killer killed victim",
        "Raise it with --memory.",
    ]);
}

#[test]
fn a_shell_that_reports_its_killed_child_as_137_did_exit_and_more_memory_would_help() {
    let _guest = Guest::enter();
    let script = "victim eat 100MiB; status=$?; echo \"child: $status\"; exit $status";
    let outcome = limited(&["--oom", "process"]).command(["bash", "-c", script]);
    let record = outcome.ended(137, "exit_code", "more_memory");
    assert!(
        outcome.stdout.contains("child: 137\n"),
        "{}",
        outcome.stdout
    );
    assert_has(
        record.at("/exit"),
        &json!({"code": 137, "signal": null, "signal_name": null}),
    );
    let kill = record.kill_in("member_oom_killed");
    assert_own_oom(&record, kill, false);
    assert_has(
        kill,
        &json!({"victim": {"is_main": false, "comm": "victim"}}),
    );
    record.assert_notes(&[
        "Failed: the main process exited with code 137",
        "The kernel OOM killer killed victim (pid ",
        "a child of bash ",
        "Raise it with --memory.",
    ]);
}

#[test]
fn a_crash_close_to_the_limit_is_a_crash() {
    let _guest = Guest::enter();
    for (act, signal, name, number) in [
        ("eat-and-segv", "SIGSEGV", "a crash of its own", 11),
        ("eat-and-abort", "SIGABRT", "an abort of its own", 6),
    ] {
        let outcome = limited(&[]).victim([act, "59MiB"]);
        let record = outcome.ended(128 + number, "signal", "none");
        assert_eq!(record.text("/exit/signal_name"), signal);
        assert_has(
            record.fatal(),
            &json!({"signal": number, "delivered": true, "oom": null, "victim": {"is_main": true}}),
        );
        assert_eq!(delivered_ooms(&record), 0, "{record}");
        assert!(
            record.number("/usage/memory_peak_bytes") > 59 * MIB,
            "{record}"
        );
        record.assert_notes(&["Died: the main process got ", signal, name]);
        assert!(!record.notes().contains("memory"), "{record}");
    }
}

#[test]
fn the_limit_of_an_enclosing_cgroup_is_told_from_the_leafs_own() {
    let _guest = Guest::enter();
    for (cgroup, limit) in [(enclosing::RUNS, 48), (enclosing::BASE, 64)] {
        let _limit = Enclosing::limit(cgroup, "memory.max", &format!("{}", limit * MIB));
        let outcome = Sandbox::new()
            .options(["--memory", "1GiB"])
            .victim(["eat", "200MiB"]);
        let record = outcome.ended(137, "memory_ancestor", "same");
        assert_has(
            record.fatal(),
            &json!({
                "cause": "oom", "delivered": true, "sender": KERNEL(),
                "victim": {"is_main": true, "comm": "victim"},
                "oom": {"scope": "ancestor", "cgroup": cgroup, "max_bytes": limit * MIB},
            }),
        );
        assert_has(
            record.at("/limits/memory_bytes"),
            &json!({"effective": 1024 * MIB, "enclosing": {"value": limit * MIB, "cgroup": cgroup}}),
        );
        assert_eq!(record.limit_hit("memory_ancestor")["fatal"], true);
        record.assert_notes(&[
            &format!("memory limit of {limit} MiB of the enclosing cgroup {cgroup} reached."),
            &format!("It can never have more than {limit} MiB there"),
        ]);
    }
}

#[test]
fn the_hosts_memory_is_told_from_any_limit() {
    let _guest = Guest::enter();
    // Page by page, most of the guest's memory would take an emulated processor a minute.
    let _most = Withheld::all_but(400 * MIB);
    // More than the guest has; the analysis is the first to go, by its oom_score_adj.
    let outcome = Sandbox::new()
        .options(["--memory", "64GiB", "--cpus", "2"])
        .victim(["devour"]);
    let record = outcome.ended(137, "host_oom", "same");
    assert_has(
        record.fatal(),
        &json!({
            "signal": 9, "cause": "oom", "delivered": true, "sender": KERNEL(),
            "victim": {"is_main": true, "comm": "victim"},
            "oom": {"scope": "host", "cgroup": null},
        }),
    );
    record.assert_notes(&[
        "Killed: the host ran out of memory. The kernel OOM killer killed victim (pid ",
        "Its own memory limit was not what ended it",
    ]);
}

#[test]
fn a_sigterm_after_a_childs_oom_kill_is_what_ends_main() {
    let _guest = Guest::enter();
    let running = limited(&["--oom", "process"]).start_victim(["eat-in-child", "100MiB"]);
    let pid = running.ready();
    let outsider = Outsider::signals(pid, Signal::SIGTERM);
    let record = running.finish().ended(143, "external_kill", "same");
    assert_has(
        record.fatal(),
        &json!({
            "signal": 15, "cause": "process", "delivered": true, "oom": null,
            "victim": {"pid": pid, "is_main": true}, "sender": outsider.as_sender(),
        }),
    );
    assert_own_oom(&record, record.kill_in("member_oom_killed"), false);
    assert_eq!(record.limit_hit("memory")["fatal"], false);
    record.assert_notes(&[
        "Killed from outside after ",
        &format!("SIGTERM from bash (pid {}, uid 0)", outsider.pid),
        "The kernel OOM killer killed victim",
    ]);
}

#[test]
fn an_oom_names_who_held_the_memory_and_the_victim_exactly() {
    let _guest = Guest::enter();
    for options in [&[][..], &["--oom", "process"]] {
        let running = limited(options).start_victim(["eat-group", "3", "150MiB"]);
        if !options.is_empty() {
            let pid = running.ready();
            // Only one of them fits; but the kernel may go on to kill that one too, before it sees what the
            // others gave back.
            let events = running.cgroup_of(pid).join("memory.events");
            wait::until("somebody to be killed", || {
                let events = std::fs::read_to_string(&events).expect("the leaf has it");
                !events.lines().any(|line| line == "oom_kill 0")
            });
            Outsider::signals(pid, Signal::SIGTERM);
        }
        let outcome = running.finish();
        let record = outcome.record();
        let first = record.kills().iter().find(|kill| kill["cause"] == "oom");
        let first = first.unwrap_or_else(|| panic!("nobody was killed: {record}"));
        let holders = first["oom"]["holders"].as_array().expect("a list");
        // Main and its three children, of whom one may just have been born.
        assert!((3..=4).contains(&holders.len()), "{record}");
        let rss: Vec<i64> = holders
            .iter()
            .filter_map(|holder| holder["rss_bytes"].as_i64())
            .collect();
        assert!(rss.is_sorted_by(|one, next| one >= next), "{record}");
        // Text is shared, and kernel memory is nobody's; the rest is what the leaf had. Whoever was not
        // killed went on to take what that left.
        let all: i64 = rss.iter().sum();
        let most = if options.is_empty() { 80 } else { 128 };
        assert!((48 * MIB..most * MIB).contains(&all), "{all} {record}");
        let victim = holders
            .iter()
            .find(|holder| holder["pid"] == first["victim"]["pid"]);
        assert_has(
            victim.expect("the victim is one of them"),
            &json!({"comm": "victim", "source": "kill", "at": first["at"]}),
        );
        for holder in holders {
            let is_victim =
                |kill: &Value| kill["cause"] == "oom" && kill["victim"]["pid"] == holder["pid"];
            let was_killed = record.kills().iter().any(is_victim);
            let by_the_kernel = holder["source"] == "kill";
            let sources = ["kill", "sample", "exit_peak"].map(|source| holder["source"] == source);
            assert!(sources.contains(&true), "{record}");
            // Of one OOM all that were killed; a later one has its own.
            assert!(was_killed || !by_the_kernel, "{holder} {record}");
            assert!(
                by_the_kernel || !was_killed || !options.is_empty(),
                "{holder} {record}"
            );
            assert!(!holder["at"].is_null(), "{record}");
        }
    }
}

#[test]
fn what_was_needed_is_a_lower_bound_where_memory_ended_the_run() {
    let _guest = Guest::enter();
    let outcome = limited(&[]).victim(["eat", "100MiB"]);
    let record = outcome.ended(137, "memory", "more_memory");
    assert_has(
        record.at("/usage/memory_needed_bytes"),
        &json!({
            "value": record.fatal()["oom"]["usage_bytes"], "lower_bound": true, "source": "oom",
        }),
    );
    assert_own_oom(&record, record.fatal(), true);
}
