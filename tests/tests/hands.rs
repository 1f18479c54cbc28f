//! Hands on a run that goes on: `sandbox freeze`, `thaw` and `update`, their traces, and that what is frozen
//! ends as promptly as any other.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox_tests::enclosing::RUNS;
use sandbox_tests::{Configured, Enclosing, Guest, Record, Scene, Service, assert_has, wait};
use serde_json::{Value, json};

/// Goes on until there is a file `go`, and exits with 7; told to end, it exits with 5.
const WAITS: &str =
    "trap 'exit 5' TERM; echo $$ >pid; until [ -e go ]; do sleep 0.05; done; exit 7";
const SECOND: i64 = 1_000_000_000;
/// What is not let go on at its end could not do that in time.
const LONG_GRACE: &str = "--grace 1h";

/// A detached run of ana's whose analysis has begun; gives its id.
#[track_caller]
fn started(scene: &Scene, options: &str) -> String {
    scene.write("waits.sh", WAITS);
    let said = scene.ana(&format!(
        "sandbox run --detach --id a-17 {options} -- bash waits.sh; until [ -s pid ]; do sleep 0.05; done"
    ));
    said.expect(0).out()
}

/// Waits until the kernel says that a run stands still.
#[track_caller]
fn assert_stands_still(run_id: &str) {
    let events = format!("/sys/fs/cgroup{RUNS}/{run_id}/cgroup.events");
    wait::until("it to be frozen", || {
        fs::read_to_string(&events).is_ok_and(|events| events.contains("frozen 1"))
    });
}

/// A run's record, once it has ended.
#[track_caller]
fn ended(scene: &Scene, run_id: &str) -> Record {
    // One that is to end at its deadline may take longer than what tests wait for elsewhere.
    let shown = scene.bash(&format!(
        "timeout 120 sandbox wait {run_id} 2>/dev/null; sandbox show --json {run_id}"
    ));
    Record::parse(&shown.expect(0).out())
}

/// Lets a run go on to its end once its first deadline, seconds after its start, has passed, and gives its record.
#[track_caller]
fn ended_by_itself_after(scene: &Scene, run_id: &str, seconds: i64) -> Record {
    let said = scene.bash(&format!(
        "until [ $(ps -o etimes= $(cat pid) || echo 9999) -gt {} ]; do sleep 0.1; done; touch go",
        seconds + 3
    ));
    said.expect(0);
    let record = ended(scene, run_id);
    record.assert_verdict("exit_code", "none");
    assert!(record.number("/walltime_ns") > seconds * SECOND, "{record}");
    record
}

/// What the audit log has of orders: event, order and detail of each.
fn orders_in_audit() -> Vec<Value> {
    let entries = fs::read_to_string("/var/lib/sandbox/audit.jsonl").expect("it is there");
    let entries = entries
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    entries.filter(|entry| !entry["order"].is_null()).collect()
}

#[test]
fn what_is_frozen_stands_still_until_it_is_thawed_and_the_record_tells_by_whom() {
    let _guest = Guest::enter();
    let mut service = Service::start();
    let scene = Scene::new();
    let run_id = started(&scene, "");
    let others = scene.bash("runuser -u nobody -- sandbox freeze a-17");
    assert_eq!(others.code(), 1, "{others}");
    assert_eq!(scene.ana("sandbox freeze a-17").expect(0).out(), run_id);
    assert_stands_still(&run_id);
    let _again = scene.ana("sandbox freeze --user ana").expect(0);

    service.kill();
    service.restart();
    fs::write(scene.path("go"), "").expect("root may");
    let others = scene.bash("runuser -u nobody -- sandbox thaw a-17");
    assert_eq!(others.code(), 1, "{others}");
    assert_stands_still(&run_id);
    assert_eq!(scene.bash("sandbox thaw a-17").expect(0).out(), run_id);
    let record = ended(&scene, &run_id);
    record.assert_verdict("exit_code", "none");
    assert_has(record.at("/exit"), &json!({"code": 7}));
    let done = record.list("/interventions");
    assert_eq!(done.len(), 2, "{record}");
    assert_has(
        &done[0],
        &json!({"verb": "freeze", "by": "ana", "uid": 1000}),
    );
    assert_has(&done[1], &json!({"verb": "thaw", "by": "root", "uid": 0}));
    record.assert_notes(&["sandbox freeze held it still for "]);

    let over = scene.ana("sandbox thaw a-17");
    assert_eq!(over.code(), 1, "{over}");
    let nobody = scene.bash("id -u nobody").expect(0).json();
    let nobody = nobody.as_u64().expect("a number");
    let orders = orders_in_audit();
    let expected = [
        ("declined", "freeze", nobody),
        ("ordered", "freeze", 1000),
        ("ordered", "freeze", 1000),
        ("declined", "thaw", nobody),
        ("ordered", "thaw", 0),
    ];
    assert_eq!(orders.len(), expected.len(), "{orders:#?}");
    for (entry, (event, order, uid)) in orders.iter().zip(expected) {
        let expected =
            json!({"event": event, "order": order, "uid": uid, "run_id": run_id.as_str()});
        assert_has(entry, &expected);
        if event == "declined" {
            assert_eq!(entry["reason"], "refused: it is a run of uid 1000");
        }
    }
    let _whole = scene.bash("sandbox audit verify").expect(0);
}

