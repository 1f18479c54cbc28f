//! The end of a log, found from behind: the file may be large, and only its last line is needed.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt as _};

use super::{
    Hash, Head,
    chain::next_seq,
    event::MAX_LINE_BYTES,
    link::{Link, is_torn},
};

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
    /// Looks for it; `None` where the last whole line is no entry, or what is behind it is no torn one.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(super) fn of(file: &File) -> io::Result<Option<Self>> {
        let bytes = file.metadata()?.len();
        let whole_bytes = line_start(file, bytes)?;
        let head = match whole_bytes.checked_sub(1) {
            None => None,
            Some(end) => match entry(file, line_start(file, end)?..end)? {
                Some(head) => Some(head),
                None => return Ok(None),
            },
        };
        let is_torn = match part(file, whole_bytes..bytes)? {
            Some(torn) => is_torn(&torn, next_seq(head)),
            None => false,
        };
        Ok(is_torn.then_some(Self {
            head,
            whole_bytes,
            bytes,
        }))
    }
}

/// The entry that a line is; `None` where it is none.
fn entry(file: &File, line: Range<u64>) -> io::Result<Option<Head>> {
    let Some(line) = part(file, line)? else {
        return Ok(None);
    };
    Ok(Link::read(&line).ok().map(|link| Head {
        seq: link.seq.get(),
        hash: Hash::of(&line),
    }))
}

/// What is there; `None` where that is longer than any entry.
fn part(file: &File, range: Range<u64>) -> io::Result<Option<Vec<u8>>> {
    let mut part = match usize::try_from(range.end - range.start) {
        Ok(length) if length < MAX_LINE_BYTES => vec![0; length],
        Ok(_) | Err(_) => return Ok(None),
    };
    file.read_exact_at(&mut part, range.start)?;
    Ok(Some(part))
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
