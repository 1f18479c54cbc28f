//! What a user gives a run of the service's to take along, environment, arguments and descriptors: it reaches the
//! analysis at most, and what cannot be taken along is told.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use sandbox_tests::{Guest, Record, Scene, Service, assert_has, guardians, wait};
use serde_json::json;

/// Has a run done under an environment of tricks, and prints what came to the sockets that it names.
const TRICKS: &str = r##"
import os, shutil, socket, subprocess, sys
here = os.getcwd()
left = f"{here}/left"
os.makedirs("left/tmp")
os.makedirs("left/config/sandbox")
open("left/config/sandbox/config.toml", "w").write("this is no configuration")
os.mkdir("bin")
for name in ["bash", "id", "kill", "mount", "nsenter", "sandbox", "sh", "systemctl", "systemd-run", "umount"]:
    with open(f"bin/{name}", "w") as program:
        program.write(f"#!/bin/sh\n/usr/bin/id -u >>{left}/ran\nexec /usr/bin/{name} \"$@\"\n")
    os.chmod(f"bin/{name}", 0o755)
shutil.copy("/lib/x86_64-linux-gnu/libz.so.1", "left/preloaded.so")
bus = socket.socket(socket.AF_UNIX)
bus.bind("left/bus")
bus.listen()
bus.setblocking(False)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind("left/notify")
notify.setblocking(False)
environment = {
    **os.environ, "PATH": f"{here}/bin:{os.environ['PATH']}", "HOME": left, "TMPDIR": f"{left}/tmp",
    "LD_PRELOAD": f"{left}/preloaded.so", "LD_LIBRARY_PATH": left, "LD_DEBUG": "libs", "LD_DEBUG_OUTPUT": f"{left}/debug",
    "GLIBC_TUNABLES": "glibc.malloc.check=3", "BASH_ENV": f"{left}/bash_env", "ENV": f"{left}/bash_env",
    "RUST_LOG": "trace", "RUST_BACKTRACE": "full", "SANDBOX_EBPF_LOG": "debug", "SANDBOX_AUDIT_SEQ": "1",
    "NOTIFY_SOCKET": f"{left}/notify", "WATCHDOG_USEC": "1", "LISTEN_FDS": str(bus.fileno() - 2), "LISTEN_FDNAMES": "sandbox",
    "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={left}/bus", "DBUS_SESSION_BUS_ADDRESS": f"unix:path={left}/bus",
    "XDG_CONFIG_HOME": f"{left}/config", "XDG_RUNTIME_DIR": left, "STATE_DIRECTORY": left, "RUNTIME_DIRECTORY": left,
    "CONFIGURATION_DIRECTORY": f"{left}/config/sandbox",
}
open("left/bash_env", "w").write(f"/usr/bin/id -u >>{left}/ran\n")
command = [shutil.which("sandbox"), "run", *sys.argv[1:], "--id", "a-17", "--on-complete", "id -u >>left/hook", "--", "bash", "uses.sh"]
client = ["/bin/bash", "--norc", "-c", 'unset BASH_ENV; export LISTEN_PID=$$ WATCHDOG_PID=$$; exec "$0" "$@"', *command]
ran = subprocess.run(client, env=environment, pass_fds=[bus.fileno()], capture_output=True)
if ran.returncode: raise SystemExit(f"{ran}")
subprocess.run([command[0], "wait", "a-17"], check=True)
print(ran.stderr.decode(), end="")
for come in lambda: notify.recv(100).decode(), lambda: bus.accept()[0].recv(100).decode():
    try:
        while True: print(come())
    except BlockingIOError:
        pass
"##;

