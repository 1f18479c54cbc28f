//! Waiting for descriptors, in the event loop and without one.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tokio::io::{Interest, unix::AsyncFd};

/// A descriptor that the event loop waits for: a duplicate, so that it stays open and the same for as
/// long as the loop knows it, whatever becomes of the original.
///
/// # Errors
/// EMFILE; EPERM where epoll(7) does not take such a descriptor.
pub fn watch(fd: &impl AsFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    let own = fd.as_fd().try_clone_to_owned()?;
    // SAFETY: an OwnedFd is one open descriptor, which nothing but its drop closes, and AsyncFd
    // deregisters before that.
    let watched = unsafe { AsyncFd::register_with_interest(own, interest) };
    watched.map_err(|error| error.into_parts().1)
}

/// Waits until there is something to be read from one of these, or its other end is gone, for at most so long.
/// Says of which that is so.
///
/// # Errors
/// Those of poll(2), but for EINTR.
pub fn readable<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    within: impl Into<PollTimeout>,
) -> io::Result<[bool; N]> {
    let within = within.into();
    let mut waited_for = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    loop {
        match poll(&mut waited_for, within) {
            Ok(_) => return Ok(waited_for.map(|fd| fd.any() == Some(true))),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
