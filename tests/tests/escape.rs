//! Every way out of a leaf that was found to work, tried as root and as a user.
//!
//! Each fails, or ends the run as `escaped`, with whoever left and whoever that one started dead.
//! Those that need systemd are in `systemd.rs`.

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sandbox_tests::{Guest, Record, Running, Sandbox, Scene, assert_has, wait};
use serde_json::json;

/// What an attempt begins with: `closed COMMAND…` ends the analysis with status 9 where the command
/// succeeds, and whoever is still inside says so at the end.
const PRELUDE: &str = r#"
closed() { if "$@"; then echo "open: $*"; exit 9; fi; }
inside() { test "$(cat /proc/self/cgroup)" = 0::/ && echo inside; }
"#;

/// Runs an attempt as `user` and sees that it did not get out.
#[track_caller]
fn stays_inside(scene: &Scene, caller: &str, user: &str, attempt: &str) {
    scene.write("attempt", &format!("{PRELUDE}\n{attempt}\ninside\n"));
    let tried = scene.bash(&format!(
        "{caller} sandbox run --record record.json --user {user} -- bash ./attempt"
    ));
    assert_eq!(
        (tried.code(), tried.out().as_str()),
        (0, "inside"),
        "as {user}: {tried}"
    );
    let record = scene.record();
    assert_eq!(record.reason(), "completed", "as {user}: {record}");
    assert!(record.list("/escaped").is_empty(), "{record}");
}

/// What members of an attempt are called, so that none of them is overlooked afterwards.
const NAMED: &str = "98765";

/// Runs an attempt that prints `out PID` just before it leaves. The run ends promptly as `escaped`,
/// and nobody who was started by the attempt lives.
#[track_caller]
fn ends_as_escaped(attempt: &str) -> Record {
    let running = Sandbox::new().user("root").start(["bash", "-c", attempt]);
    let fugitive = running.line("out ");
    is_ended(running, &[fugitive.parse().expect("a pid")])
}

#[track_caller]
fn is_ended(running: Running, fugitives: &[i32]) -> Record {
    let since = Instant::now();
    let outcome = running.finish();
    let took = since.elapsed();
    let record = outcome.record();
    assert_eq!(record.reason(), "escaped", "{record}");
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    assert_eq!(outcome.code(), 137, "{record}");
    for pid in fugitives {
        let entry = record
            .list("/escaped")
            .iter()
            .find(|entry| entry["pid"] == *pid)
            .unwrap_or_else(|| panic!("{pid} is not among escaped: {record}"));
        assert_eq!(entry["killed"], true, "{record}");
        assert_eq!(entry["cgroup"], "/", "{record}");
    }
    wait::until("all who left to be gone", || {
        let processes = fs::read_dir("/proc").expect("proc is mounted").flatten();
        !processes
            .filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok())
            .any(|words| words.contains(NAMED))
    });
    assert!(record.notes().contains("left"), "{}", record.notes());
    assert_eq!(record.at("/cleanup/removed"), true, "{record}");
    record
}

#[test]
fn root_that_enters_the_hosts_namespaces_and_moves_itself_is_ended() {
    let _guest = Guest::enter();
    let record = ends_as_escaped(
        "exec nsenter -t1 -C -m bash -c 'echo out $$; echo $$ >/sys/fs/cgroup/cgroup.procs; \
         sleep 98765 & wait'",
    );
    assert_eq!(record.at("/exit/signal"), 9, "{record}");
}

#[test]
fn root_that_moves_itself_through_the_root_directory_of_pid_1_is_ended() {
    let _guest = Guest::enter();
    ends_as_escaped(
        "exec nsenter -t1 -C bash -c 'echo out $$; echo $$ >/proc/1/root/sys/fs/cgroup/cgroup.procs; \
         while :; do : 98765; done'",
    );
}

#[test]
fn a_child_that_moves_away_ends_the_run_of_a_main_that_stays() {
    let _guest = Guest::enter();
    let record = ends_as_escaped(
        "nsenter -t1 -C -m bash -c 'echo out $$; trap \"\" TERM HUP INT; \
         echo $$ >/sys/fs/cgroup/cgroup.procs; while :; do : 98765; done' & \
         while :; do wait; done",
    );
    assert_eq!(record.at("/exit/signal"), 9, "main was killed: {record}");
    assert_has(
        record.fatal(),
        &json!({
            "signal": 9, "cause": "runner", "delivered": true,
            "victim": {"is_main": true}, "sender": {"kind": "runner", "in_run": false},
        }),
    );
}

#[test]
fn a_user_can_enter_no_namespace_of_the_hosts() {
    let _guest = Guest::enter();
    stays_inside(
        &Scene::new(),
        "",
        "ana",
        "for way in '-C -m' -C -m '-U --preserve-credentials'; do
             closed nsenter -t1 $way true
         done 2>/dev/null
         closed eval 'echo $$ >/proc/1/root/sys/fs/cgroup/cgroup.procs' 2>/dev/null",
    );
}

