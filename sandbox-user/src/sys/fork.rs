//! fork(2): a second process of this program, which goes on from where this one is.
//!
//! It shares what this one has in memory until either writes there, and spares the kernel and the dynamic loader
//! all that execve(2) has them do.

use std::{
    ffi::c_int,
    io,
    os::fd::RawFd,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::check;

/// What Rust exits with after a panic.
const PANICKED: u8 = 101;

/// Forks: `child` is the new process's whole life, and gives its exit status. Gives its pid.
///
/// It has the calling thread only. A lock of std's that another one held at that moment it would wait for in vain;
/// those of malloc glibc sees to. It has this process's descriptors, too.
///
/// # Errors
/// EAGAIN and ENOMEM, as of fork(2).
pub fn fork(child: impl FnOnce() -> u8) -> io::Result<u32> {
    // SAFETY: what the child finds is whole, as said above, and it never comes back from here.
    match unsafe { libc::fork() } {
        0 => {
            let status = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANICKED);
            // SAFETY: ends this process; what is registered with atexit(3) is its parent's.
            unsafe { libc::_exit(status.into()) }
        }
        pid => u32::try_from(pid).map_err(|_| io::Error::last_os_error()),
    }
}

/// Closes all descriptors but the standard ones and `kept` (close_range(2)), whoever of this process they belong to:
/// for a child of [`fork`], which has no use for its parent's.
///
/// # Errors
/// As of close_range(2).
pub fn close_all_but(mut kept: Vec<RawFd>) -> io::Result<()> {
    kept.retain(|fd| *fd > libc::STDERR_FILENO);
    kept.sort_unstable();
    let mut first = libc::STDERR_FILENO.unsigned_abs() + 1;
    for fd in kept.into_iter().map(i32::unsigned_abs) {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the child's values that hold such descriptors are its parent's, and are never dropped here.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
        .map(drop)
        .map_err(io::Error::from_raw_os_error)
}

/// Has this process be listed (ps(1), /proc/PID/cmdline) with these arguments, each ended by a NUL. A listing is all
/// that this is for: without CAP_SYS_RESOURCE its parent's stay.
pub fn be_listed_as(arguments: &[u8]) {
    // Nothing is read there that was mapped from a file (FOLL_ANON; fs/proc/base.c, get_mm_cmdline), such as constants.
    let arguments: &'static [u8] = Box::leak(arguments.into());
    let start = arguments.as_ptr().addr();
    // In this order, since the start may never be behind the end (kernel/sys.c, validate_prctl_map_addr): the heap is
    // below the stack, where its arguments were.
    for (what, address) in [
        (libc::PR_SET_MM_ARG_START, start),
        (libc::PR_SET_MM_ARG_END, start + arguments.len()),
    ] {
        set_mm(what, address);
    }
}

fn set_mm(what: c_int, address: usize) {
    // SAFETY: changes what others read of this process; the kernel checks that the address is mapped.
    unsafe { libc::prctl(libc::PR_SET_MM, what, address, 0, 0) };
}
