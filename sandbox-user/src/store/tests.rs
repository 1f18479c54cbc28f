use std::fs;

use serde_json::json;

use super::*;
use crate::attribution::case::Case;

fn open(directory: &Path) -> Store {
    let opened = Store::open(directory).expect("opened");
    assert_eq!(opened.aside, None);
    opened.store
}

fn accepted(run_id: RunId, uid: u32) -> Accepted {
    Accepted {
        run_id,
        uid,
        state: RunState::Running,
        user: Some(format!("user{uid}")),
        analysis_id: Some(format!("a-{uid}")),
        labels: [("exp".to_owned(), uid.to_string())].into(),
        command: vec!["true".to_owned(), "x".repeat(5000)],
        memory_bytes: Some(2 << 30),
        cpus: Some(1.5),
        pids: None,
        spec: json!({"cwd": "/data"}),
        accepted_at: Timestamp::now(),
        boot_id: "boot".to_owned(),
    }
}

fn one(store: &Store, run_id: RunId, whose: Whose) -> Option<Run> {
    let found = store.list(whose, &Filter::of(run_id.to_string()), 9);
    found.expect("read").pop()
}

#[test]
fn a_run_is_there_from_its_acceptance_on_and_has_its_record_in_the_end() {
    let temp = tempfile::tempdir().expect("temp dir");
    let store = open(temp.path());
    let record = Case::named("exit code").exits(3).record();
    store
        .accept(&accepted(record.run_id, 1000))
        .expect("stored");
    let run = |store: &Store| one(store, record.run_id, Whose::All);
    assert_eq!(run(&store).expect("there").state, RunState::Running);
    assert_eq!(store.unfinished().expect("read").len(), 1);
    assert_eq!(store.record(record.run_id).expect("read"), None);
    let spec = store.spec(record.run_id).expect("read");
    assert_eq!(spec, Some(json!({"cwd": "/data"})));

    store.conclude(&record, 7).expect("stored");
    // It is there for whoever opens it next.
    drop(store);
    let store = open(temp.path());
    let ended = run(&store).expect("there");
    assert_eq!(ended.state, RunState::Ended);
    assert_eq!((ended.uid, ended.exit_code), (1000, Some(3)));
    assert_eq!(ended.reason.as_deref(), Some("exit_code"));
    assert_eq!(
        ended.notes.as_deref(),
        Some(record.completion_notes.as_str())
    );
    let text = store.record(record.run_id).expect("read").expect("there");
    assert_eq!(
        serde_json::from_str::<RunRecord>(&text).expect("JSON"),
        record
    );
    assert!(store.unfinished().expect("read").is_empty());
}

#[test]
fn users_see_their_own_runs_the_latest_first() {
    let temp = tempfile::tempdir().expect("temp dir");
    let store = open(temp.path());
    let ids: Vec<RunId> = (0..3).map(|_| RunId::now_v7()).collect();
    for (run_id, uid) in ids.iter().zip([1000, 1001, 1000]) {
        store.accept(&accepted(*run_id, uid)).expect("stored");
    }
    let listed = |whose, most| -> Vec<RunId> {
        let runs = store.list(whose, &Filter::default(), most).expect("read");
        runs.into_iter().map(|run| run.run_id).collect()
    };
    let [first, second, third] = [0, 1, 2].map(|index: usize| ids[index]);
    assert_eq!(listed(Whose::All, 2), [third, second]);
    assert_eq!(listed(Whose::Of(1000), 9), [third, first]);
    assert_eq!(listed(Whose::Of(1001), 9), [second]);
    assert_eq!(one(&store, ids[0], Whose::Of(1001)), None);
}

