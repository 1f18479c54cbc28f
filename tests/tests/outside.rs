//! Endings from outside of the run: kill(2) and `cgroup.kill` by somebody who is not `sandbox`.

use std::fs;

use nix::sys::signal::Signal;
use sandbox_tests::{Guest, Outsider, Sandbox, assert_has, enclosing, wait};
use serde_json::json;

#[test]
fn a_signal_from_outside_is_told_with_its_sender() {
    let _guest = Guest::enter();
    for (signal, uid) in [
        (Signal::SIGKILL, 0),
        (Signal::SIGTERM, 0),
        (Signal::SIGKILL, 1000),
        (Signal::SIGINT, 1000),
    ] {
        let running = Sandbox::new().start_victim(["sleep"]);
        let pid = running.ready();
        let outsider = Outsider::signals_as(uid, pid, signal);
        let number = signal as i32;
        let record = running
            .finish()
            .ended(128 + number, "external_kill", "same");
        assert_has(
            record.fatal(),
            &json!({
                "signal": number, "cause": "process", "delivered": true, "oom": null,
                "victim": {"pid": pid, "is_main": true, "comm": "victim"},
                "sender": outsider.as_sender(),
            }),
        );
        record.assert_notes(&[
            "Killed from outside after ",
            &format!(
                "the main process got {signal} from bash (pid {}, uid {uid})",
                outsider.pid
            ),
            "Neither sandbox nor a limit of the analysis ended it.",
        ]);
    }
}

#[test]
fn a_signal_that_claims_to_be_a_timers_is_told_with_its_sender() {
    let _guest = Guest::enter();
    for (signal, si_code) in [(Signal::SIGTERM, -2), (Signal::SIGKILL, -3)] {
        let running = Sandbox::new().start_victim(["sleep"]);
        let pid = running.ready();
        let outsider = Outsider::queues(pid, signal, si_code);
        let number = signal as i32;
        let record = running
            .finish()
            .ended(128 + number, "external_kill", "same");
        let mut sender = outsider.as_sender();
        sender["comm"] = json!("python3");
        assert_has(
            record.fatal(),
            &json!({"signal": number, "si_code": si_code, "cause": "process", "sender": sender}),
        );
    }
}

#[test]
fn who_moves_into_a_run_to_kill_it_is_not_taken_for_one_of_its_own_for_certain() {
    let _guest = Guest::enter();
    let running = Sandbox::new().start_victim(["sleep"]);
    let pid = running.ready();
    let procs = running.cgroup_of(pid).join("cgroup.procs");
    Outsider::joins_and_kills(&procs, pid);
    let record = running.finish().record();
    assert_eq!(
        (record.reason(), record.confidence()),
        ("signal", "strong"),
        "{record}"
    );
    assert!(
        record.list("/tracing/degraded").iter().any(|sentence| {
            let sentence = sentence.as_str().expect("text");
            sentence.contains("1 tasks were moved into the run from outside")
        }),
        "{record}"
    );
}

#[test]
fn an_oom_kill_that_somebody_asked_for_is_no_want_of_memory() {
    let _guest = Guest::enter();
    let running = Sandbox::new()
        .options(["--memory", "300MiB"])
        .start_victim(["eat", "150MiB"]);
    let pid = running.ready();
    fs::write("/proc/sysrq-trigger", "f").expect("root may");
    let record = running.finish().ended(137, "external_kill", "same");
    assert_has(
        record.fatal(),
        &json!({
            "signal": 9, "cause": "oom", "victim": {"pid": pid},
            "oom": {"scope": "host", "demanded": true},
        }),
    );
    record.assert_notes(&["somebody had asked to kill the largest process (sysrq f)"]);
}

