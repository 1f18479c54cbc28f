//! One of the places that a stream goes to, with a reader, losses and numbers of its own.

use std::{fs::File, io};

use super::{
    line::{DroppedAt, Unnumbered},
    writer::{Finishing, Sent, Writer},
};

/// What the last lines may take: what is missing by then, and the end.
const LAST_BYTES: u64 = 1 << 10;

/// An outlet that is being written to.
#[derive(Debug)]
pub(super) struct Outlet {
    /// As people are told of it.
    pub(super) name: String,
    /// Lines that the writer had no room for, in all.
    pub(super) lost: u64,
    writer: Writer,
    /// The number of the last line.
    n: u64,
    /// Bytes that lines may still have; `None` = any number.
    left_bytes: Option<u64>,
    /// Lines that the writer had no room for since the last one that it had.
    untold: u64,
    /// Lines for which there were no bytes left. The first has all others follow it, so that what is there is
    /// the beginning.
    left_out: u64,
}

impl Outlet {
    /// Begins to write into an open file, at most so many bytes.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub(super) fn begin(name: String, file: File, most_bytes: Option<u64>) -> io::Result<Self> {
        Ok(Self {
            name,
            lost: 0,
            writer: Writer::start(file)?,
            n: 0,
            left_bytes: most_bytes.map(|most| most.saturating_sub(LAST_BYTES)),
            untold: 0,
            left_out: 0,
        })
    }

    /// Writes a line, and before it what is missing there.
    pub(super) fn write(
        &mut self,
        line: &Unnumbered,
        missing: impl Fn(DroppedAt, u64) -> Unnumbered,
    ) {
        let mut sent = match self.untold {
            0 => Sent::Queued,
            untold => self.send(&missing(DroppedAt::Writer, untold)),
        };
        if sent == Sent::Queued {
            self.untold = 0;
            sent = self.send(line);
        }
        // Its number is not given again.
        match sent {
            Sent::Queued => {}
            Sent::Lost => {
                self.n += 1;
                self.untold += 1;
                self.lost += 1;
            }
            Sent::LeftOut => {
                self.n += 1;
                self.left_out += 1;
                self.left_bytes = Some(0);
            }
        }
    }

    fn send(&mut self, line: &Unnumbered) -> Sent {
        let text = line.numbered(self.n + 1);
        let bytes = text.len() as u64;
        let left = match self.left_bytes {
            Some(left) if bytes > left => return Sent::LeftOut,
            left => left.map(|left| left - bytes),
        };
        let sent = self.writer.send(text);
        if sent == Sent::Queued {
            self.n += 1;
            self.left_bytes = left;
        }
        sent
    }

    /// Has the last line written, for which there is always room.
    pub(super) fn finish(
        self,
        end: &Unnumbered,
        missing: impl Fn(DroppedAt, u64) -> Unnumbered,
    ) -> Finishing {
        let gaps = [
            (DroppedAt::Writer, self.untold),
            (DroppedAt::Bound, self.left_out),
        ];
        let told = gaps
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(place, count)| missing(place, count));
        let mut rest = String::new();
        let mut n = self.n;
        for line in told {
            n += 1;
            rest += &line.numbered(n);
        }
        rest += &end.numbered(n + 1);
        self.writer.finish(rest)
    }
}
