//! The event stream: what is in it, in which order, and that it never holds up the run.

use nix::sys::signal::Signal;
use sandbox_tests::{Events, Guest, Outsider, Record, Sandbox, Scene, assert_has, wait};
use serde_json::{Value, json};

/// Runs a line of options and command as ana; gives the stream and the record.
#[track_caller]
fn run(scene: &Scene, status: i32, line: &str) -> (Events, Record) {
    let _said = scene
        .bash(&format!(
            "sandbox run --user ana --events events --record record.json {line}"
        ))
        .expect(status);
    (Events::parse(&scene.read("events")), scene.record())
}

/// Pid and start time.
fn identity(task: &Value) -> (Option<u64>, Option<u64>) {
    (task["pid"].as_u64(), task["start_time"].as_u64())
}

#[test]
fn a_run_is_told_from_birth_to_exit_in_the_order_in_which_it_went() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let (events, record) = run(
        &scene,
        3,
        "--id a-17 --sample 0 -- bash -c '(exit 7); exit 3'",
    );
    let start = events.only("start");
    assert_has(
        start,
        &json!({"run_id": record.text("/run_id"), "analysis_id": "a-17", "tracing": "exact"}),
    );
    let kinds: Vec<&str> = events
        .lines()
        .iter()
        .filter_map(|line| line["type"].as_str())
        .filter(|kind| *kind != "throttled")
        .collect();
    assert_eq!(
        kinds,
        ["start", "birth", "exec", "birth", "exit", "exit", "end"],
        "{events}"
    );
    let births: Vec<&Value> = events.of("birth").collect();
    let (main, child) = (&births[0]["task"], &births[1]["task"]);
    assert_eq!(identity(&births[1]["parent"]), identity(main), "{events}");
    assert_has(
        events.only("exec"),
        &json!({
            "task": {"pid": main["pid"], "comm": "bash"}, "filename": "/usr/bin/bash",
            "argv": ["bash", "-c", "(exit 7); exit 3"], "argv_cut": false,
        }),
    );
    let exits: Vec<&Value> = events.of("exit").collect();
    for (exit, task, code) in [(exits[0], child, 7), (exits[1], main, 3)] {
        assert_eq!(identity(&exit["task"]), identity(task), "{events}");
        assert_has(exit, &json!({"code": code, "signal": null, "last": true}));
        assert!(exit["run_time_ns"].as_u64() > Some(0), "{events}");
    }
    assert_has(
        events.only("end"),
        &json!({"reason": "exit_code", "events": record.number("/tracing/events")}),
    );
}

#[test]
fn the_tree_of_the_record_says_the_same() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let (events, record) = run(
        &scene,
        0,
        "-- bash -c 'bash -c \"kill -9 \\$\\$\"; sleep 0.1; victim threads 3 --exit 4; true'",
    );
    let tree = record.list("/processes/tree");
    let processes = events
        .of("birth")
        .filter(|birth| birth["task"]["pid"] == birth["task"]["tid"]);
    assert_eq!(tree.len(), processes.count(), "{events}\n{record}");
    assert_eq!(record.number("/processes/tree_left_out"), 0);
    for node in tree {
        let is_it = |task: &Value| identity(task) == identity(node);
        let exits = || events.of("exit").filter(|exit| is_it(&exit["task"]));
        let last = exits().find(|exit| exit["last"] == true);
        let last = last.unwrap_or_else(|| panic!("{node} did not end: {events}"));
        for field in ["code", "signal"] {
            assert_eq!(node["exit"][field], last[field], "{node} {last}");
        }
        assert_eq!(node["ended_at"], last["at"], "{node} {last}");
        for field in ["cpu_user_us", "cpu_system_us"] {
            let sum: u64 = exits().filter_map(|exit| exit[field].as_u64()).sum();
            let told = node[field].as_u64().expect("it has ended");
            // Each is cut to whole microseconds.
            assert!(
                told.abs_diff(sum) <= exits().count() as u64,
                "{node} {events}"
            );
        }
    }
    let by = |comm: &str| tree.iter().find(|node| node["comm"] == comm);
    let threads = by("victim").expect("the victim is in the tree");
    assert_has(
        threads,
        &json!({"exit": {"code": 4}, "exe": "/payload/bin/victim"}),
    );
    assert_eq!(
        threads["argv"],
        json!(["victim", "threads", "3", "--exit", "4"])
    );
    let killed = tree.iter().find(|node| node["exit"]["signal"] == 9);
    assert_eq!(
        killed.expect("one died of SIGKILL")["parent_pid"],
        tree[0]["pid"]
    );
}

