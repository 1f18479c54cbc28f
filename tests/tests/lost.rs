//! Runs whose `sandbox` dies or stops under them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use sandbox_tests::{Guest, Record, Running, Sandbox, Scene, assert_has, has_ended, wait};
use serde_json::{Value, json};

/// What the issue promises, and what an emulated, shared processor may add to it.
const ENDED_WITHIN: Duration = Duration::from_secs(1 + 4);

#[test]
fn a_run_whose_sandbox_is_killed_is_ended_and_recorded_by_its_guardian() {
    let _guest = Guest::enter();
    for act in [&["sleep"][..], &["ignore-term"], &["spin"]] {
        let running = Sandbox::new().start_victim(act);
        let pid = running.ready();
        let leaf = running.cgroup_of(pid);
        let killed = Instant::now();
        running.signal(Signal::SIGKILL);
        wait::until("the analysis to end", || has_ended(pid));
        assert!(killed.elapsed() < ENDED_WITHIN, "{:?}", killed.elapsed());
        let outcome = running.finish();
        assert!(!leaf.exists(), "the guardian removes the leaf");
        let record = outcome.record();
        record.assert_verdict("runner_lost", "same");
        assert_has(
            record.fatal(),
            &json!({
                "signal": 9, "cause": "runner", "delivered": true,
                "victim": {"pid": pid, "is_main": true},
                "sender": {"kind": "runner", "in_run": false},
            }),
        );
        assert_has(
            record.finding("own_action"),
            &json!({"reason": "runner_lost"}),
        );
        assert_has(record.at("/exit"), &json!({"signal": 9}));
        record.assert_notes(&["Lost: sandbox died under the analysis, which was stopped after "]);
        assert!(
            outcome.stderr.contains(record.notes()),
            "{}",
            outcome.stderr
        );
    }
}

/// What is kept of runs.
const STATES: &str = "/run/sandbox/runs";

fn states() -> usize {
    fs::read_dir(STATES).map_or(0, Iterator::count)
}

#[test]
fn a_run_whose_sandbox_and_guardian_are_killed_is_finished_by_the_next() {
    let _guest = Guest::enter();
    let before = states();
    let running = Sandbox::new().start_victim(["ignore-term"]);
    let pid = running.ready();
    let leaf = running.cgroup_of(pid);
    assert_eq!(states() - before, 1);
    running.lose_everybody();
    assert!(leaf.exists() && !has_ended(pid), "nobody is left to end it");

    let next = Sandbox::new().victim(["exit", "0"]);
    let _record = next.ended(0, "completed", "none");
    assert!(has_ended(pid), "the orphan was killed");
    assert!(!leaf.exists(), "its leaf was removed");
    let name = Path::new("/sandbox/runs").join(leaf.file_name().expect("a leaf has a name"));
    let path = running.folder().join("record.json");
    let said = format!(
        "removed {}, whose record is {}: left behind",
        name.display(),
        path.display()
    );
    assert!(next.stderr.contains(&said), "{}", next.stderr);
    assert_eq!(states(), before);

    let record = running.finish().record();
    record.assert_verdict("runner_lost", "same");
    assert_has(
        record.fatal(),
        &json!({
            "signal": 9, "cause": "runner", "delivered": true,
            "victim": {"pid": pid, "is_main": true}, "sender": {"kind": "runner", "in_run": false},
        }),
    );
    assert_eq!(record.at("/cleanup/removed"), true, "{record}");
    assert_eq!(record.at("/user/name"), "ana", "{record}");
}

#[test]
fn a_run_that_ends_after_both_were_killed_is_told_as_it_ended() {
    let _guest = Guest::enter();
    let exited = json!({"code": 3, "signal": null});
    let killed = json!({"code": null, "signal": 9});
    for (act, signal, reason, hint, exit) in [
        (
            &["handle", "USR1", "3"][..],
            Signal::SIGUSR1,
            "exit_code",
            "none",
            exited,
        ),
        (&["sleep"], Signal::SIGKILL, "external_kill", "same", killed),
    ] {
        let running = Sandbox::new().start_victim(act);
        let pid = running.ready();
        let leaf = running.cgroup_of(pid);
        running.lose_everybody();
        kill(Pid::from_raw(pid), signal).expect("it is there");
        wait::until("main to end", || has_ended(pid));
        let checked = Scene::new().bash("sandbox check").expect(0);
        assert!(checked.out().contains(", whose record is "), "{checked}");
        assert!(!leaf.exists(), "its leaf was removed");
        let record = running.finish().record();
        record.assert_verdict(reason, hint);
        assert_has(record.at("/exit"), &exit);
    }
}

