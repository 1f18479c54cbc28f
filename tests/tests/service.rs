//! The host's service: runs of users without any rights, what is stored of them, and what happens when
//! somebody dies.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox_tests::{Guest, Record, Scene, Service, assert_has, wait};
use serde_json::{Value, json};

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
    left_running_with(scene, "")
}

fn left_running_with(scene: &Scene, options: &str) -> Pid {
    let _started = scene.ana(&format!(
        "(sandbox run {options} -- bash -c 'echo $$ >pid; exec sleep 1000' &) </dev/null >/dev/null 2>&1; \
         until [ -s pid ]; do sleep 0.05; done"
    ));
    pid_in(scene, "pid")
}

#[test]
fn a_user_without_rights_has_it_run_as_if_it_were_done_here() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let said = scene.ana(
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
    let table = scene.ana("sandbox list").expect(0).out();
    assert!(table.contains("a-17"), "{table}");

    // Nobody else is told of it.
    let run_id = record.text("/run_id");
    let others = scene.bash(&format!(
        "runuser -u nobody -- sandbox list --json; runuser -u nobody -- sandbox show {run_id}"
    ));
    assert_eq!(
        (others.code(), others.out().as_str()),
        (1, "[]"),
        "{others}"
    );
    assert!(others.err().contains("there is no run"), "{others}");
}

#[test]
fn only_root_may_choose_a_user() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let said = scene.ana("sandbox run --user root -- id").expect(125);
    assert!(
        said.err()
            .contains("only root can run an analysis as another user"),
        "{said}"
    );
    assert_eq!(listed(&scene), [] as [Value; 0]);
    let kept = fs::read_dir("/var/lib/sandbox/events").map_or(0, Iterator::count);
    assert_eq!(kept, 0, "an event stream of a run that there is not");
    let entered = "grep '\"refused\"' /var/lib/sandbox/audit.jsonl";
    let entered = scene.bash(entered).expect(0).json();
    assert_has(&entered, &json!({"uid": 1000, "what": "run"}));
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
    let said = scene
        .ana("sandbox run --metadata bad.toml -- true")
        .expect(125);
    assert!(said.err().contains("bad.toml:2"), "{said}");
    let said = scene
        .ana("sandbox run --record fd:9 -- true 9>record.json")
        .expect(125);
    assert!(said.err().contains("--standalone"), "{said}");
    assert_eq!(listed(&scene), [] as [Value; 0]);
}

#[test]
fn signals_reach_the_run_and_a_client_that_goes_cancels_it() {
    let _guest = Guest::enter();
    for (signal, status, why) in [
        ("TERM", "143", json!({"signal": 15})),
        ("KILL", "137", json!({"detail": "its client has gone"})),
    ] {
        let _service = Service::start();
        let scene = Scene::new();
        let said = scene.ana(&format!(
            "sandbox run -- bash -c 'echo $$ >pid; exec sleep 1000' & \
                 until [ -s pid ]; do sleep 0.05; done; kill -{signal} $!; wait $!; echo $?"
        ));
        assert_eq!(said.out(), status, "{said}");
        let record = stored(&scene);
        record.assert_verdict("cancelled", "same");
        assert_has(record.finding("own_action"), &why);
    }
}

#[test]
fn a_run_is_waited_for_and_killed_by_its_id_and_only_by_its_user() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let main = left_running(&scene);
    let run_id = only(&scene)["run_id"].as_str().expect("an id").to_owned();
    let said = scene
        .bash(&format!(
            "runuser -u nobody -- sandbox kill {run_id}; echo $?; \
             runuser -u nobody -- sandbox wait {run_id}; echo $?; sandbox kill a-17; echo $?"
        ))
        .expect(0);
    assert_eq!(said.out(), "1\n1\n1", "{said}");
    assert!(kill(main, None).is_ok(), "it goes on");

    let said = scene.ana(
        &format!(
            "sandbox wait {run_id} & sandbox kill {run_id} --reason $'wrong input\\e[2J'; wait $!; echo $?"
        ),
    );
    assert_eq!(said.out(), format!("{run_id}\n143"), "{said}");
    let record = stored(&scene);
    record.assert_verdict("cancelled", "same");
    let detail = "sandbox kill by ana: wrong input\u{1b}[2J";
    assert_has(record.finding("own_action"), &json!({"detail": detail}));
    let notes = record.text("/completion_notes");
    assert!(
        notes.contains(r"sandbox kill by ana: wrong input\x1b[2J"),
        "{notes}"
    );
    let said = scene.ana(&format!("sandbox wait {run_id}; echo $?"));
    assert_eq!(said.out(), "143", "{said}");
    let said = scene.bash(&format!("sandbox kill {run_id}")).expect(1);
    assert!(
        said.err().contains("no run of yours that goes on"),
        "{said}"
    );
}

