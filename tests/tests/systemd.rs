//! A host with systemd: the run's scope, and that it stays whatever its manager does meanwhile.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use sandbox_tests::{Configured, Guest, Mode, Running, Sandbox, Scene, systemctl, wait};

fn enter() -> Guest {
    let guest = Guest::enter();
    assert_eq!(guest.mode, Mode::Systemd);
    guest
}

/// A run that holds, with what is known of its place.
struct Held {
    running: Running,
    main: i32,
    leaf: PathBuf,
    scope: String,
}

impl Held {
    fn start(sandbox: Sandbox) -> Self {
        let running = sandbox.start_victim(["sleep"]);
        let main = running.ready();
        let leaf = running.cgroup_of(main);
        let scope = leaf
            .ancestors()
            .filter_map(|path| path.file_name()?.to_str())
            .find(|name| name.ends_with(".scope"))
            .expect("the leaf is in a scope")
            .to_owned();
        Self {
            running,
            main,
            leaf,
            scope,
        }
    }

    fn scope_dir(&self) -> &Path {
        let mut above = self.leaf.ancestors();
        above
            .find(|path| path.ends_with(&self.scope))
            .expect("the leaf is in it")
    }

    /// Ends it, and sees that nothing of the scope is left.
    fn finish_by_kill(self) -> sandbox_tests::Record {
        let scope_dir = self.scope_dir().to_owned();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.main), Signal::SIGKILL)
            .expect("main is there");
        let outcome = self.running.finish();
        assert_eq!(outcome.code(), 137, "{}", outcome.stderr);
        is_gone(&self.scope, &scope_dir);
        outcome.record()
    }
}

#[track_caller]
fn is_gone(scope: &str, dir: &Path) {
    wait::until("the scope to be gone", || {
        !dir.exists() && systemctl(&["show", "-P", "LoadState", scope]) == "not-found"
    });
}

fn read(dir: &Path, file: &str) -> String {
    let text = fs::read_to_string(dir.join(file));
    text.expect("the cgroup has this file").trim().to_owned()
}

#[test]
fn a_run_has_a_delegated_scope_with_its_guardian_and_its_leaf_with_its_limits() {
    let _guest = enter();
    let own_before = fs::read_to_string("/proc/self/cgroup").expect("proc is mounted");
    let options = ["--memory", "100MiB", "--pids", "20", "--cpus", "0.5"];
    let held = Held::start(Sandbox::new().options(options));
    assert_eq!(
        systemctl(&["show", "-P", "ActiveState", &held.scope]),
        "active"
    );
    for (property, value) in [
        ("Delegate", "yes"),
        ("TasksMax", "infinity"),
        ("OOMPolicy", "continue"),
        ("Slice", "sandbox.slice"),
    ] {
        assert_eq!(
            systemctl(&["show", "-P", property, &held.scope]),
            value,
            "{property}"
        );
    }
    let supervisor = read(&held.scope_dir().join("supervisor"), "cgroup.procs");
    let guardian: i32 = supervisor.parse().expect("one guardian");
    let words = fs::read_to_string(format!("/proc/{guardian}/cmdline")).expect("it is there");
    assert!(words.contains("guardian"), "{words}");
    assert_eq!(read(held.scope_dir(), "cgroup.procs"), "");
    for (file, value) in [
        ("memory.max", "104857600"),
        ("memory.swap.max", "0"),
        ("memory.oom.group", "1"),
        ("pids.max", "20"),
        ("cgroup.max.descendants", "0"),
    ] {
        assert_eq!(read(&held.leaf, file), value, "{file}");
    }
    let cpu = read(&held.leaf, "cpu.max");
    let numbers: Vec<f64> = cpu
        .split(' ')
        .filter_map(|number| number.parse().ok())
        .collect();
    assert!((numbers[0] / numbers[1] - 0.5).abs() < 1e-9, "{cpu}");

    let sandbox = format!("/proc/{}/cgroup", held.running.pid());
    let own = fs::read_to_string(sandbox).expect("it is there");
    assert_eq!(own, own_before, "`sandbox` stays in its caller's cgroup");

    let scope = held.scope.clone();
    let record = held.finish_by_kill();
    assert_eq!(record.reason(), "external_kill", "{record}");
    assert!(record.text("/cgroup/path").contains(&scope), "{record}");
    assert_eq!(record.number("/limits/memory_bytes/effective"), 104_857_600);
}

