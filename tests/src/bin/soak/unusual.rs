//! Endings with the kernel's rarer means: tracers within the run, PID namespaces, PIDs that come back.

use nix::sys::signal::Signal;
use sandbox_tests::Outsider;
use serde_json::json;

use crate::random::Random;
use crate::stage::sandbox;
use crate::truth::{Case, Truth};

/// A child of main's traces it, and main dies of it.
pub(crate) fn is_traced_by_its_child(random: &mut Random) -> Case {
    let deed = random.pick(&["exit", "kill", "inject-term", "inject-kill"]);
    let signal = if deed == "inject-term" { 15 } else { 9 };
    let outcome = sandbox().victim(["traced-by-child", deed]);
    let fatal = match deed {
        "exit" => json!({"cause": "kernel", "oom": null}),
        _ => json!({
            "cause": "process", "injected": deed != "kill", "oom": null,
            "sender": {"kind": "process", "in_run": true},
        }),
    };
    Case::new(outcome, Truth::own_signal(signal, &fatal))
}

/// A PID namespace within the run ends, and the kernel kills who is left in it.
pub(crate) fn ends_a_pid_namespace(random: &mut Random) -> Case {
    let code = random.pick(&[0, 3]);
    let script = format!("victim sleep & exit {code}");
    let outcome = sandbox().command([
        "unshare",
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "bash",
        "-c",
        &script,
    ]);
    let kill = json!({
        "signal": 9, "cause": "kernel", "delivered": true, "victim": {"is_main": false},
    });
    Case::new(outcome, Truth::exited(code).kill(kill))
}

/// The first process of a PID namespace within the run is killed from outside; main tells it.
pub(crate) fn loses_a_pid_namespace(_: &mut Random) -> Case {
    let running = sandbox().start([
        "unshare",
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "victim",
        "sleep",
    ]);
    // It knows itself as 1.
    assert_eq!(running.ready(), 1);
    let main = running.main().expect("it is ready");
    let children = std::fs::read_to_string(format!("/proc/{main}/task/{main}/children"));
    let init: i32 = children
        .expect("main is there")
        .trim()
        .parse()
        .expect("one child");
    let outsider = Outsider::signals(init, Signal::SIGKILL);
    let kill = json!({
        "signal": 9, "cause": "process", "delivered": true,
        "victim": {"pid": init, "is_main": false}, "sender": outsider.as_sender(),
    });
    // util-linux kills itself by the signal that its child died of.
    let own = Truth::own_signal(9, &json!({"cause": "process", "sender": {"in_run": true}}));
    let truths = [Truth::exited(137).kill(kill.clone()), own.kill(kill)];
    Case::race(running.finish(), truths)
}

/// The PID of a member that has ended comes back as that of a killer outside.
pub(crate) fn is_killed_by_the_pid_of_a_member(random: &mut Random) -> Case {
    let script = "true & echo gone $!; wait; exec victim sleep";
    let running = sandbox().start(["bash", "-c", script]);
    let gone: i32 = running.line("gone ").parse().expect("a pid");
    let pid = running.ready();
    let signal = random.pick(&[Signal::SIGKILL, Signal::SIGTERM]);
    // Others may be quicker; then it is any killer.
    next_pid_after(gone - 1);
    let outsider = Outsider::signals(pid, signal);
    let truth = Truth::outside(signal as i32, &outsider.as_sender());
    Case::new(running.finish(), truth)
}

/// The PID of somebody outside who has signalled main comes back as that of a member that kills it.
pub(crate) fn is_killed_by_the_pid_of_an_outsider(_: &mut Random) -> Case {
    let script = "trap 'echo got' USR1; echo ready $$; until test -e /tmp/go-$$; do sleep 0.05; done; \
                  true & wait; bash -c 'kill -KILL $PPID; exit 0'; exit 9";
    let running = sandbox().start(["bash", "-c", script]);
    let pid = running.ready();
    let outsider = Outsider::signals(pid, Signal::SIGUSR1);
    let _handled = running.line("got");
    let go = format!("/tmp/go-{pid}");
    std::fs::write(&go, "").expect("/tmp can be written to");
    // The next one is `true`, or a last sleep before it.
    let before = i32::try_from(outsider.pid).expect("a pid is an i32") - 2;
    next_pid_after(before);
    let outcome = running.finish();
    drop(std::fs::remove_file(&go));
    let sender = json!({"kind": "process", "comm": "bash", "uid": 1000, "in_run": true});
    let truth = Truth::own_signal(9, &json!({"cause": "process", "sender": sender}))
        .finding("handled_signal", json!({}));
    Case::new(outcome, truth)
}

/// Chooses the next PID, unless somebody else is quicker. Those after it come back as well, whoever had
/// them: a decoy that is late would hit another run.
fn next_pid_after(pid: i32) {
    std::fs::write("/proc/sys/kernel/ns_last_pid", pid.to_string())
        .expect("root may choose the next PID");
}

/// `sandbox` refuses to run within a run.
pub(crate) fn calls_sandbox_itself(_: &mut Random) -> Case {
    let outcome = sandbox()
        .user("root")
        .command(["sandbox", "run", "--user", "root", "--", "true"]);
    Case::new(outcome, Truth::exited(125))
}
