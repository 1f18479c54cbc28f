//! Waiting for a descriptor in the event loop.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
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
