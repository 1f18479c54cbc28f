//! `sandbox check`: what it finds, and what it clears away.

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use sandbox_tests::{Guest, PINS, Sandbox, Scene, Service, wait};

fn pins() -> usize {
    std::fs::read_dir(PINS).map_or(0, Iterator::count)
}

#[test]
fn a_host_on_which_run_works_passes_and_is_told_finding_by_finding() {
    let guest = Guest::enter();
    let said = Scene::new().bash("sandbox check --json").expect(0).json();
    assert_eq!(said["ok"], true, "{said}");
    let status = |name: &str| {
        let findings = said["findings"].as_array().expect("a list");
        let found = findings.iter().find(|finding| finding["name"] == name);
        found.unwrap_or_else(|| panic!("nothing on {name}: {said}"))["status"].clone()
    };
    for name in [
        "privileges",
        "cgroup v2",
        "controllers",
        "BTF",
        "bpffs",
        "tracing",
    ] {
        assert_eq!(status(name), "ok", "{name}: {said}");
    }
    let domains = if guest.version() >= (6, 12) {
        "ok"
    } else {
        "degraded"
    };
    assert_eq!(status("Landlock"), domains, "{said}");
}

#[test]
fn a_user_is_told_what_is_missing_and_run_fails_as_foretold() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash("setpriv --reuid ana --regid ana --clear-groups sandbox check");
    assert_eq!(said.code(), 125, "{said}");
    assert!(said.out().contains("missing   privileges"), "{said}");
    let run = scene.bash("setpriv --reuid ana --regid ana --clear-groups sandbox run -- true");
    assert_eq!(run.code(), 125, "{run}");
    assert!(run.err().contains("sudo"), "{run}");
}

#[test]
fn a_user_beside_the_service_is_told_that_it_does_their_runs() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let said = scene.ana("sandbox check").expect(0);
    assert!(
        said.out().contains("the host's service does your runs"),
        "{said}"
    );
    assert!(said.out().contains("unknown   tracing"), "{said}");
    for word in ["missing", "remove"] {
        assert!(!said.out().contains(word), "{word}: {said}");
    }
    let told = scene.ana("sandbox check --json").expect(0).json();
    assert_eq!(told["served"], true, "{told}");
    let _as_foretold = scene.ana("sandbox run -- true").expect(0);
    let root = scene.bash("sandbox check").expect(0);
    assert!(root.out().contains("service"), "{root}");
}

#[test]
fn without_cgroup2_check_and_run_say_how_to_mend_it() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let root = "/sys/fs/cgroup";
    umount2(root, MntFlags::MNT_DETACH).expect("it is mounted");
    let check = scene.bash("sandbox check");
    let run = scene.bash("sandbox run --user ana -- true");
    let back = scene.bash("mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup");
    assert_eq!(back.code(), 0, "{back}");
    for said in [&check, &run] {
        assert_eq!(said.code(), 125, "{said}");
    }
    assert!(check.out().contains("missing   cgroup v2"), "{check}");
    for text in [check.out(), run.err()] {
        assert!(text.contains("mount -t cgroup2"), "{text}");
    }
}

#[test]
fn what_a_lost_run_left_is_removed_and_named() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    // The guardian is stopped before it can see its supervisor go.
    let said = scene.bash(
        "sandbox run --user ana -- victim sleep >out 2>/dev/null & \
         until grep -q ready out; do sleep 0.05; done; \
         until guardian=$(cat /sys/fs/cgroup/sandbox/supervisor/cgroup.procs); [ \"$guardian\" ]; do sleep 0.05; done; \
         kill -STOP $guardian; kill -KILL $!; kill -KILL $guardian; wait $!; \
         while kill -0 $guardian 2>/dev/null; do sleep 0.05; done; sandbox check",
    );
    assert_eq!(said.code(), 0, "{said}");
    assert!(
        said.out()
            .contains("removed   orphaned leaf /sandbox/runs/"),
        "{said}"
    );
}

#[test]
fn clean_removes_the_shared_programs_and_keeps_those_of_a_live_run() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let running = Sandbox::new().start_victim(["handle", "USR1", "0"]);
    let _ready = running.ready();
    let kept = scene.bash("sandbox check --clean").expect(0);
    assert!(!kept.out().contains("unused eBPF programs"), "{kept}");
    assert_eq!(pins(), 1, "{kept}");
    running.signal(Signal::SIGUSR1);
    let record = running.finish().ended(0, "completed", "none");
    assert_eq!(record.confidence(), "exact", "{record}");

    let cleaned = scene.bash("sandbox check --clean").expect(0);
    assert!(
        cleaned.out().contains("removed   unused eBPF programs"),
        "{cleaned}"
    );
    assert_eq!(pins(), 0, "{cleaned}");
    let again = scene.bash("sandbox check --clean").expect(0);
    assert!(
        !again.out().contains("removed"),
        "there was nothing: {again}"
    );
    assert_eq!(pins(), 0, "{again}");
}

#[test]
fn the_service_removes_what_versions_before_it_have_pinned_and_nobody_uses() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let _pinned = scene.bash("sandbox run --user ana -- true").expect(0);
    let stale = format!("{PINS}/0123456789abcdef");
    std::fs::create_dir(&stale).expect("root may");
    let _service = Service::start();
    wait::until("it to be removed", || {
        !std::fs::exists(&stale).expect("root may look")
    });
    assert_eq!(pins(), 1, "its own are kept");
}

#[test]
fn runs_that_start_while_the_programs_are_cleaned_away_are_watched_all_the_same() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        "(for i in $(seq 12); do sandbox check --clean >/dev/null || exit 1; done) & \
         for i in $(seq 6); do \
           sandbox run --user ana --record record.$i.json -- true || exit 1; \
         done; wait $!",
    );
    assert_eq!(said.code(), 0, "{said}");
    for run in 1..=6 {
        let record = sandbox_tests::Record::parse(&scene.read(&format!("record.{run}.json")));
        assert_eq!(record.reason(), "completed", "{record}");
        assert_eq!(record.confidence(), "exact", "{record}");
    }
}

#[test]
fn what_a_container_left_that_was_ended_as_a_whole_is_removed() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        "unshare --pid --fork --mount-proc bash -c \
           'sandbox run --user ana -- victim sleep >out 2>/dev/null & \
            until grep -q ready out; do sleep 0.05; done'; \
         sandbox check",
    );
    assert_eq!(said.code(), 0, "{said}");
    assert!(
        said.out()
            .contains("removed   orphaned leaf /sandbox/runs/"),
        "{said}"
    );
}