/// What the analysis makes of them: so that they work is known.
const USES: &str = "echo $$ >pid; until [ -e go ]; do sleep 0.05; done; exec python3 -c '
import os, socket
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b\"notified by the analysis\", os.environ[\"NOTIFY_SOCKET\"])
bus = socket.socket(socket.AF_UNIX)
bus.connect(os.environ[\"XDG_RUNTIME_DIR\"] + \"/bus\")
bus.send(b\"called by the analysis\")
'";

/// What a process shows of its environment and of the libraries in it.
fn shown_by(pid: i32) -> String {
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).expect("it is there");
    let shown = [read("environ"), read("maps")].concat();
    String::from_utf8_lossy(&shown).into_owned()
}

#[test]
fn tricks_with_the_environment_reach_the_analysis_and_neither_service_nor_supervisor_nor_guardian()
{
    let _guest = Guest::enter();
    let service = Service::start();
    for how in ["", "--detach"] {
        let scene = Scene::new();
        scene.write("tricks.py", TRICKS);
        scene.write("uses.sh", USES);
        let _begun = scene
            .ana(&format!(
                "(python3 tricks.py {how} >said 2>&1; echo $? >status) >/dev/null 2>&1 &"
            ))
            .expect(0);
        let main = wait::for_some("the analysis to begin", || {
            let is_over = scene.files().contains("status");
            assert!(!is_over, "{}", scene.read("said"));
            let pid = fs::read_to_string(scene.path("pid")).ok()?;
            pid.strip_suffix('\n')?.parse().ok()
        });
        let folder = scene.folder().display().to_string();
        for trick in [
            "LD_PRELOAD=",
            "NOTIFY_SOCKET=",
            "SANDBOX_EBPF_LOG=",
            "LISTEN_PID=",
            "/left/preloaded.so\n",
        ] {
            assert!(shown_by(main).contains(trick), "{trick} is not to be had");
        }
        for (who, pid) in service.privileged() {
            let shown = shown_by(pid);
            for trick in [&folder, "LD_", "SANDBOX_", "LISTEN_", "RUST_", "XDG_"] {
                let is_tricked = shown.contains(trick);
                assert!(!is_tricked, "{trick} reached the {who}: {shown}");
            }
        }
        scene.write("go", "");
        let status = wait::for_some("it to end", || {
            let status = fs::read_to_string(scene.path("status")).ok()?;
            status.ends_with('\n').then_some(status)
        });
        assert_eq!(status, "0\n", "{}", scene.read("said"));
        wait::until("the guardian to be done", || guardians().is_empty());
        let said = scene.read("said");
        let ended = said.lines().filter(|line| !line.ends_with("went well"));
        assert_eq!(
            ended.collect::<Vec<_>>(),
            ["notified by the analysis", "called by the analysis"],
            "{said}"
        );

        // Whoever of root's had gone by it would have left something there.
        assert_eq!(scene.read("left/hook"), "1000\n");
        let ran = scene.read("left/ran");
        assert!(ran.lines().count() >= 2, "the analysis and its hook: {ran}");
        assert!(ran.lines().all(|uid| uid == "1000"), "{ran}");
        let files: Vec<_> = fs::read_dir(scene.path("left"))
            .expect("it is there")
            .flatten()
            .collect();
        let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        assert!(
            files.iter().any(|entry| name(entry).starts_with("debug.")),
            "{files:?}"
        );
        for file in &files {
            let owner = file.metadata().expect("it is there").uid();
            assert_eq!(owner, 1000, "{}", name(file));
        }
        assert_eq!(
            fs::read_dir(scene.path("left/tmp"))
                .expect("it is there")
                .count(),
            0
        );
        let record = Record::parse(&scene.ana("sandbox show --json a-17").expect(0).out());
        record.assert_verdict("completed", "none");
        assert_has(record.at("/limits/pids"), &json!({"source": "default"}));
    }
}

/// Has runs done that are started with much, with little and with strange words, and says which was answered otherwise
/// than it should be. Words longer than execve(2) takes reach the service only from who speaks its protocol.
const WORDS: &str = r#"
import json, os, resource, shutil, socket, subprocess
# A quarter of it is what execve(2) takes.
resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sandbox, path = shutil.which("sandbox"), os.environ["PATH"]
MOST, MOST_STARTED = 131_072, 2 << 20
def by_client(words, before=()):
    ran = subprocess.run([*before, sandbox, "run", "--id", "words", "--", *words], env={"PATH": path}, capture_output=True)
    return ran.returncode, ran.stdout, ran.stderr.decode()
def by_protocol(words):
    request = {"version": 1, "run": {"arguments": ["--id", "words", "--", *words], "environment": [["PATH", path]]}}
    request = json.dumps(request).encode() + b"\n"
    told, tell = os.pipe()
    with socket.socket(socket.AF_UNIX) as service:
        service.connect("/run/sandbox/sandbox.sock")
        sent = socket.send_fds(service, [request], [0, 1, tell, os.open(".", os.O_PATH)])
        service.sendall(request[sent:])
        answers = [json.loads(line) for line in service.makefile()]
    os.close(tell)
    last = answers[-1]
    status = last["ended"]["status"] if "ended" in last else 125
    return status, b"", last.get("refused", {}).get("reason", "") + os.read(told, 4096).decode()
def of(bytes, word=b"x"): return [word * 100_000] * (bytes // 100_001)
def exactly(bytes):
    taken = sum(len(word) + 1 for word in ["--id", "words", "--", "true", "PATH", path])
    parts, rest = divmod(bytes - taken, 65_536)
    return ["true", *["x" * 65_535] * (parts - 1), "x" * (65_535 + rest)]
wrong = 0
def see(what, answer, status, said, out=b""):
    global wrong
    if answer[0] != status or answer[1] != out or said not in answer[2] or not said and answer[2]:
        wrong += 1
        print(f"{what}: {answer[0]}, {answer[1][:80]}, {answer[2][:300]!r}", flush=True)
TOO_MUCH = "arguments and environment are more than 2 MiB together"
AS_JSON = "arguments and environment are more than 6 MiB as JSON"
TOO_LONG = "Argument list too long (os error 7)"
see("as much as may be", by_protocol(exactly(MOST_STARTED)), 0, "")
see("one byte more", by_protocol(exactly(MOST_STARTED + 1)), 125, TOO_MUCH)
see("a little less, and no UTF-8", by_client(["true", *of(MOST_STARTED, b"\xff")]), 125, AS_JSON)
see("a little less, and control characters", by_client(["true", *of(MOST_STARTED, b"\1")]), 125, AS_JSON)
see("what is no UTF-8, and half of that", by_client(["true", *of(MOST_STARTED // 2, b"\xff")]), 0, "")
see("more", by_client(["true", *of(MOST_STARTED + 200_000)]), 125, TOO_MUCH)
see("much more, and no UTF-8", by_client(["true", *of(5 << 20, b"\xff")]), 125, TOO_MUCH)
see("the longest word", by_protocol(["true", "x" * (MOST - 1)]), 0, "")
see("a longer word", by_protocol(["true", "x" * MOST]), 126, TOO_LONG)
see("a hundred thousand empty words", by_client(["true", *[""] * 100_000]), 0, "")
see("a command without a name", by_client([""]), 127, "No such file or directory")
see("a client without a name", by_client(["true"], ["bash", "-c", 'exec -a "" "$0" "$@"']), 0, "")
see("strange words", by_client(["printf", "%s|", b"gr\xf6n", "", b"\xff", "a\nb"]), 0, "", b"gr\xf6n||\xff|a\nb|")
raise SystemExit(wrong)
"#;

#[test]
fn whatever_words_a_run_is_started_with_they_reach_it_or_are_refused_by_name() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    scene.write("words.py", WORDS);
    let said = scene.ana("python3 words.py").expect(0);
    assert_eq!((said.out().as_str(), said.err().as_str()), ("", ""));
    let runs = scene.ana("sandbox list --json words").expect(0).json();
    let runs = runs.as_array().expect("a list").iter();
    let mut reasons: Vec<_> = runs.map(|run| run["reason"].clone()).collect();
    reasons.sort_by_key(ToString::to_string);
    // Those that were refused are none.
    let expected = [vec!["completed"; 6], vec!["setup_failed"; 2]].concat();
    assert_eq!(reasons, expected);
}

/// Prints the descriptors that are open.
const OPEN: &str = "import os, resource
for fd in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
    try: print(fd, os.readlink(f\"/proc/self/fd/{fd}\").split(\":\")[0])
    except FileNotFoundError: pass";

#[test]
fn an_analysis_has_the_standard_descriptors_and_no_other_whoever_does_its_run() {
    let _guest = Guest::enter();
    let service = Service::start();
    let scene = Scene::new();
    scene.write("open.py", OPEN);
    // What its client has open, and what a run opens for itself.
    let held = "exec 3</etc/passwd 5<. 7>held 9<>held; ulimit -n 1024";
    let more = "--events events --record record.json --on-complete true --metadata meta.toml";
    scene.write("meta.toml", "[sandbox]\npids = 50\n");
    for (client, after) in [
        ("runuser -u ana -- sandbox run", ""),
        (
            "runuser -u ana -- sandbox run --detach --id a-17",
            "; sandbox wait a-17; sandbox logs a-17",
        ),
        ("sandbox run --standalone --user ana", ""),
    ] {
        for options in ["", more] {
            let said = scene.bash(&format!(
                "{held}; {client} {options} -- python3 -c \"$(cat open.py)\" </dev/null 2>&1 | cat {after}"
            ));
            let said = said.expect(0).out();
            let open: Vec<&str> = said.lines().filter(|line| !line.contains('-')).collect();
            assert_eq!(
                open,
                ["0 /dev/null", "1 pipe", "2 pipe"],
                "{client} {options}: {said}"
            );
        }
    }
    drop(service);
}
