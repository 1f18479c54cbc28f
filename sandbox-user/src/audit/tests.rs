use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    time::Duration,
};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{
    chain::{AppendError, Chain, Sink},
    finding::{Finding, Witness},
    verify::{Known, Report, verify},
    *,
};
use crate::{attribution::case::Case, record::RunRecord, spec::RunId};

/// A file in memory, which fails once where it is told to.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) bytes: Vec<u8>,
    /// So much of the next line finds room.
    room: Option<usize>,
    /// What the next cuts come to.
    cuts_fail: u32,
    sync_fails: bool,
}

impl Sink for &mut Memory {
    fn length(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.room.take() {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            room => {
                let written = room.unwrap_or(line.len());
                self.bytes.extend_from_slice(&line[..written]);
                Ok(written)
            }
        }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        if self.cuts_fail > 0 {
            self.cuts_fail -= 1;
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.bytes.truncate(usize::try_from(length).expect("fits"));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.sync_fails) {
            true => Err(io::ErrorKind::Other.into()),
            false => Ok(()),
        }
    }
}

/// One that is small and always the same.
pub(super) fn event(kind: u8) -> Event {
    let run_id = RunId::from_u128(0x0195_0000_0000_7000_8000_0000_0000_0001);
    match kind {
        0 => Event::Accepted {
            run_id,
            uid: 1000,
            pid: 4711,
            user: None,
            command: Words::from(["python3", "a.py"].map(str::to_owned).as_slice()),
            config_sha256: Some(Hash::of(b"")),
        },
        1 => Event::Refused {
            uid: 1001,
            pid: 4712,
            what: Excerpt::from("kill"),
            reason: Excerpt::from("it is somebody else's"),
        },
        _ => Event::Ordered {
            uid: 0,
            pid: 4713,
            run_id,
            order: Order::Kill,
            detail: None,
        },
    }
}

/// What is found to be of a log, with heads that the journal knows.
pub(super) fn verified(log: &[u8], heads: &[Head]) -> Report {
    let known = heads.iter().map(|head| Known {
        head: *head,
        witness: Witness::Journal,
    });
    verify(log, known.collect(), Duration::ZERO).expect("memory is read")
}

fn open(directory: &Path) -> AuditLog {
    let opened = AuditLog::open(directory).expect("opened");
    assert_eq!((opened.torn, opened.damaged), (None, None));
    opened.log
}

