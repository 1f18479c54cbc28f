//! What `sandbox list` and `sandbox show` say of runs that have not ended.

use sandbox_tests::{Configured, Guest, Scene, Service, wait};
use serde_json::{Value, json};

fn shown(scene: &Scene, id: &str) -> Value {
    let shown = scene.ana(&format!("sandbox show --json {id}")).expect(0);
    shown.json()
}

/// Until the last of its runs is over, by being killed.
fn end(scene: &Scene, ids: &[&str]) {
    for id in ids {
        let _killed = scene.ana(&format!("sandbox kill {id}")).expect(0);
        let _ended = scene.ana(&format!("sandbox wait {id}")).expect(143);
    }
}

#[test]
fn a_run_that_goes_on_is_shown_as_it_was_asked_for_and_as_it_is_just_now() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let line = "sandbox run --detach --id a-17 --timeout 1h --swap 8MiB --pids 7 --on-complete true -- sleep 1000";
    let _started = scene.ana(line).expect(0);
    let has_started = || !shown(&scene, "a-17")["started_at"].is_null();
    wait::until("its main process to be executed", has_started);

    let run = shown(&scene, "a-17");
    assert_eq!(run["state"], "running", "{run}");
    let limits = &run["spec"]["limits"];
    let hour_ns = 3_600_000_000_000_u64;
    let walltime = json!({"requested": hour_ns, "value": hour_ns, "source": "command_line"});
    assert_eq!(limits["walltime_ns"], walltime, "{run}");
    assert_eq!(limits["swap_bytes"]["value"], 8 << 20, "{run}");
    assert_eq!(run["spec"]["on_complete"], "true", "{run}");
    assert_eq!(run["now"]["pids"], 1, "{run}");
    assert!(run["now"]["cpu_usage_us"].is_number(), "{run}");
    let details = scene.ana("sandbox show a-17").expect(0);
    for line in [
        "asked for by  ana (uid 1000)\n",
        "started       20",
        "reason        (running)\n",
        "deadline      20",
        " of 2 GiB\n",
        "tasks         1 of 7",
    ] {
        assert!(details.out().contains(line), "{line}: {details}");
    }

    let _updated = scene
        .ana("sandbox update a-17 --timeout +1h && sandbox freeze a-17")
        .expect(0);
    let frozen = shown(&scene, "a-17");
    assert_eq!(
        frozen["now"]["frozen_by"], "sandbox freeze of ana",
        "{frozen}"
    );
    assert_ne!(frozen["now"]["deadline"], run["now"]["deadline"]);
    assert_eq!(frozen["started_at"], run["started_at"]);
    let listed = scene.ana("sandbox list --running").expect(0);
    assert!(listed.out().contains("(frozen)"), "{listed}");
    end(&scene, &["a-17"]);
    let ended = shown(&scene, "a-17");
    assert_eq!(ended["termination"]["reason"], "cancelled", "{ended}");
}

#[test]
fn runs_that_wait_have_their_place_shown_and_a_detached_one_is_told_its_own() {
    let _guest = Guest::enter();
    let _config = Configured::with("[service]\nruns = 1\n");
    let _service = Service::start();
    let scene = Scene::new();
    let detach = |id: &str| {
        let line = format!("sandbox run --detach --id {id} -- sleep 1000");
        scene.ana(&line).expect(0)
    };
    assert_eq!(detach("first").err(), "");
    let second = detach("second");
    assert!(second.err().contains("this run is next"), "{second}");
    let third = detach("third");
    assert!(
        third.err().contains("one run is before this one"),
        "{third}"
    );
    let listed = scene.ana("sandbox list").expect(0);
    for place in ["(queued behind 0)", "(queued behind 1)"] {
        assert!(listed.out().contains(place), "{listed}");
    }
    assert_eq!(shown(&scene, "third")["now"]["ahead"], 1);
    end(&scene, &["third", "second", "first"]);
}