#[test]
fn a_filter_finds_what_it_asks_for() {
    let temp = tempfile::tempdir().expect("temp dir");
    let store = open(temp.path());
    let [first, second] = [RunId::now_v7(), RunId::now_v7()];
    store.accept(&accepted(first, 1000)).expect("stored");
    let mut waiting = accepted(second, 1001);
    waiting.state = RunState::Queued;
    store.accept(&waiting).expect("stored");
    store
        .lose(first, Reason::RunnerLost, "Lost: x.")
        .expect("stored");
    let filter = Filter::default;
    let later = Timestamp::now() + std::time::Duration::from_secs(60);
    let label = |value: &str| Some(("exp".to_owned(), value.to_owned()));
    for (filter, expected) in [
        (filter(), vec![second, first]),
        (Filter::of(first.to_string()), vec![first]),
        (Filter::of("a-1001"), vec![second]),
        (
            Filter {
                user: Some("user1000".to_owned()),
                ..filter()
            },
            vec![first],
        ),
        (
            Filter {
                user: Some("1001".to_owned()),
                ..filter()
            },
            vec![second],
        ),
        (
            Filter {
                label: label("1000"),
                ..filter()
            },
            vec![first],
        ),
        (
            Filter {
                label: label("1"),
                ..filter()
            },
            vec![],
        ),
        (
            Filter {
                unfinished: true,
                ..filter()
            },
            vec![second],
        ),
        (
            Filter {
                reason: Some(Reason::RunnerLost),
                ..filter()
            },
            vec![first],
        ),
        (
            Filter {
                reason: Some(Reason::Memory),
                ..filter()
            },
            vec![],
        ),
        (
            Filter {
                failed: true,
                ..filter()
            },
            vec![first],
        ),
        (
            Filter {
                since: Some(later),
                ..filter()
            },
            vec![],
        ),
        (
            Filter {
                since: Some(Timestamp::UNIX_EPOCH),
                ..filter()
            },
            vec![second, first],
        ),
    ] {
        let runs = store.list(Whose::All, &filter, 9).expect("read");
        let found: Vec<RunId> = runs.into_iter().map(|run| run.run_id).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
    store.start(second).expect("stored");
    assert_eq!(
        one(&store, second, Whose::All).map(|run| run.state),
        Some(RunState::Running)
    );
}

#[test]
fn what_is_old_or_too_much_goes_and_what_goes_on_stays() {
    let temp = tempfile::tempdir().expect("temp dir");
    let store = open(temp.path());
    let going_on = RunId::now_v7();
    store.accept(&accepted(going_on, 1000)).expect("stored");
    let mut records = Vec::new();
    for hours in [3, 2, 1] {
        let mut record = Case::named("completed").record();
        record.run_id = RunId::now_v7();
        record.ended_at = Timestamp::now() - std::time::Duration::from_secs(hours * 3600);
        records.push((
            record.run_id,
            store.conclude(&record, 7).expect("stored").len(),
        ));
    }
    assert!(store.expire(None, None).expect("nothing to do").is_empty());
    let before = Timestamp::now() - std::time::Duration::from_secs(9000);
    assert_eq!(
        store.expire(Some(before), None).expect("removed"),
        [records[0].0]
    );
    let bytes = (records[1].1 + records[2].1) as u64 + 1000;
    let most = |beside: [(RunId, u64); 2]| Most {
        bytes,
        beside: beside.into(),
    };
    // What goes on is not counted, and stays.
    let fits = most([(records[2].0, 1000), (going_on, 1 << 40)]);
    assert!(store.expire(None, Some(&fits)).expect("read").is_empty());
    let too_much = most([(records[2].0, 1000), (records[1].0, 1)]);
    assert_eq!(
        store.expire(None, Some(&too_much)).expect("removed"),
        [records[1].0]
    );
    let left = store.list(Whose::All, &Filter::default(), 9).expect("read");
    let left: Vec<RunId> = left.into_iter().map(|run| run.run_id).collect();
    assert_eq!(left, [going_on, records[2].0]);
}

#[test]
fn what_came_to_nothing_is_withdrawn_and_what_is_lost_is_said() {
    let temp = tempfile::tempdir().expect("temp dir");
    let store = open(temp.path());
    let [withdrawn, lost] = [RunId::now_v7(), RunId::now_v7()];
    for run_id in [withdrawn, lost] {
        store.accept(&accepted(run_id, 1000)).expect("stored");
    }
    store.withdraw(withdrawn).expect("stored");
    assert_eq!(one(&store, withdrawn, Whose::All), None);
    store
        .lose(lost, Reason::RunnerLost, "Lost: x.")
        .expect("stored");
    let run = one(&store, lost, Whose::All).expect("there");
    assert_eq!(run.reason.as_deref(), Some("runner_lost"));

    // One that has its record is neither withdrawn nor lost.
    let record = Case::named("completed").record();
    store.conclude(&record, 1000).expect("stored");
    store.withdraw(record.run_id).expect("nothing to do");
    store
        .lose(record.run_id, Reason::RunnerLost, "Lost: x.")
        .expect("nothing to do");
    let run = one(&store, record.run_id, Whose::All);
    assert_eq!(run.expect("there").reason.as_deref(), Some("completed"));
}

#[test]
fn a_damaged_store_is_kept_aside() {
    let temp = tempfile::tempdir().expect("temp dir");
    drop(open(temp.path()));
    let path = temp.path().join(FILE);
    let damaged = vec![b'x'; 8192];
    fs::write(&path, &damaged).expect("written");
    let Opened { store, aside } = Store::open(temp.path()).expect("opened");
    assert!(
        store
            .list(Whose::All, &Filter::default(), 9)
            .expect("read")
            .is_empty()
    );
    assert_eq!(fs::read(aside.expect("kept")).expect("read"), damaged);
}

#[test]
fn a_store_with_a_damaged_page_or_row_is_kept_aside_and_no_other_is_overwritten() {
    let temp = tempfile::tempdir().expect("temp dir");
    let path = temp.path().join(FILE);
    let mut kept = Vec::new();
    let mut damage_and_open = |damage: &dyn Fn(&Path)| {
        drop(open(temp.path()));
        damage(&path);
        let Opened { store, aside } = Store::open(temp.path()).expect("opened");
        assert!(store.unfinished().expect("read").is_empty());
        let aside = aside.expect("kept");
        assert!(aside.exists() && !kept.contains(&aside), "{aside:?}");
        kept.push(aside);
    };
    damage_and_open(&|path| {
        let mut bytes = fs::read(path).expect("read");
        // The first page has the schema: the ones behind it are tables and indices.
        bytes[4096..].fill(0xff);
        fs::write(path, bytes).expect("written");
    });
    damage_and_open(&|path| {
        let connection = Connection::open(path).expect("opened");
        let no_uuid = "INSERT INTO runs (run_id, state, uid, labels, command, accepted_at, boot_id)
                       VALUES ('not-a-uuid', 'running', 0, '{}', '[]', '2026-11-28T00:00:00Z', '')";
        connection.execute(no_uuid, []).expect("inserted");
    });
    // In the same second, too.
    for _ in 0..3 {
        damage_and_open(&|path| fs::write(path, [b'x'; 8192]).expect("written"));
    }
}

#[test]
fn a_store_of_a_later_version_is_left_alone() {
    let temp = tempfile::tempdir().expect("temp dir");
    let store = open(temp.path());
    store
        .connection
        .pragma_update(None, "user_version", 99)
        .expect("set");
    drop(store);
    let error = Store::open(temp.path()).expect_err("too new");
    assert!(
        matches!(error, StoreError::TooNew { found: 99, .. }),
        "{error}"
    );
}

#[test]
fn a_store_of_an_earlier_version_keeps_its_runs_and_learns_what_is_new() {
    let temp = tempfile::tempdir().expect("temp dir");
    let first = Connection::open(temp.path().join(FILE)).expect("opened");
    let run_id = RunId::now_v7();
    first.execute_batch(schema::MIGRATIONS[0]).expect("made");
    first
        .execute(
            "INSERT INTO runs (run_id, state, uid, labels, command, accepted_at, boot_id)
             VALUES (?1, 'running', 7, '{}', '[]', 'now', 'b')",
            params![run_id.to_string()],
        )
        .expect("stored");
    first.pragma_update(None, "user_version", 1).expect("set");
    drop(first);

    let store = open(temp.path());
    let run = |store: &Store| store.run(run_id).expect("read").expect("there");
    assert_eq!((run(&store).uid, run(&store).hook_problem), (7, None));
    for is_new in [true, false] {
        let noted = store
            .note_hook_problem(run_id, "it failed")
            .expect("stored");
        assert_eq!(noted, is_new);
    }
    let unknown = store.note_hook_problem(RunId::now_v7(), "it failed");
    assert!(!unknown.expect("stored"));
    drop(store);
    let problem = run(&open(temp.path())).hook_problem;
    assert_eq!(problem.as_deref(), Some("it failed"));
}
