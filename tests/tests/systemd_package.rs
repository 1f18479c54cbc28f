//! The Debian package on a host with systemd: what it installs, and that runs outlive all but the unit that
//! holds them.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox_tests::{Guest, Mode, Package, Record, Running, Sandbox, Scene, systemctl, wait};
use serde_json::Value;

const RUNS: &str = "/sys/fs/cgroup/system.slice/sandbox-runs.service/runs";

fn enter() -> Guest {
    let guest = Guest::enter();
    assert_eq!(guest.mode, Mode::Systemd);
    guest
}

#[track_caller]
fn main_pid(unit: &str) -> Pid {
    let pid = systemctl(&["show", "-P", "MainPID", unit]);
    Pid::from_raw(pid.parse().expect("a pid"))
}

/// A run of the service's that holds, asked for by root.
struct Held {
    running: Running,
    main: i32,
    leaf: PathBuf,
}

impl Held {
    #[track_caller]
    fn start(options: &[&str]) -> Self {
        // Several are to go on at once within what a small guest's runs may have together.
        let running = Sandbox::new()
            .options(["--memory", "64MiB"])
            .options(options)
            .start_victim(["sleep"]);
        let main = running.ready();
        let leaf = running.cgroup_of(main);
        assert_eq!(leaf.parent(), Some(Path::new(RUNS)), "{}", leaf.display());
        Self {
            running,
            main,
            leaf,
        }
    }

    /// It is where it was, and alive.
    #[track_caller]
    fn goes_on(&mut self, after: &str) {
        assert!(!self.running.is_over(), "after {after}");
        let procs = fs::read_to_string(self.leaf.join("cgroup.procs")).unwrap_or_default();
        assert_eq!(procs.trim(), self.main.to_string(), "after {after}");
    }

    /// Somebody else ends it, and it is told as ever.
    #[track_caller]
    fn ends_by_kill(self) -> Record {
        kill(Pid::from_raw(self.main), Signal::SIGKILL).expect("main is there");
        let outcome = self.running.finish();
        assert_eq!(outcome.code(), 137, "{}", outcome.stderr);
        let record = outcome.record();
        assert_eq!(record.reason(), "external_kill", "{record}");
        assert_eq!(record.confidence(), "exact", "{record}");
        record
    }
}

/// What the store has of a run once it has ended.
#[track_caller]
fn stored(run_id: &str) -> Value {
    wait::for_some("the run to be stored as ended", || {
        Some(Scene::new().listed(run_id)).filter(|run| run["state"] == "ended")
    })
}

#[test]
fn an_installed_package_serves_users_and_leaves_nothing_when_purged() {
    let _guest = enter();
    let package = Package::install();
    for unit in ["sandbox.service", "sandbox.socket", "sandbox-runs.service"] {
        assert_eq!(systemctl(&["is-active", unit]), "active");
        assert_eq!(systemctl(&["is-enabled", unit]), "enabled");
    }
    let scene = Scene::new();
    let said = scene
        .ana("sandbox run --record record.json -- cat /proc/self/cgroup; sandbox list")
        .expect(0);
    let record = scene.record();
    let path = record.text("/cgroup/path");
    let run_id = record.text("/run_id");
    assert_eq!(
        path,
        format!("/system.slice/sandbox-runs.service/runs/{run_id}")
    );
    assert!(said.out().contains("completed"), "{said}");
    // What was done stands in the journal, to be selected by its fields.
    let entry = scene
        .bash(&format!(
            "journalctl --unit=sandbox.service --output=json SANDBOX_RUN_ID={run_id} SANDBOX_EVENT=ended"
        ))
        .expect(0)
        .json();
    assert_eq!(entry["SANDBOX_REASON"], "completed", "{entry}");
    assert_eq!(entry["PRIORITY"], "6", "{entry}");
    let sentence = format!("run {run_id}: completed (exact): Completed after ");
    let message = entry["MESSAGE"].as_str().unwrap_or_default();
    assert!(message.starts_with(&sentence), "{entry}");
    let listening = scene
        .bash("journalctl --unit=sandbox.service --output=cat PRIORITY=6 | grep listening | tail -n 1")
        .expect(0);
    assert_eq!(listening.out(), "listening on /run/sandbox/sandbox.sock");
    // Whom the configuration names for plain root.
    let said = scene.bash("sandbox run -- id -un").expect(0);
    assert_eq!(said.out(), "analysis");
    for file in [
        "/usr/share/bash-completion/completions/sandbox",
        "/usr/lib/sysusers.d/sandbox.conf",
        "/etc/sandbox/config.toml",
    ] {
        assert!(Path::new(file).exists(), "{file}");
    }
    let said = scene.bash(
        "systemd-analyze verify --man=no sandbox.service sandbox-runs.service sandbox.socket && sandbox check",
    );
    assert_eq!(said.code(), 0, "{said}");
    assert!(
        said.out().contains("in /system.slice/sandbox-runs.service"),
        "{said}"
    );
    package.purge();
    for path in [
        "/usr/bin/sandbox",
        "/var/lib/sandbox",
        "/run/sandbox",
        "/etc/sandbox/config.toml",
    ] {
        assert!(!Path::new(path).exists(), "{path}");
    }
    wait::until("the unit's cgroup to be gone", || !Path::new(RUNS).exists());
}

