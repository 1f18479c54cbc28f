//! What a detached run prints: two files in the store's directory, each of a bounded size.
//!
//! The run's own supervisor writes them, so that nothing that becomes of the service keeps the analysis
//! from printing. Of one that prints more than there is room for, the beginning and the end are kept: what
//! is between them becomes a hole in the file, which takes no space and is told from what was written
//! (SEEK_DATA, lseek(2)).

mod file;
mod reader;

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use nix::{errno::Errno, fcntl::OFlag, poll::PollTimeout, unistd};
pub(super) use reader::Reader;

use file::Log;

use crate::{
    spec::RunId,
    sys::{own_dir, readiness::readable},
};

/// Where they are: root's alone.
pub(super) const DIRECTORY: &str = "/var/lib/sandbox/logs";
/// The two streams, by the ends of their files' names.
const STREAMS: [&str; 2] = ["stdout", "stderr"];
/// What is read at a time, as much as a pipe holds.
const PART_BYTES: usize = 64 << 10;
/// What is still taken once a run is over: a process that is not of it may hold its stdout, and print for ever.
const PARTS_AFTER_THE_END: usize = 8;

/// Removes those of a run, where it has any.
pub(super) fn remove(run_id: RunId) {
    for stream in STREAMS {
        // Most runs have none.
        let _ = fs::remove_file(path(run_id, stream));
    }
}

fn path(run_id: RunId, stream: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{run_id}.{stream}"))
}

/// Opens those of a run to be read: stdout and stderr.
///
/// # Errors
/// Where there are none: the run was not detached, or they have been removed.
pub(super) fn open(run_id: RunId) -> io::Result<[File; 2]> {
    let [stdout, stderr] = STREAMS.map(|stream| File::open(path(run_id, stream)));
    Ok([stdout?, stderr?])
}

/// The logs of a run that is about to start.
#[derive(Debug)]
pub(super) struct Logs([Log; 2]);

/// Logs that are being written.
#[derive(Debug)]
pub(super) struct Logging {
    writer: JoinHandle<()>,
    /// Closed when the run is over.
    running: OwnedFd,
}

impl Logs {
    /// Makes them, each of at most so many bytes.
    ///
    /// # Errors
    /// Where they cannot be made.
    pub(super) fn make(run_id: RunId, most_bytes: u64) -> io::Result<Self> {
        own_dir::own(Path::new(DIRECTORY), 0o700)?;
        let [stdout, stderr] = STREAMS.map(|stream| Log::make(&path(run_id, stream), most_bytes));
        Ok(Self([stdout?, stderr?]))
    }

    /// Has this process's stdout and stderr, and with them the analysis's, go there; stdin is empty.
    ///
    /// # Errors
    /// Where a pipe or a thread is not to be had.
    pub(super) fn begin(self) -> io::Result<Logging> {
        let Self([stdout, stderr]) = self;
        let (ended, running) = unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (out, from_out) = pipe()?;
        let (err, from_err) = pipe()?;
        let writer = std::thread::Builder::new()
            .name("sandbox-logs".to_owned())
            .spawn(move || write([(from_out, stdout), (from_err, stderr)], &ended))?;
        unistd::dup2_stdin(File::open("/dev/null")?)?;
        unistd::dup2_stdout(out)?;
        unistd::dup2_stderr(err)?;
        Ok(Logging { writer, running })
    }
}

impl Logging {
    /// Waits until all that was printed is written.
    pub(super) fn end(self) {
        drop(self.running);
        // One that has panicked writes no more either.
        let _ = self.writer.join();
    }
}

/// A pipe whose writers are readers as well: were this process killed, an analysis that prints would not die of
/// that (SIGPIPE) before its guardian ends it.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (from, to) = unistd::pipe2(OFlag::O_CLOEXEC)?;
    let both = OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/proc/self/fd/{}", to.as_raw_fd()))?;
    Ok((both.into(), from))
}

/// Writes what comes, until the run has ended and nothing is left.
fn write(mut streams: [(OwnedFd, Log); 2], ended: &OwnedFd) {
    let mut part = vec![0; PART_BYTES];
    let mut left = PARTS_AFTER_THE_END;
    while left > 0 {
        let [(out, _), (err, _)] = &streams;
        let fds = [out.as_fd(), err.as_fd(), ended.as_fd()];
        let Ok([out, err, is_over]) = readable(fds, PollTimeout::NONE) else {
            return;
        };
        if is_over {
            left = if out || err { left - 1 } else { 0 };
        }
        for ((from, log), _) in streams
            .iter_mut()
            .zip([out, err])
            .filter(|(_, comes)| *comes)
        {
            match unistd::read(&*from, &mut part) {
                Ok(length) => log.append(part.get(..length).unwrap_or_default()),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}
