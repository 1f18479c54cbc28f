//! Descriptors that are known by number only.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

/// A close-on-exec duplicate of a descriptor that the caller of `sandbox` left open under this
/// number. See F_DUPFD_CLOEXEC in fcntl(2).
///
/// # Errors
/// EBADF where nothing is open there.
pub fn duplicate(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only; a number that is not open is an error.
    let fd: RawFd = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel just opened for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
