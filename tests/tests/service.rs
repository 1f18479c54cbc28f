//! The host's service: runs of users without any rights, what is stored of them, and what happens when
//! somebody dies.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox_tests::{Guest, Record, Scene, Service, Spoken, assert_has, wait};
use serde_json::{Value, json};

/// A line of shell as ana, who has no rights.
fn ana(scene: &Scene, line: &str) -> Spoken {
    scene.write("line.sh", line);
    scene.bash("exec runuser -u ana -- bash line.sh")
}

fn listed(scene: &Scene) -> Vec<Value> {
    let said = scene.bash("sandbox list --json").expect(0);
    let runs = said.json();
    runs.as_array().expect("a list").clone()
}

/// The one run that there is.
#[track_caller]
fn only(scene: &Scene) -> Value {
    let mut runs = listed(scene);
    assert_eq!(runs.len(), 1, "{runs:#?}");
    runs.remove(0)
}

/// The record of the one run, once it has ended.
#[track_caller]
fn stored(scene: &Scene) -> Record {
    let run = wait::for_some("the run's record to be stored", || {
        Some(only(scene)).filter(|run| run["state"] == "ended")
    });
    let run_id = run["run_id"].as_str().expect("an id").to_owned();
    let said = scene
        .bash(&format!("sandbox show --json {run_id}"))
        .expect(0);
    Record::parse(&said.out())
}

/// The pid that the analysis has written to a file.
#[track_caller]
fn pid_in(scene: &Scene, file: &str) -> Pid {
    let path = scene.path(file);
    let pid = wait::for_some("the analysis to start", || {
        let text = fs::read_to_string(&path).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    });
    Pid::from_raw(pid)
}

/// Starts a run of ana's that nobody waits for; gives its main process.
#[track_caller]
fn left_running(scene: &Scene) -> Pid {
    let _started = ana(
        scene,
        "(sandbox run -- bash -c 'echo $$ >pid; exec sleep 1000' &) </dev/null >/dev/null 2>&1; \
         until [ -s pid ]; do sleep 0.05; done",
    );
    pid_in(scene, "pid")
}

#[test]
fn a_user_without_rights_has_it_run_as_if_it_were_done_here() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let said = ana(
        &scene,
        "umask 027; export COLOUR=$'gr\\xf6n'; ulimit -n 333; mkdir sub; cd sub; echo in | \
         sandbox run --record ../record.json --id a-17 -- bash -c \
         'id -un; umask; echo $COLOUR | od -An -c; ulimit -n; cat; pwd; echo err >&2; >made; exit 3'; \
         echo $?; stat -c %a made",
    );
    let out = said.out();
    let lines: Vec<&str> = out.lines().map(str::trim).collect();
    let cwd = scene.path("sub").display().to_string();
    let expected = [
        "ana",
        "0027",
        "g   r 366   n  \\n",
        "333",
        "in",
        &cwd,
        "3",
        "640",
    ];
    assert_eq!(lines, expected, "{said}");
    assert!(said.err().starts_with("err\nsandbox: Failed: "), "{said}");

    let record = scene.record();
    record.assert_verdict("exit_code", "none");
    assert_has(record.at("/user"), &json!({"name": "ana", "uid": 1000}));
    assert_eq!(stored(&scene), record);
    let run = only(&scene);
    assert_has(
        &run,
        &json!({"uid": 1000, "user": "ana", "analysis_id": "a-17", "reason": "exit_code", "exit_code": 3}),
    );
    let table = ana(&scene, "sandbox list").expect(0).out();
    assert!(table.contains("a-17"), "{table}");

    // Nobody else is told of it.
    let run_id = record.text("/run_id");
    let others = scene.bash(&format!(
        "runuser -u nobody -- sandbox list --json; runuser -u nobody -- sandbox show {run_id}"
    ));
    assert_eq!(
        (others.code(), others.out().as_str()),
        (125, "[]"),
        "{others}"
    );
    assert!(others.err().contains("there is no run"), "{others}");
}

