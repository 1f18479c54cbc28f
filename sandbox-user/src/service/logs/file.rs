//! One log, of which the beginning and the end are kept.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::libc;
use rustix::fs::{FallocateFlags, fallocate};

/// Holes are of whole blocks of this size, which those of file systems divide.
const BLOCK_BYTES: u64 = 64 << 10;
/// The smallest log: two blocks of the beginning, and some of the end.
const LEAST_BLOCKS: u64 = 8;

/// An open log.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    /// So many bytes of the beginning are kept.
    head_bytes: u64,
    /// And so many of the end.
    tail_bytes: u64,
    /// Where the next one goes.
    end: u64,
    /// Where the hole ends, once there is one.
    hole_end: u64,
    /// Whether there is room for more than that.
    room: Room,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// Holes make some.
    Holes,
    /// The file system makes none: what comes after the most is left out.
    None,
}

impl Log {
    /// Makes one of at most so many bytes, in the place of what is there.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub(super) fn make(path: &Path, most_bytes: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        // In whole blocks, since holes are.
        let blocks = (most_bytes / BLOCK_BYTES).max(LEAST_BLOCKS);
        Ok(Self {
            file,
            head_bytes: blocks / 4 * BLOCK_BYTES,
            tail_bytes: (blocks - blocks / 4 - 2) * BLOCK_BYTES,
            end: 0,
            hole_end: 0,
            room: Room::Holes,
        })
    }

    /// Appends some; what cannot be written is left out, since nobody is there to be told.
    pub(super) fn append(&mut self, part: &[u8]) {
        let is_full = self.end - self.hole_end.max(self.head_bytes).min(self.end)
            > self.tail_bytes + BLOCK_BYTES;
        if is_full {
            self.make_room();
        }
        if self.room == Room::None && is_full {
            return;
        }
        if self.file.write_all_at(part, self.end).is_ok() {
            self.end += part.len() as u64;
        }
    }

    /// Leaves out what is neither of the beginning nor of the end.
    fn make_room(&mut self) {
        let until = (self.end - self.tail_bytes) / BLOCK_BYTES * BLOCK_BYTES;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let length = until - self.head_bytes;
        match fallocate(&self.file, flags, self.head_bytes, length) {
            Ok(()) => self.hole_end = until,
            Err(_) => self.room = Room::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::{super::Reader, *};

    #[test]
    fn of_much_the_beginning_and_the_end_are_kept_and_no_more_than_was_allowed() {
        const MOST: u64 = 1 << 20;
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("log");
        let mut log = Log::make(&path, MOST).expect("made");
        let mut all = Vec::new();
        for number in 0..800_000_u32 {
            let line = format!("{number:07}\n").into_bytes();
            log.append(&line);
            all.extend(line);
        }
        let found = std::fs::metadata(&path).expect("it is there");
        assert_eq!(found.size(), all.len() as u64);
        assert!(found.blocks() * 512 <= MOST, "{}", found.blocks() * 512);

        let mut reader = Reader::new(File::open(&path).expect("open"));
        let mut read = Vec::new();
        let left_out = reader.copy_to(&mut read).expect("read");
        let kept = all.len() - usize::try_from(left_out).expect("less");
        assert_eq!(read.len(), kept);
        let head = usize::try_from(log.head_bytes).expect("small");
        assert_eq!(read[..head], all[..head]);
        assert_eq!(read[head..], all[all.len() - (kept - head)..]);

        // What comes later is read from there on.
        log.append(b"last");
        read.clear();
        assert_eq!(reader.copy_to(&mut read).expect("read"), 0);
        assert_eq!(read, b"last");
    }
}
