//! Signals that `sandbox` itself gets, as a descriptor: signalfd(2).
//!
//! They are blocked from the first moment on, so that none ends `sandbox` before its record is
//! written, and they come with their sender, which the record names.

use std::{io, os::fd::OwnedFd};

use nix::{
    libc,
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{caller::ignored_signals, sys::readiness};

/// What cancels a run.
const CANCEL: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];
/// What is passed on to the main process.
const PASS_ON: [Signal; 2] = [Signal::SIGUSR1, Signal::SIGUSR2];

/// All that mean something to a supervisor.
pub(crate) fn meant() -> impl Iterator<Item = Signal> {
    CANCEL.into_iter().chain(PASS_ON)
}

/// What a signal to a supervisor means; `None` where nothing.
pub(super) fn meaning_of(signal: i32) -> Option<Meaning> {
    let is_one = |known: &Signal| *known as i32 == signal;
    if CANCEL.iter().any(is_one) {
        Some(Meaning::Cancel)
    } else {
        PASS_ON.iter().any(is_one).then_some(Meaning::PassOn)
    }
}

/// A signal that `sandbox` got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Its number.
    pub(crate) signal: i32,
    /// What to do about it.
    pub(crate) meaning: Meaning,
    /// Who sent it.
    pub(crate) origin: Origin,
}

/// What a signal to `sandbox` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// End the run.
    Cancel,
    /// Tell the main process.
    PassOn,
}

/// Where a signal came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The kernel: the terminal's Ctrl-C or hangup, which goes to the whole foreground process
    /// group.
    Kernel,
    /// This process.
    Process(u32),
}

/// The signals of this process, blocked and queued.
pub(crate) struct Signals {
    queue: SignalFd,
    waiting: AsyncFd<OwnedFd>,
}

/// A hangup under nohup, or Ctrl-C meant for a script whose background job this is, was to be
/// ignored; blocked, it would be queued for us all the same.
fn cancelling() -> impl Iterator<Item = Signal> {
    let ignored = ignored_signals();
    CANCEL
        .into_iter()
        .filter(move |signal| *signal == Signal::SIGTERM || !ignored.contains(&(*signal as i32)))
}

fn mask() -> SigSet {
    cancelling().chain(PASS_ON).collect()
}

/// A descriptor that is readable once a signal has asked this process for its run's end. The signal is not to be read
/// from it: [`Signals`] has it then.
///
/// # Errors
/// EMFILE and the like.
pub(crate) fn cancellations() -> io::Result<SignalFd> {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok(SignalFd::with_flags(&cancelling().collect(), flags)?)
}

/// Blocks the signals for this thread and all that it starts later. To be called first of all.
///
/// SIGXFSZ is blocked and never read: where `ulimit -f` could not be lifted a write then fails with
/// EFBIG, and is told of. The analysis starts with an empty mask and the caller's dispositions.
///
/// # Errors
/// None that sigprocmask(2) knows for a valid set.
pub(crate) fn block() -> io::Result<()> {
    let mut blocked = mask();
    blocked.add(Signal::SIGXFSZ);
    Ok(blocked.thread_block()?)
}

/// Blocks for a guardian, in whatever way it was started, all that it is not to die of.
///
/// # Errors
/// As [`block`].
pub(super) fn block_all() -> io::Result<()> {
    let all: SigSet = meant()
        .chain([Signal::SIGXFSZ, Signal::SIGPIPE, Signal::SIGTSTP])
        .collect();
    Ok(all.thread_block()?)
}

impl Signals {
    /// Opens the queue of what [`block`] has blocked.
    ///
    /// # Errors
    /// EMFILE and the like.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let queue = SignalFd::with_flags(&mask(), flags)?;
        Ok(Self {
            waiting: readiness::watch(&queue, Interest::READABLE)?,
            queue,
        })
    }

    /// Waits for the next one.
    ///
    /// # Errors
    /// Where the descriptor cannot be read.
    pub(crate) async fn next(&self) -> io::Result<Received> {
        loop {
            let mut ready = self.waiting.readable().await?;
            match self.try_next()? {
                Some(received) => return Ok(received),
                None => ready.clear_ready(),
            }
        }
    }

    /// The next one, if there is any.
    ///
    /// # Errors
    /// Where the descriptor cannot be read.
    pub(crate) fn try_next(&self) -> io::Result<Option<Received>> {
        let Some(info) = self.queue.read_signal()? else {
            return Ok(None);
        };
        let signal = i32::try_from(info.ssi_signo).unwrap_or_default();
        Ok(Some(Received {
            signal,
            // None other is in the mask.
            meaning: meaning_of(signal).unwrap_or(Meaning::PassOn),
            origin: if info.ssi_code == libc::SI_KERNEL {
                Origin::Kernel
            } else {
                Origin::Process(info.ssi_pid)
            },
        }))
    }
}