#[test]
fn a_reader_can_follow_it_live() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let path = scene.path("events");
    let running = Sandbox::new()
        .options(["--events".as_ref(), path.as_os_str()])
        .start_victim(["sleep"]);
    let pid = running.ready();
    let so_far = || Events::parse_part(&scene.read("events"));
    wait::until("the exec of a run that goes on", || {
        so_far().of("exec").any(|exec| exec["task"]["pid"] == pid)
    });
    wait::until("samples of a run that goes on", || {
        so_far().of("sample").count() >= 2
    });
    assert_eq!(so_far().of("end").count(), 0);
    let outsider = Outsider::signals(pid, Signal::SIGKILL);
    let record = running.finish().ended(137, "external_kill", "same");
    let events = Events::parse(&scene.read("events"));
    assert_has(
        events.only("signal"),
        &json!({
            "signal": 9, "signal_name": "SIGKILL", "cause": "process", "delivery": "delivered",
            "sender": {"pid": outsider.pid}, "sender_uid": 0, "sender_in_run": false,
            "target": {"pid": pid}, "target_is_main": true,
        }),
    );
    assert_eq!(events.only("signal")["at"], record.fatal()["at"]);
}

#[test]
fn limits_that_are_met_are_told() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let (events, record) = run(&scene, 137, "--memory 64MiB -- victim eat 100MiB");
    assert_has(
        events.only("oom"),
        &json!({
            "scope": "leaf", "cgroup": record.text("/cgroup/path"), "max_bytes": 64 << 20,
            "chosen": {"pid": record.fatal()["victim"]["pid"]},
        }),
    );
    // As a member of its group it is killed once more, which is ignored.
    let signal = events
        .of("signal")
        .find(|line| line["delivery"] == "delivered");
    let signal = signal.expect("it was killed");
    assert_has(signal, &json!({"cause": "oom", "target_is_main": true}));
    assert!(
        signal["target_rss_bytes"].as_u64() > Some(32 << 20),
        "{events}"
    );

    let (events, record) = run(
        &scene,
        0,
        "--pids 5 --on-pids-limit deny -- victim children 9 --exit 0",
    );
    let denied: Vec<&Value> = events.of("fork_denied").collect();
    assert_eq!(denied.len(), 5, "{events}");
    for fork in denied {
        assert_eq!(fork["cgroup"], record.text("/cgroup/path"), "{events}");
    }

    let (events, record) = run(
        &scene,
        143,
        "--cpus 0.2 --timeout 1s --sample 100ms -- victim spin",
    );
    let sum = |field: &str| -> i64 {
        let values = events
            .of("throttled")
            .filter_map(|line| line[field].as_i64());
        values.sum()
    };
    let hit = record.limit_hit("cpus")["count"]
        .as_i64()
        .expect("it was counted");
    assert!((1..=hit).contains(&sum("periods")), "{events}");
    assert!(
        sum("throttled_us") <= record.number("/usage/throttled_us"),
        "{events}"
    );
}

#[test]
fn an_escape_is_told() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        "sandbox run --user root --events events --record record.json -- \
         nsenter -t 1 -C -m bash -c 'echo $$ >/sys/fs/cgroup/cgroup.procs; sleep 20'",
    );
    let events = Events::parse(&scene.read("events"));
    assert_eq!(scene.record().reason(), "escaped", "{said}");
    let escape = events.of("escape").next().expect("it left");
    assert_eq!(escape["to_cgroup_id"], 1, "{events}");
}

