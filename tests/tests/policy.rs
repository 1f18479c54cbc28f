//! The service's policy: how many runs go on at once and who is next, what changes on SIGHUP, what is entered in
//! the audit log.

use std::fs;

use nix::sys::signal::Signal;
use sandbox_tests::enclosing::RUNS;
use sandbox_tests::{Configured, Enclosing, Guest, Scene, Service, wait};
use serde_json::Value;

/// The runs that there are, the oldest first: id of the analysis, state and reason.
fn listed(scene: &Scene) -> Vec<(String, String, Option<String>)> {
    let runs = scene.bash("sandbox list --json").expect(0).json();
    let text = |run: &Value, key: &str| run[key].as_str().map(ToOwned::to_owned);
    let mut runs: Vec<_> = runs
        .as_array()
        .expect("a list")
        .iter()
        .map(|run| {
            let id = text(run, "analysis_id").expect("it was given one");
            (
                id,
                text(run, "state").expect("a state"),
                text(run, "reason"),
            )
        })
        .collect();
    runs.reverse();
    runs
}

#[track_caller]
fn wait_for(scene: &Scene, states: &[(&str, &str)]) {
    wait::until("the runs to be that far", || {
        let runs = listed(scene);
        runs.len() == states.len()
            && runs
                .iter()
                .zip(states)
                .all(|((id, state, _), expected)| (id.as_str(), state.as_str()) == *expected)
    });
}

#[test]
fn runs_wait_for_their_turn_fairly_and_may_be_ended_meanwhile() {
    let _guest = Guest::enter();
    let _config = Configured::with("[service]\nruns = 1\nqueue = 3\n");
    let _service = Service::start();
    let scene = Scene::new();
    let detach = |id: &str, user: &str| {
        scene
            .bash(&format!(
                "sandbox run --user {user} --detach --id {id} -- bash -c 'until [ -e go ]; do sleep 0.1; done'"
            ))
    };
    for (id, user) in [
        ("a1", "ana"),
        ("a2", "ana"),
        ("a3", "ana"),
        ("n1", "nobody"),
    ] {
        let said = detach(id, user).expect(0);
        assert!(said.out().len() > 30, "an id: {said}");
    }
    let queued = [
        ("a1", "running"),
        ("a2", "queued"),
        ("a3", "queued"),
        ("n1", "queued"),
    ];
    wait_for(&scene, &queued);
    let full = detach("a4", "ana").expect(125);
    assert!(full.err().contains("3 runs wait already"), "{full}");

    // One that is ended before its turn never starts.
    let _told = scene
        .bash("sandbox kill a2 --reason 'not needed'")
        .expect(0);
    let waited = scene.bash("sandbox wait a2");
    assert_eq!(waited.code(), 143, "{waited}");
    assert!(
        waited.err().contains("sandbox kill by root: not needed"),
        "{waited}"
    );

    fs::write(scene.path("go"), "").expect("they go on");
    let done = scene.bash("for id in a1 a3 n1; do sandbox wait $id || exit; done");
    assert_eq!(done.code(), 0, "{done}");
    let reasons: Vec<String> = listed(&scene)
        .into_iter()
        .filter_map(|(id, _, reason)| Some(format!("{id} {}", reason?)))
        .collect();
    assert_eq!(
        reasons,
        [
            "a1 completed",
            "a2 cancelled",
            "a3 completed",
            "n1 completed"
        ]
    );
}

#[test]
fn who_waits_is_told_its_place_and_what_can_never_be_started_is_refused() {
    let _guest = Guest::enter();
    // It is put back in the end.
    let _unlimited = Enclosing::limit(RUNS, "memory.max", "max");
    let _config = Configured::with("[budget]\nmemory = '512MiB'\n");
    let _service = Service::start();
    let scene = Scene::new();
    let said = scene.ana("sandbox run --memory 1GiB -- true").expect(125);
    assert!(
        said.err()
            .contains("its memory limit of 1 GiB is more than all runs together may have, 512 MiB"),
        "{said}"
    );
    let said = scene.ana(
        "sandbox run --memory 400MiB --id first -- bash -c 'echo >started; until [ -e go ]; do sleep 0.1; done' & \
         until [ -e started ]; do sleep 0.05; done; \
         sandbox run --memory 400MiB --id second -- echo second 2>err & second=$!; \
         until grep -q 'this run is next' err; do sleep 0.05; done; kill -USR1 $second; \
         sandbox list --running --json | grep -c queued; echo >go; wait $second; echo $?",
    )
    .expect(0);
    // A signal for its main process gives it no turn.
    assert_eq!(said.out(), "1\nsecond\n0", "{said}");
}

