//! What the event loop waits for: main's end, the ring, a counter that changes, its clocks.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::fd::{AsFd as _, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

use super::alarm::Alarm;
use crate::{
    evidence::WaitStatus,
    sys::{
        pidfd::{self, Patience, Reap},
        readiness,
    },
};

/// The clocks of a run.
pub(super) struct Alarms {
    pub(super) deadline: Alarm,
    pub(super) warning: Alarm,
    pub(super) grace: Alarm,
    pub(super) budget: Alarm,
    pub(super) kill_again: Alarm,
    pub(super) give_up: Alarm,
    pub(super) sample: Alarm,
    pub(super) review: Alarm,
}

impl Alarms {
    /// None of them set.
    ///
    /// # Errors
    /// EMFILE and the like.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            deadline: Alarm::new()?,
            warning: Alarm::new()?,
            grace: Alarm::new()?,
            budget: Alarm::new()?,
            kill_again: Alarm::new()?,
            give_up: Alarm::new()?,
            sample: Alarm::new()?,
            review: Alarm::new()?,
        })
    }
}

/// Waits until main has ended, and reaps it.
pub(super) async fn main_end(main: &AsyncFd<OwnedFd>) -> io::Result<WaitStatus> {
    loop {
        let mut ready = main.readable().await?;
        match pidfd::wait(main.as_fd(), Reap::Take, Patience::Poll)? {
            Some(status) => return Ok(status),
            None => ready.clear_ready(),
        }
    }
}

/// Waits until the ring has something, which it may have left (`more`): the kernel wakes only a
/// reader that had caught up. For ever without a ring.
pub(super) async fn event_waits(events: Option<&AsyncFd<OwnedFd>>, more: bool) -> io::Result<()> {
    match events {
        Some(_) if more => Ok(()),
        Some(events) => {
            // Cleared first: what comes while it is drained makes it ready again.
            events.readable().await?.clear_ready();
            Ok(())
        }
        None => std::future::pending().await,
    }
}

/// A counter file of a cgroup, which reports a change as POLLPRI.
pub(super) struct CounterFile {
    file: File,
    changes: AsyncFd<OwnedFd>,
}

impl CounterFile {
    /// Watches an open file.
    ///
    /// # Errors
    /// Where it cannot be polled.
    pub(super) fn watch(file: File) -> io::Result<Self> {
        Ok(Self {
            changes: readiness::watch(&file, Interest::PRIORITY)?,
            file,
        })
    }
}

/// Waits until a counter file changes; for ever without one.
pub(super) async fn counter_changed(counter: Option<&CounterFile>) -> io::Result<()> {
    match counter {
        Some(counter) => {
            let mut ready = counter.changes.ready(Interest::PRIORITY).await?;
            ready.clear_ready();
            // Reading takes the change in: kernfs reports the next one only then.
            let mut file = &counter.file;
            file.rewind()?;
            file.read_to_string(&mut String::new())?;
            Ok(())
        }
        None => std::future::pending().await,
    }
}