#[test]
fn samples_come_as_often_as_was_asked_and_tell_what_the_leaf_uses() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let (events, record) = run(
        &scene,
        143,
        "--timeout 2s --sample 100ms -- victim eat 50MiB",
    );
    let samples: Vec<&Value> = events.of("sample").collect();
    assert!((5..=25).contains(&samples.len()), "{events}");
    // The first ones are taken before it has its memory, and the last one may be as it ends, when some of its numbers
    // are still those of before: of the highest, the first.
    let needed_bytes = |sample: &Value| sample["memory_needed_bytes"].as_u64();
    let highest = samples
        .iter()
        .rev()
        .max_by_key(|sample| needed_bytes(sample));
    let highest = highest.expect("some");
    for field in [
        "memory_anon_bytes",
        "memory_needed_bytes",
        "memory_current_bytes",
    ] {
        assert!(highest[field].as_u64() > Some(50 << 20), "{field} {events}");
    }
    for field in ["cpu_user_us", "io_read_bytes", "throttled_us"] {
        assert!(!highest[field].is_null(), "{field} {events}");
    }
    assert_eq!(highest["pids_current"], 1);
    let needed = record.at("/usage/memory_needed_bytes");
    assert_has(needed, &json!({"source": "samples", "lower_bound": false}));
    assert_eq!(needed["value"].as_u64(), needed_bytes(highest), "{record}");

    let (events, record) = run(&scene, 0, "--sample 0 -- victim sleep 1");
    assert_eq!(events.of("sample").count(), 0, "{events}");
    assert!(
        !record.at("/usage/memory_needed_bytes").is_null(),
        "{record}"
    );
}

#[test]
fn page_cache_is_in_the_peak_and_not_in_what_was_needed() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let (events, record) = run(
        &scene,
        0,
        // On a disk: pages of a tmpfs, such as the scene is in, cannot be dropped.
        "--memory 200MiB --sample 100ms -- bash -c 'head -c 60M /dev/zero >/var/tmp/cache; sleep 1.2; rm /var/tmp/cache'",
    );
    assert!(
        record.number("/usage/memory_peak_bytes") > 60 << 20,
        "{record}"
    );
    let is_cached = |sample: &Value| sample["memory_file_bytes"].as_u64() > Some(50 << 20);
    assert!(events.of("sample").any(is_cached), "{events}");
    let needed = record.at("/usage/memory_needed_bytes");
    assert_has(needed, &json!({"lower_bound": false, "source": "samples"}));
    assert!(needed["value"].as_u64() < Some(30 << 20), "{record}");
}

#[test]
fn a_reader_that_takes_nothing_does_not_hold_up_the_deadline() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        // As much as a pipe holds (pipe(7)): there is room for nothing more from the start.
        "mkfifo stalled && exec 3<>stalled && head -c 65536 /dev/zero >&3 && \
         sandbox run --user ana --events fd:3 --timeout 2s --grace 0 --record record.json -- \
         bash -c 'while :; do (:); done'",
    );
    assert_eq!(said.code(), 137, "{said}");
    let record = scene.record();
    assert_eq!(record.reason(), "walltime", "{record}");
    let degraded = record.list("/tracing/degraded");
    let tells = |line: &Value| {
        line.as_str()
            .is_some_and(|line| line.contains("its reader did not take the rest within 5 s"))
    };
    assert!(degraded.iter().any(tells), "{record}");
}

#[test]
fn a_reader_that_has_had_enough_is_no_trouble() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene
        .bash(
            "sandbox run --user ana --events - --record record.json -- \
             bash -c 'echo to stderr; sleep 0.5; exit 5' | head -n 1; exit ${PIPESTATUS[0]}",
        )
        .expect(5);
    assert!(said.out().contains("sandbox.events"), "{said}");
    assert!(said.err().contains("to stderr"), "{said}");
    assert!(scene.record().list("/tracing/degraded").is_empty());
}

#[test]
fn a_stream_that_has_nowhere_to_go_is_refused_before_anything_runs() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene
        .bash("sandbox run --user ana --events none/events --record record.json -- touch ran")
        .expect(125);
    assert!(
        said.err().contains("the events cannot be written to"),
        "{said}"
    );
    assert!(said.err().contains("none/events"), "{said}");
    assert_eq!(scene.record().reason(), "setup_failed");
    assert!(!scene.files().contains("ran"));
}