#[test]
fn only_root_may_choose_a_user() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let said = ana(&scene, "sandbox run --user root -- id").expect(125);
    assert!(
        said.err()
            .contains("only root can run an analysis as another user"),
        "{said}"
    );
    let said = scene.bash("sandbox run -- id").expect(125);
    assert!(said.err().contains("root has to say"), "{said}");
    let said = scene.bash("sandbox run --user ana -- id -un").expect(0);
    assert_eq!(said.out(), "ana");
}

#[test]
fn what_is_not_used_rightly_is_said_and_not_stored() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    scene.write("bad.toml", "[sandbox]\nmemory = 'much'\n");
    let said = ana(&scene, "sandbox run --metadata bad.toml -- true").expect(125);
    assert!(said.err().contains("bad.toml:2"), "{said}");
    let said = ana(&scene, "sandbox run --record fd:9 -- true 9>record.json").expect(125);
    assert!(said.err().contains("--standalone"), "{said}");
    assert_eq!(listed(&scene), [] as [Value; 0]);
}

#[test]
fn signals_reach_the_run_and_a_client_that_goes_cancels_it() {
    let _guest = Guest::enter();
    for (signal, status) in [("TERM", "143"), ("KILL", "137")] {
        let _service = Service::start();
        let scene = Scene::new();
        let said = ana(
            &scene,
            &format!(
                "sandbox run -- bash -c 'echo $$ >pid; exec sleep 1000' & \
                 until [ -s pid ]; do sleep 0.05; done; kill -{signal} $!; wait $!; echo $?"
            ),
        );
        assert_eq!(said.out(), status, "{said}");
        let record = stored(&scene);
        record.assert_verdict("cancelled", "same");
        assert_has(record.finding("own_action"), &json!({"signal": 15}));
    }
}

#[test]
fn a_service_that_is_killed_costs_no_run() {
    let _guest = Guest::enter();
    let mut service = Service::start();
    let scene = Scene::new();
    let client =
        "sandbox run -- bash -c 'echo $$ >pid; read line <go; exit 7' 2>err; echo $? >status";
    scene.write(
        "client.sh",
        &format!("mkfifo go; ({client}) & until [ -s pid ]; do sleep 0.05; done"),
    );
    let _started = scene
        .bash("exec runuser -u ana -- bash client.sh </dev/null >/dev/null 2>&1")
        .expect(0);
    let main = pid_in(&scene, "pid");
    service.kill();
    let status = wait::for_some("the client to see it", || {
        fs::read_to_string(scene.path("status"))
            .ok()
            .filter(|status| status.ends_with('\n'))
    });
    assert_eq!(status, "125\n");
    assert!(
        scene.read("err").contains("the run goes on"),
        "{}",
        scene.read("err")
    );
    assert!(kill(main, None).is_ok(), "it goes on");

    service.restart();
    assert_eq!(only(&scene)["state"], "running");
    fs::write(scene.path("go"), "\n").expect("the analysis reads it");
    let record = stored(&scene);
    record.assert_verdict("exit_code", "none");
    assert_has(record.at("/exit"), &json!({"code": 7}));
}

#[test]
fn a_run_that_ends_while_no_service_is_there_is_stored_by_the_next() {
    let _guest = Guest::enter();
    let mut service = Service::start();
    let scene = Scene::new();
    let main = left_running(&scene);
    service.kill();
    kill(main, Signal::SIGKILL).expect("it goes on");
    wait::until("its record", || {
        fs::read_dir("/var/lib/sandbox/spool").is_ok_and(|mut spool| {
            spool.any(|entry| entry.is_ok_and(|entry| entry.path().extension().is_some()))
        })
    });
    service.restart();
    stored(&scene).assert_verdict("external_kill", "same");
}

#[test]
fn a_run_that_loses_service_supervisor_and_guardian_is_finished_by_the_next_service() {
    let _guest = Guest::enter();
    let mut service = Service::start();
    let scene = Scene::new();
    let main = left_running(&scene);
    service.kill();
    let _killed = scene.bash(
        "guardian=$(pgrep -x sandbox-guard); kill -STOP $guardian; pkill -KILL -f '^sandbox supervise'; \
         kill -KILL $guardian; while pgrep -x sandbox-guard; do sleep 0.05; done",
    );
    assert!(kill(main, None).is_ok(), "nobody is left to end it");
    service.restart();
    stored(&scene).assert_verdict("runner_lost", "same");
    assert!(kill(main, None).is_err(), "it was ended");
}

