//! Endings that are the runner's: cancelled, lost, escaped from, never begun.

use nix::sys::signal::Signal;
use sandbox_tests::{Scene, cache_victim, wait};
use serde_json::json;

use crate::random::Random;
use crate::stage::{Who, pause, sandbox};
use crate::truth::{Case, Truth};

/// Somebody asks `sandbox` to end it.
pub(crate) fn is_cancelled(random: &mut Random) -> Case {
    let signal = random.pick(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    let number = signal as i32;
    let ended = |signal| Truth::ended("cancelled", "same", signal);
    let code = random.pick(&[0, 6]);
    // It exits 0 only where it was asked to.
    let zero = if signal == Signal::SIGINT { 130 } else { 143 };
    let (act, truth): (Vec<&str>, Truth) = match random.below(4) {
        0 => (vec!["sleep"], ended(number)),
        1 => (vec!["spin"], ended(number)),
        2 if signal == Signal::SIGTERM => (vec!["ignore-term"], ended(9)),
        _ => {
            let code_text = if code == 0 { "0" } else { "6" };
            let act = vec!["handle", signal.as_str(), code_text];
            (act, Truth::told("cancelled", "same", code, zero))
        }
    };
    let running = sandbox().options(["--grace", "1s"]).start_victim(act);
    let _pid = running.ready();
    let cancelled = json!({
        "reason": "cancelled", "signal": number, "detail": format!("from pid {}", running.asker()),
    });
    running.signal(signal);
    Case::new(running.finish(), truth.finding("own_action", cancelled))
}

/// `sandbox` is killed under it; now and then main has asked to die with it.
pub(crate) fn loses_its_runner(random: &mut Random) -> Case {
    let act = random.pick(&["sleep", "spin", "ignore-term", "die-with-parent"]);
    let running = sandbox().start_victim([act]);
    let pid = running.ready();
    running.signal(Signal::SIGKILL);
    let truth = Truth::lost(9).kill(json!({
        "signal": 9, "delivered": true, "victim": {"pid": pid, "is_main": true},
    }));
    Case::new(running.finish(), truth)
}

/// Both `sandbox` and its guardian are killed: whoever comes next finishes the run, which may have
/// ended meanwhile.
pub(crate) fn loses_everybody(random: &mut Random) -> Case {
    let ending = random.below(3);
    let act = match ending {
        0 => vec!["handle", "USR1", "3"],
        1 => vec!["sleep"],
        _ => vec!["ignore-term"],
    };
    let running = sandbox().start_victim(act);
    let pid = running.ready();
    running.lose_everybody();
    // Any run that starts from here on may be the next.
    let ended = json!({
        "signal": 9, "cause": "runner", "delivered": true, "victim": {"pid": pid, "is_main": true},
    });
    let mut truths = vec![Truth::lost(9).kill(ended)];
    match ending {
        0 => {
            let (_, _) = Who::Us.tries(pid, Signal::SIGUSR1);
            truths.push(Truth::exited(3).unwatched(9));
        }
        1 => {
            let (sender, _) = Who::any(random).tries(pid, Signal::SIGKILL);
            truths.push(Truth::outside(9, &sender).unwatched(9));
        }
        _ => {}
    }
    pause(random.at_most_ms(300));
    let _checked = Scene::new().bash("sandbox check");
    let record = running.folder().join("record.json");
    wait::until("its record", || record.exists());
    Case::race(running.finish(), truths)
}

/// Nothing is started: no such command, no right to it, no memory for it, no such directory.
pub(crate) fn is_not_started(random: &mut Random) -> Case {
    let run = sandbox();
    let (outcome, status, kind) = match random.below(5) {
        0 => (run.command(["/no/such/command"]), 127, "command_not_found"),
        1 => (run.command(["no-such-command"]), 127, "command_not_found"),
        2 => {
            let command = random.pick(&["/etc/passwd", "/etc"]);
            (run.command([command]), 126, "command_not_executable")
        }
        3 => {
            let run = run.options(["--memory", "4KiB"]);
            (run.victim(["exit", "0"]), 125, "out_of_memory")
        }
        _ => {
            let folder = random.pick(&["/no/such/directory", "/root"]);
            let run = run.options(["--chdir", folder]);
            (run.victim(["exit", "0"]), 125, "other")
        }
    };
    let truth = Truth::not_started(status).finding("setup_failure", json!({"kind": kind}));
    Case::new(outcome, truth)
}

/// A memory limit that is reached about the time of exec.
pub(crate) fn hardly_starts(random: &mut Random) -> Case {
    cache_victim();
    let size = random.between(1, 160) * 4;
    let outcome = sandbox()
        .options(["--memory", &format!("{size}KiB")])
        .victim(["eat", "1MiB"]);
    let oom = json!({"scope": "leaf", "max_bytes": size * 1024});
    let killed = json!({"signal": 9, "cause": "oom", "delivered": true, "oom": oom});
    let truths = [
        Truth::oom("memory", &oom),
        Truth::not_started(125)
            .kill(killed)
            .finding("never_executed", json!({})),
        Truth::not_started(125).finding("setup_failure", json!({"kind": "out_of_memory"})),
    ];
    Case::race(outcome, truths)
}

/// A task leaves the leaf, by itself or moved by somebody else.
pub(crate) fn escapes(random: &mut Random) -> Case {
    if random.flip() {
        let running = sandbox().start_victim(["sleep"]);
        let main = running.ready();
        std::fs::write("/sys/fs/cgroup/cgroup.procs", main.to_string()).expect("root may move it");
        let truth =
            Truth::anyhow("escaped", "none", 125).finding("left_leaf", json!({"pid": main}));
        return Case::new(running.finish(), truth);
    }
    let script = "echo out $$; echo $$ >/sys/fs/cgroup/cgroup.procs; exec victim sleep";
    let running = sandbox()
        .user("root")
        .start(["nsenter", "-t1", "-C", "-m", "bash", "-c", script]);
    let fugitive: i64 = running.line("out ").parse().expect("a pid");
    let truth =
        Truth::anyhow("escaped", "none", 125).finding("left_leaf", json!({"pid": fugitive}));
    Case::new(running.finish(), truth)
}