#[test]
fn a_run_without_anybody_left_is_finished_though_its_record_has_nowhere_to_go() {
    let _guest = Guest::enter();
    let before = states();
    let running = Sandbox::new().start_victim(["sleep"]);
    let pid = running.ready();
    let leaf = running.cgroup_of(pid);
    running.lose_everybody();
    let folder = running.folder().to_owned();
    let elsewhere = folder.with_extension("moved");
    fs::rename(&folder, &elsewhere).expect("it is ours");
    let next = Sandbox::new().victim(["exit", "0"]);
    fs::rename(&elsewhere, &folder).expect("it is ours");
    let _record = next.ended(0, "completed", "none");
    assert!(!leaf.exists() && has_ended(pid), "{}", next.stderr);
    let said = next.stderr.as_str();
    assert!(
        said.contains("record.json") && said.contains("No such file"),
        "{said}"
    );
    assert_eq!(states(), before);
    assert!(!running.finish().has_record());
}

#[test]
fn a_live_run_is_nobodys_orphan() {
    let _guest = Guest::enter();
    let running = Sandbox::new().start_victim(["handle", "USR1", "0"]);
    let pid = running.ready();
    let next = Sandbox::new().victim(["exit", "0"]);
    let _record = next.ended(0, "completed", "none");
    assert!(!next.stderr.contains("removed"), "{}", next.stderr);
    running.signal(Signal::SIGUSR1);
    assert!(pid > 0);
    let _record = running.finish().ended(0, "completed", "none");
}

#[test]
fn the_deadline_holds_while_sandbox_is_stopped() {
    let _guest = Guest::enter();
    let running = Sandbox::new()
        .options(["--timeout", "2s", "--grace", "0"])
        .start_victim(["spin"]);
    let pid = running.ready();
    running.signal(Signal::SIGSTOP);
    wait::until("the guardian to keep the deadline", || has_ended(pid));
    running.signal(Signal::SIGCONT);
    let record = running.finish().ended(137, "walltime", "more_time");
    assert_has(
        record.fatal(),
        &json!({
            "signal": 9, "cause": "runner", "delivered": true,
            "victim": {"pid": pid, "is_main": true}, "sender": {"kind": "runner"},
        }),
    );
    assert_has(record.finding("own_action"), &json!({"reason": "walltime"}));
    record.assert_notes(&["wall clock limit of 2 s (--timeout) reached"]);
}

#[test]
fn a_run_goes_on_under_its_supervisor_when_only_the_guardian_dies() {
    let _guest = Guest::enter();
    let running = Sandbox::new().start_victim(["handle", "USR1", "3"]);
    let _pid = running.ready();
    let guardian = running.guardian();
    kill(Pid::from_raw(guardian), Signal::SIGKILL).expect("it is there");
    wait::until("the guardian to end", || has_ended(guardian));
    running.signal(Signal::SIGUSR1);
    let record = running.finish().ended(3, "exit_code", "none");
    let degraded = record.at("/tracing/degraded").to_string();
    assert!(degraded.contains("the guardian died"), "{degraded}");
}

/// The lock of whoever loads the programs: while a test holds it, a run hangs in its set-up.
fn loader_lock() -> Flock<File> {
    fs::create_dir_all("/run/sandbox").expect("/run can be written to");
    let file = File::create("/run/sandbox/bpf.lock").expect("/run can be written to");
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .expect("nobody holds it for long")
}

