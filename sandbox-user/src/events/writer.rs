//! The thread that writes the stream: a bounded queue before it, a blocking file behind it.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Instant,
};

use crate::outlet::{self, Patient};

/// Lines that may wait for a slow reader.
const QUEUE: usize = 16 * 1024;
/// Bytes that those lines may have together: one has some 300, but up to 4 KiB where its arguments are
/// control characters.
const QUEUE_BYTES: usize = 16 << 20;

/// Why the stream is not whole.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// It could not be written.
    #[error("it could not be written: {0}")]
    Io(#[from] io::Error),
    /// Its reader does not read, or not fast enough.
    #[error("its reader did not take the rest within {} s", outlet::WITHIN.as_secs())]
    Stalled,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It waits to be written.
    Queued,
    /// The queue is full, or nothing can be written any more.
    Lost,
    /// It would be more than is to be written.
    LeftOut,
}

/// The near end of the queue.
#[derive(Debug)]
pub(super) struct Writer {
    lines: SyncSender<String>,
    /// Bytes of the lines that wait.
    waiting: Arc<AtomicUsize>,
    /// What comes after all of them.
    rest: SyncSender<String>,
    ended: Receiver<io::Result<()>>,
}

impl Writer {
    /// Starts the thread. It shares the signal mask of whoever calls.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub(super) fn start(file: File) -> io::Result<Self> {
        let (lines, queue) = sync_channel(QUEUE);
        let (rest, last) = sync_channel(1);
        let (tell, ended) = sync_channel(1);
        let waiting = Arc::new(AtomicUsize::new(0));
        let taken = Arc::clone(&waiting);
        thread::Builder::new()
            .name("sandbox-events".to_owned())
            .spawn(move || {
                // Who waits for it may have given up.
                let _ = tell.send(write_all(&queue, &taken, &last, file));
            })?;
        Ok(Self {
            lines,
            waiting,
            rest,
            ended,
        })
    }

    pub(super) fn send(&self, line: String) -> Sent {
        let bytes = line.len();
        if self.waiting.load(Ordering::Relaxed).saturating_add(bytes) > QUEUE_BYTES {
            return Sent::Lost;
        }
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        match self.lines.try_send(line) {
            Ok(()) => Sent::Queued,
            Err(_) => {
                self.waiting.fetch_sub(bytes, Ordering::Relaxed);
                Sent::Lost
            }
        }
    }

    /// Has the rest written after all that waits.
    pub(super) fn finish(self, rest: String) -> Finishing {
        // Where the thread has ended already, it says why.
        let _ = self.rest.try_send(rest);
        Finishing(self.ended)
    }
}

/// A writer that has all that it is to write.
#[derive(Debug)]
pub(super) struct Finishing(Receiver<io::Result<()>>);

impl Finishing {
    /// Waits until then for all of it to be written.
    ///
    /// # Errors
    /// Where it could not be, or not by then.
    pub(super) fn wait(self, until: Instant) -> Result<(), WriterError> {
        let within = until.saturating_duration_since(Instant::now());
        match self.0.recv_timeout(within) {
            Ok(written) => Ok(written?),
            Err(RecvTimeoutError::Timeout) => Err(WriterError::Stalled),
            Err(RecvTimeoutError::Disconnected) => {
                Err(io::Error::other("the thread that writes it has died").into())
            }
        }
    }
}

/// What waits is written together; then the reader has all there is.
fn write_all(
    queue: &Receiver<String>,
    waiting: &AtomicUsize,
    rest: &Receiver<String>,
    file: File,
) -> io::Result<()> {
    let mut file = BufWriter::new(Patient(file));
    while let Ok(line) = queue.recv() {
        let mut next = Some(line);
        while let Some(line) = next {
            file.write_all(line.as_bytes())?;
            waiting.fetch_sub(line.len(), Ordering::Relaxed);
            next = queue.try_recv().ok();
        }
        file.flush()?;
    }
    // None where the stream is given up.
    if let Ok(rest) = rest.recv() {
        file.write_all(rest.as_bytes())?;
    }
    file.flush()
}