#[test]
fn who_was_born_outside_of_a_fugitive_is_ended_too() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let go = scene.path("go");
    let attempt = format!(
        "echo ready; until test -e {}; do :; done; \
         exec nsenter -t1 -C -m bash -c 'echo $$ >/sys/fs/cgroup/cgroup.procs; \
         setsid bash -c \"sleep 98765 & setsid sleep 98765 & echo more \\$\\$ \\$!; wait\" & \
         echo out $$; wait'",
        go.display()
    );
    let running = Sandbox::new().user("root").start(["bash", "-c", &attempt]);
    let _ = running.line("ready");
    // So that it has the time to start others before anybody reacts.
    running.signal(Signal::SIGSTOP);
    fs::write(go, "").expect("the scene can be written to");
    let words = format!("{} {}", running.line("out "), running.line("more "));
    let fugitives: Vec<i32> = words
        .split(' ')
        .map(|pid| pid.parse().expect("a pid"))
        .collect();
    assert_eq!(fugitives.len(), 3);
    running.signal(Signal::SIGCONT);
    is_ended(running, &fugitives);
}

#[test]
fn a_child_that_moves_away_and_ends_at_once_is_an_escape_all_the_same() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new().user("root").command([
        "bash",
        "-c",
        "nsenter -t1 -C -m bash -c 'echo $$ >/sys/fs/cgroup/cgroup.procs'; exit 0",
    ]);
    let record = outcome.record();
    assert_eq!(record.reason(), "escaped", "{record}");
    assert_ne!(outcome.code(), 0, "{record}");
}

#[test]
fn a_task_that_another_process_moves_out_ends_the_run() {
    let _guest = Guest::enter();
    let running = Sandbox::new().start_victim(["sleep"]);
    let main = running.ready();
    fs::write("/sys/fs/cgroup/cgroup.procs", main.to_string()).expect("root may move it");
    let record = running.finish().record();
    assert_eq!(record.reason(), "escaped", "{record}");
    assert_eq!(record.at("/escaped/0/pid"), main, "{record}");
}

#[test]
fn nobodys_own_pid_can_be_written_to_a_cgroup() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    for user in ["ana", "root"] {
        stays_inside(
            &scene,
            "",
            user,
            "for file in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/cgroup.threads \
             /proc/1/root/sys/fs/cgroup/cgroup.procs /proc/$PPID/root/sys/fs/cgroup/cgroup.procs; do
                 closed eval \"echo $$ >$file\"
             done 2>/dev/null",
        );
    }
}

#[test]
fn a_descriptor_or_directory_of_the_hosts_cgroupfs_does_not_come_along() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    for user in ["ana", "root"] {
        let attempt = "closed eval 'echo $$ >&9' 2>/dev/null
             test -z \"$(cd /proc/self/fd && ls | grep -vE '^[0-3]$')\" || exit 8";
        stays_inside(&scene, "exec 9>/sys/fs/cgroup/cgroup.procs;", user, attempt);
        // A directory given as stdin is the caller's to give; what it opens is judged by namespace.
        let through_stdin = "closed eval 'echo $$ >/proc/self/fd/0/cgroup.procs' 2>/dev/null";
        stays_inside(&scene, "exec </sys/fs/cgroup;", user, through_stdin);
        scene.write(
            "attempt",
            &format!("{PRELUDE}\nclosed eval 'echo $$ >cgroup.procs' 2>/dev/null\ninside\n"),
        );
        let at = scene.bash(&format!(
            "here=$PWD; cd /sys/fs/cgroup; sandbox run --user {user} -- bash $here/attempt"
        ));
        assert_eq!(at.out(), "inside", "{at}");
    }
}

#[test]
fn a_users_namespace_gives_no_right_to_the_leafs_limits() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    for user in ["ana", "root"] {
        stays_inside(
            &scene,
            "",
            user,
            "cat >inner <<'END'
mkdir own && mount -t cgroup2 none own || exit
for file in memory.max pids.max cpu.max memory.swap.max cgroup.max.descendants cgroup.freeze; do
    if echo max >own/$file; then echo open: $file; fi
done
if mkdir own/sub; then echo open: sub; fi
umount own
echo tried
END
             out=$(unshare --user --map-root-user --mount --cgroup bash ./inner 2>/dev/null)
             test \"$out\" = tried || { echo \"$out\"; exit 9; }
             rm -r own inner",
        );
    }
}

#[test]
fn what_is_covered_stays_covered_in_a_users_namespace() {
    let _guest = Guest::enter();
    stays_inside(
        &Scene::new(),
        "",
        "ana",
        "unshare --user --map-root-user --mount bash -c '
             for at in /sys/fs/bpf /sys/fs/cgroup /dev/shm; do umount $at && echo open: $at; done
             mount -o remount,rw,bind /sys/fs/cgroup && echo open: remount
             echo tried' >said 2>/dev/null
         test \"$(cat said)\" = tried || { cat said; exit 9; }; rm said
         closed mount -o remount,rw /sys/fs/cgroup 2>/dev/null
         closed umount /sys/fs/cgroup 2>/dev/null
         closed mknod disk b 254 0 2>/dev/null",
    );
}

