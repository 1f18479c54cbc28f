//! The only unsafe code of the engine, behind safe functions.
//!
//! Two things force it: a child born by clone3 runs on a stack of its own in the supervisor's memory
//! and may make raw system calls only, and some calls that act on one thread (setfsuid) or on a pidfd
//! (waitid with every detail) have no safe wrapper. What is decided stays outside: `spawn` says which
//! [`step::Step`]s the child takes, this module takes them.

#![allow(
    unsafe_code,
    reason = "clone3, raw system calls in its child, fork, per-thread credentials, waitid on a pidfd"
)]

pub mod aside;
pub mod bpf;
pub mod child;
pub mod clone;
pub mod creds;
pub mod exec;
pub mod fd;
pub mod fork;
pub mod own_dir;
pub mod pidfd;
pub mod program;
pub mod readiness;
pub mod rlimits;
pub mod step;
pub mod terminal_input;

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// A system call's `errno`, as a number that `std::io::Error::from_raw_os_error` explains.
pub type Errno = i32;

/// Turns the result of `libc::syscall` into the value or the `errno`.
///
/// `errno` lives in thread-local storage, which a CLONE_VM child without CLONE_SETTLS shares with the
/// thread that cloned it. That thread is suspended (CLONE_VFORK) until the child has gone, so only
/// one of the two ever touches it.
fn check(result: c_long) -> Result<c_long, Errno> {
    if result == -1 {
        // SAFETY: always valid for the calling thread, and read right after the call that set it.
        Err(unsafe { *libc::__errno_location() })
    } else {
        Ok(result)
    }
}

/// A duplicate above 2, close-on-exec. See fcntl(2), F_DUPFD_CLOEXEC.
///
/// # Errors
/// EMFILE where no descriptor is left.
pub fn duplicate_above_stdio(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd::duplicate(fd.as_raw_fd())
}
