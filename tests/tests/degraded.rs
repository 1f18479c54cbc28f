//! Hosts that offer less: what is known is degraded and says so, the limits hold all the same.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sandbox_tests::{Guest, Outcome, PINS, Record, Sandbox, Scene, unpin, wait};

/// Something mounted over a folder, for as long as the test runs.
struct Covered(&'static str);

impl Covered {
    fn with_nothing(folder: &'static str) -> Self {
        let none: Option<&str> = None;
        mount(Some("none"), folder, Some("tmpfs"), MsFlags::empty(), none).expect("root may mount");
        Self(folder)
    }
}

impl Drop for Covered {
    fn drop(&mut self) {
        umount2(self.0, MntFlags::MNT_DETACH).expect("it is mounted");
    }
}

/// A host without BTF, where no program can be loaded.
fn without_btf() -> Covered {
    unpin();
    Covered::with_nothing("/sys/kernel/btf")
}

/// A switch of the kernel's, put back when the test ends.
struct Sysctl {
    path: &'static str,
    before: String,
}

impl Sysctl {
    fn set(path: &'static str, value: &str) -> io::Result<Self> {
        let before = fs::read_to_string(path)?;
        fs::write(path, value)?;
        Ok(Self { path, before })
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        fs::write(self.path, self.before.trim()).expect("root may turn it back");
    }
}

#[track_caller]
fn known_as(outcome: &Outcome, reason: &str, confidence: &str) -> Record {
    let record = outcome.record();
    assert_eq!(record.reason(), reason, "{record}");
    assert_eq!(record.confidence(), confidence, "{record}");
    assert_eq!(record.at("/cleanup/removed"), true, "{record}");
    assert!(!record.list("/tracing/degraded").is_empty(), "{record}");
    record
}

#[test]
fn without_btf_a_run_completes_and_says_what_is_missing() {
    let _guest = Guest::enter();
    let _hidden = without_btf();
    let outcome = Sandbox::new().victim(["exit", "0"]);
    assert_eq!(outcome.code(), 0, "{}", outcome.stderr);
    let record = known_as(&outcome, "completed", "inferred");
    assert_eq!(record.text("/tracing/mode"), "inferred");
    let degraded = record.at("/tracing/degraded").to_string();
    assert!(degraded.contains("/sys/kernel/btf/vmlinux"), "{degraded}");
    assert!(
        !Path::new(PINS).exists() || {
            fs::read_dir(PINS).is_ok_and(|mut pins| pins.next().is_none())
        }
    );
}

#[test]
fn without_btf_the_memory_limit_holds_and_is_named() {
    let _guest = Guest::enter();
    let _hidden = without_btf();
    let outcome = Sandbox::new()
        .options(["--memory", "64MiB"])
        .victim(["eat", "256MiB"]);
    assert_eq!(outcome.code(), 137, "{}", outcome.stderr);
    let record = known_as(&outcome, "memory", "inferred");
    assert_eq!(record.text("/termination/retry_hint"), "more_memory");
    assert!(record.notes().contains("64 MiB"), "{}", record.notes());
}

#[test]
fn without_btf_the_wall_clock_holds() {
    let _guest = Guest::enter();
    let _hidden = without_btf();
    let outcome = Sandbox::new()
        .options(["--timeout", "1s", "--grace", "0"])
        .victim(["ignore-term"]);
    assert_eq!(outcome.code(), 137, "{}", outcome.stderr);
    known_as(&outcome, "walltime", "inferred");
}

#[test]
fn without_btf_the_pid_limit_holds_and_ends_the_run() {
    let _guest = Guest::enter();
    let _hidden = without_btf();
    let outcome = Sandbox::new()
        .options(["--pids", "10"])
        .victim(["children", "20"]);
    known_as(&outcome, "pids", "inferred");
}

#[test]
fn without_btf_a_kill_from_outside_is_not_taken_for_a_limit() {
    let _guest = Guest::enter();
    let _hidden = without_btf();
    let running = Sandbox::new().start_victim(["sleep"]);
    let main = nix::unistd::Pid::from_raw(running.ready());
    nix::sys::signal::kill(main, nix::sys::signal::Signal::SIGKILL).expect("it is there");
    let outcome = running.finish();
    assert_eq!(outcome.code(), 137);
    let record = outcome.record();
    assert_eq!(record.confidence(), "inferred", "{record}");
    assert!(
        ["external_kill", "signal"].contains(&record.reason()),
        "{record}"
    );
}

#[test]
fn without_btf_a_run_whose_sandbox_is_killed_is_ended_and_recorded() {
    let _guest = Guest::enter();
    let _hidden = without_btf();
    let scene = Scene::new();
    let _ = scene
        .bash(
            "sandbox run --user ana --record record.json -- victim sleep >out 2>/dev/null & \
             until grep -q ready out 2>/dev/null; do sleep 0.05; done; kill -KILL $!; wait $!",
        )
        .expect(137);
    wait::until("the guardian to write the record", || {
        scene.path("record.json").exists()
    });
    assert_eq!(scene.record().reason(), "runner_lost");
}

#[test]
fn a_bpf_file_system_that_is_not_mounted_is_mounted() {
    let _guest = Guest::enter();
    umount2("/sys/fs/bpf", MntFlags::MNT_DETACH).expect("it is mounted");
    let outcome = Sandbox::new().victim(["exit", "0"]);
    let record = outcome.record();
    let mounts = fs::read_to_string("/proc/mounts").expect("proc is mounted");
    assert!(mounts.contains(" /sys/fs/bpf bpf "), "{mounts}");
    assert_eq!(record.text("/tracing/mode"), "exact", "{record}");
}

#[test]
fn with_fentry_switched_off_the_other_programs_still_tell_the_reason() {
    let guest = Guest::enter();
    unpin();
    let switched = Sysctl::set("/proc/sys/kernel/ftrace_enabled", "0");
    if guest.version() >= (7, 0) {
        // "The ftrace_enabled file is deprecated and no longer disables ftrace".
        let refused = switched.err().and_then(|error| error.raw_os_error());
        assert_eq!(refused, Some(Errno::EOPNOTSUPP as i32));
        let record = Sandbox::new().victim(["exit", "0"]).record();
        assert_eq!(record.confidence(), "exact", "{record}");
        return;
    }
    let off = switched.expect("root may turn it off");
    let outcome = Sandbox::new()
        .options(["--memory", "64MiB"])
        .victim(["eat", "256MiB"]);
    let record = known_as(&outcome, "memory", "strong");
    assert_eq!(record.text("/tracing/mode"), "strong", "{record}");
    assert_eq!(outcome.code(), 137);

    let running = Sandbox::new().start_victim(["sleep"]);
    let main = nix::unistd::Pid::from_raw(running.ready());
    nix::sys::signal::kill(main, nix::sys::signal::Signal::SIGKILL).expect("it is there");
    let record = known_as(&running.finish(), "external_kill", "strong");
    assert_eq!(record.at("/kills/0/delivered"), true, "{record}");

    let outcome = Sandbox::new()
        .options(["--timeout", "1s", "--grace", "0"])
        .victim(["ignore-term"]);
    known_as(&outcome, "walltime", "strong");

    // Switched on again, it is used from the next run on.
    drop(off);
    let record = Sandbox::new().victim(["exit", "0"]).record();
    assert_eq!(record.confidence(), "exact", "{record}");
}

#[test]
fn with_fentry_switched_off_an_escape_ends_the_run_and_a_visit_does_not() {
    let guest = Guest::enter();
    unpin();
    let _off = Sysctl::set("/proc/sys/kernel/ftrace_enabled", "0");
    // 7.x does not let it be switched off (see above).
    let sure = if guest.version() >= (7, 0) {
        "exact"
    } else {
        "strong"
    };
    let running = Sandbox::new().user("root").start([
        "bash",
        "-c",
        "nsenter -t1 -C -m bash -c 'echo ready $$; echo $$ >/sys/fs/cgroup/cgroup.procs; \
         sleep 98765 & wait' & while :; do wait; done",
    ]);
    let fugitive = running.ready();
    let record = known_as(&running.finish(), "escaped", sure);
    let entry = record
        .list("/escaped")
        .iter()
        .find(|entry| entry["pid"] == fugitive);
    let entry = entry.unwrap_or_else(|| panic!("{fugitive} is not among escaped: {record}"));
    assert_eq!(
        (&entry["killed"], &entry["cgroup"]),
        (&true.into(), &"/".into())
    );

    let running = Sandbox::new().start(["bash", "-c", "echo ready $$; read -t 2 <> <(:); exit 0"]);
    let leaf = running.cgroup_of(running.ready());
    let mut visitor = Command::new("sleep").arg("98765").spawn().expect("sleep");
    fs::write(leaf.join("cgroup.procs"), visitor.id().to_string()).expect("root may move it");
    let record = running.finish().record();
    assert_eq!(record.reason(), "completed", "{record}");
    assert!(record.list("/escaped").is_empty(), "{record}");
    assert_eq!(record.at("/processes/joined"), 1, "{record}");
    drop(visitor.kill());
    visitor.wait().expect("it is ours");
}

#[test]
fn unpinning_the_programs_under_a_run_neither_breaks_it_nor_the_next() {
    let _guest = Guest::enter();
    let running = Sandbox::new().start_victim(["sleep"]);
    let main = nix::unistd::Pid::from_raw(running.ready());
    unpin();
    let other = Sandbox::new().victim(["exit", "0"]);
    assert_eq!(other.record().confidence(), "exact", "{}", other.record());
    nix::sys::signal::kill(main, nix::sys::signal::Signal::SIGKILL).expect("it is there");
    let record = running.finish().record();
    assert_eq!(record.at("/cleanup/removed"), true, "{record}");
    assert!(
        ["external_kill", "signal"].contains(&record.reason()),
        "{record}"
    );
}

#[test]
fn in_a_pid_namespace_of_its_own_it_takes_no_pid_for_another() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        "unshare --pid --fork --mount-proc sandbox run --user ana --record record.json \
         --timeout 1s --grace 0 -- victim ignore-term",
    );
    assert_eq!(said.code(), 137, "{said}");
    let record = scene.record();
    assert_eq!(record.reason(), "walltime", "{record}");
    assert_eq!(record.confidence(), "inferred", "{record}");
    let degraded = record.at("/tracing/degraded").to_string();
    assert!(degraded.contains("--pid=host"), "{degraded}");
}