#[test]
fn a_frozen_run_ends_at_its_deadline_and_who_froze_it_is_named() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let run_id = started(&scene, &format!("--timeout 20s {LONG_GRACE}"));
    let _frozen = scene.ana("sandbox freeze a-17").expect(0);
    let record = ended(&scene, &run_id);
    record.assert_verdict("walltime", "more_time");
    assert_has(record.at("/exit"), &json!({"code": 5}));
    let by = "frozen by sandbox freeze of ana";
    assert_has(record.finding("own_action"), &json!({"detail": by}));
    record.assert_notes(&[
        "wall clock limit of 20 s (--timeout) reached; told to end, the main process exited with code 5",
        &format!("At its deadline: {by}."),
        "sandbox freeze held it still for ",
    ]);
}

#[test]
fn a_frozen_run_that_is_killed_or_loses_its_client_is_let_go_on_to_end() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let run_id = started(&scene, LONG_GRACE);
    let _frozen = scene.ana("sandbox freeze a-17").expect(0);
    assert_stands_still(&run_id);
    let _killed = scene.ana("sandbox kill a-17 --reason enough").expect(0);
    let record = ended(&scene, &run_id);
    record.assert_verdict("cancelled", "same");
    assert_has(record.at("/exit"), &json!({"code": 5}));
    record.assert_notes(&["sandbox kill by ana: enough"]);

    fs::remove_file(scene.path("pid")).expect("it has begun");
    let _gone = scene.ana(&format!(
        "sandbox run --id a-18 {LONG_GRACE} -- bash waits.sh & until [ -s pid ]; do sleep 0.05; done; \
         sandbox freeze a-18 >frozen && kill -KILL $!; wait"
    ));
    let record = ended(&scene, scene.read("frozen").trim());
    record.assert_verdict("cancelled", "same");
    assert_has(record.at("/exit"), &json!({"code": 5}));
    assert_has(
        record.finding("own_action"),
        &json!({"detail": "its client has gone"}),
    );
}

#[test]
fn whoever_finishes_a_run_that_was_frozen_knows_of_that() {
    let _guest = Guest::enter();
    let mut service = Service::start();
    for (what, is_service_there) in [
        (Service::SUPERVISOR_IS_LOST, true),
        (Service::BOTH_ARE_LOST, false),
    ] {
        let scene = Scene::new();
        let run_id = started(&scene, "");
        let main = scene.read("pid").trim().parse().expect("a pid");
        let _frozen = scene.ana("sandbox freeze a-17").expect(0);
        assert_stands_still(&run_id);
        if !is_service_there {
            service.kill();
        }
        let _lost = scene.bash(what);
        if !is_service_there {
            service.restart();
        }
        let record = ended(&scene, &run_id);
        record.assert_verdict("runner_lost", "same");
        assert_has(
            &record.list("/interventions")[0],
            &json!({"verb": "freeze", "by": "ana"}),
        );
        assert!(
            kill(Pid::from_raw(main), None::<Signal>).is_err(),
            "it was ended"
        );
    }
}