#[test]
fn where_the_configuration_says_nothing_what_limits_all_runs_already_is_their_budget() {
    let _guest = Guest::enter();
    let _limited = Enclosing::limit(RUNS, "memory.max", "209715200");
    let _config = Configured::with("[service]\nruns = 9\n");
    let _service = Service::start();
    let scene = Scene::new();
    let said = scene.ana("sandbox run --memory 300MiB -- true").expect(125);
    assert!(
        said.err().contains(
            "its memory limit of 300 MiB is more than all runs together may have, 200 MiB"
        ),
        "{said}"
    );
    let record = scene.ana("sandbox run --record r.json -- true && cat r.json");
    let limit = &record.expect(0).json()["limits"]["memory_bytes"];
    assert_eq!(limit["effective"], 209_715_200, "{limit:#}");
}

#[test]
fn who_waits_while_the_service_is_killed_is_asked_for_again_and_what_is_detached_waits_on() {
    let _guest = Guest::enter();
    let _config = Configured::with("[service]\nruns = 1\n");
    let mut service = Service::start();
    let scene = Scene::new();
    let detach = |id: &str| {
        let waits = "until [ -e go ]; do sleep 0.1; done";
        scene.ana(&format!(
            "sandbox run --detach --id {id} -- bash -c '{waits}'"
        ))
    };
    let _first = detach("first").expect(0);
    wait_for(&scene, &[("first", "running")]);
    let client = "sandbox run --id second -- true 2>err; echo $? >status";
    scene.write("client.sh", &format!("({client}) &"));
    let _started = scene
        .bash("exec runuser -u ana -- bash client.sh </dev/null >/dev/null 2>&1")
        .expect(0);
    wait_for(&scene, &[("first", "running"), ("second", "queued")]);
    for id in ["third", "fourth", "fifth"] {
        let _id = detach(id).expect(0);
    }

    service.kill();
    service.restart();
    // Its new row is behind those of the others.
    let in_turn = ["first", "third", "fourth", "fifth", "second"];
    let states = in_turn.map(|id| (id, if id == "first" { "running" } else { "queued" }));
    wait_for(&scene, &states);
    // Once more, and the place is free when they come.
    service.kill();
    scene.write("go", "");
    wait::until("the first to end", || {
        scene.bash("pgrep -f '^sandbox attend' | wc -l").out() == "3"
    });
    service.restart();
    wait_for(&scene, &states.map(|(id, _)| (id, "ended")));
    let status = wait::for_some("its client to be told", || {
        let status = fs::read_to_string(scene.path("status")).ok()?;
        status.ends_with('\n').then_some(status)
    });
    assert_eq!(status, "0\n", "{}", scene.read("err"));
    let reasons = listed(&scene).into_iter().map(|(_, _, reason)| reason);
    let completed = Some("completed".to_owned());
    assert!(reasons.into_iter().all(|reason| reason == completed));
    let runs = scene.bash("sandbox list --json").expect(0).json();
    let mut runs = runs.as_array().expect("a list").clone();
    runs.sort_by_key(|run| run["started_at"].to_string());
    let started = runs.iter().map(|run| run["analysis_id"].as_str());
    assert!(started.eq(in_turn.map(Some)), "{runs:#?}");
    let given_back =
        "grep '\"withdrawn\"' /var/lib/sandbox/audit.jsonl | grep -c 'before it could begin'";
    assert_eq!(scene.bash(given_back).expect(0).out(), "2");
}

