//! Who is under a limit of its own cgroup (a Slurm step, a container) stays under it with `--standalone`.

use std::path::Path;

use sandbox_tests::{Configured, Guest, Scene};

#[test]
fn a_run_is_placed_under_its_callers_limit_and_leaves_nothing_there() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let line = "/payload/bin/sandbox run --user ana --record record.json --on-complete 'bash hook.sh' -- \
                python3 -c 'import os; print(open(\"/proc/self/cgroup\").read()); bytearray(200 << 20)'; \
                status=$?; cat /proc/self/cgroup; exit $status";
    // It tells of the run, and may have one of its own done.
    scene.write(
        "hook.sh",
        "cat >hook.json; /payload/bin/sandbox run --user ana -- cat /proc/self/cgroup >hook.out 2>&1",
    );
    let said = scene.limited_caller("job/task", line).expect(137);
    let record = scene.record();
    assert_eq!(record.reason(), "memory_ancestor", "{record}");
    let run_id = record.text("/run_id");
    assert_eq!(
        record.text("/cgroup/path"),
        format!("/limited/sandbox-{run_id}/runs/{run_id}")
    );
    let enclosing = "/limits/memory_bytes/enclosing";
    assert_eq!(record.number(&format!("{enclosing}/value")), 64 << 20);
    assert_eq!(record.text(&format!("{enclosing}/cgroup")), "/limited");
    assert_eq!(record.text("/kills/0/oom/cgroup"), "/limited", "{record}");
    assert!(said.out().contains("0::/limited/job/task"), "{said}");
    assert!(scene.read("hook.json").contains(run_id), "{said}");
    assert_eq!(scene.read("hook.out"), "0::/\n");
}

#[test]
fn a_run_under_its_callers_limit_that_loses_everybody_is_removed_with_all_that_was_its_own() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let line = "mkfifo -m 666 up; \
                (exec /payload/bin/sandbox run --user ana -- bash -c 'echo >up; exec sleep 1000') >/dev/null 2>&1 & \
                read <up; kill -9 $! $(cat /proc/$!/task/*/children); wait; \
                ls -d /sys/fs/cgroup/limited/sandbox-* >frame; \
                /payload/bin/sandbox run --user ana -- true";
    let said = scene.limited_caller("task", line).expect(0);
    let frame = scene.read("frame");
    assert!(
        !frame.is_empty() && !Path::new(frame.trim()).exists(),
        "{frame}: {said}"
    );
}

#[test]
fn where_there_is_no_room_under_its_callers_limit_no_run_is_started_unless_the_host_lets_it_go() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let line = "sandbox run --user ana --record record.json -- true";
    let said = scene.limited_caller("", line).expect(125);
    for part in [
        "your memory is limited by the cgroup /limited",
        "processes sit in it",
        "limited-callers",
    ] {
        assert!(said.err().contains(part), "{said}");
    }
    let check = scene.limited_caller("", "sandbox check").expect(125);
    assert!(check.out().contains("your memory is limited by"), "{check}");

    let _config = Configured::with("[service]\nlimited-callers = 'allow'\n");
    for (within, place, is_free) in [
        ("", "/sandbox/runs/", true),
        ("task", "/limited/sandbox-", false),
    ] {
        let _done = scene.limited_caller(within, line).expect(0);
        let record = scene.record();
        let path = record.text("/cgroup/path");
        assert!(path.starts_with(place), "{path}");
        let degraded = record.at("/tracing/degraded").to_string();
        let says_so = degraded.contains("free of the limit of memory that its caller is under");
        assert_eq!(says_so, is_free, "{record}");
    }
}
