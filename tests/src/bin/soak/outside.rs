//! Endings that somebody outside of the run makes.

use nix::sys::signal::Signal;
use sandbox_tests::{Outsider, Running, Sandbox, wait};
use serde_json::{Value, json};

use crate::random::Random;
use crate::stage::{Who, ready_in_time, sandbox};
use crate::truth::{Case, Truth};

/// Signals that end whoever does not handle them.
const SIGNALS: &[Signal] = &[
    Signal::SIGKILL,
    Signal::SIGKILL,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
];

/// What main does meanwhile. A main thread that has ended comes last: on Linux 6.1 `cgroup.kill` does
/// not end such a process.
const ACTS: &[&[&str]] = &[
    &["sleep"],
    &["spin"],
    &["stop-self"],
    &["eat", "8MiB"],
    &["children", "3"],
    &["threads", "3"],
    &["exec-in-thread", "--", "sleep"],
    &["outlive-main-thread"],
];

/// A run in some state, and its main process.
fn somebody(random: &mut Random) -> (Running, i32) {
    in_one_of(ACTS, random)
}

/// One that `cgroup.kill` ends.
fn somebody_with_a_main_thread(random: &mut Random) -> (Running, i32) {
    in_one_of(&ACTS[..ACTS.len() - 1], random)
}

fn in_one_of(acts: &[&[&str]], random: &mut Random) -> (Running, i32) {
    let running = sandbox().start_victim(random.pick(acts));
    let pid = running.ready();
    (running, pid)
}

fn cgroup_killed(sender: &Value) -> Truth {
    let fatal = json!({"cause": "cgroup_kill", "oom": null, "sender": sender});
    Truth::from_outside(9, &fatal)
}

/// A signal to main.
pub(crate) fn is_signalled(random: &mut Random) -> Case {
    let (running, pid) = somebody(random);
    let signal = random.pick(SIGNALS);
    let sender = Who::any(random).signals(pid, signal);
    if signal != Signal::SIGKILL {
        // It may be stopped, and then nothing else is delivered before it goes on.
        let (_, _) = Who::Us.tries(pid, Signal::SIGCONT);
    }
    let truth = Truth::outside(signal as i32, &sender);
    Case::new(
        running.finish(),
        truth.fatal(&json!({"victim": {"pid": pid}})),
    )
}

/// A signal that main ignores, then one that it cannot.
pub(crate) fn is_signalled_until_it_ends(random: &mut Random) -> Case {
    let running = sandbox().start_victim(["ignore-term"]);
    let pid = running.ready();
    let ignored = Who::any(random).signals(pid, Signal::SIGTERM);
    let sender = Who::any(random).signals(pid, Signal::SIGKILL);
    let kill = json!({"signal": 15, "delivered": false, "sender": ignored});
    let truth = Truth::outside(9, &sender).kill(kill);
    Case::new(running.finish(), truth)
}

/// Two signals back to back, of two senders.
pub(crate) fn is_signalled_twice(random: &mut Random) -> Case {
    let acts: &[&[&str]] = &[&["sleep"], &["spin"], &["threads", "3"]];
    let running = sandbox().start_victim(random.pick(acts));
    let pid = running.ready();
    let first = random.pick(SIGNALS);
    let second = random.pick(SIGNALS);
    let (by_first, _) = Who::Us.tries(pid, first);
    let (by_second, sent) = Who::Shell(0).tries(pid, second);
    let mut truths = vec![Truth::outside(first as i32, &by_first)];
    // A signal that dumps core is fatal only once main has looked at it.
    if sent && first == Signal::SIGQUIT {
        truths.push(Truth::outside(second as i32, &by_second));
    }
    Case::race(running.finish(), truths)
}

/// SIGTERM to a main process that handles it, and SIGKILL right after it.
pub(crate) fn is_killed_while_it_handles(random: &mut Random) -> Case {
    let code = random.pick(&[0, 6]);
    let running = sandbox().start_victim(["handle", "TERM", &code.to_string()]);
    let pid = running.ready();
    let (_, _) = Who::Us.tries(pid, Signal::SIGTERM);
    let (sender, sent) = Who::Us.tries(pid, Signal::SIGKILL);
    let mut truths = vec![Truth::exited(code).finding("handled_signal", json!({}))];
    if sent {
        truths.push(Truth::outside(9, &sender));
    }
    Case::race(running.finish(), truths)
}

/// A handler that ends its process by the signal that it got.
pub(crate) fn passes_a_signal_on(random: &mut Random) -> Case {
    let script =
        "trap 'trap - TERM; kill -TERM $$' TERM; echo ready $$; while :; do sleep 0.1; done";
    let running = sandbox().start(["bash", "-c", script]);
    let pid = running.ready();
    let sender = Who::any(random).signals(pid, Signal::SIGTERM);
    Case::new(running.finish(), Truth::outside(15, &sender))
}

/// A child is killed; main tells how it ended.
pub(crate) fn loses_a_child(random: &mut Random) -> Case {
    let code = random.pick(&[0, 3, 137]);
    let script = format!("victim sleep & wait $!; exit {code}");
    let running = sandbox().start(["bash", "-c", &script]);
    let pid = running.ready();
    // A shell has what it starts in the background ignore SIGINT and SIGQUIT.
    let signal = random.pick(&[Signal::SIGKILL, Signal::SIGTERM, Signal::SIGHUP]);
    let sender = Who::any(random).signals(pid, signal);
    let kill = json!({
        "signal": signal as i32, "cause": "process", "delivered": true,
        "victim": {"pid": pid, "is_main": false, "comm": "victim"}, "sender": sender,
    });
    Case::new(running.finish(), Truth::exited(code).kill(kill))
}