#[test]
fn a_run_survives_its_managers_reload_and_re_execution() {
    let _guest = enter();
    let held = Held::start(Sandbox::new().options(["--memory", "100MiB"]));
    for verb in ["daemon-reload", "daemon-reexec"] {
        systemctl(&[verb]);
        assert_eq!(systemctl(&["is-active", &held.scope]), "active");
        assert_eq!(held.running.cgroup_of(held.main), held.leaf, "after {verb}");
        assert_eq!(read(&held.leaf, "memory.max"), "104857600", "after {verb}");
    }
    let record = held.finish_by_kill();
    assert_eq!(record.reason(), "external_kill", "{record}");
    assert_eq!(record.confidence(), "exact", "{record}");
}

#[test]
fn runs_can_start_while_the_manager_reloads() {
    let _guest = enter();
    let scene = Scene::new();
    let said = scene
        .bash(
            "while test ! -e stop; do systemctl daemon-reload; sleep 0.5; done & \
             for i in 1 2; do sandbox run --user ana -- echo ran || break; done; touch stop; wait",
        )
        .expect(0);
    assert_eq!(said.out(), "ran\nran", "{said}");
}

#[test]
fn stopping_the_scope_ends_the_run_as_a_kill_from_outside() {
    let _guest = enter();
    let held = Held::start(Sandbox::new());
    let (scope, dir) = (held.scope.clone(), held.scope_dir().to_owned());
    systemctl(&["stop", &scope]);
    let outcome = held.running.finish();
    assert_eq!(outcome.code(), 143, "{}", outcome.stderr);
    let record = outcome.record();
    assert_eq!(record.reason(), "external_kill", "{record}");
    assert_eq!(record.at("/kills/0/sender/pid"), 1, "{record}");
    assert_eq!(record.at("/kills/0/sender/comm"), "systemd", "{record}");
    is_gone(&scope, &dir);
}