#[test]
fn what_waits_or_is_frozen_from_above_is_left_as_it_is_and_that_is_said() {
    let _guest = Guest::enter();
    let _config = Configured::with("[service]\nruns = 1\n");
    let _service = Service::start();
    let scene = Scene::new();
    let run_id = started(&scene, "");
    let _waits = scene
        .ana("sandbox run --detach --id next -- true")
        .expect(0);
    for verb in ["freeze", "thaw"] {
        let said = scene.ana(&format!("sandbox {verb} next")).expect(1);
        assert!(said.err().contains("it waits for its turn"), "{said}");
    }
    let next = scene.listed("next");
    assert_eq!(next["state"], "queued", "{next}");

    let above = Enclosing::limit(RUNS, "cgroup.freeze", "1");
    let said = scene
        .ana("sandbox freeze a-17; sandbox thaw a-17")
        .expect(1);
    let why = "it stays frozen, since cgroup.freeze of /sandbox/runs is 1";
    assert!(said.err().contains(why), "{said}");
    drop(above);
    fs::write(scene.path("go"), "").expect("root may");
    let record = ended(&scene, &run_id);
    assert_eq!(record.list("/interventions").len(), 2, "{record}");
    assert_has(record.at("/exit"), &json!({"code": 7}));
    let _next = scene.ana("sandbox wait next").expect(0);
}

#[test]
fn a_deadline_that_is_put_off_is_kept_as_it_is_then_and_each_change_is_listed() {
    let _guest = Guest::enter();
    let mut service = Service::start();
    let scene = Scene::new();
    let run_id = started(&scene, "--timeout 20s");
    let others = scene.bash("runuser -u nobody -- sandbox update a-17 --timeout +1h");
    assert_eq!(others.code(), 1, "{others}");
    assert_eq!(
        scene
            .ana("sandbox update a-17 --timeout +1h")
            .expect(0)
            .out(),
        run_id
    );
    service.kill();
    service.restart();
    let _less = scene.bash("sandbox update a-17 --timeout -10m").expect(0);
    let said = scene.ana("sandbox update a-17 --timeout 1ms").expect(1);
    assert!(
        said.err()
            .contains("with a timeout of 1 ms it would have ended already"),
        "{said}"
    );

    let record = ended_by_itself_after(&scene, &run_id, 20);
    let limit = json!({"requested": 3020 * SECOND, "effective": 3020 * SECOND, "source": "update"});
    assert_has(record.at("/limits/walltime_ns"), &limit);
    let done = record.list("/interventions");
    assert_eq!(done.len(), 2, "{record}");
    let update = |by, from: i64, to: i64| json!({"verb": "update", "by": by, "limit": "walltime", "from_ns": from * SECOND, "to_ns": to * SECOND});
    assert_has(&done[0], &update("ana", 20, 3620));
    assert_has(&done[1], &update("root", 3620, 3020));

    let orders = orders_in_audit();
    let told = |entry: &Value| (entry["event"].clone(), entry["detail"].clone());
    let expected = [
        // By nobody, whose it is not.
        (json!("declined"), json!("timeout +3600s")),
        (json!("ordered"), json!("timeout +3600s")),
        (json!("ordered"), json!("timeout -600s")),
        (json!("ordered"), json!("timeout 0.001s")),
        (json!("declined"), json!("timeout 0.001s")),
    ];
    assert_eq!(
        orders.iter().map(told).collect::<Vec<_>>(),
        expected,
        "{orders:#?}"
    );
}

#[test]
fn a_run_ends_at_the_deadline_that_it_was_given_meanwhile_and_is_warned_of_it() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    scene.write(
        "warned.sh",
        "trap 'touch warned' USR1; echo $$ >pid; while :; do sleep 0.05; done",
    );
    let said = scene.ana(
        "sandbox run --detach --id a-17 --timeout none -- bash warned.sh; until [ -s pid ]; do sleep 0.05; done",
    );
    let run_id = said.expect(0).out();
    let said = scene.ana("sandbox update a-17 --timeout +5s").expect(1);
    assert!(said.err().contains("it has no timeout"), "{said}");
    let seconds = scene
        .bash("echo $(($(ps -o etimes= $(cat pid)) + 6))")
        .out();
    let _changed = scene
        .ana(&format!("sandbox update a-17 --timeout {seconds}s"))
        .expect(0);
    let record = ended(&scene, &run_id);
    record.assert_verdict("walltime", "more_time");
    record.assert_notes(&[
        &format!("wall clock limit of {seconds} s (sandbox update by ana) reached"),
        "Raise it with --timeout.",
    ]);

    fs::remove_file(scene.path("pid")).expect("it has begun");
    let said = scene.ana(
        "sandbox run --detach --id a-18 --timeout 1h --warn USR1@59m -- bash warned.sh; \
         until [ -s pid ]; do sleep 0.05; done; sandbox update a-18 --timeout 10m",
    );
    let run_id = said
        .expect(0)
        .out()
        .lines()
        .last()
        .expect("an id")
        .to_owned();
    wait::until("the warning to come", || scene.path("warned").exists());
    let _killed = scene.ana("sandbox kill a-18").expect(0);
    ended(&scene, &run_id).assert_verdict("cancelled", "same");
}

