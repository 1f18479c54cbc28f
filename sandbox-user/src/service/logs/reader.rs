//! Reading a log, also while it grows.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt as _,
};

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

/// What is read at a time.
const PART_BYTES: u64 = 64 << 10;

/// A log, and how far it was read.
#[derive(Debug)]
pub(in crate::service) struct Reader {
    file: File,
    at: u64,
}

impl Reader {
    /// From its beginning.
    pub(in crate::service) const fn new(file: File) -> Self {
        Self { file, at: 0 }
    }

    /// Copies what has come since. Gives how many bytes were left out on the way.
    ///
    /// # Errors
    /// Where it cannot be read, or the copy not be written.
    pub(in crate::service) fn copy_to(&mut self, copy: &mut impl Write) -> io::Result<u64> {
        let mut left_out = 0;
        let mut part = Vec::new();
        while let Some((start, end)) = self.next_data()? {
            left_out += start - self.at;
            let end = end.min(start + PART_BYTES);
            // A part is no longer than 64 KiB.
            part.resize(usize::try_from(end - start).unwrap_or(0), 0);
            self.file.read_exact_at(&mut part, start)?;
            self.at = start;
            // It may have become a hole just now, of which zeroes are read.
            if self
                .next_data()?
                .is_some_and(|(again, until)| again == start && until >= end)
            {
                copy.write_all(&part)?;
                self.at = end;
            }
        }
        Ok(left_out)
    }

    /// The next stretch that was written, from where we are on.
    fn next_data(&self) -> io::Result<Option<(u64, u64)>> {
        match seek(&self.file, SeekFrom::Data(self.at)) {
            Ok(start) => Ok(Some((start, seek(&self.file, SeekFrom::Hole(start))?))),
            Err(Errno::NXIO) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}