/// Lifts a limit of the slice of all runs when it is dropped.
struct Unlimited(&'static str);

impl Drop for Unlimited {
    fn drop(&mut self) {
        let lifted = format!("{}=infinity", self.0);
        systemctl(&["set-property", "--runtime", "sandbox.slice", &lifted]);
    }
}

#[test]
fn the_memory_of_the_slice_is_a_limit_above_the_leafs() {
    let _guest = enter();
    // The slice is there while something is in it.
    let holding = Held::start(Sandbox::new());
    let _unlimited = Unlimited("MemoryMax");
    systemctl(&[
        "set-property",
        "--runtime",
        "sandbox.slice",
        "MemoryMax=128M",
    ]);
    let outcome = Sandbox::new()
        .options(["--memory", "1GiB"])
        .victim(["eat", "400MiB"]);
    let record = outcome.record();
    assert_eq!(record.reason(), "memory_ancestor", "{record}");
    assert_eq!(
        record.number("/limits/memory_bytes/enclosing/value"),
        128 << 20
    );
    assert!(
        record
            .text("/limits/memory_bytes/enclosing/cgroup")
            .ends_with("sandbox.slice"),
        "{record}"
    );
    drop(holding.running);
}

#[test]
fn the_hosts_budget_is_a_limit_of_the_slice_that_systemd_knows_of() {
    let _guest = enter();
    let _unlimited = [Unlimited("MemoryMax"), Unlimited("TasksMax")];
    let config = Configured::with("[budget]\nmemory = '512MiB'\npids = 400\ncpus = 1.25\n");
    let held = Held::start(Sandbox::new());
    let of_slice = |property| systemctl(&["show", "-P", property, "sandbox.slice"]);
    assert_eq!(of_slice("MemoryMax"), (512 << 20).to_string());
    assert_eq!(of_slice("TasksMax"), "400");
    assert_eq!(of_slice("CPUQuotaPerSecUSec"), "1.250000s");
    systemctl(&["daemon-reload"]);
    assert_eq!(of_slice("MemoryMax"), (512 << 20).to_string());
    config.change("[budget]\ncpus = 'none'\n");
    let second = Sandbox::new()
        .victim(["exit", "0"])
        .ended(0, "completed", "none");
    assert!(second.at("/limits/cpus/enclosing").is_null(), "{second}");
    let record = held.finish_by_kill();
    for (limit, value) in [("memory_bytes", 512 << 20), ("pids", 400)] {
        let enclosing = format!("/limits/{limit}/enclosing");
        assert_eq!(record.number(&format!("{enclosing}/value")), value);
        let cgroup = record.text(&format!("{enclosing}/cgroup"));
        assert_eq!(cgroup, "/sandbox.slice", "{record}");
    }
}

#[test]
fn a_delegated_unit_with_a_subgroup_holds_its_own_runs() {
    let _guest = enter();
    let scene = Scene::new();
    let said = scene
        .bash(
            "systemd-run --quiet --wait --pipe --collect --unit=own-unit -p Delegate=yes \
             -p DelegateSubgroup=caller -p WorkingDirectory=$PWD \
             /payload/bin/sandbox run --user ana --record record.json -- true",
        )
        .expect(0);
    assert_eq!(said.out(), "");
    let record = scene.record();
    assert_eq!(record.reason(), "completed", "{record}");
    let path = record.text("/cgroup/path");
    assert!(path.contains("/own-unit.service/runs/"), "{path}");
}

#[test]
fn a_service_without_delegation_gets_a_scope_for_its_run() {
    let _guest = enter();
    let scene = Scene::new();
    let _ = scene
        .bash(
            "systemd-run --quiet --wait --pipe --collect --unit=plain-unit \
             -p WorkingDirectory=$PWD \
             /payload/bin/sandbox run --user ana --record record.json -- true",
        )
        .expect(0);
    let record = scene.record();
    let path = record.text("/cgroup/path");
    assert!(path.starts_with("/sandbox.slice/sandbox-"), "{path}");
}

/// systemd's own OOM daemon, told to kill in the slice of all runs at little pressure, on a host that has
/// swap, as its manual asks. Dropped, it is as Debian ships it.
struct Oomd;

impl Oomd {
    const DROP_INS: [(&str, &str); 2] = [
        (
            "/run/systemd/oomd.conf.d/test.conf",
            "[OOM]\nDefaultMemoryPressureDurationSec=1s\n",
        ),
        (
            "/run/systemd/system/sandbox.slice.d/test.conf",
            "[Slice]\nManagedOOMMemoryPressure=kill\nManagedOOMMemoryPressureLimit=1%\n",
        ),
    ];
    const SWAP: &str = "/var/tmp/swap";

    fn start() -> Self {
        let oomd = Self;
        let swap = Self::SWAP;
        let _ = Scene::new()
            .bash(&format!(
                "dd if=/dev/zero of={swap} bs=1M count=128 && chmod 600 {swap} && mkswap {swap} && swapon {swap}"
            ))
            .expect(0);
        for (path, text) in Self::DROP_INS {
            let folder = Path::new(path).parent().expect("it is in a folder");
            fs::create_dir_all(folder).expect("/run can be written to");
            fs::write(path, text).expect("/run can be written to");
        }
        systemctl(&["daemon-reload"]);
        systemctl(&["restart", "systemd-oomd"]);
        oomd
    }
}

impl Drop for Oomd {
    fn drop(&mut self) {
        for (path, _) in Self::DROP_INS {
            // It may not have been written.
            drop(fs::remove_file(path));
        }
        systemctl(&["daemon-reload"]);
        systemctl(&["restart", "systemd-oomd"]);
        let swap = Self::SWAP;
        let _ = Scene::new().bash(&format!("swapoff {swap}; rm -f {swap}"));
    }
}

#[test]
fn a_run_that_systemds_oom_daemon_kills_for_memory_pressure_is_told_so_and_its_neighbour_lives_on()
{
    let _guest = enter();
    let _oomd = Oomd::start();
    let neighbour = Held::start(Sandbox::new());
    // More than it may have in memory, touched again and again: each page comes back from swap.
    let script = "import mmap\nm = mmap.mmap(-1, 96 << 20)\nwhile True:\n \
                  for i in range(0, len(m), 4096): m[i] = 1";
    let outcome = Sandbox::new()
        .options(["--memory", "32MiB", "--swap", "100MiB", "--timeout", "100s"])
        .command(["python3", "-c", script]);
    let record = outcome.ended(137, "external_kill", "same");
    let daemon: i64 = systemctl(&["show", "-P", "MainPID", "systemd-oomd"])
        .parse()
        .expect("it is running");
    let sender = record.at("/kills/0/sender");
    assert_eq!(sender["pid"], daemon, "{record}");
    assert_eq!(sender["comm"], "systemd-oomd", "{record}");
    assert_eq!(sender["in_run"], false, "{record}");
    assert!(record.notes().contains("systemd-oomd"), "{record}");
    let record = neighbour.finish_by_kill();
    assert_ne!(
        record.at("/kills/0/sender/comm"),
        "systemd-oomd",
        "{record}"
    );
}

/// Tries to get out by asking a manager for a scope; whoever got out would be named so.
const NAMED: &str = "98765";

/// The attempt failed and said `inside`, or the run ended as `escaped`; nobody is outside.
#[track_caller]
fn fails_or_ends_as_escaped(scene: &Scene, user: &str, attempt: &str) -> String {
    scene.write("attempt", &format!("{attempt}\necho inside; exit 0"));
    let said = scene.bash(&format!(
        "sandbox run --timeout 40s --record record.json --user {user} -- bash ./attempt"
    ));
    let record = scene.record();
    match record.reason() {
        "completed" => assert_eq!(said.out(), "inside", "{said}"),
        "escaped" => assert!(!record.list("/escaped").is_empty(), "{record}"),
        _ => panic!("neither failed nor escaped: {said}\n{record}"),
    }
    wait::until("nobody to be outside", || {
        let processes = fs::read_dir("/proc").expect("proc is mounted").flatten();
        !processes
            .filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok())
            .any(|words| words.contains(NAMED))
    });
    record.reason().to_owned()
}