fn leaves() -> BTreeSet<PathBuf> {
    fs::read_dir("/sys/fs/cgroup/sandbox/runs")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

#[test]
fn a_sandbox_that_is_killed_while_it_sets_up_leaves_a_record_and_nothing_else() {
    let _guest = Guest::enter();
    let before = leaves();
    let lock = loader_lock();
    let running = Sandbox::new().start_victim(["sleep"]);
    let leaf = wait::for_some("its leaf", || leaves().difference(&before).next().cloned());
    // Its mark is set right after it was made; then nothing moves but for the lock.
    let guardian = running.guardian();
    running.signal(Signal::SIGKILL);
    wait::until("the guardian to end", || has_ended(guardian));
    drop(lock);
    assert!(!leaf.exists(), "the guardian removes the leaf");
    let folder = running.folder().to_owned();
    let files: Vec<_> = fs::read_dir(&folder)
        .expect("the folder is there")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(files, ["record.json"]);
    let outcome = running.finish();
    let record = outcome.record();
    assert_eq!(record.reason(), "runner_lost", "{record}");
    // It died before it had opened the kernel side.
    assert_eq!(record.confidence(), "inferred", "{record}");
    let degraded = record.at("/tracing/degraded").to_string();
    assert!(degraded.contains("was not watching when"), "{degraded}");
    assert_eq!(record.text("/termination/retry_hint"), "same", "{record}");
    assert!(record.at("/started_at").is_null(), "{record}");
    record.assert_notes(&["Lost: sandbox died before the analysis was started."]);
    assert!(!outcome.stdout.contains("ready"), "{}", outcome.stdout);
}

/// A run that lost everybody while it was set up is told by the next one that comes, and nothing of it is left.
#[track_caller]
fn assert_lost_in_set_up(running: Running, before: (usize, &BTreeSet<PathBuf>)) {
    let checked = Scene::new().bash("sandbox check").expect(0);
    assert!(checked.out().contains(", whose record is "), "{checked}");
    assert_eq!((states(), &leaves()), before);
    let outcome = running.finish();
    let record = outcome.record();
    record.assert_reason("runner_lost", "same");
    assert!(record.at("/started_at").is_null(), "{record}");
    record.assert_notes(&["Lost: sandbox died before the analysis was started."]);
    assert!(!outcome.stdout.contains("ready"), "{}", outcome.stdout);
}

#[test]
fn a_run_that_loses_everybody_with_its_leaf_just_made_is_recorded_by_the_next() {
    let _guest = Guest::enter();
    let before = (states(), &leaves());
    for forgets_leaf in [false, true] {
        let lock = loader_lock();
        let running = Sandbox::new().start_victim(["sleep"]);
        let leaf = wait::for_some("its leaf", || leaves().difference(before.1).next().cloned());
        let name = leaf.file_name().expect("a leaf has a name");
        let path = Path::new(STATES).join(name);
        let state = wait::for_some("its leaf to be kept", || {
            let state: Value = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            (!state["docket"]["leaf"].is_null()).then_some(state)
        });
        running.lose_everybody();
        drop(lock);
        if forgets_leaf {
            // As it was right before the leaf was made.
            let mut state = state;
            state["docket"]["leaf"] = Value::Null;
            fs::write(&path, state.to_string()).expect("it is root's");
        }
        assert_lost_in_set_up(running, before);
    }
}

#[test]
fn a_run_that_loses_everybody_before_it_has_a_leaf_is_recorded_by_the_next() {
    let _guest = Guest::enter();
    let _made = Sandbox::new().victim(["exit", "0"]);
    let before = (states(), &leaves());
    // What is kept of runs is looked through before a leaf is made, and here that takes for ever.
    let trap = Path::new(STATES).join("00000000-0000-7000-8000-000000000000");
    mkfifo(&trap, Mode::S_IRUSR).expect("root makes it");
    let running = Sandbox::new().start_victim(["sleep"]);
    // Until then it has a name that begins with a dot.
    wait::until("it to be kept", || {
        let names = fs::read_dir(STATES).expect("it is there").flatten();
        let whole = names.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
        whole.count() == before.0 + 2
    });
    let children = format!("/proc/{0}/task/{0}/children", running.pid());
    let guardian = wait::for_some("the guardian", || {
        let children = fs::read_to_string(&children).ok()?;
        children.split_whitespace().next()?.parse().ok()
    });
    running.lose_with_guardian(guardian);
    fs::remove_file(&trap).expect("it is ours");
    assert_lost_in_set_up(running, before);
}

#[test]
fn a_record_on_a_descriptor_is_written_by_the_guardian_once() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    let said = scene.bash(
        "sandbox run --user ana --notes never --record fd:9 -- sh -c 'echo up >up; exec sleep 100' 9>record.json & \
         until [ -s up ]; do sleep 0.05; done; kill -9 $!; \
         until [ -s record.json ]; do sleep 0.05; done; wait $!; echo $?",
    );
    assert_eq!(said.out(), "137", "{said}");
    let record = wait::for_some("the whole record", || {
        let text = scene.read("record.json");
        text.ends_with("}\n").then(|| Record::parse(&text))
    });
    assert_eq!(record.reason(), "runner_lost", "{record}");
}

#[test]
fn a_sandbox_that_is_killed_with_its_guardians_word_unread_is_missed_all_the_same() {
    let _guest = Guest::enter();
    let running = Sandbox::new()
        .options(["--timeout", "8s", "--grace", "0"])
        .start_victim(["spin"]);
    let pid = running.ready();
    let guardian = running.guardian();
    running.signal(Signal::SIGSTOP);
    assert!(!has_ended(pid), "its supervisor was quicker");
    // It tells its supervisor, which does not read that any more: the connection is reset.
    wait::until("the guardian to keep the deadline", || has_ended(pid));
    running.signal(Signal::SIGKILL);
    wait::until("the guardian to end", || has_ended(guardian));
    let outcome = running.finish();
    let record = outcome.record();
    record.assert_verdict("walltime", "more_time");
}
