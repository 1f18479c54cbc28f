use std::{
    io::{BufRead as _, BufReader, PipeReader, PipeWriter},
    os::fd::OwnedFd,
};

use jiff::Timestamp;
use serde_json::Value;

use super::*;

const CLOCK: ClockAnchor = ClockAnchor {
    monotonic_ns: 1_000,
    wall: Timestamp::UNIX_EPOCH,
};

fn throttled(periods: u64) -> What<'static> {
    What::Throttled {
        periods,
        throttled_us: 0,
    }
}

/// What comes last.
fn last(_lost: u64) -> What<'static> {
    throttled(2)
}

fn add(stream: &mut Stream, writer: PipeWriter, most_bytes: Option<u64>) {
    let file = File::from(OwnedFd::from(writer));
    stream
        .add("a pipe".to_owned(), file, most_bytes)
        .expect("a thread");
}

fn stream_to(writer: PipeWriter) -> Stream {
    let mut stream = Stream::new(CLOCK);
    add(&mut stream, writer, None);
    stream
}

fn lines_of(reader: PipeReader) -> Vec<Value> {
    BufReader::new(reader)
        .lines()
        .map(|line| serde_json::from_str(&line.expect("text")).expect("JSON"))
        .collect()
}

fn whole(finished: Vec<Finished>) {
    for Finished { name, written, .. } in finished {
        if let Err(error) = written {
            panic!("{name}: {error}");
        }
    }
}

/// Lines that `dropped` lines count.
fn dropped(lines: &[Value], place: &str) -> u64 {
    lines
        .iter()
        .filter(|line| line["type"] == "dropped" && line["where"] == place)
        .filter_map(|line| line["count"].as_u64())
        .sum()
}

#[test]
fn lines_are_numbered_dated_and_come_in_their_order() {
    let (reader, writer) = io::pipe().expect("a pipe");
    let mut stream = stream_to(writer);
    stream.write(Some(7), 1_000, &throttled(1));
    whole(stream.finish(2_000_001_000, last));
    let lines = lines_of(reader);
    assert_eq!(lines[0]["seq"], 7);
    assert_eq!(lines[0]["n"], 1);
    assert_eq!(lines[1]["n"], 2);
    assert_eq!(lines[1]["at"], "1970-01-01T00:00:02Z");
    assert_eq!(lines[1]["type"], "throttled");
    assert!(lines[1]["seq"].is_null());
}

#[test]
fn what_a_reader_did_not_take_in_time_is_counted_where_it_is_missing() {
    let (reader, writer) = io::pipe().expect("a pipe");
    let mut stream = stream_to(writer);
    // Nobody reads: the pipe fills, then the queue.
    while stream.outlets[0].lost < 3 {
        stream.write(None, 1_000, &throttled(1));
    }
    let reader = std::thread::spawn(move || lines_of(reader));
    assert_eq!(stream.outlets[0].lost, 3, "a line is lost once");
    whole(stream.finish(1_000, throttled));
    let lines = reader.join().expect("it has read");
    assert_eq!(dropped(&lines, "writer"), 3, "each of them is counted once");
    let last = lines.last().expect("there are some");
    assert_eq!(last["periods"], 3, "there is always room for it");
    assert_eq!(last["n"], lines.len() as u64 + 3);
}

#[test]
fn a_reader_that_takes_its_time_costs_another_nothing() {
    let (idle, writer) = io::pipe().expect("a pipe");
    let mut stream = stream_to(writer);
    let (reader, writer) = io::pipe().expect("a pipe");
    add(&mut stream, writer, None);
    let reader = std::thread::spawn(move || lines_of(reader));
    let mut written = 0;
    while stream.outlets[0].lost < 3 {
        stream.write(None, 1_000, &throttled(1));
        written += 1;
    }
    drop(idle);
    let finished = stream.finish(1_000, last);
    assert!(finished[0].written.is_err(), "{finished:?}");
    assert!(finished[1].written.is_ok(), "{finished:?}");
    let lines = reader.join().expect("it has read");
    let end = lines.last().expect("there are some");
    assert_eq!(
        (&end["type"], &end["periods"]),
        (&"throttled".into(), &2.into())
    );
    // It need not be as fast as they are written.
    assert_eq!(finished[1].lost, dropped(&lines, "writer"));
    assert_eq!(end["n"], lines.len() as u64 + finished[1].lost);
    assert!(end["n"].as_u64() > Some(written), "{end}");
}

#[test]
fn of_more_than_is_to_be_written_the_beginning_is_and_the_rest_is_counted() {
    const MOST: u64 = 64 << 10;
    let (reader, writer) = io::pipe().expect("a pipe");
    let mut stream = Stream::new(CLOCK);
    add(&mut stream, writer, Some(MOST));
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        io::Read::read_to_string(&mut BufReader::new(reader), &mut text).map(|_| text)
    });
    for periods in 1..=1_000 {
        stream.write(None, 1_000, &throttled(periods));
    }
    whole(stream.finish(1_000, |lost| throttled(1_001 + lost)));
    let text = reader.join().expect("it has ended").expect("it has read");
    assert!(text.len() as u64 <= MOST, "{}", text.len());
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let [beginning @ .., bound, end] = &lines[..] else {
        panic!("{text}");
    };
    let kept = beginning.len() as u64;
    assert!((200..1_000).contains(&kept), "{kept}");
    for (line, n) in beginning.iter().zip(1..) {
        assert_eq!((&line["n"], &line["periods"]), (&n.into(), &n.into()));
    }
    assert_eq!(bound["where"], "bound", "{bound}");
    assert_eq!(bound["count"], 1_000 - kept, "{bound}");
    // The numbers of those that were left out are not given again.
    assert_eq!(bound["n"], 1_001, "{bound}");
    assert_eq!(end["periods"], 1_001, "none was lost: {end}");
}

#[test]
fn lines_wait_in_bounded_memory_however_long_they_are() {
    let (_reader, writer) = io::pipe().expect("a pipe");
    let mut stream = stream_to(writer);
    let escaped = "\u{1}".repeat(512);
    let exec = What::Exec {
        task: line::Task {
            pid: 1,
            start_time: 1,
            tid: 1,
            comm: "c",
        },
        old_tid: 1,
        filename: &escaped,
        argv: Some(std::slice::from_ref(&escaped)),
        argv_cut: Some(false),
    };
    let mut written = 0;
    while stream.outlets[0].lost == 0 {
        stream.write(None, 1_000, &exec);
        written += 1;
    }
    assert!(written < 4_000, "6 KiB each, and 16 MiB are full");
}

#[test]
fn a_descriptor_that_does_not_block_is_waited_for() {
    let (reader, writer) = io::pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&writer, true).expect("a pipe can be");
    let mut stream = stream_to(writer);
    for _ in 0..10_000 {
        stream.write(None, 1_000, &throttled(1));
    }
    let reader = std::thread::spawn(move || BufReader::new(reader).lines().count());
    whole(stream.finish(1_000, last));
    assert_eq!(reader.join().expect("it has read"), 10_001);
}

#[test]
fn a_reader_that_has_gone_is_told() {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let mut stream = stream_to(writer);
    stream.write(None, 1_000, &throttled(1));
    let mut finished = stream.finish(1_000, last);
    let error = finished
        .pop()
        .expect("one outlet")
        .written
        .expect_err("nobody reads");
    assert!(error.to_string().contains("Broken pipe"), "{error}");
}
