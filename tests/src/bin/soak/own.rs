//! Endings that the analysis makes itself.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::random::Random;
use crate::stage::{Who, sandbox};
use crate::sureness::Doubt;
use crate::truth::{Case, Truth};

/// Exit codes, among them those that look like something else.
const CODES: &[i32] = &[0, 0, 1, 2, 42, 124, 125, 126, 127, 130, 137, 143, 255];

/// Signals that a victim dies of when they are sent. (Rust's runtime handles SIGSEGV and ignores
/// SIGPIPE.)
const FATAL: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGABRT,
    Signal::SIGKILL,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
];

/// Main exits, by itself or as the thread that is left of it.
pub(crate) fn exits(random: &mut Random) -> Case {
    let code = random.pick(CODES);
    let text = code.to_string();
    let time = format!("0.{:02}", random.below(30));
    let outcome = match random.below(6) {
        0 => sandbox().victim(["exit", &text]),
        1 => sandbox().victim(["outlive-main-thread", &text]),
        2 => sandbox().victim(["exec-in-thread", "--", "exit", &text]),
        3 => sandbox().command(["bash", "-c", &format!("sleep {time}; exit {text}")]),
        4 => {
            let script = format!("victim exit 9; victim kill-self KILL; exit {text}");
            sandbox().command(["bash", "-c", &script])
        }
        _ => {
            let script = format!("import os, time; time.sleep({time}); os._exit({text})");
            sandbox().command(["python3", "-c", &script])
        }
    };
    Case::new(outcome, Truth::exited(code))
}

/// Main sends itself a signal.
pub(crate) fn kills_itself(random: &mut Random) -> Case {
    let signal = random.pick(FATAL);
    let act = ["kill-self", signal.as_str()];
    let outcome = if random.flip() {
        sandbox().victim(act)
    } else {
        sandbox().victim(["exec-in-thread", "--", act[0], act[1]])
    };
    let sender = json!({"kind": "process", "comm": "victim", "uid": 1000, "in_run": true});
    let fatal = json!({"cause": "process", "oom": null, "sender": sender});
    Case::new(outcome, Truth::own_signal(signal as i32, &fatal))
}

/// A child of main's sends it a signal.
pub(crate) fn is_killed_by_its_child(random: &mut Random) -> Case {
    let signal = random.pick(FATAL);
    let sender = json!({"kind": "process", "uid": 1000, "in_run": true});
    let fatal = json!({"cause": "process", "oom": null, "sender": sender});
    let outcome = if random.flip() {
        sandbox().victim(["sibling-kill", signal.as_str()])
    } else {
        // The main process is `victim`; a shell that it was before has left the killer behind.
        let script = format!(
            "(sleep 0.{}; kill -{} $$) & exec victim sleep",
            random.between(2, 5),
            signal as i32
        );
        sandbox().command(["bash", "-c", &script])
    };
    Case::new(outcome, Truth::own_signal(signal as i32, &fatal))
}

/// Main crashes, now and then close to its memory limit.
pub(crate) fn crashes(random: &mut Random) -> Case {
    let (act, signal) = random.pick(&[("segv", 11), ("abort", 6)]);
    let outcome = if random.flip() {
        sandbox().victim([act])
    } else {
        let act = format!("eat-and-{act}");
        sandbox()
            .options(["--memory", "24MiB"])
            .victim([act.as_str(), "19MiB"])
    };
    let fatal = json!({"oom": null});
    Case::new(outcome, Truth::own_signal(signal, &fatal))
}

/// The kernel sends main a signal for what it does: a broken pipe, a file too large.
pub(crate) fn breaks_a_rule(random: &mut Random) -> Case {
    let (script, signal) = random.pick(&[
        ("exec > >(exec true); wait $!; exec yes", Signal::SIGPIPE),
        (
            "ulimit -f 1; exec dd if=/dev/zero of=/dev/shm/large bs=4096 count=9",
            Signal::SIGXFSZ,
        ),
    ]);
    let outcome = sandbox().command(["bash", "-c", script]);
    let fatal = json!({"cause": "kernel", "oom": null});
    Case::new(outcome, Truth::own_signal(signal as i32, &fatal))
}

/// A seccomp filter kills main.
pub(crate) fn breaks_a_filter(_: &mut Random) -> Case {
    let outcome = sandbox().victim(["seccomp"]);
    let truth = Truth::own_signal(31, &json!({"oom": null}));
    // Where it is not the last thread, the kernel makes no signal of it.
    Case::race(outcome, [truth, Truth::unsignalled(31)])
}

/// Strict seccomp kills main, which the kernel makes no signal of.
pub(crate) fn breaks_strict_seccomp(_: &mut Random) -> Case {
    let outcome = sandbox().victim(["strict-seccomp"]);
    Case::new(outcome, Truth::unsignalled(9).in_doubt(Doubt::NoSignal))
}

/// A grandchild dies with its parent; main goes on.
pub(crate) fn loses_a_grandchild(_: &mut Random) -> Case {
    let running = sandbox().start_victim(["death-signal"]);
    let parent: i64 = running.line("parent ").parse().expect("a pid");
    let grandchild: i64 = running.line("grandchild ").parse().expect("a pid");
    let kill = json!({
        "signal": 9, "cause": "kernel", "delivered": true,
        "victim": {"pid": grandchild, "is_main": false},
        "sender": {"kind": "kernel", "pid": parent, "in_run": true},
    });
    Case::new(running.finish(), Truth::exited(0).kill(kill))
}

/// Main leaves a daemon behind, which is killed and changes nothing.
pub(crate) fn leaves_a_daemon(_: &mut Random) -> Case {
    let running = sandbox().start_victim(["daemonise"]);
    let daemon: i64 = running.line("daemon ").parse().expect("a pid");
    let kill = json!({
        "signal": 9, "cause": "runner", "delivered": true,
        "victim": {"pid": daemon, "is_main": false}, "sender": {"kind": "runner"},
    });
    let mut truth = Truth::exited(0).kill(kill);
    truth = truth.finding("main_exited", json!({"code": 0}));
    Case::new(running.finish(), truth)
}

/// Main handles a signal from outside, and exits as it likes.
pub(crate) fn handles_a_signal(random: &mut Random) -> Case {
    let code = random.pick(&[0, 7, 143]);
    let signal = random.pick(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    let running = sandbox().start_victim(["handle", signal.as_str(), &code.to_string()]);
    let pid = running.ready();
    let sender = Who::any(random).signals(pid, signal);
    let kill = json!({
        "signal": signal as i32, "cause": "process", "delivered": true,
        "victim": {"pid": pid, "is_main": true}, "sender": sender,
    });
    let truth = Truth::exited(code)
        .finding("handled_signal", json!({}))
        .kill(kill);
    Case::new(running.finish(), truth)
}