#[test]
fn what_waits_detached_hears_who_ends_it_and_what_keeps_it_from_being_started() {
    let _guest = Guest::enter();
    let config = Configured::with("[service]\nruns = 1\n");
    let mut service = Service::start();
    let scene = Scene::new();
    for id in ["first", "second", "third"] {
        let _id = scene
            .ana(&format!(
                "sandbox run --detach --id {id} -- bash -c 'until [ -e go ]; do sleep 0.1; done'"
            ))
            .expect(0);
    }
    let waits = [
        ("first", "running"),
        ("second", "queued"),
        ("third", "queued"),
    ];
    wait_for(&scene, &waits);
    // The youngest process is the third's.
    let end_the_youngest = || scene.bash("pkill -TERM -n -f '^sandbox attend'").expect(0);
    let _ended = end_the_youngest();
    let with_third = |reason: &str| {
        let third = scene.bash("sandbox show --json third").expect(0).json();
        assert_eq!(third["termination"]["reason"], reason, "{third:#}");
    };
    wait_for(&scene, &[waits[0], waits[1], ("third", "ended")]);
    with_third("cancelled");

    let _id = scene
        .ana("sandbox run --detach --id third -- true")
        .expect(0);
    let fourth = [waits[0], waits[1], ("third", "ended"), ("third", "queued")];
    wait_for(&scene, &fourth);
    service.kill();
    let _ended = end_the_youngest();
    config.change("[service]\nruns = 1\n[budget]\npids = 50\n");
    service.restart();
    let ended = ("third", "ended");
    wait_for(&scene, &[waits[0], ("second", "ended"), ended, ended]);
    with_third("cancelled");
    let second = scene.bash("sandbox show second; sandbox logs second 2>&1");
    let said = second.expect(0).out();
    assert!(said.contains("Not started"), "{said}");
    assert!(
        said.contains("its limit of 100 PIDs is more than all runs together may have, 50"),
        "{said}"
    );
    scene.write("go", "");
    wait_for(
        &scene,
        &[("first", "ended"), ("second", "ended"), ended, ended],
    );
}

#[test]
fn a_configuration_is_read_anew_on_sighup_and_a_bad_one_changes_nothing() {
    let _guest = Guest::enter();
    let _config = Configured::with("[ceilings]\nmemory = '1GiB'\n");
    let service = Service::start();
    let scene = Scene::new();
    let asks = |scene: &Scene| scene.ana("sandbox run --memory 2GiB -- true");
    assert!(asks(&scene).err().contains("1 GiB"));

    // It is not looked at before.
    fs::write(Configured::FILE, "[ceilings]\nmemory = 'much'\n").expect("root may");
    assert!(asks(&scene).err().contains("1 GiB"));
    service.signal(Signal::SIGHUP);
    let bad = scene.bash("sandbox serve --check-config").expect(125);
    assert!(bad.err().contains("config.toml:2"), "{bad}");
    assert!(asks(&scene).err().contains("1 GiB"));

    let more = "[ceilings]\nmemory = '4GiB'\n[budget]\nmemory = 'none'\n";
    fs::write(Configured::FILE, more).expect("root may");
    service.signal(Signal::SIGHUP);
    wait::until("the new ceiling to be in force", || {
        asks(&scene).code() == 0
    });
}

#[test]
fn limited_callers_have_their_runs_done_where_the_host_allows_it() {
    let _guest = Guest::enter();
    let _config = Configured::with("[service]\nlimited-callers = 'allow'\n");
    let _service = Service::start();
    let scene = Scene::new();
    let _done = scene
        .limited_caller("", "sandbox run --user ana -- true")
        .expect(0);
}

#[test]
fn what_was_asked_for_and_how_it_ended_is_entered_and_counted() {
    let _guest = Guest::enter();
    let mut service = Service::start();
    let scene = Scene::new();
    let said = scene.ana("sandbox run --id a-17 -- bash -c 'exit 3'");
    assert_eq!(said.code(), 3, "{said}");
    let said = scene
        .ana("setpriv --no-new-privs sandbox run -- true")
        .expect(125);
    assert!(said.err().contains("no_new_privs"), "{said}");
    service.kill();
    service.restart();

    let entries = fs::read_to_string("/var/lib/sandbox/audit.jsonl").expect("it is there");
    let events: Vec<Value> = entries
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let names: Vec<&str> = events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect();
    let expected = [
        "service_started",
        "accepted",
        "ended",
        "refused",
        "service_started",
    ];
    assert_eq!(names, expected, "{entries}");
    assert_eq!(events[1]["uid"], 1000, "{entries}");
    assert_eq!(events[2]["reason"], "exit_code", "{entries}");
    let whole = scene.bash("sandbox audit verify").expect(0);
    assert!(whole.out().contains("5 entries"), "{whole}");
    fs::write(
        "/var/lib/sandbox/audit.jsonl",
        entries.replace("\"uid\":1000", "\"uid\":1001"),
    )
    .expect("root may");
    let changed = scene.bash("sandbox audit verify");
    assert_eq!(changed.code(), 1, "{changed}");
}