#[test]
fn a_sigterm_that_is_ignored_is_not_what_ends_it() {
    let _guest = Guest::enter();
    let running = Sandbox::new().start_victim(["ignore-term"]);
    let pid = running.ready();
    Outsider::signals(pid, Signal::SIGTERM);
    let outsider = Outsider::signals(pid, Signal::SIGKILL);
    let record = running.finish().ended(137, "external_kill", "same");
    assert_has(
        record.fatal(),
        &json!({"signal": 9, "delivered": true, "sender": outsider.as_sender()}),
    );
    let term = record.kills().iter().find(|kill| kill["signal"] == 15);
    assert!(
        term.is_none_or(|term| term["delivered"] == false),
        "an ignored signal was not delivered:\n{record}"
    );
}

#[test]
fn a_cgroup_kill_from_outside_is_told_with_its_writer_and_its_cgroup() {
    let _guest = Guest::enter();
    for parent in [false, true] {
        let running = Sandbox::new().start_victim(["sleep"]);
        let pid = running.ready();
        let leaf = running.cgroup_of(pid);
        let target = if parent {
            leaf.parent().expect("below /")
        } else {
            &leaf
        };
        let outsider = Outsider::kills_cgroup(target);
        let record = running.finish().ended(137, "external_kill", "same");
        assert_has(
            record.fatal(),
            &json!({
                "signal": 9, "cause": "cgroup_kill", "delivered": true,
                "victim": {"pid": pid, "is_main": true}, "sender": outsider.as_sender(),
            }),
        );
        let named = if parent {
            enclosing::RUNS
        } else {
            record.text("/cgroup/path")
        };
        assert_has(
            record.finding("cgroup_kill_written"),
            &json!({"cgroup": named}),
        );
        record.assert_notes(&[
            &format!(
                "SIGKILL by cgroup.kill of {named}, written by bash (pid {}",
                outsider.pid
            ),
            "Neither sandbox nor a limit of the analysis ended it.",
        ]);
    }
}

#[test]
fn a_kill_of_a_child_from_outside_leaves_the_ending_to_main() {
    let _guest = Guest::enter();
    let script = "victim sleep & echo \"child $!\"; wait $!; exit $?";
    let running = Sandbox::new().start(["bash", "-c", script]);
    let pid = running.ready();
    let outsider = Outsider::signals(pid, Signal::SIGKILL);
    let record = running.finish().ended(137, "exit_code", "none");
    let kill = record
        .kills()
        .iter()
        .find(|kill| kill["victim"]["pid"] == pid);
    assert_has(
        kill.expect("the child's end is in kills"),
        &json!({
            "signal": 9, "cause": "process", "delivered": true,
            "victim": {"is_main": false, "comm": "victim"}, "sender": outsider.as_sender(),
        }),
    );
    record.assert_notes(&["exited with code 137"]);
}

#[test]
fn a_signal_that_a_handler_sends_on_to_its_own_process_is_the_outsiders() {
    let _guest = Guest::enter();
    let python = "import os, sys, time
try:
    print('ready', os.getpid(), flush=True)
    time.sleep(60)
finally:
    time.sleep(0.2)";
    let bash = "trap 'trap - TERM; kill -TERM $$' TERM; echo ready $$; while :; do sleep 0.1; done";
    for (signal, command) in [
        (Signal::SIGINT, ["python3", "-c", python]),
        (Signal::SIGTERM, ["bash", "-c", bash]),
    ] {
        let running = Sandbox::new().start(command);
        let pid = running.ready();
        let outsider = Outsider::signals(pid, signal);
        let number = signal as i32;
        let record = running
            .finish()
            .ended(128 + number, "external_kill", "same");
        assert_has(
            record.fatal(),
            &json!({
                "signal": number, "cause": "process", "delivered": true,
                "victim": {"pid": pid, "is_main": true}, "sender": outsider.as_sender(),
            }),
        );
        let own = record.kills().iter().find(|kill| {
            kill["signal"] == number && kill["victim"]["pid"] == pid && kill["sender"]["pid"] == pid
        });
        assert!(own.is_some(), "its own is told too:\n{record}");
        record.assert_notes(&[&format!(
            "the main process got {signal} from bash (pid {}, uid 0)",
            outsider.pid
        )]);
    }
}

