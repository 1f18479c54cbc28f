//! What an analysis of a user without rights tries against the service that does its run: the service's processes,
//! its files, its socket. Nothing of it is done, and the service goes on answering.
//!
//! Each attempt is made on something of the analysis's own as well, where it has to be done: one that fails for
//! a reason of its own would show nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use sandbox_tests::{Guest, Record, Scene, Service, guardians, has_ended, wait};

/// Gives what each attempt on a process came to: the name of its errno, or `done`.
const ON_PROCESSES: &str = r#"
import ctypes, errno, os, resource, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
here = ctypes.create_string_buffer(8)
class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
part = ctypes.byref(Part(ctypes.addressof(here), 8))
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0: raise OSError(ctypes.get_errno(), name)
def of_proc(name, how="rb"):
    def use(pid):
        with open(f"/proc/{pid}/{name}", how, buffering=0) as file:
            file.write(b"1000") if how == "wb" else file.seek(ctypes.addressof(here)) if name == "mem" else file.read(1)
    return use
def signalled(number): return lambda pid: os.kill(pid, number)
info = ctypes.create_string_buffer(128)
info[8:12] = (-1).to_bytes(4, "little", signed=True)
WAYS = {
    "PTRACE_ATTACH": lambda pid: call("ptrace", 16, pid, 0, 0),
    "PTRACE_SEIZE": lambda pid: call("ptrace", 0x4206, pid, 0, 0),
    "process_vm_readv": lambda pid: call("process_vm_readv", pid, part, 1, part, 1, 0),
    "process_vm_writev": lambda pid: call("process_vm_writev", pid, part, 1, part, 1, 0),
    "read mem": of_proc("mem"), "write mem": of_proc("mem", "r+b"), "environ": of_proc("environ"),
    "maps": of_proc("maps"), "oom_score_adj": of_proc("oom_score_adj", "wb"),
    "fd": lambda pid: os.listdir(f"/proc/{pid}/fd"),
    "root": lambda pid: os.listdir(f"/proc/{pid}/root"), "cwd": lambda pid: os.listdir(f"/proc/{pid}/cwd"),
    "pidfd_getfd": lambda pid: call("syscall", 438, os.pidfd_open(pid), 0, 0),
    "prlimit": lambda pid: resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0)),
    "setpriority": lambda pid: os.setpriority(os.PRIO_PROCESS, pid, 19),
    "sched_setaffinity": lambda pid: os.sched_setaffinity(pid, {0}),
    "signal 0": signalled(0), "SIGTERM": signalled(15), "SIGSTOP": signalled(19), "SIGHUP": signalled(1), "SIGKILL": signalled(9),
    "pidfd_send_signal": lambda pid: signal.pidfd_send_signal(os.pidfd_open(pid), 9),
    "tgkill": lambda pid: call("syscall", 234, pid, pid, 9),
    "rt_sigqueueinfo": lambda pid: call("syscall", 129, pid, 9, info),
}
def tried(who, pid):
    for name, way in WAYS.items():
        target = pid or child()
        try:
            way(target)
            answer = "done"
        except OSError as error:
            answer = errno.errorcode[error.errno]
        print(f"{who}: {name}: {answer}", flush=True)
        if not pid:
            os.kill(target, 9)
            os.waitpid(target, 0)
def child():
    pid = os.fork()
    if pid == 0:
        while True: signal.pause()
    return pid
def until(name):
    while not os.path.exists(name): time.sleep(0.05)
tried("own", None)
until("go")
for line in open("targets"):
    who, pid = line.split()
    tried(who, int(pid))
open("tried", "w")
until("end")
"#;

