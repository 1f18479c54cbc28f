//! The event streams that the service keeps: what is in them, who may read them, how much they are, and how
//! long they stay.

use std::fs;
use std::path::Path;

use sandbox_tests::{Configured, Events, Guest, Scene, Service, wait};
use serde_json::Value;

const KEPT: &str = "/var/lib/sandbox/events";
const LOGS: &str = "/var/lib/sandbox/logs";

/// The names of the files in a directory of the service's.
fn files(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The kept stream of the latest run of a-17, as ana gets it.
#[track_caller]
fn kept(scene: &Scene) -> String {
    let said = scene.ana("sandbox events a-17 >kept || exit").expect(0);
    assert_eq!(said.err(), "");
    scene.read("kept")
}

#[test]
fn the_events_of_a_detached_run_are_those_that_it_writes_itself_and_its_users_alone() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let said = scene.ana(
        "sandbox run --detach --id a-17 --events events -- bash -c '(exit 7); exit 3' >id; sandbox wait a-17",
    );
    assert_eq!(said.code(), 3, "{said}");
    let text = kept(&scene);
    let events = Events::parse(&text);
    assert_eq!(text, scene.read("events"));
    assert_eq!(events.of("exit").count(), 2, "{events}");

    let run_id = scene.read("id").trim().to_owned();
    assert_eq!(files(KEPT), [format!("{run_id}.jsonl.gz")]);
    let said = scene
        .bash(&format!(
            "stat -c %a {KEPT} {KEPT}/*; sandbox events {run_id} | cmp - kept && zcat {KEPT}/* | cmp - kept"
        ))
        .expect(0);
    assert_eq!(said.out(), "700\n600", "{said}");
    let said = scene
        .bash(&format!(
            "runuser -u nobody -- sandbox events {run_id}; runuser -u nobody -- sandbox events --follow a-17"
        ))
        .expect(1);
    assert_eq!(said.out(), "", "{said}");
    let said = scene.ana("sandbox events a-17 | head -1").expect(0);
    assert_eq!((said.out().lines().count(), said.err().as_str()), (1, ""));
}

#[test]
fn who_follows_sees_what_happens_before_the_run_has_ended_and_ends_with_it() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let _started = scene.ana(
        "mkfifo go; exec </dev/null >/dev/null 2>&1
         sandbox run --id a-17 -- bash -c 'read line <go; (exit 7); exit 3' &
         (until sandbox events --follow a-17 >followed; do :; done; echo $? >status) &",
    );
    wait::until("its exec to be told", || {
        let so_far = fs::read_to_string(scene.path("followed")).unwrap_or_default();
        Events::parse_part(&so_far).of("exec").count() == 1
    });
    assert!(!scene.path("status").exists(), "it goes on");
    let so_far = Events::parse_part(&kept(&scene));
    assert_eq!(so_far.of("end").count(), 0, "{so_far}");

    fs::write(scene.path("go"), "\n").expect("the analysis reads it");
    let status = wait::for_some("the end of who follows", || {
        let status = fs::read_to_string(scene.path("status")).ok()?;
        status.ends_with('\n').then_some(status)
    });
    assert_eq!(status, "0\n");
    let followed = scene.read("followed");
    assert_eq!(
        Events::parse(&followed).only("end")["reason"],
        "exit_code",
        "{followed}"
    );
    assert_eq!(kept(&scene), followed);
}

#[test]
fn of_a_stream_that_is_too_much_the_beginning_is_kept_and_the_rest_is_counted() {
    let _guest = Guest::enter();
    let config = Configured::with("[service]\nevents-bytes = '64KiB'\n");
    let mut service = Service::start();
    let scene = Scene::new();
    let _said = scene
        .ana("sandbox run --id a-17 --events events -- bash -c 'for i in {1..300}; do (exit 1); done; true'")
        .expect(0);
    let text = kept(&scene);
    assert!(text.len() <= 64 << 10, "{}", text.len());
    let (all, events) = (
        Events::parse(&scene.read("events")),
        Events::parse_part(&text),
    );
    let (all, [beginning @ .., bound, end]) = (all.lines(), events.lines()) else {
        panic!("{events}");
    };
    assert_eq!(beginning, &all[..beginning.len()]);
    assert!(beginning.len() > 50, "{events}");
    assert_eq!(
        (&bound["type"], &bound["where"]),
        (&"dropped".into(), &"bound".into())
    );
    let left_out = bound["count"].as_u64().expect("a count");
    assert_eq!(beginning.len() as u64 + left_out + 1, all.len() as u64);
    let reason = |line: &Value| line["reason"].clone();
    assert_eq!(Some(reason(end)), all.last().map(reason));
    assert_eq!(end["type"], "end");

    config.change("[service]\nevents-bytes = 0\n");
    service.kill();
    service.restart();
    let said = scene
        .ana("sandbox run --id b-1 -- true && sandbox events b-1")
        .expect(125);
    assert!(said.err().contains("none were kept"), "{said}");
    assert_eq!(files(KEPT).len(), 1);
}

#[test]
fn the_stream_of_a_run_whose_supervisor_was_killed_is_cut_but_not_lost() {
    let _guest = Guest::enter();
    let mut service = Service::start();
    let scene = Scene::new();
    let _started = scene
        .ana("sandbox run --detach --id a-17 -- sleep 1000")
        .expect(0);
    wait::until("its exec to be told", || {
        Events::parse_part(&kept(&scene)).of("exec").count() == 1
    });
    let _killed = scene
        .bash(&format!(
            "{}; sandbox wait a-17",
            Service::SUPERVISOR_IS_LOST
        ))
        .expect(137);
    let text = kept(&scene);
    let events = Events::parse_part(&text);
    for (kind, count) in [("start", 1), ("birth", 1), ("exec", 1), ("end", 0)] {
        assert_eq!(events.of(kind).count(), count, "{events}");
    }

    service.kill();
    service.restart();
    wait::until("it to be compressed", || {
        files(KEPT).iter().all(|name| name.ends_with(".gz"))
    });
    assert_eq!(kept(&scene), text);
}

#[test]
fn logs_and_events_go_with_their_run_and_count_as_kept() {
    let _guest = Guest::enter();
    let config = Configured::with("[service]\nkeep-bytes = '1MiB'\n");
    let mut service = Service::start();
    let scene = Scene::new();
    let _ended = scene
        .ana(
            "sandbox run --detach --id a-17 -- head -c 2M /dev/urandom; sandbox wait a-17; \
             sandbox run --detach --id b-1 -- true; sandbox wait b-1",
        )
        .expect(0);
    assert_eq!((files(KEPT).len(), files(LOGS).len()), (2, 4));
    service.kill();
    service.restart();
    let said = scene.ana("sandbox list --json b-1").expect(0);
    let run_id = said.json()[0]["run_id"].as_str().expect("an id").to_owned();
    let gone = scene.ana("sandbox list a-17").expect(1);
    assert_eq!(gone.err(), "sandbox: no run of yours matches\n");
    let left = |directory| {
        files(directory)
            .iter()
            .all(|name| name.starts_with(&run_id))
    };
    assert!(left(KEPT) && left(LOGS), "{:?}", files(LOGS));
    assert_eq!((files(KEPT).len(), files(LOGS).len()), (1, 2));

    config.change("[service]\nkeep-runs = '1s'\n");
    wait::until("the other run to go", || {
        service.kill();
        service.restart();
        scene.bash("sandbox list b-1").code() == 1
    });
    assert_eq!((files(KEPT).len(), files(LOGS).len()), (0, 0));
    assert!(Path::new(KEPT).exists());
}
