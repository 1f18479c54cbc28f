//! What the event loop waits for: main's end, the ring, a counter that changes, its clocks.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use tokio::io::{Interest, unix::AsyncFd};

use super::alarm::Alarm;
use crate::{
    evidence::WaitStatus,
    policy::Warn,
    procfs::{self, Stat, status_field},
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

    /// Sets the deadline, so long from now, and the warning before it, where there is one: at once where its
    /// moment has passed.
    ///
    /// # Errors
    /// None that timerfd_settime(2) knows for a valid timer.
    pub(super) fn set_deadline(
        &self,
        after: Option<Duration>,
        warn: Option<Warn>,
    ) -> io::Result<()> {
        match after {
            Some(after) => self.deadline.set(after)?,
            None => self.deadline.unset()?,
        }
        match after.zip(warn) {
            Some((after, warn)) => self.warning.set(after.saturating_sub(warn.before)),
            None => self.warning.unset(),
        }
    }
}

/// That main has ended.
pub(super) enum MainEnd {
    /// How, as wait(2) has it.
    Waited(WaitStatus),
    /// It is not for us to wait for: a tracer has yet to do that, or to end (kernel/exit.c,
    /// wait_consider_task).
    Withheld {
        /// Its pid; `None` where it cannot be seen from here.
        tracer: Option<u32>,
    },
}

/// Waits until main has ended, and reaps it where it can be.
pub(super) async fn main_end(
    main: &AsyncFd<OwnedFd>,
    main_pid: Option<u32>,
) -> io::Result<MainEnd> {
    let wait = || pidfd::wait(main.as_fd(), Reap::Take, Patience::Poll);
    loop {
        let mut ready = main.readable().await?;
        if let Some(status) = wait()? {
            return Ok(MainEnd::Waited(status));
        }
        let is_dead = |pid: &u32| Stat::of(*pid).is_ok_and(|stat| !stat.runs());
        if let Some(pid) = main_pid.filter(is_dead) {
            let tracer = tracer_of(pid);
            // Once more: it may have died, or its tracer have let go of it, since the first look.
            return Ok(wait()?.map_or(MainEnd::Withheld { tracer }, MainEnd::Waited));
        }
        ready.clear_ready();
    }
}

/// Who traces a process.
fn tracer_of(pid: u32) -> Option<u32> {
    let status = procfs::text(format!("/proc/{pid}/status")).ok()?;
    let tracer = status_field(&status, "TracerPid")?.parse().ok()?;
    Some(tracer).filter(|tracer| *tracer != 0)
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
