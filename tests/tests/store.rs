//! What becomes of the service's store on a disk that is full or cannot be written to, where it is damaged, and
//! when somebody puts the clock forward.

use std::fs;
use std::path::PathBuf;

use sandbox_tests::{Configured, Guest, Scene, Service, wait};
use serde_json::json;

/// A small disk of the store's own. Dropped, it is gone.
struct Disk(Scene);

impl Disk {
    fn mount() -> Self {
        let scene = Scene::new();
        let mounted = format!(
            "mkdir -p {0}; mount -t tmpfs -o size=2m,mode=700 store {0}",
            Service::STORE
        );
        let _mounted = scene.bash(&mounted).expect(0);
        Self(scene)
    }

    fn remount(&self, how: &str) {
        let remounted = format!("mount -o remount,{how} {}", Service::STORE);
        let _remounted = self.0.bash(&remounted).expect(0);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = format!("umount -l {0}; rmdir {0}", Service::STORE);
        drop(self.0.bash(&unmounted));
    }
}

fn in_store(name: &str) -> PathBuf {
    PathBuf::from(Service::STORE).join(name)
}

#[track_caller]
fn wait_for_state(scene: &Scene, id: &str, state: &str) {
    wait::until("the run to be that far", || {
        scene.listed(id)["state"] == state
    });
}

#[test]
fn a_disk_that_is_full_costs_no_record_and_starts_no_run() {
    let _guest = Guest::enter();
    let _disk = Disk::mount();
    let _service = Service::on_kept_store();
    let scene = Scene::new();
    let waits = "until [ -e go ]; do sleep 0.1; done; exit 7";
    let _id = scene
        .ana(&format!(
            "sandbox run --detach --id early -- bash -c '{waits}'"
        ))
        .expect(0);
    wait_for_state(&scene, "early", "running");
    let fill = in_store("fill");
    let _full = scene
        .bash(&format!("cat /dev/zero >{}", fill.display()))
        .expect(1);

    let refused = scene
        .ana("sandbox run --id late -- touch begun")
        .expect(125);
    assert!(refused.err().contains(Service::STORE), "{refused}");
    assert!(
        ["full", "No space left"]
            .iter()
            .any(|why| refused.err().contains(why)),
        "{refused}"
    );
    assert!(!scene.files().contains("begun"), "{refused}");

    scene.write("go", "");
    wait::until("the run to have ended", || {
        scene.bash("pgrep -f '^sandbox attend'").code() == 1
    });
    fs::remove_file(fill).expect("root may");
    wait_for_state(&scene, "early", "ended");
    let early = scene.listed("early");
    assert_eq!(early["reason"], "exit_code", "{early}");
    assert_eq!(early["exit_code"], 7, "{early}");
    let entered =
        "sandbox audit verify; grep -c '\"event\":\"ended\"' /var/lib/sandbox/audit.jsonl";
    let entered = scene.bash(entered).expect(0);
    assert!(entered.out().ends_with("\n1"), "{entered}");
    let _runs = scene.ana("sandbox run --id late -- true").expect(0);
}

#[test]
fn a_spool_that_is_read_only_for_a_while_costs_no_record() {
    let _guest = Guest::enter();
    let mut service = Service::start();
    let scene = Scene::new();
    let _id = scene
        .ana(
            "sandbox run --detach --id ro -- bash -c 'until [ -e go ]; do sleep 0.1; done; exit 7'",
        )
        .expect(0);
    wait_for_state(&scene, "ro", "running");
    let spool = in_store("spool");
    let spool = spool.display();
    let read_only = format!("mount --bind {spool} {spool}; mount -o remount,ro,bind {spool}");
    let _read_only = scene.bash(&read_only).expect(0);
    scene.write("go", "");
    wait::until("the run to have ended", || {
        scene.bash("pgrep -f '^sandbox attend'").code() == 1
    });
    // Each looks for what is lost.
    service.kill();
    service.restart();
    assert_eq!(scene.listed("ro")["state"], "running");

    let _writable = scene.bash(&format!("umount {spool}")).expect(0);
    service.kill();
    service.restart();
    wait_for_state(&scene, "ro", "ended");
    let run = scene.listed("ro");
    assert_eq!(
        (&run["reason"], &run["exit_code"]),
        (&json!("exit_code"), &json!(7)),
        "{run}"
    );
    assert_eq!(run["confidence"], "exact", "{run}");
}