#[test]
fn a_signal_that_main_ignores_is_in_kills_as_not_delivered() {
    let _guest = Guest::enter();
    let running = Sandbox::new().start_victim(["ignore-term"]);
    let pid = running.ready();
    let ignored = Outsider::signals(pid, Signal::SIGTERM);
    let _killer = Outsider::signals(pid, Signal::SIGKILL);
    let record = running.finish().ended(137, "external_kill", "same");
    let kill = record.kills().iter().find(|kill| kill["signal"] == 15);
    assert_has(
        kill.expect("it is in kills"),
        &json!({
            "cause": "process", "delivered": false,
            "victim": {"pid": pid, "is_main": true}, "sender": ignored.as_sender(),
        }),
    );
}

#[test]
fn of_two_signals_that_main_handles_both_are_in_kills() {
    let _guest = Guest::enter();
    let script = "n=0; trap 'n=$((n+1)); echo got $n; [ $n = 1 ] || exit 4' TERM; \
                  echo ready $$; while :; do sleep 0.05; done";
    let running = Sandbox::new().start(["bash", "-c", script]);
    let pid = running.ready();
    let first = Outsider::signals(pid, Signal::SIGTERM);
    assert_eq!(running.line("got "), "1");
    let second = Outsider::signals(pid, Signal::SIGTERM);
    let record = running.finish().ended(4, "exit_code", "none");
    for outsider in [first, second] {
        let sender = outsider.as_sender();
        let of_it = |kill: &&serde_json::Value| kill["sender"]["pid"] == sender["pid"];
        let kill = record.kills().iter().find(of_it);
        assert_has(
            kill.unwrap_or_else(|| panic!("{sender} is not in kills: {record}")),
            &json!({"signal": 15, "delivered": true, "victim": {"is_main": true}}),
        );
    }
}

/// Waits until a process is stopped.
#[track_caller]
fn until_stopped(pid: i32) {
    wait::until("it to be stopped", || {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "))
    });
}

#[test]
fn of_two_of_one_number_that_wait_the_one_to_its_thread_ends_a_stopped_main() {
    let _guest = Guest::enter();
    let running = Sandbox::new().start_victim(["stop-self"]);
    let pid = running.ready();
    until_stopped(pid);
    let first = Outsider::signals_first_thread(pid, Signal::SIGQUIT);
    Outsider::signals(pid, Signal::SIGQUIT);
    Outsider::signals(pid, Signal::SIGCONT);
    let record = running.finish().ended(131, "external_kill", "same");
    assert_eq!(record.fatal()["sender"]["pid"], first.pid, "{record}");
}

#[test]
fn a_members_signal_that_waits_behind_an_outsiders_is_not_what_ends_main() {
    let _guest = Guest::enter();
    // Python leaves SIGQUIT at its default, which a shell does not.
    let script = "import os, signal, time
main = os.getpid()
def is_waiting():
    pending = next(line for line in open(f'/proc/{main}/status') if line.startswith('SigPnd'))
    return int(pending.split()[1], 16) >> signal.SIGQUIT - 1 & 1
if not os.fork():
    while not is_waiting():
        time.sleep(0.05)
    os.kill(main, signal.SIGQUIT)
    os.kill(main, signal.SIGCONT)
    os._exit(0)
print('ready', main, flush=True)
os.kill(main, signal.SIGSTOP)
signal.pause()";
    let running = Sandbox::new().start(["python3", "-c", script]);
    let pid = running.ready();
    until_stopped(pid);
    let first = Outsider::signals_first_thread(pid, Signal::SIGQUIT);
    let record = running.finish().ended(131, "external_kill", "same");
    assert_eq!(record.fatal()["sender"]["pid"], first.pid, "{record}");
    assert!(!record.has_finding("handled_signal"), "{record}");
}
