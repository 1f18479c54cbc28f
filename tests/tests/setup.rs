//! Starts that come to nothing, each named, and apart from anything that the command returns.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use sandbox_tests::{
    Enclosing, Guest, Outcome, Record, Sandbox, Scene, assert_has, cache_victim, enclosing,
    has_ended, wait,
};
use serde_json::json;

#[track_caller]
fn failed(outcome: &Outcome, status: i32, kind: &str) -> Record {
    let record = outcome.ended(status, "setup_failed", "none");
    assert_has(record.finding("setup_failure"), &json!({"kind": kind}));
    assert!(record.at("/started_at").is_null(), "{record}");
    assert!(record.at("/walltime_ns").is_null(), "{record}");
    assert!(record.number("/cgroup/id") > 0, "{record}");
    assert_eq!(record.number("/processes/execs"), 0, "{record}");
    assert!(
        outcome.stderr.starts_with("sandbox: "),
        "{}",
        outcome.stderr
    );
    record
}

#[test]
fn a_command_that_is_not_there_is_127() {
    let _guest = Guest::enter();
    for (command, named) in [
        ("/no/such/command", "/no/such/command"),
        ("no-such-command", "no-such-command"),
        ("", "execve '' (the command is empty)"),
    ] {
        let outcome = Sandbox::new().command([command]);
        let record = failed(&outcome, 127, "command_not_found");
        assert!(outcome.stderr.contains(named), "{}", outcome.stderr);
        record.assert_notes(&["Not started: ", named, "command not found."]);
    }
}

#[test]
fn a_command_that_cannot_be_executed_is_126() {
    let _guest = Guest::enter();
    for command in ["/etc/passwd", "/etc"] {
        let outcome = Sandbox::new().command([command]);
        let record = failed(&outcome, 126, "command_not_executable");
        record.assert_notes(&[
            "Not started: execve ",
            command,
            "cannot be executed (Permission denied).",
        ]);
    }
}

#[test]
fn a_script_whose_interpreter_is_missing_says_so() {
    let _guest = Guest::enter();
    let script = std::env::temp_dir().join(format!("script-{}", std::process::id()));
    fs::write(&script, "#!/no/such/interpreter\n").expect("a test can write to /tmp");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let outcome = Sandbox::new().command([&script]);
    fs::remove_file(&script).expect("it is ours");
    let record = failed(&outcome, 127, "command_not_found");
    record.assert_notes(&["the interpreter that its first line"]);
}

#[test]
fn an_exit_status_of_127_that_is_the_commands_own_is_no_failed_start() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new().command(["bash", "-c", "no-such-command"]);
    let record = outcome.ended(127, "exit_code", "none");
    assert_eq!(record.number("/processes/execs"), 1, "{record}");
}

#[test]
fn too_little_memory_to_start_is_named() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new()
        .options(["--memory", "4KiB"])
        .victim(["exit", "0"]);
    let record = failed(&outcome, 125, "out_of_memory");
    record.assert_notes(&[
        "Not started: out of memory at ",
        "memory limit of 4 KiB (--memory)",
    ]);
}

#[test]
fn memory_that_runs_out_on_either_side_of_exec_is_named() {
    let _guest = Guest::enter();
    cache_victim();
    for size in [16, 32, 40, 48, 56, 60, 64, 96, 128, 256, 512] {
        let outcome = Sandbox::new()
            .options(["--memory", &format!("{size}KiB")])
            .victim(["eat", "1MiB"]);
        let record = outcome.record();
        match record.reason() {
            "setup_failed" => {
                record.assert_verdict("setup_failed", "none");
                assert_eq!(outcome.code(), 125, "{record}");
                assert!(record.at("/started_at").is_null(), "{record}");
            }
            _ => {
                let _record = outcome.ended(137, "memory", "more_memory");
            }
        }
        let never_executed = record.number("/processes/execs") == 0;
        assert_eq!(
            never_executed,
            record.reason() == "setup_failed",
            "{record}"
        );
        record.assert_notes(&["memory limit of", "(--memory)"]);
    }
}