/// A user's manager, for as long as the test runs.
struct UserManager;

impl UserManager {
    fn start() -> Self {
        systemctl(&["start", "user@1000.service"]);
        wait::until("the user's bus", || {
            Path::new("/run/user/1000/bus").exists()
        });
        Self
    }
}

impl Drop for UserManager {
    fn drop(&mut self) {
        systemctl(&["stop", "user@1000.service", "user-runtime-dir@1000.service"]);
    }
}

#[test]
fn a_users_manager_gives_its_analysis_no_scope() {
    let _guest = enter();
    let _manager = UserManager::start();
    let outside = Scene::new().bash(
        "runuser -u ana -- env XDG_RUNTIME_DIR=/run/user/1000 systemd-run --user --scope --quiet true",
    );
    assert_eq!(outside.code(), 0, "outside of a run it does: {outside}");
    let reason = fails_or_ends_as_escaped(
        &Scene::new(),
        "ana",
        "export XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus
         systemd-run --user --scope --quiet sleep 98765 2>/dev/null
         systemd-run --user --quiet sleep 98765 2>/dev/null
         systemd-run --scope --quiet sleep 98765 2>/dev/null
         # Through the mounts of ana's processes outside, the manager itself among them.
         for pid in $(pgrep -u ana); do
             export XDG_RUNTIME_DIR=/proc/$pid/root/run/user/1000
             export DBUS_SESSION_BUS_ADDRESS=unix:path=$XDG_RUNTIME_DIR/bus
             systemd-run --user --quiet sleep 98765 2>/dev/null
             systemd-run --user --scope --quiet sleep 98765 2>/dev/null
         done",
    );
    assert_eq!(reason, "completed", "the ways are closed");
}

#[test]
fn root_gets_no_scope_from_the_hosts_manager() {
    let _guest = enter();
    let reason = fails_or_ends_as_escaped(
        &Scene::new(),
        "root",
        "systemd-run --scope --quiet sleep 98765 2>/dev/null; systemd-run --quiet sleep 98765 2>/dev/null",
    );
    assert_eq!(reason, "completed", "the ways are closed");
}

#[test]
fn root_that_uncovers_the_hosts_manager_and_asks_for_a_scope_is_ended() {
    let _guest = enter();
    let reason = fails_or_ends_as_escaped(
        &Scene::new(),
        "root",
        "umount /run/systemd /run/dbus; exec systemd-run --scope --quiet sleep 98765",
    );
    assert_eq!(reason, "escaped");
}

fn lose_everybody(held: &Held) {
    let guardian = read(&held.scope_dir().join("supervisor"), "cgroup.procs");
    held.running
        .lose_with_guardian(guardian.parse().expect("one guardian"));
}

#[test]
fn a_lost_run_whose_scope_ended_with_it_is_told_as_it_ended() {
    let _guest = enter();
    let held = Held::start(Sandbox::new());
    lose_everybody(&held);
    let main = nix::unistd::Pid::from_raw(held.main);
    nix::sys::signal::kill(main, Signal::SIGKILL).expect("it is there");
    is_gone(&held.scope, held.scope_dir());
    let next = Sandbox::new().command(["true"]);
    assert_eq!(next.code(), 0, "{}", next.stderr);
    let record = held.running.finish().record();
    record.assert_reason("external_kill", "same");
    assert_eq!(record.at("/exit/signal"), 9, "{record}");
}

#[test]
fn what_a_lost_run_left_is_removed_by_the_next_and_its_scope_goes() {
    let _guest = enter();
    let held = Held::start(Sandbox::new());
    lose_everybody(&held);
    assert!(held.leaf.exists(), "nobody is left to remove it");
    let next = Sandbox::new().command(["true"]);
    assert_eq!(next.code(), 0, "{}", next.stderr);
    assert!(next.stderr.contains("removed "), "{}", next.stderr);
    is_gone(&held.scope, held.scope_dir());
    let record = held.running.finish().record();
    record.assert_verdict("runner_lost", "same");
}
