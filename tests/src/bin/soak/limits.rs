//! Endings by a limit of the run's own: memory, PIDs, wall clock, CPU time.

use nix::sys::signal::Signal;
use sandbox_tests::{Outcome, Sandbox};
use serde_json::{Value, json};

use crate::random::Random;
use crate::stage::{MIB, Who, sandbox};
use crate::truth::{Case, Truth};

fn own_oom(limit: usize, group: bool) -> Value {
    json!({"scope": "leaf", "max_bytes": limit * MIB, "group": group})
}

fn limited(limit: usize, whose: &str) -> Sandbox {
    sandbox().options(["--memory", &format!("{limit}MiB"), "--oom", whose])
}

/// Main takes more than its memory, alone or with its threads and children.
pub(crate) fn eats_too_much(random: &mut Random) -> Case {
    let limit = random.between(16, 40);
    let much = format!("{}MiB", limit + random.between(8, 24));
    let whole = || limited(limit, "whole");
    let (outcome, group) = match random.below(6) {
        0 => (whole().victim(["eat", &much]), true),
        1 => (limited(limit, "process").victim(["eat", &much]), false),
        2 => {
            let threads = random.between(2, 4).to_string();
            (whole().victim(["eat-threads", &threads, &much]), true)
        }
        3 => {
            let processes = random.between(2, 3).to_string();
            (whole().victim(["eat-group", &processes, &much]), true)
        }
        4 => (whole().victim(["eat-shm", &much]), true),
        _ => (whole().victim(["eat-in-child", &much, "--exit", "0"]), true),
    };
    Case::new(outcome, Truth::oom("memory", &own_oom(limit, group)))
}

/// A child takes more than there is and dies of it alone; main goes on and exits.
pub(crate) fn loses_a_child_to_its_memory(random: &mut Random) -> Case {
    let limit = random.between(16, 32);
    let much = format!("{}MiB", limit + 16);
    let code = random.pick(&[0, 3, 137]);
    let run = limited(limit, "process");
    let outcome = if random.flip() {
        run.victim(["eat-in-child", &much, "--exit", &code.to_string()])
    } else {
        let script = format!("victim eat {much}; test $? = 137 || exit 9; exit {code}");
        run.command(["bash", "-c", &script])
    };
    let kill = json!({
        "signal": 9, "cause": "oom", "delivered": true, "victim": {"is_main": false},
        "sender": {"kind": "kernel"}, "oom": own_oom(limit, false),
    });
    let mut truth = Truth::exited(code)
        .kill(kill)
        .finding("member_oom_killed", json!({}));
    if code != 0 {
        truth = truth.more_memory();
    }
    Case::new(outcome, truth)
}

/// A child dies of the memory limit, then somebody outside kills main.
pub(crate) fn is_killed_after_an_oom(random: &mut Random) -> Case {
    let limit = random.between(16, 24);
    let much = format!("{}MiB", limit + 12);
    let running = limited(limit, "process").start_victim(["eat-in-child", &much]);
    let pid = running.ready();
    let signal = random.pick(&[Signal::SIGTERM, Signal::SIGKILL]);
    let sender = Who::any(random).signals(pid, signal);
    let truth = Truth::outside(signal as i32, &sender).finding("member_oom_killed", json!({}));
    Case::new(running.finish(), truth)
}

/// A fork is denied by the run's own limit, and that ends it.
pub(crate) fn forks_too_often(random: &mut Random) -> Case {
    let limit = random.between(5, 24);
    let run = sandbox().options(["--pids", &limit.to_string()]);
    let many = (limit + random.between(2, 9)).to_string();
    let outcome = match random.below(4) {
        0 => run.victim(["fork-bomb"]),
        1 => run.victim(["threads", &many]),
        2 => run.victim(["children", &many]),
        _ => run.victim(["threads", &many, "--exit", "0"]),
    };
    let denied = json!({"level": "leaf"});
    let killed = Truth::ended("pids", "more_pids", 9).finding("denied_forks", denied.clone());
    let exited = Truth::anyhow("pids", "more_pids", 124).finding("denied_forks", denied);
    Case::race(outcome, [killed, exited])
}

/// Forks are denied, and main goes on.
pub(crate) fn is_denied_forks(random: &mut Random) -> Case {
    let limit = random.between(6, 20);
    let over = random.between(1, 6);
    let code = random.pick(&[0, 4]);
    let act = random.pick(&["children", "threads"]);
    let outcome = sandbox()
        .options(["--pids", &limit.to_string(), "--on-pids-limit", "deny"])
        .victim([
            act,
            &(limit - 1 + over).to_string(),
            "--exit",
            &code.to_string(),
        ]);
    let denied = json!({"level": "leaf", "count": over});
    Case::new(outcome, Truth::exited(code).finding("denied_forks", denied))
}

/// The deadline passes.
pub(crate) fn takes_too_long(random: &mut Random) -> Case {
    let seconds = random.between(2, 3);
    let timed = |grace: &str| {
        Sandbox::new().options(["--timeout", &format!("{seconds}s"), "--grace", grace])
    };
    let ended = |signal| Truth::ended("walltime", "more_time", signal);
    let told = |code| Truth::told("walltime", "more_time", code, 124);
    let code = random.pick(&[0, 5]);
    let act = random.below(7);
    let (outcome, truth) = match act {
        0 => (timed("0").victim(["handle", "TERM", "0"]), ended(9)),
        1 => (timed("0").victim(["fork-bomb"]), ended(9)),
        2 => (timed("20s").victim(["sleep"]), ended(15)),
        3 => (timed("20s").victim(["stop-self"]), ended(15)),
        4 => (timed("1s").victim(["ignore-term"]), ended(9)),
        5 => {
            let run = timed("20s").options(["--pids", "9", "--on-pids-limit", "deny"]);
            (run.victim(["fork-bomb"]), ended(15))
        }
        _ => {
            let code_text = code.to_string();
            (
                timed("20s").victim(["handle", "TERM", &code_text]),
                told(code),
            )
        }
    };
    let mut truths = vec![truth];
    if act == 1 {
        // A fork bomb with the default `--on-pids-limit` ends before that.
        truths.push(Truth::ended("pids", "more_pids", 9));
    }
    if !is_ready(&outcome) {
        // So busy a guest that main was not where it wanted to be by then.
        truths.push(ended(15));
    }
    Case::race(outcome, truths)
}

/// Whether main had come to its point.
fn is_ready(outcome: &Outcome) -> bool {
    outcome.stdout.contains("ready")
}

/// The CPU time of all its processes is used up.
pub(crate) fn uses_up_its_cpu_time(random: &mut Random) -> Case {
    let (grace, signal) = random.pick(&[("0", 9), ("10s", 15)]);
    let budget = format!("{}ms", random.between(3, 8) * 100);
    let processes = random.between(1, 3).to_string();
    let outcome = sandbox()
        .options(["--cpu-time", &budget, "--cpus", "2", "--grace", grace])
        .victim(["spin-group", &processes]);
    Case::new(outcome, Truth::ended("cputime", "more_time", signal))
}

/// An RLIMIT_CPU of main's own making, or of its caller's, is used up.
pub(crate) fn uses_up_its_rlimit(random: &mut Random) -> Case {
    let (outcome, signal) = match random.below(3) {
        0 => (sandbox().victim(["rlimit-cpu", "1", "9"]), 24),
        1 => (sandbox().victim(["rlimit-cpu", "1", "1"]), 9),
        _ => (sandbox().rlimit_cpu(1, 9).victim(["spin"]), 24),
    };
    Case::new(outcome, Truth::rlimit_cpu(signal))
}
