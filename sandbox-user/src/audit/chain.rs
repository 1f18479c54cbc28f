//! How entries are put one behind the other, so that whatever fails the next one can follow.

use std::{
    fs::File,
    io::{self, Write as _},
};

use jiff::Timestamp;

use super::{
    Hash, Head,
    event::{Entry, Event},
};

/// A file that only grows, but for what a failed write left at its end.
pub(super) trait Sink {
    /// Its length, bytes.
    fn length(&self) -> io::Result<u64>;
    /// Writes to its end, once; as write(2) it may take less than all.
    fn write(&mut self, line: &[u8]) -> io::Result<usize>;
    /// Cuts it off.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// Makes what is in it last.
    fn sync(&mut self) -> io::Result<()>;
}

impl Sink for File {
    fn length(&self) -> io::Result<u64> {
        self.metadata().map(|found| found.len())
    }

    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        (&*self).write(line)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Why an entry was not added.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppendError {
    /// It is not in the log.
    #[error("{0}")]
    Write(io::Error),
    /// It is, but might not outlast a power cut.
    #[error("{0}")]
    Sync(io::Error),
}

/// The end of a log, to which entries are added.
#[derive(Debug)]
pub(super) struct Chain<S> {
    sink: S,
    head: Option<Head>,
    /// Where the whole lines end, while something torn is behind them.
    torn_at: Option<u64>,
}

impl<S: Sink> Chain<S> {
    /// Goes on behind this entry; behind none where the log is empty.
    pub(super) fn behind(sink: S, head: Option<Head>) -> Self {
        Self {
            sink,
            head,
            torn_at: None,
        }
    }

    /// What entries are added to.
    pub(super) const fn sink(&self) -> &S {
        &self.sink
    }

    /// The last entry.
    pub(super) fn head(&self) -> Option<Head> {
        self.head
    }

    /// Adds an entry with one write(2), and makes it last. Of one that could not be written as a whole nothing
    /// stays: whoever asked for it knows, and the next one takes its number.
    ///
    /// # Errors
    /// [`AppendError`].
    pub(super) fn append(&mut self, event: &Event, at: Timestamp) -> Result<Head, AppendError> {
        self.mend().map_err(AppendError::Write)?;
        let length = self.sink.length().map_err(AppendError::Write)?;
        let entry = Entry {
            seq: next_seq(self.head),
            at,
            prev: self.head.map_or(Hash::ZERO, |head| head.hash),
            event: event.clone(),
        };
        let mut line =
            serde_json::to_vec(&entry).map_err(|error| AppendError::Write(error.into()))?;
        let head = Head {
            seq: entry.seq,
            hash: Hash::of(&line),
        };
        line.push(b'\n');
        let error = match self.sink.write(&line) {
            Ok(written) if written == line.len() => {
                self.head = Some(head);
                return match self.sink.sync() {
                    Ok(()) => Ok(head),
                    Err(error) => Err(AppendError::Sync(error)),
                };
            }
            Ok(written) => io::Error::other(format!(
                "only {written} of {} bytes found room: is the disk full?",
                line.len()
            )),
            Err(error) => error,
        };
        self.torn_at = Some(length);
        // Where that fails too it is tried again before the next one.
        let _ = self.mend();
        Err(AppendError::Write(error))
    }

    fn mend(&mut self) -> io::Result<()> {
        if let Some(length) = self.torn_at {
            self.sink.cut(length)?;
            self.torn_at = None;
        }
        Ok(())
    }
}

/// The number of the entry behind this one.
pub(super) fn next_seq(head: Option<Head>) -> u64 {
    head.map_or(1, |head| head.seq.saturating_add(1))
}
