//! Kills at random moments: before exec, between two forks, at the very end.
//!
//! Nobody can say beforehand which of two causes is first. But whichever it is, the record has to
//! tell that one whole: who sent the signal that main died of, or that it exited.

use std::time::Duration;

use nix::sys::signal::Signal;
use sandbox_tests::{Outsider, Running, Sandbox};
use serde_json::{Value, json};

use crate::executed::{Command, Program};
use crate::random::Random;
use crate::stage::{MIB, Who, main_at, pause, sandbox, some_moment};
use crate::truth::{Case, Truth};

/// A run that was started, and what is true of it when nobody stops it.
struct Bound {
    running: Running,
    truths: Vec<Truth>,
    command: Command,
}

fn bound_for(random: &mut Random) -> Bound {
    let own = |signal: i32| {
        let sender = json!({"kind": "process", "in_run": true});
        Truth::own_signal(signal, &json!({"cause": "process", "sender": sender}))
    };
    let short = format!("0.{:02}", random.below(15));
    let forks = "for i in 1 2 3 4 5 6 7 8; do (:); done; exit 4";
    let (run, victim) = (sandbox(), Program::Victim);
    let (run, program, arguments, truth): (Sandbox, Program, Vec<&str>, Truth) =
        match random.below(7) {
            0 => (run, victim, vec!["exit", "0"], Truth::exited(0)),
            1 => (run, victim, vec!["exit", "7"], Truth::exited(7)),
            2 => (run, victim, vec!["sleep", &short], Truth::exited(0)),
            3 => (run, victim, vec!["kill-self", "KILL"], own(9)),
            4 => (run, Program::Bash, vec!["-c", forks], Truth::exited(4)),
            5 => {
                let oom = json!({"scope": "leaf", "max_bytes": 16 * MIB});
                (
                    run.options(["--memory", "16MiB"]),
                    victim,
                    vec!["eat", "40MiB"],
                    Truth::oom("memory", &oom),
                )
            }
            _ => {
                let act = vec!["exec-in-thread", "--", "exit", "5"];
                (run, victim, act, Truth::exited(5))
            }
        };
    let command = Command::new(program);
    Bound {
        running: run.start(command.with(&arguments)),
        truths: vec![truth],
        command,
    }
}

/// A signal from outside at some moment of a short life.
pub(crate) fn is_signalled_at_some_moment(random: &mut Random) -> Case {
    let Bound {
        mut running,
        mut truths,
        command: _command,
    } = bound_for(random);
    let signal = random.pick(&[
        Signal::SIGKILL,
        Signal::SIGKILL,
        Signal::SIGTERM,
        Signal::SIGHUP,
    ]);
    let who = random.pick(&[Who::Us, Who::Us, Who::Shell(0)]);
    let after = random.at_most_ms(150);
    if let Some(main) = main_at(&mut running, after) {
        let (sender, sent) = who.tries(main, signal);
        if sent {
            let kill = json!({"signal": signal as i32, "victim": {"pid": main}, "sender": sender});
            truths.push(Truth::outside(signal as i32, &sender));
            truths.push(Truth::not_started(125).kill(kill));
        }
    }
    Case::race(running.finish(), truths)
}

/// `cgroup.kill` from outside at some moment, of a run that may be forking.
pub(crate) fn is_killed_as_a_cgroup_at_some_moment(random: &mut Random) -> Case {
    let Bound {
        mut running,
        mut truths,
        command: _command,
    } = bound_for(random);
    let after = random.at_most_ms(150);
    if let Some(main) = main_at(&mut running, after) {
        let cgroup = std::fs::read_to_string(format!("/proc/{main}/cgroup")).unwrap_or_default();
        if let Some(leaf) = cgroup.trim().strip_prefix("0::/sandbox/runs/") {
            let leaf = format!("/sys/fs/cgroup/sandbox/runs/{leaf}");
            // It may be gone by then, which is no failure of the killer's.
            let script = format!("echo 1 2>/dev/null >{leaf}/cgroup.kill; true");
            let sender = Outsider::called("bash", 0, &script).as_sender();
            let fatal = json!({"cause": "cgroup_kill", "sender": sender});
            truths.push(Truth::from_outside(9, &fatal));
            truths.push(Truth::not_started(125).kill(fatal));
        }
    }
    Case::race(running.finish(), truths)
}

