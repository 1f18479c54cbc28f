//! The end of a log, found from behind: the file may be large, and only its last line is needed.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use super::{Hash, Head, event::MAX_LINE_BYTES, link::Link};

/// How much is read at a time.
pub(super) const PART_BYTES: u64 = 16 << 10;

/// Where a log ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The last entry; `None` where there is no whole line.
    pub(super) head: Option<Head>,
    /// Where its whole lines end.
    pub(super) whole_bytes: u64,
    /// Where the file does.
    pub(super) bytes: u64,
}

impl Tail {
    /// Looks for it; `None` where the last whole line is no entry.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn of(file: &File) -> io::Result<Option<Self>> {
        let bytes = file.metadata()?.len();
        let whole_bytes = line_start(file, bytes)?;
        let mut tail = Self {
            head: None,
            whole_bytes,
            bytes,
        };
        let Some(end) = whole_bytes.checked_sub(1) else {
            return Ok(Some(tail));
        };
        let start = line_start(file, end)?;
        let mut line = match usize::try_from(end - start) {
            Ok(length) if length < MAX_LINE_BYTES => vec![0; length],
            Ok(_) | Err(_) => return Ok(None),
        };
        file.read_exact_at(&mut line, start)?;
        let Ok(link) = Link::read(&line) else {
            return Ok(None);
        };
        tail.head = Some(Head {
            seq: link.seq.get(),
            hash: Hash::of(&line),
        });
        Ok(Some(tail))
    }
}

/// Where the line begins that goes on before `end`: behind the last newline before it.
fn line_start(file: &File, end: u64) -> io::Result<u64> {
    let mut part_end = end;
    while part_end > 0 {
        let part_start = part_end.saturating_sub(PART_BYTES);
        let mut part = vec![0; usize::try_from(part_end - part_start).unwrap_or(0)];
        file.read_exact_at(&mut part, part_start)?;
        if let Some(newline) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(part_start + newline as u64 + 1);
        }
        part_end = part_start;
    }
    Ok(0)
}