#[test]
fn root_finds_no_other_cgroup_below_its_own_and_cannot_raise_its_limits() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    stays_inside(
        &scene,
        "",
        "root",
        "mount -o remount,rw /sys/fs/cgroup; mount -o remount,rw,bind /sys/fs/cgroup
         test \"$(cat /sys/fs/cgroup/memory.max)\" -gt 0 || exit 8
         for file in memory.max memory.swap.max pids.max cpu.max cgroup.max.descendants; do
             closed eval \"echo max >/sys/fs/cgroup/$file\"
         done 2>/dev/null
         closed mkdir /sys/fs/cgroup/sub 2>/dev/null
         closed test -e /sys/fs/cgroup/../cgroup/sandbox
         while umount /sys/fs/cgroup 2>/dev/null; do :; done
         test -z \"$(ls -A /sys/fs/cgroup)\" || exit 7",
    );
}

#[test]
fn limits_hold_for_a_root_that_has_made_its_cgroupfs_writable() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new()
        .user("root")
        .options(["--memory", "64MiB"])
        .command([
            "bash",
            "-c",
            "mount -o remount,rw /sys/fs/cgroup; echo max >/sys/fs/cgroup/memory.max; \
             exec victim eat 256MiB",
        ]);
    assert_eq!(outcome.record().reason(), "memory", "{}", outcome.record());
}

#[test]
fn the_pins_of_the_watching_programs_are_hidden() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    for user in ["ana", "root"] {
        stays_inside(
            &scene,
            "",
            user,
            "test -z \"$(ls -A /sys/fs/bpf)\" || exit 8
             closed touch /sys/fs/bpf/x 2>/dev/null
             mkdir fresh; mount -t bpf bpf fresh 2>/dev/null
             test -z \"$(ls -A fresh)\" || exit 7
             umount fresh 2>/dev/null; rmdir fresh",
        );
    }
}

/// A process of the same user outside of any run.
struct Neighbour(Child);

impl Neighbour {
    fn of_ana() -> Self {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=1000",
            "--regid=1000",
            "--clear-groups",
            "sleep",
            "1000",
        ]);
        let child = command.spawn().expect("the guest has setpriv");
        wait::until("it to be ana's", || {
            let comm = fs::read_to_string(format!("/proc/{}/comm", child.id()));
            comm.is_ok_and(|comm| comm == "sleep\n")
        });
        Self(child)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.0.kill().expect("it holds");
        self.0.wait().expect("it was killed");
    }
}

/// Linux 6.12 and later can keep an analysis from its user's other processes without taking mount(2)
/// from it; before, this way out stays open, and the README says so.
#[test]
fn the_same_users_processes_outside_can_be_neither_entered_nor_traced_nor_signalled() {
    let guest = Guest::enter();
    let scene = Scene::new();
    let neighbour = Neighbour::of_ana();
    let pid = neighbour.0.id();
    let attempts = format!(
        "sleep 1000 & kill $! || exit 8
         trace() {{ python3 -c 'import ctypes, sys; sys.exit(0 if ctypes.CDLL(None).ptrace(0x4206, {pid}, 0, 0) == 0 else 1)'; }}
         for way in 'ls /proc/{pid}/root/' trace 'kill -0 {pid}' 'cat /proc/{pid}/environ'; do
             closed $way
         done 2>/dev/null"
    );
    if guest.version() >= (6, 12) {
        stays_inside(&scene, "", "ana", &attempts);
    } else {
        let open = format!("ls /proc/{pid}/root/ >/dev/null && kill -0 {pid}");
        let _ = scene
            .bash(&format!("sandbox run --user ana -- sh -c '{open}'"))
            .expect(0);
    }
}

#[test]
fn containers_can_still_be_made_inside_of_a_run() {
    let _guest = Guest::enter();
    stays_inside(
        &Scene::new(),
        "",
        "ana",
        "unshare --user --map-root-user --mount --pid --fork bash -c '
             set -e; mkdir root; mount -t tmpfs tmpfs root; mount --bind /usr root; mount -t proc proc /proc' >said 2>&1 \
         || { cat said; exit 9; }
         rm -r said root",
    );
}

#[test]
fn one_run_inside_another_is_refused() {
    let _guest = Guest::enter();
    let outcome = Sandbox::new()
        .user("root")
        .command(["sandbox", "run", "--user", "root", "--", "echo", "nested"]);
    assert_eq!(outcome.code(), 125, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("inside the leaf"),
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.stdout, "");
    assert_eq!(outcome.record().reason(), "exit_code");
}