/// Two outsiders' SIGKILLs: the first decides.
pub(crate) fn is_killed_by_two(random: &mut Random) -> Case {
    let running = sandbox().start_victim(["sleep"]);
    let pid = running.ready();
    let pauses = [random.at_most_ms(30), random.at_most_ms(30)];
    let senders: Vec<(Value, bool)> = std::thread::scope(|scope| {
        let handles = pauses.map(|time| {
            scope.spawn(move || {
                pause(time);
                Who::Shell(0).tries(pid, Signal::SIGKILL)
            })
        });
        let join = |handle: std::thread::ScopedJoinHandle<'_, _>| handle.join().expect("a sender");
        handles.into_iter().map(join).collect()
    });
    let sent = senders.iter().filter(|(_, sent)| *sent);
    let truths = sent.map(|(sender, _)| Truth::outside(9, sender));
    Case::race(running.finish(), truths)
}

/// An exit, a crash of its own or a kill about the time of the deadline.
pub(crate) fn ends_about_its_deadline(random: &mut Random) -> Case {
    let grace = random.pick(&["0", "10s"]);
    let mut running = Sandbox::new()
        .options(["--timeout", "2s", "--grace", grace])
        .start_victim(["sleep", &format!("1.{:02}", random.between(80, 99))]);
    // The deadline may pass once it has exited, before that is known: nobody is told then.
    let passed = json!({"reason": "walltime", "signal": null});
    let mut truths = vec![
        Truth::exited(0),
        Truth::exited_meanwhile(0).finding("own_action", passed),
        Truth::ended("walltime", "more_time", 9),
        Truth::ended("walltime", "more_time", 15),
        Truth::told("walltime", "more_time", 0, 124),
    ];
    let after = Duration::from_millis(1800) + random.at_most_ms(200);
    if random.flip()
        && let Some(main) = main_at(&mut running, after)
    {
        let (sender, sent) = Who::Us.tries(main, Signal::SIGKILL);
        if sent {
            truths.push(Truth::outside(9, &sender));
        }
    }
    Case::race(running.finish(), truths)
}

/// Cancelled at some moment, while somebody else may kill main.
pub(crate) fn is_cancelled_at_some_moment(random: &mut Random) -> Case {
    let signal = random.pick(&[Signal::SIGTERM, Signal::SIGINT]);
    let number = signal as i32;
    let Bound {
        mut running,
        mut truths,
        command,
    } = bound_for(random);
    let mut asked = false;
    some_moment(&mut running, random);
    if !running.is_over() {
        let killer = random.flip().then(|| running.main()).flatten();
        // Not waited for yet, so that its pid is still its own.
        running.signal(signal);
        asked = true;
        truths.push(Truth::anyhow("cancelled", "same", 128 + number).finding(
            "own_action",
            json!({"reason": "cancelled", "signal": number}),
        ));
        if let Some(main) = killer {
            let (sender, sent) = Who::Us.tries(main, Signal::SIGKILL);
            if sent {
                let kill = json!({"signal": 9, "victim": {"pid": main}, "sender": sender});
                truths.push(Truth::outside(9, &sender));
                truths.push(Truth::not_started(125).kill(kill));
            }
        }
    }
    let outcome = running.finish();
    let proof = asked.then(|| command.was_never_executed(&outcome));
    truths.extend(
        proof
            .flatten()
            .map(|proof| Truth::unrecorded(number, proof)),
    );
    Case::race(outcome, truths)
}

/// `sandbox` is killed at some moment.
pub(crate) fn loses_its_runner_at_some_moment(random: &mut Random) -> Case {
    let command = Command::new(Program::Victim);
    let mut running = sandbox().start(command.with(&["sleep"]));
    some_moment(&mut running, random);
    assert!(!running.is_over(), "who sleeps for ever does not end");
    running.signal(Signal::SIGKILL);
    let outcome = running.finish();
    let proof = command.was_never_executed(&outcome);
    let unrecorded = proof.map(|proof| Truth::unrecorded(9, proof));
    Case::race(outcome, std::iter::once(Truth::lost(9)).chain(unrecorded))
}
