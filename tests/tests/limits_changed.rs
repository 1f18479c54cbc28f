//! Limits that somebody else changes while the run goes on: the record names each, and the verdict
//! rests on what the kernel enforced.

use std::fs;

use nix::sys::signal::Signal;
use sandbox_tests::{Configured, Enclosing, Guest, Outsider, Sandbox, enclosing};

#[test]
fn limits_changed_from_outside_are_named_with_both_values() {
    let _guest = Guest::enter();
    let running = Sandbox::new()
        .options(["--memory", "64MiB", "--pids", "50", "--cpus", "1"])
        .start_victim(["sleep"]);
    let pid = running.ready();
    let leaf = running.cgroup_of(pid);
    for (file, value) in [
        ("memory.max", "33554432"),
        ("pids.max", "max"),
        ("cpu.max", "50000 100000"),
        ("memory.high", "16777216"),
    ] {
        let path = leaf.join(file);
        fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    Outsider::signals(pid, Signal::SIGKILL);
    let record = running.finish().ended(137, "external_kill", "same");
    let degraded = record.at("/tracing/degraded").to_string();
    for said in [
        "memory.max of this run's cgroup from outside: sandbox had set 67108864 bytes, in the end it was 33554432 bytes",
        "pids.max of this run's cgroup from outside: sandbox had set 50, in the end it was max",
        "cpu.max of this run's cgroup from outside: sandbox had set 1 cores, in the end it was 0.5 cores",
        "memory.high of this run's cgroup from outside: sandbox had set max, in the end it was 16777216 bytes",
    ] {
        assert!(degraded.contains(said), "{said}:\n{record}");
    }
}

#[test]
fn an_oom_at_a_limit_lowered_from_outside_is_told_with_the_limit_that_was_met() {
    let _guest = Guest::enter();
    let running = Sandbox::new()
        .options(["--memory", "256MiB"])
        .start(["bash", "-c", "echo ready $$; until grep -q 33554432 /sys/fs/cgroup/memory.max; do sleep 0.05; done; exec victim eat 100MiB"]);
    let pid = running.ready();
    let path = running.cgroup_of(pid).join("memory.max");
    fs::write(&path, "33554432").expect("root may");
    let record = running.finish().record();
    assert_eq!(record.reason(), "memory", "{record}");
    assert_eq!(record.fatal()["oom"]["max_bytes"], 32 << 20, "{record}");
    record.assert_notes(&[
        "memory limit of 32 MiB, which somebody set from outside while it ran, reached",
        "sandbox had set a memory limit of 256 MiB (--memory)",
    ]);
}

#[test]
fn whom_an_oom_takes_and_the_limits_above_are_looked_at_too() {
    let _guest = Guest::enter();
    let _unlimited = Configured::with("[budget]\nmemory = 'none'\n");
    let running = Sandbox::new().start_victim(["sleep"]);
    let pid = running.ready();
    fs::write(running.cgroup_of(pid).join("memory.oom.group"), "0").expect("root may");
    let _above = Enclosing::limit(enclosing::RUNS, "memory.max", "1073741824");
    Outsider::signals(pid, Signal::SIGKILL);
    let record = running.finish().ended(137, "external_kill", "same");
    let degraded = record.at("/tracing/degraded").to_string();
    for said in [
        "memory.oom.group of this run's cgroup from outside: sandbox had set 1, in the end it was 0",
        "memory.max above this run's cgroup while it ran: the tightest was max, in the end it was 1073741824 bytes of /sandbox/runs",
    ] {
        assert!(degraded.contains(said), "{said}:\n{record}");
    }
}

#[test]
fn a_child_killed_at_a_limit_lowered_from_outside_is_told_with_it_too() {
    let _guest = Guest::enter();
    let script = "echo ready $$; until grep -q 33554432 /sys/fs/cgroup/memory.max; do sleep 0.05; done; victim eat 100MiB; exit 3";
    let running = Sandbox::new()
        .options(["--memory", "256MiB", "--oom", "process"])
        .start(["bash", "-c", script]);
    let pid = running.ready();
    let path = running.cgroup_of(pid).join("memory.max");
    fs::write(&path, "33554432").expect("root may");
    let record = running.finish().record();
    assert_eq!(record.reason(), "exit_code", "{record}");
    record.assert_notes(&[
        "the memory limit of 32 MiB being reached, which somebody set from outside while it ran",
    ]);
    assert!(!record.notes().contains("Raise it"), "{record}");
}

#[test]
fn a_fork_denied_at_a_limit_lowered_from_outside_is_told_with_it() {
    let _guest = Guest::enter();
    let script = "import os, time
print('ready', os.getpid(), flush=True)
while open('/sys/fs/cgroup/pids.max').read() != '1\\n':
    time.sleep(0.05)
os.fork()";
    let running = Sandbox::new()
        .options(["--pids", "20"])
        .start(["python3", "-c", script]);
    let pid = running.ready();
    fs::write(running.cgroup_of(pid).join("pids.max"), "1").expect("root may");
    let record = running.finish().record();
    assert_eq!(record.reason(), "pids", "{record}");
    assert_eq!(record.finding("denied_forks")["max"], 1, "{record}");
    record.assert_notes(&[
        "limit of 1 processes and threads, which somebody set from outside while it ran, reached",
        "sandbox had set a limit of 20 processes and threads (--pids)",
    ]);
}

#[test]
fn limits_that_nobody_changed_are_not_spoken_of() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new().victim(["exit", "0"]);
    let record = outcome.record();
    let degraded = record.at("/tracing/degraded").to_string();
    assert!(!degraded.contains("somebody changed"), "{record}");
    assert!(!degraded.contains("is not known"), "{record}");
}