/// Somebody writes the leaf's `cgroup.kill`.
pub(crate) fn is_killed_as_a_cgroup(random: &mut Random) -> Case {
    let (running, pid) = somebody_with_a_main_thread(random);
    let outsider = Outsider::kills_cgroup(&running.cgroup_of(pid));
    Case::new(
        running.finish(),
        cgroup_killed(&outsider.as_sender()).finding("cgroup_kill_written", json!({})),
    )
}

/// Somebody writes the `cgroup.kill` of the cgroup above.
pub(crate) fn is_killed_with_its_siblings(random: &mut Random) -> Case {
    let (running, pid) = somebody_with_a_main_thread(random);
    let (sibling, other) = somebody_with_a_main_thread(random);
    let leaf = running.cgroup_of(pid);
    assert_ne!(leaf, sibling.cgroup_of(other), "each has a leaf of its own");
    let outsider = Outsider::kills_cgroup(leaf.parent().expect("below /"));
    let truth = cgroup_killed(&outsider.as_sender()).finding(
        "cgroup_kill_written",
        json!({"cgroup": sandbox_tests::enclosing::RUNS}),
    );
    truth.assert(&sibling.finish());
    Case::new(running.finish(), truth)
}

/// One who is called as systemd's OOM daemon is does what that does.
pub(crate) fn is_killed_as_oomd_does(random: &mut Random) -> Case {
    let (running, pid) = somebody_with_a_main_thread(random);
    let leaf = running.cgroup_of(pid);
    let folder = running.folder().to_owned();
    let daemon = folder.join("systemd-oomd");
    // By another name, not a copy: a file that was just written cannot be executed while a child that
    // another thread forked meanwhile holds it open for writing.
    std::os::unix::fs::symlink("/bin/bash", &daemon).expect("the folder is ours");
    let name = daemon.to_str().expect("a path of ours is UTF-8");
    let by_cgroup = random.flip();
    let script = if by_cgroup {
        format!("echo 1 >{}/cgroup.kill", leaf.display())
    } else {
        format!("kill -KILL {pid}")
    };
    let outsider = Outsider::called(name, 0, &script);
    let mut sender = outsider.as_sender();
    sender["comm"] = json!("systemd-oomd");
    let truth = if by_cgroup {
        cgroup_killed(&sender)
    } else {
        Truth::outside(9, &sender)
    };
    Case::new(running.finish(), truth)
}

/// `kill -9 -1` as bob ends bob's run, and leaves ana's alone.
pub(crate) fn is_killed_with_all_of_its_user(_: &mut Random) -> Case {
    let anas = sandbox().start_victim(["handle", "USR1", "0"]);
    let _main_of_ana = anas.ready();
    let bobs = sandbox().user("bob").start_victim(["sleep"]);
    let pid = bobs.ready();
    let outsider = Outsider::called("bash", 1001, "kill -9 -1");
    let truth = Truth::outside(9, &outsider.as_sender()).fatal(&json!({"victim": {"pid": pid}}));
    let outcome = bobs.finish();
    anas.signal(Signal::SIGUSR1);
    Truth::exited(0).assert(&anas.finish());
    Case::new(outcome, truth)
}

/// A process outside traces main, and main dies of it.
pub(crate) fn is_traced_to_death(random: &mut Random) -> Case {
    let running = sandbox().start_victim(["sleep"]);
    let pid = running.ready();
    let deed = random.pick(&["exit", "kill", "inject-term", "inject-kill"]);
    let signal = if deed == "inject-term" { 15 } else { 9 };
    let mut tracer = std::process::Command::new(sandbox_tests::victim())
        .args(["trace", &pid.to_string(), deed])
        .spawn()
        .expect("`victim` can be started");
    let fatal = match deed {
        "exit" => json!({"cause": "kernel", "oom": null, "sender": {"kind": "kernel"}}),
        _ => json!({"cause": "process", "injected": deed != "kill", "oom": null, "sender": {
            "kind": "process", "pid": tracer.id(), "comm": "victim", "uid": 0, "in_run": false,
        }}),
    };
    let traced = tracer.wait().expect("a child can be waited for");
    assert!(traced.success(), "it could not trace main: {traced}");
    Case::new(running.finish(), Truth::from_outside(signal, &fatal))
}

/// Somebody freezes the leaf; then the deadline passes, or a SIGKILL comes.
pub(crate) fn is_frozen(random: &mut Random) -> Case {
    let by_deadline = random.flip();
    let timeout = if by_deadline { "4s" } else { "400s" };
    let grace = random.pick(&["0", "1s"]);
    let mut running = Sandbox::new()
        .options(["--timeout", timeout, "--grace", grace])
        .start_victim(["sleep"]);
    let deadline = Truth::ended("walltime", "more_time", if grace == "0" { 9 } else { 15 });
    let Some(pid) = ready_in_time(&mut running) else {
        return Case::new(running.finish(), deadline);
    };
    let leaf = running.cgroup_of(pid);
    std::fs::write(leaf.join("cgroup.freeze"), "1").expect("root may freeze it");
    let truth = if by_deadline {
        deadline
    } else {
        wait::until("it to be frozen", || {
            std::fs::read_to_string(leaf.join("cgroup.events"))
                .is_ok_and(|events| events.contains("frozen 1"))
        });
        Truth::outside(9, &Who::any(random).signals(pid, Signal::SIGKILL))
    };
    Case::new(running.finish(), truth)
}