#[test]
fn each_entry_reads_like_this() {
    let record: RunRecord = Case::named("exits").exits(3).record();
    let run_id = record.run_id;
    let started = Event::ServiceStarted {
        version: Excerpt::from("0.1.0"),
        boot_id: Excerpt::from("b"),
        config_sha256: None,
    };
    let rest = [
        Event::ConfigLoaded {
            config_sha256: Some(Hash::of(b"")),
        },
        Event::Withdrawn {
            run_id,
            reason: Excerpt::from("r"),
        },
        Event::ended(&record, b"{}"),
        Event::Lost {
            run_id,
            notes: Excerpt::from("Lost: x."),
        },
        Event::HookFailed {
            run_id,
            problem: Excerpt::from("--on-complete: `tell` ended with exit status: 3"),
        },
        Event::Declined {
            uid: 0,
            pid: 4713,
            run_id,
            order: Order::Freeze,
            detail: None,
            reason: Excerpt::from("it is being ended"),
        },
        Event::Damaged {
            bytes: 3,
            sha256: Hash::of(b"abc"),
            kept_in: Excerpt::from("audit.jsonl.damaged-1"),
        },
        Event::Torn {
            bytes: 3,
            sha256: Hash::of(b"abc"),
            kept_in: Excerpt::from("audit.torn-9"),
        },
    ];
    let mut memory = Memory::default();
    let mut chain = Chain::behind(&mut memory, None);
    for event in [started]
        .into_iter()
        .chain([0, 1, 2].map(event))
        .chain(rest)
    {
        chain
            .append(&event, Timestamp::UNIX_EPOCH)
            .expect("appended");
    }
    let text = String::from_utf8(memory.bytes).expect("text");
    for (line, seq) in text.lines().zip(1..) {
        let entry: Entry = serde_json::from_str(line).expect("an entry");
        assert_eq!(entry.seq, seq);
        assert_eq!(serde_json::to_string(&entry).expect("JSON"), line);
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_text_is_cut_between_characters() {
    let long = "é".repeat(600);
    let json = serde_json::to_string(&Excerpt::from(long.as_str())).expect("JSON");
    assert_eq!(json, format!("\"{}…\"", "é".repeat(512)));
}

#[test]
fn what_could_not_be_written_is_not_there_and_the_next_one_follows() {
    for (room, cuts_fail) in [(0, 0), (0, 2), (9, 0), (9, 1), (9, 2)] {
        let mut memory = Memory::default();
        let mut chain = Chain::behind(&mut memory, None);
        let at = Timestamp::UNIX_EPOCH;
        let first = chain.append(&event(0), at).expect("appended");
        let mut faulty = Memory {
            bytes: memory.bytes,
            room: Some(room),
            cuts_fail,
            sync_fails: false,
        };
        let mut chain = Chain::behind(&mut faulty, Some(first));
        let error = chain.append(&event(1), at).expect_err("no room");
        assert!(matches!(error, AppendError::Write(_)), "{error}");
        assert_eq!(chain.head(), Some(first));
        if cuts_fail == 2 {
            let error = chain.append(&event(1), at).expect_err("still torn");
            assert!(matches!(error, AppendError::Write(_)), "{error}");
        }
        let head = chain.append(&event(2), at).expect("there is room");
        assert_eq!(head.seq, 2);
        let report = verified(&faulty.bytes, &[first, head]);
        assert_eq!((report.entries, &report.findings[..]), (2, &[][..]));
    }
}

#[test]
fn an_entry_that_may_not_last_is_there_all_the_same() {
    let mut memory = Memory {
        sync_fails: true,
        ..Memory::default()
    };
    let mut chain = Chain::behind(&mut memory, None);
    let error = chain.append(&event(0), Timestamp::UNIX_EPOCH);
    assert!(matches!(error, Err(AppendError::Sync(_))), "{error:?}");
    let head = chain.append(&event(1), Timestamp::UNIX_EPOCH);
    let head = head.expect("appended");
    assert_eq!(head.seq, 2);
    assert_eq!(verified(&memory.bytes, &[head]).findings, []);
}

#[test]
fn a_log_is_gone_on_with_by_whoever_opens_it_next() {
    let temp = tempfile::tempdir().expect("temp dir");
    let path = temp.path().join(FILE);
    let mut heads = Vec::new();
    for _ in 0..3 {
        let mut log = open(temp.path());
        assert_eq!(log.head(), heads.last().copied());
        // Together more than is read of its end at a time.
        for kind in [0, 1, 2].repeat(20) {
            heads.push(log.append(&event(kind)).expect("appended"));
        }
    }
    assert!(fs::metadata(&path).expect("there").len() > 2 * tail::PART_BYTES);
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let report = verified(&fs::read(&path).expect("read"), &heads);
    assert_eq!((report.entries, &report.findings[..]), (180, &[][..]));
    assert_eq!(report.head, heads.last().copied());
}

#[test]
fn a_log_has_one_writer() {
    let temp = tempfile::tempdir().expect("temp dir");
    let first = open(temp.path());
    let error = AuditLog::open(temp.path()).expect_err("held");
    assert!(matches!(error, AuditError::Held { .. }), "{error}");
    drop(first);
    open(temp.path());
}

#[test]
fn what_is_not_its_owners_alone_is_not_written_to() {
    let temp = tempfile::tempdir().expect("temp dir");
    let path = temp.path().join(FILE);
    let refused = || AuditLog::open(temp.path()).expect_err("refused");
    symlink(temp.path().join("elsewhere"), &path).expect("made");
    assert!(matches!(refused(), AuditError::File { .. }));
    fs::remove_file(&path).expect("removed");
    drop(open(temp.path()));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).expect("set");
    assert!(matches!(refused(), AuditError::NotOwn { .. }));
    fs::remove_file(&path).expect("removed");
    nix::unistd::mkfifo(
        &path,
        nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR,
    )
    .expect("made");
    assert!(matches!(refused(), AuditError::NotOwn { .. }));
}

#[test]
fn a_log_that_is_damaged_is_kept_and_another_begins_by_saying_so() {
    let entry = "{\"seq\":1,\"at\":\"";
    for garbage in [
        "\n".to_owned(),
        "{}\n".to_owned(),
        "x".repeat(100_000) + "\n",
        // Without an end, as a torn line is.
        "x".repeat(5000),
        "\0".repeat(200_000),
        entry.replace('1', "2"),
        format!("{entry}{}", "x".repeat(100_000)),
    ] {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join(FILE);
        drop(open(temp.path()));
        fs::write(&path, &garbage).expect("written");
        let line = verified(garbage.as_bytes(), &[]).findings;
        assert!(matches!(line[..], [Finding::NoEntry { .. }]), "{line:?}");
        let opened = AuditLog::open(temp.path()).expect("opened");
        let kept = opened.damaged.expect("kept");
        assert_eq!(fs::read_to_string(&kept).expect("read"), garbage);
        drop(opened.log);
        let head = open(temp.path()).append(&event(2)).expect("appended");
        assert_eq!(head.seq, 2);
        let log = fs::read_to_string(&path).expect("read");
        let name = kept.file_name().expect("a name").to_string_lossy();
        let first: Entry = serde_json::from_str(log.lines().next().expect("a line")).expect("it");
        let told = Event::Damaged {
            bytes: garbage.len() as u64,
            sha256: Hash::of(garbage.as_bytes()),
            kept_in: Excerpt::from(&*name),
        };
        assert_eq!((first.seq, first.event), (1, told));
        let begun_anew = Finding::Damaged {
            line: 1,
            seq: 1,
            kept_in: name.into_owned(),
        };
        assert_eq!(verified(log.as_bytes(), &[head]).findings, [begun_anew]);
    }
}

#[test]
fn a_log_that_is_taken_away_under_its_writer_is_kept_and_the_next_entry_is_not_lost() {
    for another in [None, Some("garbage\n")] {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join(FILE);
        let mut log = open(temp.path());
        let _ = log.append(&event(1)).expect("appended");
        assert!(log.is_in_place());
        let before = fs::read_to_string(&path).expect("read");
        fs::remove_file(&path).expect("ours");
        if let Some(text) = another {
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        }
        assert!(!log.is_in_place());
        let kept = log.begin_anew().expect("begun");
        assert_eq!(fs::read_to_string(&kept).expect("kept"), before);
        let head = log.append(&event(2)).expect("appended");
        assert!(log.is_in_place());
        let text = fs::read_to_string(&path).expect("read");
        let name = kept.file_name().expect("a name").to_string_lossy();
        let findings = verified(text.as_bytes(), &[head]).findings;
        let says_so = |finding: &Finding| matches!(finding, Finding::Damaged { kept_in, .. } if *kept_in == name);
        assert!(findings.iter().any(says_so), "{findings:?}");
    }
}

#[test]
fn logs_that_are_damaged_one_after_another_are_all_kept_also_where_that_was_cut_short() {
    let temp = tempfile::tempdir().expect("temp dir");
    let path = temp.path().join(FILE);
    let mut kept = Vec::new();
    for garbage in ["one", "two", "three"] {
        fs::write(&path, garbage).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        let opened = AuditLog::open(temp.path()).expect("opened");
        kept.push((opened.damaged.expect("kept"), garbage));
        // It was put aside, and the power went before the new one said so.
        fs::remove_file(&path).expect("ours");
        let again = AuditLog::open(temp.path()).expect("opened");
        assert_eq!(again.damaged.as_ref(), kept.last().map(|(path, _)| path));
    }
    for (path, garbage) in kept {
        assert_eq!(fs::read_to_string(path).expect("read"), garbage);
    }
}

#[test]
fn a_torn_line_is_kept_beside_the_log_which_tells_of_it() {
    // Short, longer than what is read at a time, and with blocks that did not get to the disk.
    for torn in [
        "{\"seq\":3,\"a".to_owned(),
        format!("{{\"seq\":3,\"at\":\"{}", "x".repeat(20_000)),
        "\0".repeat(60_000),
        "\0".repeat(8000) + "x",
    ] {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join(FILE);
        let mut log = open(temp.path());
        log.append(&event(0)).expect("appended");
        let before = log.append(&event(1)).expect("appended");
        drop(log);
        let mut file = File::options().append(true).open(&path).expect("opened");
        file.write_all(torn.as_bytes()).expect("written");

        let opened = AuditLog::open(temp.path()).expect("opened");
        let kept = opened.torn.expect("kept");
        assert_eq!(kept, temp.path().join("audit.torn-3"));
        assert_eq!(fs::read_to_string(&kept).expect("read"), torn);
        drop(opened.log);
        let text = fs::read_to_string(&path).expect("read");
        let last: Entry =
            serde_json::from_str(text.lines().last().expect("a line")).expect("entry");
        let told = Event::Torn {
            bytes: torn.len() as u64,
            sha256: Hash::from(Sha256::new_with_prefix(&torn)),
            kept_in: Excerpt::from("audit.torn-3"),
        };
        assert_eq!((last.seq, last.prev, last.event), (3, before.hash, told));
        assert_eq!(verified(text.as_bytes(), &[before]).findings, []);
        // Once is enough.
        let head = open(temp.path()).append(&event(2)).expect("appended");
        assert_eq!(head.seq, 4);
    }
}

#[test]
fn a_crash_while_a_torn_line_is_put_aside_loses_nothing() {
    let temp = tempfile::tempdir().expect("temp dir");
    let path = temp.path().join(FILE);
    open(temp.path()).append(&event(0)).expect("appended");
    let kept = temp.path().join("audit.torn-2");
    // It had been cut off, but was not told of.
    fs::write(&kept, "{\"seq\":2").expect("written");
    // And what told of it was torn as well.
    let mut file = File::options().append(true).open(&path).expect("opened");
    file.write_all(b"{\"se").expect("written");
    let opened = AuditLog::open(temp.path()).expect("opened");
    assert_eq!(opened.torn.as_deref(), Some(&*kept));
    assert_eq!(fs::read_to_string(&kept).expect("read"), "{\"seq\":2{\"se");
    let head = opened.log.head().expect("an entry");
    let log = fs::read(&path).expect("read");
    let report = verified(&log, &[head]);
    assert_eq!((report.entries, &report.findings[..]), (2, &[][..]));
}
