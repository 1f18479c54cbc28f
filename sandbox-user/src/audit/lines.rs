//! A log line by line, in bounded memory however long a line is.

use std::{
    io::{self, BufRead},
    thread::sleep,
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

use super::{Hash, event::MAX_LINE_BYTES};

/// How often it is looked whether more has come of a line that is being written.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// One that may be an entry, without its newline.
    Whole {
        /// It.
        text: Vec<u8>,
        /// Its hash.
        hash: Hash,
    },
    /// One that is longer than any entry.
    TooLong,
    /// The last one, without a newline.
    Unterminated {
        /// It.
        text: Vec<u8>,
    },
}

/// Reads lines.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    patience: Duration,
}

impl<R: BufRead> Lines<R> {
    /// Those of a file. Its writer may be in the middle of a line: so long is waited for the rest.
    pub(super) fn of(reader: R, patience: Duration) -> Self {
        Self { reader, patience }
    }

    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        let mut text = Vec::new();
        let mut length = 0;
        let mut hasher = Sha256::new();
        let mut given_up_at = None;
        loop {
            let part = self.reader.fill_buf()?;
            let newline = part.iter().position(|byte| *byte == b'\n');
            let of_line = newline.map_or(part, |at| &part[..at]);
            length += of_line.len();
            if length < MAX_LINE_BYTES {
                text.extend_from_slice(of_line);
                hasher.update(of_line);
            }
            let is_end = part.is_empty();
            let taken = of_line.len() + usize::from(newline.is_some());
            self.reader.consume(taken);
            if newline.is_some() {
                return Ok(Some(match length {
                    0..MAX_LINE_BYTES => Line::Whole {
                        text,
                        hash: Hash::from(hasher),
                    },
                    _ => Line::TooLong,
                }));
            }
            if is_end {
                let now = Instant::now();
                if length == 0 {
                    return Ok(None);
                }
                if now >= *given_up_at.get_or_insert(now + self.patience) {
                    return Ok(Some(match length {
                        0..MAX_LINE_BYTES => Line::Unterminated { text },
                        _ => Line::TooLong,
                    }));
                }
                sleep(LOOK_EVERY);
            }
        }
    }
}