#[test]
fn who_is_elsewhere_or_in_a_run_is_refused() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let said = scene
        .bash("unshare -m sandbox run --user ana -- true")
        .expect(125);
    assert!(said.err().contains("use --standalone"), "{said}");
    let _done = scene
        .bash("unshare -m sandbox run --standalone --user ana -- true")
        .expect(0);
    let said = scene
        .bash("sandbox run --user root -- sandbox run --user ana -- true")
        .expect(125);
    assert!(said.err().contains("service refuses"), "{said}");
    let said = ana(&scene, "setpriv --no-new-privs sandbox run -- true").expect(125);
    assert!(said.err().contains("no_new_privs"), "{said}");
    let said = scene.bash(
        "mkdir /sys/fs/cgroup/limited; echo +memory >/sys/fs/cgroup/cgroup.subtree_control; \
         echo 1G >/sys/fs/cgroup/limited/memory.max; \
         (echo $BASHPID >/sys/fs/cgroup/limited/cgroup.procs; exec sandbox run --user ana -- true); \
         status=$?; rmdir /sys/fs/cgroup/limited; exit $status",
    );
    assert_eq!(said.code(), 125, "{said}");
    assert!(
        said.err().contains("limited by the cgroup /limited"),
        "{said}"
    );
    let said = scene.bash("sandbox serve").expect(125);
    assert!(
        said.err().contains("another `sandbox serve` is running"),
        "{said}"
    );
}

#[test]
fn nonsense_is_answered_and_harms_nobody() {
    let _guest = Guest::enter();
    let service = Service::start();
    let scene = Scene::new();
    let said = scene.python(&format!("service = {}\n{}", service.pid(), r#"
import json, os, socket
def ask(data, shut=True):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(60)
        s.connect("/run/sandbox/sandbox.sock")
        try:
            s.sendall(data)
            if shut: s.shutdown(socket.SHUT_WR)
        except BrokenPipeError:
            pass
        try:
            text = s.makefile().readline()
        except ConnectionResetError:
            text = ""
    return json.loads(text).get("refused", {}).get("reason") if text else None
for data, reason in [
    (b"", "ended early"), (b"hello\n", "expected"), (b'{"version":1}\n', "not a request"),
    (b'{"version":2,"list":{"most":1}}\n', "version 2"), (b'{"version":1,"show":{"run_id":"x"}}\n', "not a request"),
    (b'{"version":1,"list":{"most":1}', "ended early"), (b"x" * (7 << 20), "longer than"),
    (b'{"version":1,"run":{"arguments":[],"environment":[]}}\n', "do not come along"),
    (b'{"version":1,"run":{"arguments":["a\\u0000b"],"environment":[]}}\n', "NUL"),
]:
    said = ask(data)
    if said is not None and reason not in said or said is None and len(data) < 100:
        raise SystemExit(f"{data[:60]!r} is answered {said!r}, not {reason!r}")
def descriptors(): return len(os.listdir(f"/proc/{service}/fd"))
before = descriptors()
for _ in range(50):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("/run/sandbox/sandbox.sock")
        socket.send_fds(s, [b"{"], [0] * 9)
        s.makefile().readline()
if descriptors() > before + 20: raise SystemExit(f"{descriptors()} descriptors, {before} before")
held = [socket.socket(socket.AF_UNIX) for _ in range(200)]
for s in held: s.connect("/run/sandbox/sandbox.sock")
if ask(b"nonsense\n") is None: raise SystemExit("it does not answer any more")
if ask(b'{"version":1,', shut=False) != "no whole request came within 10 s": raise SystemExit("it waits for ever")
"#));
    assert_eq!(said.code(), 0, "{said}");
    let _done = ana(&scene, "sandbox run -- true").expect(0);
}
