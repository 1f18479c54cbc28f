//! A monotonic timer that an event loop can wait for: timerfd_create(2) on CLOCK_MONOTONIC.

use std::{io, os::fd::OwnedFd, time::Duration};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::sys::readiness;

/// One timer, set or not; it rings once for each time it is set.
pub(super) struct Alarm {
    timer: TimerFd,
    expired: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// A timer that is not set.
    ///
    /// # Errors
    /// EMFILE and the like.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        Ok(Self {
            expired: readiness::watch(&timer, Interest::READABLE)?,
            timer,
        })
    }

    /// Rings this long from now; at once for zero.
    ///
    /// # Errors
    /// EINVAL for a time beyond all clocks.
    pub(super) fn set(&self, after: Duration) -> io::Result<()> {
        // Zero would disarm it.
        let after = TimeSpec::from(after.max(Duration::from_nanos(1)));
        let once = Expiration::OneShot(after);
        Ok(self.timer.set(once, TimerSetTimeFlags::empty())?)
    }

    /// Never rings until it is set again.
    ///
    /// # Errors
    /// None that timerfd_settime(2) knows for a valid timer.
    pub(super) fn unset(&self) -> io::Result<()> {
        Ok(self.timer.unset()?)
    }

    /// Waits until it rings.
    ///
    /// # Errors
    /// Where the timer cannot be read.
    pub(super) async fn rings(&self) -> io::Result<()> {
        loop {
            let mut ready = self.expired.readable().await?;
            if let Ok(rung) = ready.try_io(|_| Ok(self.timer.wait()?)) {
                return rung;
            }
        }
    }
}