#[test]
fn an_analysis_can_neither_trace_nor_signal_nor_change_the_service_its_supervisor_or_its_guardian()
{
    let _guest = Guest::enter();
    let service = Service::start();
    for how in ["", "--detach"] {
        let scene = Scene::new();
        scene.write("attempts.py", ON_PROCESSES);
        let _begun = scene
            .ana(&format!(
                "(sandbox run {how} --id a-17 -- bash -c 'exec python3 attempts.py >said 2>&1'; echo $? >status) \
                 >/dev/null 2>&1 &"
            ))
            .expect(0);
        let targets = service.privileged();
        let [.., (_, guardian)] = targets;
        let lines = targets.map(|(who, pid)| format!("{who} {pid}\n"));
        scene.write("targets", &lines.concat());
        scene.write("go", "");
        wait::until("all to be tried", || {
            scene.files().contains("tried")
                || has_ended(guardian)
                || scene.files().contains("status") && how.is_empty()
        });
        let said = scene.read("said");
        let answers: Vec<Vec<&str>> = said
            .lines()
            .map(|line| line.split(": ").collect())
            .collect();
        let of = |who: &str| -> Vec<(&str, &str)> {
            let of_it = answers.iter().filter(|answer| answer[0] == who);
            of_it.map(|answer| (answer[1], answer[2])).collect()
        };
        assert_eq!(of("own").len(), 24, "{said}");
        for (way, answer) in of("own") {
            assert_eq!(answer, "done", "{way} on a process of its own: {said}");
        }
        for (who, pid) in targets {
            assert_eq!(of(who).len(), 24, "{said}");
            for (way, answer) in of(who) {
                let is_refused = ["EPERM", "EACCES", "ESRCH"].contains(&answer);
                assert!(is_refused, "{way} on the {who}: {said}");
            }
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let goes_on = stat.contains(") S ") || stat.contains(") R ");
            assert!(goes_on, "the {who}: {stat}");
        }
        let running = scene.ana("sandbox list --json a-17").expect(0).json();
        assert_eq!(running[0]["state"], "running", "{running}");
        scene.write("end", "");
        wait::until("its client to go", || scene.files().contains("status"));
        let shown = scene.ana("sandbox wait a-17 && sandbox show --json a-17");
        let record = Record::parse(&shown.expect(0).out());
        record.assert_verdict("completed", "none");
        assert!(record.list("/interventions").is_empty(), "{record}");
        wait::until("the guardian to be done", || guardians().is_empty());
    }
}

/// Says which attempts on files were done.
const ON_FILES: &str = r#"
import os, socket
def linked(path): os.link(path, "linked"); os.unlink("linked")
def connected(path):
    with socket.socket(socket.AF_UNIX) as client: client.connect(path)
def opened(how): return lambda path: os.close(os.open(path, how | os.O_NONBLOCK))
WAYS = {
    "read": opened(os.O_RDONLY), "write": opened(os.O_WRONLY), "append": opened(os.O_WRONLY | os.O_APPEND),
    "list": os.listdir, "enter": os.chdir, "connect": connected, "link": linked,
    "plant": lambda path: os.symlink("/etc/shadow", f"{path}/planted"), "make": lambda path: os.mkdir(f"{path}/made"),
    "chmod": lambda path: os.chmod(path, 0o777), "utime": os.utime, "truncate": lambda path: os.truncate(path, 0),
    "rename": lambda path: os.rename(path, f"{path}.moved"), "unlink": os.unlink, "replace": lambda path: os.symlink("/etc/shadow", path),
}
here = os.getcwd()
os.mkdir("own")
open("own/file", "w")
own = socket.socket(socket.AF_UNIX)
own.bind("own/socket")
own.listen()
paths = open("paths").read().split("\n")
for path in [f"{here}/own/file", f"{here}/own/socket", f"{here}/own", *paths]:
    for name, way in WAYS.items():
        try: way(path)
        except OSError: continue
        finally: os.chdir(here)
        print(name, path)
        if name == "rename": os.rename(f"{path}.moved", path)
"#;

/// Whatever there is below these folders, each on a line.
fn found_in(scene: &Scene, folders: &str) -> String {
    scene
        .bash(&format!("find {folders} | sort"))
        .expect(0)
        .out()
}

#[test]
fn an_analysis_can_neither_read_nor_change_what_the_service_and_others_runs_keep() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let _id = scene
        .bash(
            "cd /tmp; runuser -u bob -- sandbox run --detach --id secret -- bash -c 'echo secret; exec sleep 98765'; \
             until sandbox logs secret | grep -q secret; do sleep 0.05; done",
        )
        .expect(0);
    let before = found_in(&scene, "/var/lib/sandbox /run/sandbox /etc/sandbox");
    for kept in [
        "runs.sqlite",
        "audit.jsonl",
        ".stdout",
        "spool",
        "events/",
        "control/",
    ] {
        assert!(before.contains(kept), "there is no {kept}: {before}");
    }
    scene.write("paths", &before);
    scene.write("attempts.py", ON_FILES);
    let said = scene.ana("sandbox run --id a-17 -- python3 attempts.py");
    let said = said.expect(0).out();
    let own = format!(" {}", scene.path("own").display());
    let (own, others): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| line.contains(&own));
    let ways = [
        "read", "write", "append", "list", "enter", "connect", "link", "plant", "make", "chmod",
        "utime",
    ];
    for way in ways.iter().chain(&["rename", "unlink", "replace"]) {
        let is_done = own.iter().any(|line| line.starts_with(way));
        assert!(is_done, "{way} on what is its own: {said}");
    }
    // What is everybody's: to see the configuration, and to ask the service.
    let open = [
        "read /etc/sandbox",
        "list /etc/sandbox",
        "enter /etc/sandbox",
        "read /etc/sandbox/config.toml",
        "read /run/sandbox",
        "list /run/sandbox",
        "enter /run/sandbox",
        "connect /run/sandbox/sandbox.sock",
        "utime /run/sandbox/sandbox.sock",
    ];
    assert_eq!(others, open, "{said}");

    let after = found_in(&scene, "/var/lib/sandbox /run/sandbox /etc/sandbox");
    for path in before.lines() {
        assert!(
            after.lines().any(|left| left == path),
            "{path} is gone: {after}"
        );
    }
    let mode = fs::metadata(Service::STORE)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o700);
    let _whole = scene.bash("sandbox audit verify").expect(0);
    let logs = scene.bash(
        "cd /tmp; runuser -u bob -- sandbox logs secret; sandbox kill secret; sandbox wait secret",
    );
    assert!(logs.out().starts_with("secret\n"), "{logs}");
}