#[test]
fn no_pid_left_to_start_with_is_named() {
    let _guest = Guest::enter();
    let _limit = Enclosing::limit(enclosing::RUNS, "pids.max", "0");
    let outcome = Sandbox::new().victim(["exit", "0"]);
    let record = failed(&outcome, 125, "out_of_pids");
    assert_eq!(record.number("/processes/births"), 0, "{record}");
    record.assert_notes(&["Not started: out of PIDs at clone3", "or one above it"]);
}

#[test]
fn a_directory_that_is_not_there_or_not_for_its_user_is_named() {
    let _guest = Guest::enter();
    for (directory, why) in [
        ("/no/such/directory", "No such file"),
        ("/root", "Permission denied"),
    ] {
        let outcome = Sandbox::new()
            .options(["--chdir", directory])
            .victim(["exit", "0"]);
        let record = failed(&outcome, 125, "other");
        record.assert_notes(&["Not started: ", directory, why]);
    }
}

#[test]
fn a_working_directory_that_was_removed_is_refused_before_anything_starts() {
    let _guest = Guest::enter();
    let folder = std::env::temp_dir().join(format!("removed-{}", std::process::id()));
    fs::create_dir(&folder).expect("a test can write to /tmp");
    let script = format!(
        "cd {folder} && rmdir {folder} && exec \"$SANDBOX\" run --user ana -- true",
        folder = folder.display()
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .expect("the guest has bash");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("current directory"), "{stderr}");
}

#[test]
fn a_start_under_a_freezer_waits_until_it_is_thawed_or_the_run_is_ended() {
    let _guest = Guest::enter();
    let start = || {
        let running = Sandbox::new()
            .options(["--timeout", "30s"])
            .start_victim(["exit", "0"]);
        running.until_told("cgroup.freeze of /sandbox/runs is 0");
        running
    };
    // Declared first, it is dropped last: what is frozen cannot be killed.
    let mut running;
    let frozen = Enclosing::limit(enclosing::RUNS, "cgroup.freeze", "1");
    for (signal, status) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        running = start();
        running.signal(signal);
        let record = running.finish().ended(status, "cancelled", "same");
        let why =
            "before the analysis was started, while cgroup.freeze of /sandbox/runs held it up";
        assert_has(record.finding("own_action"), &json!({"detail": why}));
        assert_eq!(record.at("/processes/births"), 0, "{record}");
    }

    running = start();
    let guardian = running.guardian();
    running.signal(Signal::SIGKILL);
    wait::until("the guardian to end", || has_ended(guardian));
    let record = running.finish().record();
    record.assert_reason("runner_lost", "same");
    record.assert_notes(&["Lost: sandbox died before the analysis was started."]);

    running = start();
    drop(frozen);
    let _record = running.finish().ended(0, "completed", "none");
}

#[test]
fn who_may_not_run_anything_is_told_so_and_nothing_else() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let _done = scene
        .bash("sandbox run --user ana --record record.json -- true")
        .expect(0);
    let said = scene
        .bash("runuser -u ana -- sandbox run --standalone -- true")
        .expect(125);
    let err = said.err();
    assert!(err.contains("needs root"), "{said}");
    assert_eq!(err.lines().count(), 1, "{said}");
}

#[test]
fn a_caller_in_whose_cgroup_cgroup_kill_was_once_written_can_start_runs() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    // On 6.18 what is cloned from there into another cgroup is killed at birth.
    let said = scene.bash(
        "cgroup=/sys/fs/cgroup/killed-once; mkdir $cgroup && echo 1 >$cgroup/cgroup.kill; \
         (echo $BASHPID >$cgroup/cgroup.procs; \
          sandbox run --user ana --record record.json -- bash -c 'exit 5'); \
         status=$?; until rmdir $cgroup; do sleep 0.05; done; exit $status",
    );
    assert_eq!(said.code(), 5, "{said}");
    let record = scene.record();
    assert_eq!(record.reason(), "exit_code", "{record}");
    assert_eq!(record.confidence(), "exact", "{record}");
    assert_eq!(record.at("/processes/births"), 1, "{record}");
}
