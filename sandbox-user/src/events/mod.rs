//! The event stream (`--events`): what happened in a run, as it happens, one JSON object a line.
//!
//! [`line`] is its schema, with a version; [`Writer`] a thread of its own, so that a reader who takes
//! his time never holds up a deadline. What the kernel side had no room for, and what the writer had
//! none for, is counted in a `dropped` line where it is missing. The record does not rest on it.

pub mod line;
mod writer;

use crate::evidence::ClockAnchor;

use line::{DroppedAt, Line, What};
pub use writer::WriterError;
use writer::{Sent, Writer};

/// A stream that is being written.
#[derive(Debug)]
pub struct Stream {
    writer: Writer,
    clock: ClockAnchor,
    /// The number of the last line.
    n: u64,
    /// Lines that the writer had no room for since the last one that it had.
    untold: u64,
    /// Such lines in all.
    lost: u64,
}

impl Stream {
    /// Begins to write into an open file.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub fn begin(file: std::fs::File, clock: ClockAnchor) -> std::io::Result<Self> {
        Ok(Self {
            writer: Writer::start(file)?,
            clock,
            n: 0,
            untold: 0,
            lost: 0,
        })
    }

    /// Writes a line; `seq` is the kernel side's number, where the line is an event of its own.
    pub fn write(&mut self, seq: Option<u64>, mono_ns: u64, what: &What<'_>) {
        let told = match self.untold {
            0 => Sent::Queued,
            _ => self.send(None, mono_ns, &self.dropped()),
        };
        if told == Sent::Queued {
            self.untold = 0;
            if self.send(seq, mono_ns, what) == Sent::Queued {
                return;
            }
        }
        // Its number is not given again.
        self.n += 1;
        self.untold += 1;
        self.lost += 1;
    }

    fn send(&mut self, seq: Option<u64>, mono_ns: u64, what: &What<'_>) -> Sent {
        let sent = self.writer.send(self.text(self.n + 1, seq, mono_ns, what));
        if sent == Sent::Queued {
            self.n += 1;
        }
        sent
    }

    /// The lines that the writer had no room for since the last one that it had.
    const fn dropped(&self) -> What<'static> {
        What::Dropped {
            place: DroppedAt::Writer,
            count: self.untold,
            from_seq: None,
            to_seq: None,
        }
    }

    fn text(&self, n: u64, seq: Option<u64>, mono_ns: u64, what: &What<'_>) -> String {
        let line = Line {
            n,
            seq,
            at: self.clock.date(mono_ns),
            mono_ns,
            what,
        };
        // Strings, numbers and lists of them all serialise.
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Lines that were lost for want of a reader.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Writes the last line, for which there is always room, and waits, not for ever, until all of it is
    /// written.
    ///
    /// # Errors
    /// Where it could not be.
    pub fn finish(self, mono_ns: u64, what: &What<'_>) -> Result<(), WriterError> {
        let mut rest = String::new();
        let mut n = self.n + 1;
        if self.untold > 0 {
            rest += &self.text(n, None, mono_ns, &self.dropped());
            n += 1;
        }
        rest += &self.text(n, None, mono_ns, what);
        self.writer.finish(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

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

    #[test]
    fn lines_are_numbered_dated_and_come_in_their_order() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let file = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
        let mut stream = Stream::begin(file, CLOCK).expect("a thread");
        stream.write(Some(7), 1_000, &throttled(1));
        stream
            .finish(2_000_001_000, &throttled(2))
            .expect("all of it is read");
        let lines: Vec<Value> = BufReader::new(reader)
            .lines()
            .map(|line| serde_json::from_str(&line.expect("text")).expect("JSON"))
            .collect();
        assert_eq!(lines[0]["seq"], 7);
        assert_eq!(lines[0]["n"], 1);
        assert_eq!(lines[1]["n"], 2);
        assert_eq!(lines[1]["at"], "1970-01-01T00:00:02Z");
        assert_eq!(lines[1]["type"], "throttled");
        assert!(lines[1]["seq"].is_null());
    }

    #[test]
    fn what_a_reader_did_not_take_in_time_is_counted_where_it_is_missing() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let file = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
        let mut stream = Stream::begin(file, CLOCK).expect("a thread");
        // Nobody reads: the pipe fills, then the queue.
        while stream.lost() < 3 {
            stream.write(None, 1_000, &throttled(1));
        }
        let reader = std::thread::spawn(move || {
            BufReader::new(reader)
                .lines()
                .map(|line| serde_json::from_str(&line.expect("text")).expect("JSON"))
                .collect::<Vec<Value>>()
        });
        assert_eq!(stream.lost(), 3, "a line is lost once");
        stream
            .finish(1_000, &throttled(2))
            .expect("all of it is read");
        let lost = 3;
        let lines = reader.join().expect("it has read");
        let dropped: u64 = lines
            .iter()
            .filter(|line| line["type"] == "dropped")
            .filter_map(|line| line["count"].as_u64())
            .sum();
        assert_eq!(dropped, lost, "each of them is counted once");
        let last = lines.last().expect("there are some");
        assert_eq!(last["periods"], 2, "there is always room for it");
        assert_eq!(last["n"], lines.len() as u64 + lost);
    }

    #[test]
    fn lines_wait_in_bounded_memory_however_long_they_are() {
        let (_reader, writer) = std::io::pipe().expect("a pipe");
        let file = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
        let mut stream = Stream::begin(file, CLOCK).expect("a thread");
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
        while stream.lost() == 0 {
            stream.write(None, 1_000, &exec);
        }
        assert!(stream.n < 4_000, "6 KiB each, and 16 MiB are full");
    }

    #[test]
    fn a_descriptor_that_does_not_block_is_waited_for() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        rustix::io::ioctl_fionbio(&writer, true).expect("a pipe can be");
        let file = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
        let mut stream = Stream::begin(file, CLOCK).expect("a thread");
        for _ in 0..10_000 {
            stream.write(None, 1_000, &throttled(1));
        }
        let reader = std::thread::spawn(move || BufReader::new(reader).lines().count());
        stream
            .finish(1_000, &throttled(1))
            .expect("all of it is read");
        assert_eq!(reader.join().expect("it has read"), 10_001);
    }

    #[test]
    fn a_reader_that_has_gone_is_told() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let file = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
        let mut stream = Stream::begin(file, CLOCK).expect("a thread");
        stream.write(None, 1_000, &throttled(1));
        let error = stream
            .finish(1_000, &throttled(2))
            .expect_err("nobody reads");
        assert!(error.to_string().contains("Broken pipe"), "{error}");
    }
}
