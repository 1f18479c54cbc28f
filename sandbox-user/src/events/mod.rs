//! The event stream (`--events`): what happened in a run, as it happens, one JSON object a line.
//!
//! [`line`] is its schema, with a version. Each outlet has a thread of its own that writes, so that a reader
//! who takes his time holds up neither a deadline nor another reader. What the kernel side had no room for, and
//! what a writer had none for, is counted in a `dropped` line where it is missing. The record does not rest on
//! it.

pub mod kept;
pub mod line;
mod outlet;
mod writer;

use std::{fs::File, io, time::Instant};

use crate::evidence::ClockAnchor;

use line::{DroppedAt, Line, Unnumbered, What};
use outlet::Outlet;
pub use writer::WriterError;

/// A stream that is being written, each line to all its outlets.
#[derive(Debug)]
pub struct Stream {
    clock: ClockAnchor,
    outlets: Vec<Outlet>,
}

/// What became of one outlet of a stream.
#[derive(Debug)]
pub struct Finished {
    /// As it was named.
    pub name: String,
    /// Lines that were lost for want of a reader.
    pub lost: u64,
    /// Whether the rest was written.
    pub written: Result<(), WriterError>,
}

impl Stream {
    /// One that goes nowhere yet.
    pub const fn new(clock: ClockAnchor) -> Self {
        Self {
            clock,
            outlets: Vec::new(),
        }
    }

    /// Has it written into an open file, too: so many bytes at most, of which the last line says how many lines
    /// were left out.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub fn add(&mut self, name: String, file: File, most_bytes: Option<u64>) -> io::Result<()> {
        self.outlets.push(Outlet::begin(name, file, most_bytes)?);
        Ok(())
    }

    /// Whether it goes nowhere.
    pub const fn is_unheard(&self) -> bool {
        self.outlets.is_empty()
    }

    /// Writes a line; `seq` is the kernel side's number, where the line is an event of its own.
    pub fn write(&mut self, seq: Option<u64>, mono_ns: u64, what: &What<'_>) {
        let clock = self.clock;
        let line = encode(clock, seq, mono_ns, what);
        for outlet in &mut self.outlets {
            outlet.write(&line, |place, count| missing(clock, mono_ns, place, count));
        }
    }

    /// Writes the last line, for which there is always room, and waits, not for ever, until all of it is
    /// written. `end` makes it of the number of lines that an outlet has lost.
    pub fn finish<'a>(self, mono_ns: u64, end: impl Fn(u64) -> What<'a>) -> Vec<Finished> {
        let Self { clock, outlets } = self;
        let finishing = outlets.into_iter().map(|mut outlet| {
            let (name, lost) = (std::mem::take(&mut outlet.name), outlet.lost);
            let end = encode(clock, None, mono_ns, &end(lost));
            let rest = outlet.finish(&end, |place, count| missing(clock, mono_ns, place, count));
            (name, lost, rest)
        });
        // Before any is waited for, all have it.
        let finishing: Vec<_> = finishing.collect();
        let until = Instant::now() + crate::outlet::WITHIN;
        finishing
            .into_iter()
            .map(|(name, lost, rest)| Finished {
                name,
                lost,
                written: rest.wait(until),
            })
            .collect()
    }
}

fn encode(clock: ClockAnchor, seq: Option<u64>, mono_ns: u64, what: &What<'_>) -> Unnumbered {
    let line = Line {
        seq,
        at: clock.date(mono_ns),
        mono_ns,
        what,
    };
    line.encode()
}

/// The line in the place of so many others.
fn missing(clock: ClockAnchor, mono_ns: u64, place: DroppedAt, count: u64) -> Unnumbered {
    let what = What::Dropped {
        place,
        count,
        from_seq: None,
        to_seq: None,
    };
    encode(clock, None, mono_ns, &what)
}

#[cfg(test)]
mod tests;