#[test]
fn a_clock_that_jumps_ahead_for_a_while_costs_no_history() {
    let _guest = Guest::enter();
    let config = Configured::with("[service]\nkeep-runs = '90d'\n");
    let mut service = Service::start();
    let scene = Scene::new();
    let _first = scene.ana("sandbox run --id first -- true").expect(0);
    let _ahead = scene.bash("date -s '91 days'").expect(0);
    // Each looks for what has been kept long enough.
    service.kill();
    service.restart();
    assert_eq!(scene.listed("first")["state"], "ended");
    let _back = scene.bash("date -s '91 days ago'").expect(0);
    service.kill();
    service.restart();
    assert_eq!(scene.listed("first")["state"], "ended");
    // A clock that has not been set for an hour is believed.
    let age =
        "UPDATE runs SET ended_at = '2020-01-01T00:00:00.000000000Z' WHERE analysis_id = 'first'";
    service.kill();
    let aged = scene.python(&format!(
        "import sqlite3\nwith sqlite3.connect('{}') as store: store.execute(\"{age}\")",
        in_store("runs.sqlite").display()
    ));
    let _aged = aged.expect(0);
    let _noted = scene
        .bash("sed -i 's/\"since_ms\":[0-9]*/\"since_ms\":-3600000/' /run/sandbox/clock")
        .expect(0);
    service.restart();
    wait::until("what is old to go", || {
        scene.bash("sandbox list first").code() == 1
    });
    drop(config);
}

#[test]
fn a_store_that_cannot_be_written_to_starts_no_service() {
    let _guest = Guest::enter();
    let disk = Disk::mount();
    let mut service = Service::on_kept_store();
    let scene = Scene::new();
    let _first = scene.ana("sandbox run --id first -- true").expect(0);
    service.kill();
    disk.remount("ro");
    let refused = scene.bash("sandbox serve").expect(125);
    assert!(refused.err().contains(Service::STORE), "{refused}");
    assert!(
        refused.err().to_lowercase().contains("read-only"),
        "{refused}"
    );

    disk.remount("rw");
    service.restart();
    assert_eq!(scene.listed("first")["reason"], "completed");
    let _runs = scene.ana("sandbox run -- true").expect(0);
}

#[test]
fn a_damaged_store_is_put_aside_as_it_is() {
    let _guest = Guest::enter();
    let mut service = Service::start();
    let scene = Scene::new();
    let _first = scene.ana("sandbox run -- true").expect(0);
    service.kill();
    // Which would mend it.
    drop(fs::remove_file(in_store("runs.sqlite-wal")));
    let damaged = vec![b'x'; 9000];
    fs::write(in_store("runs.sqlite"), &damaged).expect("root may");
    service.restart();
    let _runs = scene.ana("sandbox run --id after -- true").expect(0);
    assert_eq!(scene.listed("after")["reason"], "completed");
    let aside: Vec<_> = fs::read_dir(Service::STORE)
        .expect("root may read it")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.to_string_lossy().contains(".damaged-"))
        .filter(|path| !path.to_string_lossy().ends_with("-wal"))
        .filter(|path| !path.to_string_lossy().ends_with("-shm"))
        .collect();
    let [aside] = aside.as_slice() else {
        panic!("{aside:?}");
    };
    assert_eq!(fs::read(aside).expect("readable"), damaged);
}

#[test]
fn the_first_record_of_a_run_stands() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let _done = scene.ana("sandbox run --id once -- true").expect(0);
    let show = || scene.bash("sandbox show --json once").expect(0).json();
    let first = show();
    // By somebody who goes on with the run and cannot know that it is recorded.
    let mut second = first.clone();
    second["termination"]["reason"] = json!("runner_lost");
    let spooled = json!({"uid": first["user"]["uid"], "record": second});
    let spool = in_store("spool");
    let left = spool.join(format!("{}.json", first["run_id"].as_str().expect("an id")));
    let draft = spool.join(".second");
    fs::write(&draft, spooled.to_string()).expect("root may");
    fs::rename(&draft, &left).expect("root may");
    wait::until("it to be looked at", || !left.exists());
    assert_eq!(show(), first);
    let _whole = scene.bash("sandbox audit verify").expect(0);
}

#[test]
fn a_clock_that_jumps_ends_no_run_early_and_none_late() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let jump = |by: &str| scene.bash(&format!("date -s '{by}'")).expect(0);
    let _id = scene
        .ana("sandbox run --detach --id long --timeout 1h -- bash -c 'until [ -e go ]; do sleep 0.1; done'")
        .expect(0);
    let _id = scene
        .ana("sandbox run --detach --id short --timeout 5s --grace 0 -- sleep 98765")
        .expect(0);
    wait_for_state(&scene, "short", "running");
    let _back = jump("2 days ago");
    wait_for_state(&scene, "short", "ended");
    let _forward = jump("5 days");
    let short = scene.bash("sandbox show --json short").expect(0).json();
    assert_eq!(short["termination"]["reason"], "walltime", "{short:#}");
    let limit = short["walltime_ns"].as_u64().expect("it is known");
    assert!(
        (5_000_000_000..60_000_000_000).contains(&limit),
        "{short:#}"
    );

    // A run that is accepted now is the latest.
    let _runs = scene.ana("sandbox run --id next -- true").expect(0);
    assert_eq!(scene.listed("long")["state"], "running");
    scene.write("go", "");
    wait_for_state(&scene, "long", "ended");
    assert_eq!(scene.listed("long")["reason"], "completed");
    let _whole = scene.bash("sandbox audit verify").expect(0);
    let _now = jump("3 days ago");
}
