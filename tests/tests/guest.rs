//! The guest itself: that it offers what every other test takes for granted.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use sandbox_tests::{Guest, Leftovers, Mode, victim, wait};

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("the guest has this program");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).expect("the program prints UTF-8")
}

#[test]
fn cgroup_v2_offers_the_controllers_that_limits_need() {
    let _guest = Guest::enter();
    let controllers =
        fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").expect("cgroup v2 is mounted");
    for wanted in ["cpu", "io", "memory", "pids"] {
        assert!(
            controllers.split_whitespace().any(|found| found == wanted),
            "{wanted} is not in {controllers:?}"
        );
    }
}

#[test]
fn cgroup2_is_delegated_by_namespace_under_systemd_and_not_on_a_bare_host() {
    let guest = Guest::enter();
    // As it booted: `sandbox run` adds the option to a bare host's cgroup2.
    let mounts = fs::read_to_string("/run/sandbox-guest/mounts").expect("the session wrote it");
    let line = mounts
        .lines()
        .find(|line| line.contains(" /sys/fs/cgroup cgroup2 "))
        .expect("cgroup2 is mounted");
    assert_eq!(
        line.contains("nsdelegate"),
        guest.mode == Mode::Systemd,
        "{line}"
    );
}

#[test]
fn only_a_systemd_guest_looks_like_one() {
    let guest = Guest::enter();
    // sd_booted(3) looks for this folder.
    let looks = Path::new("/run/systemd/system").is_dir();
    assert_eq!(looks, guest.mode == Mode::Systemd);
}

#[test]
fn the_kernel_describes_its_types_and_lets_root_pin() {
    let _guest = Guest::enter();
    let header = fs::read("/sys/kernel/btf/vmlinux").expect("the kernel has BTF");
    assert_eq!(header[..2], [0x9f, 0xeb], "the magic of BTF");
    let mounts = fs::read_to_string("/proc/mounts").expect("proc is mounted");
    assert!(
        mounts
            .lines()
            .any(|line| line.contains(" /sys/fs/bpf bpf ")),
        "{mounts}"
    );
}

#[test]
fn python_computes_with_numpy() {
    let _guest = Guest::enter();
    let script = "import numpy; print(int(numpy.arange(1000).sum()))";
    assert_eq!(output("python3", &["-c", script]), "499500\n");
}

#[test]
fn its_users_are_there_and_ana_may_use_sudo() {
    let _guest = Guest::enter();
    assert_eq!(output("id", &["-u", "ana"]), "1000\n");
    assert_eq!(output("id", &["-u", "bob"]), "1001\n");
    let identity = output(
        "runuser",
        &[
            "-u",
            "ana",
            "--",
            "sudo",
            "-n",
            "sh",
            "-c",
            "echo $(id -u) $SUDO_UID",
        ],
    );
    assert_eq!(identity, "0 1000\n");
}

#[test]
fn it_has_no_swap_unless_a_test_asks_for_it() {
    let _guest = Guest::enter();
    let swaps = fs::read_to_string("/proc/swaps").expect("proc is mounted");
    assert_eq!(swaps.lines().count(), 1, "{swaps}");
}

#[test]
fn a_process_that_a_test_leaves_behind_is_found() {
    let _guest = Guest::enter();
    let before = Leftovers::find();
    let mut left = Command::new(victim())
        .arg("sleep")
        .stdout(Stdio::null())
        .spawn()
        .expect("the victim can be started");
    let found = before
        .new_ones(Duration::ZERO)
        .expect("the victim is running");
    assert!(found.to_string().contains("(victim)"), "{found}");
    found.remove();
    left.wait().expect("the victim was killed");
    assert_eq!(before.new_ones(wait::limit()), None);
}

#[test]
fn a_leaf_that_a_test_leaves_behind_is_found_and_removed() {
    let guest = Guest::enter();
    let before = Leftovers::find();
    let parent = match guest.mode {
        Mode::Bare => "/sys/fs/cgroup/sandbox/runs",
        Mode::Systemd => "/sys/fs/cgroup/sandbox.slice",
    };
    let leaf = Path::new(parent).join("left-over");
    fs::create_dir_all(leaf.join("nested")).expect("root can make cgroups");
    let found = before.new_ones(Duration::ZERO).expect("the leaf is there");
    assert!(found.to_string().contains("left-over"), "{found}");
    found.remove();
    assert!(!leaf.exists());
}

#[test]
fn a_pin_that_a_test_leaves_behind_is_found_but_not_the_shared_ones() {
    let _guest = Guest::enter();
    let before = Leftovers::find();
    fs::create_dir_all("/sys/fs/bpf/sandbox/0123456789abcdef/a-run")
        .expect("root can make folders for pins");
    let found = before
        .new_ones(Duration::ZERO)
        .expect("a folder below the shared one is there");
    assert_eq!(
        found.to_string(),
        "  pin /sys/fs/bpf/sandbox/0123456789abcdef/a-run\n"
    );
    found.remove();
    fs::remove_dir("/sys/fs/bpf/sandbox/0123456789abcdef").expect("the folder is empty");
    // The shared programs may lie beside it, where another test ran `sandbox` before.
    drop(fs::remove_dir("/sys/fs/bpf/sandbox"));
}

#[test]
fn the_victims_hold_what_they_were_told_to_hold() {
    let _guest = Guest::enter();
    let mut child = Command::new(victim())
        .args(["eat", "64MiB"])
        .stdout(Stdio::null())
        .spawn()
        .expect("the victim can be started");
    let status = format!("/proc/{}/status", child.id());
    wait::until("64 MiB to be resident", || {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let resident = text.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        });
        resident.is_some_and(|kib: u64| kib >= 64 * 1024)
    });
    child.kill().expect("the victim is running");
    child.wait().expect("the victim was killed");
}
