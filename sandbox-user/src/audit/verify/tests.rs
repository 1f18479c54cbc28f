use std::{
    fs::{self, File},
    io::{BufReader, Write as _},
};

use super::*;
use crate::audit::{
    chain::Chain,
    tests::{Memory, event, verified},
};

/// The lines of a log with so many entries, and its head.
fn log(entries: usize) -> (Vec<String>, Head) {
    let mut memory = Memory::default();
    let mut chain = Chain::behind(&mut memory, None);
    for kind in [0, 1, 2].into_iter().cycle().take(entries) {
        chain
            .append(&event(kind), Timestamp::UNIX_EPOCH)
            .expect("appended");
    }
    let head = chain.head().expect("an entry");
    let text = String::from_utf8(memory.bytes).expect("text");
    (
        text.split_inclusive('\n').map(str::to_owned).collect(),
        head,
    )
}

/// What is found in lines.
fn findings(lines: &[String], heads: &[Head]) -> Vec<Finding> {
    verified(lines.concat().as_bytes(), heads).findings
}

#[test]
fn a_changed_entry_shows_in_the_one_behind_it() {
    let (mut lines, head) = log(6);
    lines[2] = lines[2].replace("\"uid\":0", "\"uid\":7");
    assert_eq!(
        findings(&lines, &[head]),
        [Finding::Changed { line: 4, seq: 4 }]
    );
    // What is no entry any more stands for the one that it was.
    lines[2] = "{\n".to_owned();
    let why = "it is no JSON".to_owned();
    let no_entry = |line, seq, why| Finding::NoEntry { line, seq, why };
    assert_eq!(findings(&lines, &[head]), [no_entry(3, 3, why.clone())]);
    lines.insert(5, "x\n".to_owned());
    let found = findings(&lines, &[head]);
    assert_eq!(found, [no_entry(3, 3, why.clone()), no_entry(6, 6, why)]);
    lines[2] = "{}\n".to_owned();
    lines[5] = "x".repeat(MAX_LINE_BYTES) + "\n";
    let found = findings(&lines, &[head]);
    let [kind, long] = ["JSON of another kind", "it is longer than 65536 bytes"];
    let expected = [
        no_entry(3, 3, kind.to_owned()),
        no_entry(6, 6, long.to_owned()),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_changed_number_is_told_from_a_missing_entry() {
    let (mut lines, head) = log(6);
    lines[2] = lines[2].replace("\"seq\":3,", "\"seq\":9,");
    let renumbered = Finding::Renumbered {
        line: 3,
        seq: 3,
        found: 9,
    };
    let behind = Finding::Changed { line: 4, seq: 4 };
    assert_eq!(findings(&lines, &[head]), [renumbered, behind]);
}

#[test]
fn missing_entries_are_named() {
    let missing = |line, first, last| Finding::Missing { line, first, last };
    let (lines, head) = log(6);
    let without = |range: std::ops::Range<usize>| {
        let mut lines = lines.clone();
        lines.drain(range);
        lines
    };
    assert_eq!(findings(&without(2..3), &[head]), [missing(3, 3, 3)]);
    assert_eq!(findings(&without(1..4), &[head]), [missing(2, 2, 4)]);
    assert_eq!(findings(&without(0..2), &[head]), [missing(1, 1, 2)]);
    // With what is behind it numbered anew, the links are wrong.
    let mut renumbered = without(2..3);
    for (line, seq) in renumbered.iter_mut().zip(1..) {
        *line = line.replace(&format!("\"seq\":{},", seq + 1), &format!("\"seq\":{seq},"));
    }
    let found = findings(&renumbered, &[]);
    assert!(
        found.contains(&Finding::Changed { line: 3, seq: 3 }),
        "{found:?}"
    );
}

#[test]
fn entries_that_were_moved_or_repeated_are_no_missing_ones() {
    let (lines, head) = log(7);
    let reordered = |line, seq, behind| Finding::Reordered { line, seq, behind };
    let mut swapped = lines.clone();
    swapped.swap(2, 3);
    assert_eq!(findings(&swapped, &[head]), [reordered(4, 3, 4)]);
    let mut moved = lines.clone();
    let line = moved.remove(1);
    moved.insert(4, line);
    assert_eq!(findings(&moved, &[head]), [reordered(5, 2, 5)]);
    let mut repeated = lines.clone();
    repeated.insert(3, lines[2].clone());
    assert_eq!(
        findings(&repeated, &[head]),
        [Finding::Repeated { line: 4, seq: 3 }]
    );
    // Of three that were left out one comes later.
    let mut some = lines.clone();
    some.drain(1..4);
    some.push(lines[2].clone());
    let missing = |first| Finding::Missing {
        line: 2,
        first,
        last: first,
    };
    let expected = [missing(2), missing(4), reordered(5, 3, 7)];
    assert_eq!(findings(&some, &[head]), expected);
}

#[test]
fn what_became_of_the_end_only_the_head_tells() {
    let (lines, head) = log(5);
    let cut = |line, first| Finding::Cut {
        line,
        first,
        last: 5,
        witness: Witness::Journal,
    };
    assert_eq!(findings(&lines[..3], &[]), []);
    assert_eq!(findings(&lines[..3], &[head]), [cut(4, 4)]);
    assert_eq!(findings(&lines[..4], &[head]), [cut(5, 5)]);
    assert_eq!(findings(&[], &[head]), [cut(1, 1)]);
    let mut changed = lines.clone();
    changed[4] = changed[4].replace("kill", "gill");
    assert_eq!(findings(&changed, &[]), []);
    let found = findings(&changed, &[head]);
    assert!(
        matches!(found[..], [Finding::OtherHash { line: 5, seq: 5, known, .. }] if known == head.hash),
        "{found:?}"
    );
    let mut torn = lines.clone();
    torn[4].truncate(40);
    let unterminated = Finding::Unterminated { line: 5, seq: 5 };
    assert_eq!(findings(&torn, &[]), std::slice::from_ref(&unterminated));
    assert_eq!(findings(&torn, &[head]), [unterminated]);
}

#[test]
fn a_log_that_was_begun_anew_is_told_by_heads_of_the_old_one() {
    let (_, old) = log(5);
    let mut memory = Memory::default();
    let mut chain = Chain::behind(&mut memory, None);
    let anew = chain.append(&event(2), Timestamp::UNIX_EPOCH);
    let anew = anew.expect("appended");
    let first_of_old = Head { seq: 1, ..old };
    let found = verified(&memory.bytes, &[first_of_old, old, anew]).findings;
    let [
        Finding::OtherHash { seq: 1, .. },
        Finding::Cut {
            first: 2, last: 5, ..
        },
    ] = &found[..]
    else {
        panic!("{found:?}");
    };
}

#[test]
fn of_many_findings_the_first_are_told_and_the_rest_counted() {
    let report = verified("x\n".repeat(150).as_bytes(), &[]);
    assert_eq!((report.findings.len(), report.further), (100, 50));
    // Each second entry is missing.
    let (lines, _) = log(301);
    let some: Vec<String> = lines.into_iter().step_by(2).collect();
    let report = verified(some.concat().as_bytes(), &[]);
    assert_eq!((report.findings.len(), report.further), (100, 50));
}

#[test]
fn a_line_that_is_being_written_is_waited_for() {
    let temp = tempfile::tempdir().expect("temp dir");
    let path = temp.path().join("log");
    let (lines, head) = log(2);
    let (begun, rest) = lines[1].split_at(50);
    fs::write(&path, format!("{}{begun}", lines[0])).expect("written");
    let reader = BufReader::new(File::open(&path).expect("opened"));
    let known = vec![Known {
        head,
        witness: Witness::Journal,
    }];
    let verifying = std::thread::spawn(move || verify(reader, known, Duration::from_secs(60)));
    let mut file = File::options().append(true).open(&path).expect("opened");
    file.write_all(rest.as_bytes()).expect("written");
    let report = verifying.join().expect("no panic").expect("read");
    assert_eq!((report.entries, &report.findings[..]), (2, &[][..]));
}

#[test]
fn every_finding_says_what_was_done_to_which_entry() {
    let line = 7;
    let [found, known] = [Hash::ZERO, Hash::of(b"abc")];
    let findings = [
        Finding::NoEntry {
            line,
            seq: 7,
            why: "it is no JSON".to_owned(),
        },
        Finding::Changed { line, seq: 7 },
        Finding::Changed { line: 1, seq: 1 },
        Finding::Renumbered {
            line,
            seq: 7,
            found: 9,
        },
        Finding::Missing {
            line,
            first: 7,
            last: 8,
        },
        Finding::Reordered {
            line,
            seq: 7,
            behind: 9,
        },
        Finding::Repeated { line, seq: 7 },
        Finding::OtherHash {
            line,
            seq: 7,
            found,
            known,
            witness: Witness::CommandLine,
        },
        Finding::Unterminated { line, seq: 7 },
        Finding::Cut {
            line,
            first: 7,
            last: 7,
            witness: Witness::Journal,
        },
    ];
    let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(told.join("\n"));
}
