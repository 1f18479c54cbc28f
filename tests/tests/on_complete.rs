//! `--on-complete`: a command of the caller's that gets the record in the end.

use sandbox_tests::{Configured, Guest, Record, Scene, Service, wait};

#[test]
fn it_gets_the_record_as_the_caller_and_outside_of_the_leaf() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        "usermod -aG users ana; ulimit -n 77; \
         sudo -u ana sudo sandbox run --notes never --record record.json \
         --on-complete 'id -un; id -Gn; ulimit -n; echo $HOME; cat /proc/self/cgroup; cat >got.json' -- bash -c 'exit 3'",
    );
    assert_eq!(said.code(), 3, "{said}");
    // stdout is the analysis's.
    assert_eq!(said.out(), "", "{said}");
    let err = said.err();
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(
        lines,
        ["ana", "ana users", "77", "/home/ana", "0::/"],
        "{said}"
    );
    let (got, record) = (Record::parse(&scene.read("got.json")), scene.record());
    assert_eq!(got.to_string(), record.to_string());
}

#[test]
fn its_failure_is_said_and_is_not_the_runs() {
    let _guest = Guest::enter();
    let said = Scene::new().bash("sandbox run --user ana --on-complete 'exit 9' -- true");
    assert_eq!(said.code(), 0, "{said}");
    assert!(
        said.err()
            .contains("--on-complete: exit 9 ended with exit status: 9"),
        "{said}"
    );
}

#[test]
fn one_that_fails_is_run_once_more_and_one_that_has_not_is_not() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        "sandbox run --user ana --record record.json \
         --on-complete '[ -e failed ] || { >failed; exit 9; }; echo run >>runs; cat >got.json' -- true",
    );
    assert_eq!(said.code(), 0, "{said}");
    let told = "ended with exit status: 9; it is run once more in 1 s";
    assert_eq!(said.err().matches(told).count(), 1, "{said}");
    assert_eq!(scene.read("runs"), "run\n");
    let got = Record::parse(&scene.read("got.json"));
    assert_eq!(got.to_string(), scene.record().to_string());
}

#[test]
fn it_is_not_spared_by_the_oom_killer_where_sandbox_is() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        "choom -n -900 -- sandbox run --user ana --on-complete 'cat /proc/self/oom_score_adj >score' -- true",
    );
    assert_eq!(said.code(), 0, "{said}");
    assert_eq!(scene.read("score"), "0\n");
}

#[test]
fn the_hosts_comes_before_the_runs_own_and_gets_the_record_too() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let _config =
        Configured::with("on-complete = 'echo host >>order; id -un >who; cat >host.json'\n");
    let said = scene.bash(
        "sudo -u ana sudo sandbox run --record record.json \
         --on-complete 'echo own >>order; cat >own.json' -- true",
    );
    assert_eq!(said.code(), 0, "{said}");
    assert_eq!(scene.read("order"), "host\nown\n");
    assert_eq!(scene.read("who"), "ana\n");
    let record = scene.record().to_string();
    for file in ["host.json", "own.json"] {
        assert_eq!(
            Record::parse(&scene.read(file)).to_string(),
            record,
            "{file}"
        );
    }
}

#[test]
fn a_signal_ends_it() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        "sandbox run --user ana --on-complete 'echo up >up; exec sleep 98765' -- true & \
         until [ -s up ]; do sleep 0.05; done; kill -TERM $!; wait $!",
    );
    assert_eq!(said.code(), 0, "{said}");
    assert!(said.err().contains("signal: 15"), "{said}");
}

#[test]
fn the_guardian_runs_it_where_sandbox_was_killed() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        "sandbox run --user ana --on-complete 'cat >got.json' -- bash -c 'echo up >up; exec sleep 98765' & \
         until [ -s up ]; do sleep 0.05; done; kill -KILL $!; wait $!",
    );
    assert_eq!(said.code(), 137, "{said}");
    let record = wait::for_some("the guardian to run it", || {
        let text = scene
            .files()
            .contains("got.json")
            .then(|| scene.read("got.json"))?;
        text.ends_with("}\n").then(|| Record::parse(&text))
    });
    assert_eq!(record.reason(), "runner_lost", "{record}");
}

#[test]
fn one_that_reads_nothing_holds_nobody_up() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    // More than a pipe holds, and somebody keeps its end open.
    let said = scene.bash(
        "sandbox run --user ana --on-complete 'sleep 98765 & echo $! >pid' -- true $(seq 20000); \
         status=$?; kill $(cat pid); exit $status",
    );
    assert_eq!(said.code(), 0, "{said}");
}

#[test]
fn a_caller_that_ignores_its_childrens_ends_changes_nothing() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.python(
        "import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execvp('sandbox', ['sandbox', 'run', '--user', 'ana', '--record', 'record.json',
                      '--on-complete', 'exit 9', '--', 'bash', '-c', 'exit 3'])",
    );
    assert_eq!(said.code(), 3, "{said}");
    assert!(said.err().contains("ended with exit status: 9"), "{said}");
    assert!(scene.record().list("/tracing/degraded").is_empty());
}

#[test]
fn the_service_notes_that_it_failed_whoever_ran_it() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let _done = scene
        .ana("sandbox run --id done --on-complete 'exit 9' -- true")
        .expect(0);
    let _going_on = scene
        .ana(
            "sandbox run --detach --id lost --on-complete 'exit 8' -- bash -c 'echo up >up; exec sleep 98765'; \
             until [ -s up ]; do sleep 0.05; done",
        )
        .expect(0);
    let _lost = scene.bash(Service::SUPERVISOR_IS_LOST).expect(0);
    for (id, status) in [("done", 9), ("lost", 8)] {
        let problem = wait::for_some("it to be given up", || {
            Some(scene.listed(id)["hook_problem"].as_str()?.to_owned())
        });
        let expected = format!("--on-complete: exit {status} ended with exit status: {status}");
        assert_eq!(problem, expected);
        let shown = scene.bash(&format!("sandbox show {id}")).expect(0);
        assert!(shown.out().contains(&expected), "{shown}");
    }
    let entered = "grep -c '\"hook_failed\"' /var/lib/sandbox/audit.jsonl; sandbox audit verify";
    let entered = scene.bash(entered).expect(0);
    assert!(entered.out().starts_with("2\n"), "{entered}");
}