#[test]
fn a_detached_run_goes_on_without_client_and_service_and_what_it_prints_is_kept() {
    let _guest = Guest::enter();
    let mut service = Service::start();
    let scene = Scene::new();
    let said = scene.ana(
        "mkfifo go; sandbox run --detach --id a-17 -- bash -c \
         'cat; echo out; echo err >&2; echo $$ >pid; read line <go; echo late; exit 5'; echo $?",
    );
    let run = only(&scene);
    let run_id = run["run_id"].as_str().expect("an id").to_owned();
    assert_eq!(said.out(), format!("{run_id}\n0"), "{said}");
    let _main = pid_in(&scene, "pid");
    let said = scene.ana("sandbox logs a-17").expect(0);
    assert_eq!(
        (said.out().as_str(), said.err().trim()),
        ("out", "err"),
        "{said}"
    );

    service.kill();
    service.restart();
    let said = scene.ana(
        "sandbox logs --follow a-17 >followed & echo >go; wait $!; echo $?; cat followed; sandbox wait a-17; echo $?",
    );
    assert_eq!(said.out(), "0\nout\nlate\n5", "{said}");
    assert!(said.err().contains("Failed: "), "{said}");
    stored(&scene).assert_verdict("exit_code", "none");
    let said = scene
        .bash("runuser -u nobody -- sandbox logs a-17")
        .expect(1);
    assert_eq!(said.out(), "", "{said}");
}

#[test]
fn of_what_a_detached_run_prints_the_beginning_and_the_end_are_kept() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let said = scene.ana(
        "sandbox run --detach --id a-17 -- seq 5000000 >/dev/null; sandbox wait a-17; sandbox logs a-17 >log; \
         head -1 log; tail -1 log; stat -c %s log",
    )
    .expect(0);
    let out = said.out();
    let [first, last, bytes] = out.lines().collect::<Vec<_>>()[..] else {
        panic!("{said}");
    };
    assert_eq!((first, last), ("1", "5000000"), "{said}");
    let kept: u64 = bytes.parse().expect("a number");
    assert!((8 << 20..=16 << 20).contains(&kept), "{said}");
    assert!(said.err().contains("bytes were left out"), "{said}");
}

#[test]
fn a_service_that_is_killed_costs_no_run_and_no_client() {
    let _guest = Guest::enter();
    let mut service = Service::start();
    let scene = Scene::new();
    let client = "sandbox run -- bash -c 'echo $$ >pid; read line <go; exit 7'; echo $? >status";
    scene.write(
        "client.sh",
        &format!("mkfifo go; ({client}) & until [ -s pid ]; do sleep 0.05; done"),
    );
    let _started = scene
        .bash("exec runuser -u ana -- bash client.sh </dev/null >/dev/null 2>&1")
        .expect(0);
    let main = pid_in(&scene, "pid");
    service.kill();
    service.restart();
    assert_eq!(only(&scene)["state"], "running");
    assert!(kill(main, None).is_ok(), "it goes on");
    service.kill();
    fs::write(scene.path("go"), "\n").expect("the analysis reads it");
    let status = wait::for_some("the client to be told", || {
        let status = fs::read_to_string(scene.path("status")).ok()?;
        status.ends_with('\n').then_some(status)
    });
    assert_eq!(status, "7\n");
    service.restart();
    let record = stored(&scene);
    record.assert_verdict("exit_code", "none");
    assert_has(record.at("/exit"), &json!({"code": 7}));
}