#[test]
fn a_run_outlives_whatever_becomes_of_the_service_and_its_manager() {
    let _guest = enter();
    let package = Package::install();
    let mut held = Held::start(&[]);
    let mut alone = Held::start(&["--standalone"]);
    let mut after = |what: &str| {
        held.goes_on(what);
        alone.goes_on(what);
    };
    for words in [
        &["restart", "sandbox.service"][..],
        &["stop", "sandbox.service"],
        &["start", "sandbox.service"],
        &["kill", "--signal=KILL", "sandbox.service"],
        &["daemon-reexec"],
        &["daemon-reload"],
    ] {
        systemctl(words);
        after(&words.join(" "));
    }
    let before = main_pid("sandbox.service");
    package.upgrade();
    after("an upgrade");
    assert_ne!(main_pid("sandbox.service"), before, "the new program runs");
    // A login: PID 1 looks after that user's processes from then on.
    systemctl(&["start", "user@1000.service"]);
    after("a login");
    systemctl(&["stop", "user@1000.service"]);
    let holder = main_pid("sandbox-runs.service");
    kill(holder, Signal::SIGKILL).expect("it is there");
    wait::until("another process to hold the runs", || {
        let now = main_pid("sandbox-runs.service");
        now != holder && now.as_raw() != 0
    });
    after("the end of the process that holds the runs");
    wait::until("the service to be there", || {
        systemctl(&["show", "-P", "ActiveState", "sandbox.service"]) == "active"
    });
    let record = held.ends_by_kill();
    assert_eq!(stored(record.text("/run_id"))["reason"], "external_kill");
    let _ = alone.ends_by_kill();
}

#[test]
fn stopping_the_unit_that_holds_the_runs_cancels_them_all_and_says_so() {
    let _guest = enter();
    let _package = Package::install();
    let attached = Held::start(&[]);
    let alone = Held::start(&["--standalone"]);
    let scene = Scene::new();
    let said = scene
        .ana("sandbox run --detach --memory 64MiB -- sleep 1000")
        .expect(0);
    let detached = said.out();
    wait::until("the detached one to be there", || {
        Path::new(RUNS).join(&detached).exists()
    });
    systemctl(&["stop", "sandbox-runs.service"]);
    assert!(
        !Path::new(RUNS).exists()
            || fs::read_dir(RUNS)
                .expect("read")
                .flatten()
                .all(|entry| !entry.path().is_dir())
    );
    for held in [attached, alone] {
        let outcome = held.running.finish();
        let record = outcome.record();
        assert_eq!(record.reason(), "cancelled", "{record}");
        assert_eq!(outcome.code(), 143, "{}", outcome.stderr);
    }
    assert_eq!(
        systemctl(&["show", "-P", "ActiveState", "sandbox.service"]),
        "inactive"
    );
    // The service and its socket come with it.
    systemctl(&["start", "sandbox-runs.service"]);
    wait::until("the service to be there", || {
        systemctl(&["show", "-P", "ActiveState", "sandbox.service"]) == "active"
    });
    let run = stored(&detached);
    assert_eq!(run["reason"], "cancelled", "{run}");
    let notes = run["notes"].as_str().unwrap_or_default();
    assert!(notes.contains("sandbox-runs.service"), "{notes}");
}

#[test]
fn the_socket_starts_the_service_and_the_watchdog_one_that_hangs_anew() {
    let _guest = enter();
    let _package = Package::install();
    systemctl(&["stop", "sandbox.service"]);
    assert_eq!(main_pid("sandbox.service").as_raw(), 0);
    let scene = Scene::new();
    let said = scene.ana("sandbox run -- echo ran").expect(0);
    assert_eq!(said.out(), "ran");
    let drop_in = Path::new("/run/systemd/system/sandbox.service.d/test.conf");
    fs::create_dir_all(drop_in.parent().expect("a folder")).expect("/run can be written to");
    fs::write(drop_in, "[Service]\nWatchdogSec=2s\n").expect("/run can be written to");
    systemctl(&["daemon-reload"]);
    systemctl(&["restart", "sandbox.service"]);
    let hanging = main_pid("sandbox.service");
    kill(hanging, Signal::SIGSTOP).expect("it is there");
    wait::until("another service to be there", || {
        let now = main_pid("sandbox.service");
        now != hanging && now.as_raw() != 0
    });
    fs::remove_file(drop_in).expect("it is ours");
    systemctl(&["daemon-reload"]);
    let said = scene.ana("sandbox run -- echo ran").expect(0);
    assert_eq!(said.out(), "ran");
}
