//! A storm of events: what finds no room in the ring is detail, and counted to the event; births,
//! exits and kills stay exact, and deadlines and signals are served meanwhile.

use nix::sys::signal::Signal;
use sandbox_tests::{Events, Guest, Outsider, Sandbox, Scene, assert_has, wait};
use serde_json::{Value, json};

#[test]
fn with_the_reader_stopped_births_exits_and_kills_are_what_the_bomb_itself_counted() {
    let _guest = Guest::enter();
    // A thousand processes take an emulated processor some time, and much more where others share it.
    wait::be_patient(60);
    let scene = Scene::new();
    let path = scene.path("events");
    let running = Sandbox::new()
        .options(["--ring-size", "4KiB", "--cpus", "none", "--timeout", "100s"])
        .options(["--events".as_ref(), path.as_os_str()])
        .start_victim(["counted-bomb", "1000"]);
    let pid = running.ready();
    running.signal(Signal::SIGSTOP);
    Outsider::signals(pid, Signal::SIGUSR1);
    let counted: Value = serde_json::from_str(&running.line("counted ")).expect("JSON");
    running.signal(Signal::SIGCONT);
    let record = running.finish().ended(0, "completed", "none");

    let number = |field: &str| counted[field].as_i64().expect("it was counted");
    let tasks = 1 + number("children") + number("threads");
    println!(
        "{counted}; births {} exits {} killed {} events {} dropped {} missed {}",
        record.at("/processes/births"),
        record.at("/processes/exits"),
        record.at("/processes/killed"),
        record.at("/tracing/events"),
        record.at("/tracing/dropped"),
        record.at("/tracing/missed"),
    );
    assert_eq!(
        (number("children"), number("ended")),
        (1000, 1000),
        "{counted}"
    );
    assert_eq!(record.number("/processes/births"), tasks, "{counted}");
    assert_eq!(record.number("/processes/exits"), tasks, "{counted}");
    assert_eq!(
        record.number("/processes/killed"),
        number("killed"),
        "{counted}"
    );
    let kills: Vec<&Value> = record
        .kills()
        .iter()
        .filter(|kill| kill["signal"] == 9)
        .collect();
    assert_eq!(kills.len() as i64, number("killed"), "{counted}");
    for (kill, victim) in [
        (kills.first(), "first_killed"),
        (kills.last(), "last_killed"),
    ] {
        let kill = kill.expect("some were killed");
        assert_has(
            kill,
            &json!({
                "cause": "process", "delivered": true,
                "victim": {"pid": counted[victim]}, "sender": {"pid": pid, "in_run": true},
            }),
        );
    }
    assert!(record.number("/tracing/dropped") > 500, "{record}");
    // That each event is there or in a gap, and that the gaps make what was dropped, is checked here.
    let events = Events::parse(&scene.read("events"));
    assert_eq!(
        events.only("end")["dropped"],
        record.number("/tracing/dropped")
    );
    // Of whatever was seen of them.
    let left_out = record.number("/processes/tree_left_out");
    let tree = record.list("/processes/tree").len() as i64;
    assert_eq!(left_out + tree, 1 + number("children"), "{record}");
}

#[test]
fn of_more_victims_than_there_is_room_for_the_first_and_the_last_are_kept() {
    let _guest = Guest::enter();
    let (killed, kept) = (1040, 1024 + 1);
    let script = format!(
        "import os, signal\n\
         for turn in range({killed}):\n \
             pid = os.fork()\n \
             if pid == 0: signal.pause()\n \
             os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)\n \
             if turn == 0: print(pid)\n\
         print(pid)"
    );
    let outcome = Sandbox::new()
        .options(["--cpus", "none"])
        .command(["python3", "-c", &script]);
    let out = &outcome.stdout;
    let pids: Vec<i64> = out.lines().filter_map(|line| line.parse().ok()).collect();
    let record = outcome.ended(0, "completed", "none");
    assert_eq!(record.number("/processes/killed"), killed, "{record}");
    let kills = record.kills();
    assert_eq!(kills.len(), kept, "{record}");
    for (kill, pid) in [(kills.first(), pids[0]), (kills.last(), pids[1])] {
        assert_has(kill.expect("some"), &json!({"victim": {"pid": pid}}));
    }
    let said = "15 signals to members other than the main process are not in kills";
    assert_eq!(record.list("/tracing/degraded"), [json!(said)], "{record}");
}

#[test]
fn the_deadline_is_kept_by_sandbox_itself_while_events_pour_in() {
    let _guest = Guest::enter();
    let running = Sandbox::new()
        .options(["--timeout", "6s", "--grace", "0", "--cpus", "none"])
        .start_victim(["counted-bomb", "1000000"]);
    let pid = running.ready();
    Outsider::signals(pid, Signal::SIGUSR1);
    let supervisor = running.pid();
    let _pouring = running.line("under way to ");
    let record = running.finish().ended(137, "walltime", "more_time");
    // Its guardian would have done so a second later.
    assert_has(
        record.fatal(),
        &json!({"cause": "runner", "sender": {"kind": "runner", "pid": supervisor}}),
    );
}

#[test]
fn a_sigterm_to_sandbox_is_heard_while_events_pour_in() {
    let _guest = Guest::enter();
    let running = Sandbox::new()
        .options(["--grace", "0", "--timeout", "60s", "--cpus", "none"])
        .start_victim(["counted-bomb", "1000000"]);
    let pid = running.ready();
    Outsider::signals(pid, Signal::SIGUSR1);
    let _pouring = running.line("under way to ");
    running.signal(Signal::SIGTERM);
    let record = running.finish().ended(137, "cancelled", "same");
    assert_has(
        record.fatal(),
        &json!({"cause": "runner", "sender": {"kind": "runner"}}),
    );
}