/// Asks for each thing that the service does, in several guises.
const ON_THE_SOCKET: &str = r#"
import json, os, socket, subprocess, sys
every = {"filter": {}}
VERBS = [
    {"list": {"most": 5}}, {"show": {"id": "secret"}}, {"wait": {"id": "secret"}}, {"logs": {"id": "secret"}},
    {"events": {"id": "secret"}}, {"metrics": {}}, {"kill": {**every, "reason": None}}, {"freeze": every}, {"thaw": every},
    {"update": {**every, "timeout": "+1h"}}, {"update": {"filter": {"id": "a-17"}, "timeout": "none"}},
    {"run": {"arguments": ["--detach", "--id", "nested", "--", "true"], "environment": []}},
]
def ask():
    for verb in VERBS:
        with socket.socket(socket.AF_UNIX) as service:
            service.connect("/run/sandbox/sandbox.sock")
            line = (json.dumps({"version": 1, **verb}) + "\n").encode()
            socket.send_fds(service, [line], [0, 1, 2, os.open(".", os.O_PATH)] if "run" in verb else [])
            print(next(iter(verb)), service.makefile().readline().strip(), flush=True)
if sys.argv[1:] == ["orphan"]:
    # Its parent, the main process's child, has gone by the time that it asks.
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        os.read(told, 1)
    else:
        if os.fork(): os._exit(0)
        os.setsid()
        ask()
else:
    ask()
"#;

#[test]
fn the_service_does_nothing_that_an_analysis_asks_for_in_whatever_guise() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let _id = scene
        .ana("sandbox run --detach --id secret -- sleep 98765")
        .expect(0);
    scene.write("ask.py", ON_THE_SOCKET);
    for guise in [
        "python3 ask.py",
        "python3 ask.py orphan",
        "unshare --user --map-root-user --mount --pid --fork python3 ask.py",
        "unshare --user --map-root-user --cgroup --net python3 ask.py",
    ] {
        let said = scene.ana(&format!("sandbox run --id a-17 -- {guise}"));
        let said = said.expect(0).out();
        assert_eq!(said.lines().count(), 12, "{guise}: {said}");
        for line in said.lines() {
            let why = r#"{"refused":{"reason":"an analysis can neither start another nor see to runs: you are in /sandbox/runs/"#;
            let (_, answer) = line.split_once(' ').expect("a verb and an answer");
            assert!(answer.starts_with(why), "{guise}: {line}");
        }
    }
    let verbs = "sandbox list; echo $?; sandbox show secret; echo $?; sandbox logs secret; echo $?; sandbox events secret; echo $?; \
                 sandbox wait secret; echo $?; sandbox kill secret; echo $?; sandbox freeze secret; echo $?; sandbox thaw secret; echo $?; \
                 sandbox update secret --timeout +1h; echo $?; sandbox run -- true; echo $?; sandbox run --detach -- true; echo $?";
    let said = scene
        .ana(&format!("sandbox run --id a-18 -- bash -c '{verbs}'"))
        .expect(0);
    let statuses: Vec<String> = said.out().lines().map(ToOwned::to_owned).collect();
    assert_eq!(statuses, ["125"; 11], "{said}");
    let refusals = said
        .err()
        .matches("an analysis can neither start another nor see to runs")
        .count();
    assert_eq!(refusals, 11, "{said}");

    let known = scene.bash("sandbox list --json").expect(0).json();
    assert_eq!(known.as_array().map(Vec::len), Some(6), "{known:#}");
    let record = scene
        .bash("sandbox kill secret; sandbox wait secret; sandbox show --json secret")
        .expect(0)
        .out();
    let record = &record[record.find('{').expect("a record")..];
    assert!(
        Record::parse(record).list("/interventions").is_empty(),
        "{record}"
    );
}
