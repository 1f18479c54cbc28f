//! `--on-complete`: a command of the caller's that gets the record in the end.

use std::fs;

use sandbox_tests::{Configured, Guest, Record, Scene, Service, guardians, has_ended, wait};

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
    let (got, record) = (Record::parse(&scene.read("got.json")), scene.record());
    let cgroup = format!("0::/sandbox/hooks/{}", record.text("/run_id"));
    assert_eq!(
        lines,
        ["ana", "ana users", "77", "/home/ana", &cgroup],
        "{said}"
    );
    assert_eq!(got.to_string(), record.to_string());
}

#[test]
fn its_failure_is_said_and_is_not_the_runs() {
    let _guest = Guest::enter();
    let said = Scene::new().bash("sandbox run --user ana --on-complete 'exit 9' -- true");
    assert_eq!(said.code(), 0, "{said}");
    assert!(
        said.err()
            .contains("--on-complete: `exit 9` ended with exit status: 9"),
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
fn it_has_limits_of_its_own_and_leaves_nobody_behind() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    for (command, lacks) in [
        ("exec victim eat 600MiB", "memory"),
        ("for each in $(seq 200); do sleep 98765 & done", "PIDs"),
    ] {
        let said = scene.bash(&format!(
            "rm -f tried; sandbox run --user ana --memory 16MiB --pids 8 \
             --on-complete '[ ! -e tried ] || exit 0; >tried; {command}' -- true"
        ));
        assert_eq!(said.code(), 0, "{said}");
        let told = format!(", having run out of a completion hook's {lacks}; it is run once more");
        assert_eq!(said.err().matches(&told).count(), 1, "{said}");
    }
    assert_nobody_is_left(&scene);
}

#[test]
fn it_can_have_the_service_do_a_run() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let _first = scene
        .ana("sandbox run --id first --on-complete 'sandbox run --id second -- bash -c \"exit 3\" || true' -- true")
        .expect(0);
    assert_eq!(scene.listed("second")["reason"], "exit_code");
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
    let record = given(&scene);
    assert_eq!(record.reason(), "runner_lost", "{record}");
}

/// Its first shell waits to be killed with whoever runs it, each other one ends well.
const CUT_SHORT_ONCE: &str =
    "echo $$ >>shells; [ $(wc -l <shells) -gt 1 ] || exec sleep 98765; cat >got.json";

/// Until its first shell is there.
const UP: &str = "until [ -s shells ]; do sleep 0.05; done";

/// The record that it was given, once that is there.
#[track_caller]
fn given(scene: &Scene) -> Record {
    wait::for_some("it to be run", || {
        let text = scene
            .files()
            .contains("got.json")
            .then(|| scene.read("got.json"))?;
        text.ends_with("}\n").then(|| Record::parse(&text))
    })
}

/// The same of one that was cut short once, of which there are no two at a time.
#[track_caller]
fn given_the_second_time(scene: &Scene) -> Record {
    let record = given(scene);
    let shells = scene.read("shells");
    assert_eq!(shells.lines().count(), 2, "{shells}");
    let first = shells.lines().next().and_then(|pid| pid.parse().ok());
    assert!(has_ended(first.expect("a pid")), "two of it go on");
    record
}

#[test]
fn one_whose_sandbox_is_killed_is_run_once_more_by_the_guardian_and_no_other() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let _config = Configured::with("on-complete = 'echo host >>hosts'\n");
    let said = scene.bash(&format!(
        "sandbox run --user ana --record record.json --on-complete '{CUT_SHORT_ONCE}' -- bash -c 'exit 3' & \
         {UP}; kill -KILL $!; wait $!",
    ));
    assert_eq!(said.code(), 137, "{said}");
    assert_eq!(
        given_the_second_time(&scene).to_string(),
        scene.record().to_string()
    );
    assert_eq!(scene.read("hosts"), "host\n");
    wait::until("the guardian to be done", || guardians().is_empty());
}

#[test]
fn one_whose_callers_cgroup_is_killed_is_run_once_more_by_the_guardian_which_is_not_in_there() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(&format!(
        "callers=/sys/fs/cgroup/callers; mkdir $callers; \
         (echo $BASHPID >$callers/cgroup.procs; \
          exec sandbox run --user ana --record record.json --on-complete '{CUT_SHORT_ONCE}' -- bash -c 'exit 3') & \
         {UP}; until grep -q . /sys/fs/cgroup/sandbox/supervisor/cgroup.procs; do sleep 0.05; done; \
         echo 1 >$callers/cgroup.kill; wait $!; status=$?; \
         until rmdir $callers; do sleep 0.05; done; exit $status",
    ));
    assert_eq!(said.code(), 137, "{said}");
    assert_eq!(
        given_the_second_time(&scene).to_string(),
        scene.record().to_string()
    );
    wait::until("the guardian to be done", || guardians().is_empty());
}