#[test]
fn who_waits_for_a_run_or_follows_it_does_so_across_a_service_that_is_started_anew() {
    let _guest = Guest::enter();
    let mut service = Service::start();
    let scene = Scene::new();
    scene.write(
        "tells.sh",
        "echo first; until [ -e go ]; do sleep 0.05; done; echo last; exit 7",
    );
    let _id = scene
        .ana("sandbox run --detach --id long -- bash tells.sh")
        .expect(0);
    let _begun = scene
        .ana(
            "for follows in wait 'logs --follow' 'events --follow'; do \
             (timeout 100 sandbox $follows long >${follows%% *} 2>${follows%% *}.err; echo $? >${follows%% *}.status) >/dev/null 2>&1 & \
             done; until grep -q first logs && grep -q exec events; do sleep 0.05; done",
        )
        .expect(0);
    service.kill();
    service.restart();
    scene.write("go", "");
    for (who, status) in [("wait", "7"), ("logs", "0"), ("events", "0")] {
        let file = format!("{who}.status");
        wait::until("them to end", || {
            scene.files().contains(&file) && !scene.read(&file).is_empty()
        });
        assert_eq!(
            scene.read(&file).trim(),
            status,
            "{}",
            scene.read(&format!("{who}.err"))
        );
    }
    assert_eq!(scene.read("logs"), "first\nlast\n");
    assert!(scene.read("events").contains("\"type\":\"end\""));
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
    let _killed = scene.bash(Service::BOTH_ARE_LOST);
    assert!(kill(main, None).is_ok(), "nobody is left to end it");
    service.restart();
    stored(&scene).assert_verdict("runner_lost", "same");
    assert!(kill(main, None).is_err(), "it was ended");
    let sockets = scene.bash("ls /run/sandbox/control").expect(0);
    assert_eq!(sockets.out(), "service");
}

#[test]
fn an_order_that_meets_a_run_without_supervisor_and_guardian_says_so_and_has_it_ended() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let main = left_running_with(&scene, "--id a-17");
    let _killed = scene.bash(Service::BOTH_ARE_LOST);
    assert!(kill(main, None).is_ok(), "nobody is left to end it");
    let said = scene.ana("sandbox kill a-17").expect(1);
    assert!(said.err().contains("its supervisor was killed"), "{said}");
    wait::until("it to be ended", || kill(main, None).is_err());
    stored(&scene).assert_verdict("runner_lost", "same");
}

#[test]
fn a_run_that_lost_everybody_and_is_overdue_when_it_is_found_has_met_its_deadline() {
    let _guest = Guest::enter();
    let mut service = Service::start();
    let scene = Scene::new();
    let main = left_running_with(&scene, "--timeout 15s");
    let began = Instant::now();
    service.kill();
    let _killed = scene.bash(Service::BOTH_ARE_LOST);
    wait::until("its time to be over", || {
        began.elapsed() > Duration::from_secs(15)
    });
    assert!(kill(main, None).is_ok(), "nobody is left to end it");
    service.restart();
    let record = stored(&scene);
    record.assert_verdict("walltime", "more_time");
    let degraded = record.at("/tracing/degraded").to_string();
    assert!(
        degraded.contains("nobody was there at its deadline"),
        "{record}"
    );
    assert_eq!(record.fatal()["cause"], "runner", "{record}");
    let evidence = record.at("/termination/evidence").to_string();
    assert!(!evidence.contains("left_over"), "{record}");
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
    let why = "an analysis can neither start another nor see to runs: you are in /sandbox/runs/";
    assert!(said.err().contains(why), "{said}");
    let said = scene
        .bash("sandbox run --user root -- sandbox kill --user ana")
        .expect(125);
    assert!(said.err().contains(why), "{said}");
    let said = scene
        .ana("setpriv --no-new-privs sandbox run -- true")
        .expect(125);
    assert!(said.err().contains("no_new_privs"), "{said}");
    let said = scene
        .limited_caller("", "sandbox run --user ana -- true")
        .expect(125);
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