#[test]
fn a_user_is_held_to_the_ceilings_and_root_is_not() {
    let _guest = Guest::enter();
    let config = Configured::with("[ceilings]\ntimeout = '1h'\n");
    let mut service = Service::start();
    let scene = Scene::new();
    let run_id = started(&scene, "--timeout 20s");
    for timeout in ["+2h", "none", "61m"] {
        let said = scene
            .ana(&format!("sandbox update a-17 --timeout {timeout}"))
            .expect(1);
        assert!(said.err().contains("the host's ceiling is 1 h"), "{said}");
    }
    config.change("[users.ana.ceilings]\ntimeout = { at-most = '1h', otherwise = 'cap' }\n");
    service.kill();
    service.restart();
    let said = scene.ana("sandbox update a-17 --timeout 2h").expect(0);
    assert!(
        said.err()
            .contains("`timeout` is lowered to the host's ceiling of 1 h"),
        "{said}"
    );
    let _more = scene.bash("sandbox update a-17 --timeout +1h").expect(0);
    let said = scene.ana("sandbox update a-17 --timeout +1s").expect(1);
    assert!(said.err().contains("the host's ceiling is 1 h"), "{said}");

    let record = ended_by_itself_after(&scene, &run_id, 20);
    let done = record.list("/interventions");
    assert_eq!(done.len(), 2, "{record}");
    assert_has(&done[0], &json!({"by": "ana", "to_ns": 3600 * SECOND}));
    assert_has(&done[1], &json!({"by": "root", "to_ns": 7200 * SECOND}));
    let limit = json!({"effective": 7200 * SECOND, "source": "update"});
    assert_has(record.at("/limits/walltime_ns"), &limit);
}

#[test]
fn whoever_keeps_the_deadline_and_finishes_the_run_knows_of_the_one_that_it_was_given() {
    let _guest = Guest::enter();
    let mut service = Service::start();
    let scene = Scene::new();
    // Stopped, a supervisor keeps no deadline: its guardian does.
    let run_id = started(&scene, "--timeout 20s --grace 0");
    let _changed = scene.ana("sandbox update a-17 --timeout 1h").expect(0);
    let _stopped = scene.bash("pkill -STOP -f '^sandbox attend'");
    let said = scene.bash(
        "until [ $(ps -o etimes= $(cat pid) || echo 9999) -gt 25 ]; do sleep 0.1; done; kill -0 $(cat pid)",
    );
    said.expect(0);
    let _goes_on = scene.bash("pkill -CONT -f '^sandbox attend'; touch go");
    ended(&scene, &run_id).assert_verdict("exit_code", "none");

    let _again = scene.bash("rm go pid");
    let run_id = started(&scene, "");
    let _changed = scene.ana("sandbox update a-17 --timeout 1h").expect(0);
    service.kill();
    let _killed = scene.bash(Service::BOTH_ARE_LOST);
    service.restart();
    let record = ended(&scene, &run_id);
    record.assert_verdict("runner_lost", "same");
    let limit = json!({"effective": 3600 * SECOND, "source": "update"});
    assert_has(record.at("/limits/walltime_ns"), &limit);
}

#[test]
fn an_order_that_was_told_as_failed_is_not_carried_out_later() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let run_id = started(&scene, "");
    let said = scene.bash(&format!(
        "supervisor=$(pgrep -f '^sandbox attend'); kill -STOP $supervisor; sandbox freeze {run_id}; echo $?; kill -CONT $supervisor; \
         sandbox update {run_id} --timeout +1h"
    ));
    let said = said.expect(0);
    assert_eq!(said.out(), format!("1\n{run_id}"), "{said}");
    scene.write("go", "");
    let record = ended(&scene, &run_id);
    record.assert_verdict("exit_code", "none");
    let done = record.list("/interventions").iter();
    let done: Vec<_> = done.map(|done| &done["deed"]).collect();
    assert_eq!(done.len(), 1, "{record}");
}