#[test]
fn one_that_lost_sandbox_and_guardian_is_run_once_more_by_the_next() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(&format!(
        "sandbox run --user ana --record record.json --on-complete '{CUT_SHORT_ONCE}' -- bash -c 'exit 3' & \
         {UP}; guardian=$(pgrep -x sandbox-guard); kill -STOP $guardian; kill -KILL $!; wait $!; \
         kill -KILL $guardian; while pgrep -x sandbox-guard; do sleep 0.05; done; \
         sandbox run --user ana -- true",
    ));
    assert_eq!(said.code(), 0, "{said}");
    assert!(!said.err().contains("left behind"), "{said}");
    assert_eq!(
        given_the_second_time(&scene).to_string(),
        scene.record().to_string()
    );
    wait::until("what was kept of it to go", || {
        fs::read_dir("/run/sandbox/runs").is_ok_and(|mut kept| kept.next().is_none())
    });
}

#[test]
fn one_that_kills_whoever_runs_it_is_given_up_and_noted() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let _done = scene
        .bash("sandbox run --detach --user ana --id killer --on-complete 'echo >>runs; sleep 98765 & kill -KILL $PPID' -- true")
        .expect(0);
    let problem = wait::for_some("it to be given up", || {
        // Sees to runs that have lost everybody, which the service does from time to time.
        let _checked = scene.bash("sandbox check");
        Some(scene.listed("killer")["hook_problem"].as_str()?.to_owned())
    });
    let expected = "--on-complete: `echo >>runs; sleep 98765 & kill -KILL $PPID` was cut short: whoever ran it was killed";
    assert_eq!(problem, expected);
    assert_eq!(scene.read("runs"), "\n\n\n");
    assert_eq!(scene.listed("killer")["reason"], "completed");
    assert_nobody_is_left(&scene);
}

/// Of hooks that have ended or were given up.
#[track_caller]
fn assert_nobody_is_left(scene: &Scene) {
    let _nobody = scene.bash("pgrep -f 'sleep 98765'").expect(1);
    let hooks = fs::read_dir("/sys/fs/cgroup/sandbox/hooks").expect("it was made");
    let left = hooks
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    assert_eq!(left.count(), 0);
}

#[test]
fn all_of_one_hear_the_signal_that_ends_it_and_may_take_their_time() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    // The shell that is the hook itself dies at once.
    let said = scene.bash(
        "cat >told.sh <<'END'
trap 'sleep 1; echo told >told; exit' TERM
echo up >up
while :; do sleep 0.1; done
END
         sandbox run --user ana --on-complete 'bash told.sh; echo after >after' -- true & \
         until [ -s up ]; do sleep 0.05; done; kill -TERM $!; wait $!",
    );
    assert_eq!(said.code(), 0, "{said}");
    assert_eq!(scene.read("told"), "told\n");
    assert!(!scene.files().contains("after"), "{said}");
    assert_nobody_is_left(&scene);
}

#[test]
fn a_client_that_goes_takes_no_hook_with_it() {
    let _guest = Guest::enter();
    let _service = Service::start();
    let scene = Scene::new();
    let _gone = scene
        .ana(
            "sandbox run --id left --on-complete 'echo up >up; sleep 1; echo told >told' -- true & \
             until [ -s up ]; do sleep 0.05; done; kill -KILL $!; wait $!",
        )
        .expect(137);
    wait::until("the hook to end", || scene.files().contains("told"));
    let run = scene.listed("left");
    assert_eq!(run["hook_problem"], serde_json::Value::Null, "{run}");
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
        let expected = format!("--on-complete: `exit {status}` ended with exit status: {status}");
        assert_eq!(problem, expected);
        let shown = scene.bash(&format!("sandbox show {id}")).expect(0);
        assert!(shown.out().contains(&expected), "{shown}");
    }
    let entered = "grep -c '\"hook_failed\"' /var/lib/sandbox/audit.jsonl; sandbox audit verify";
    let entered = scene.bash(entered).expect(0);
    assert!(entered.out().starts_with("2\n"), "{entered}");
}
