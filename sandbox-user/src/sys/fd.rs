//! Descriptors: those that are known by number only, and those that are opened without waiting.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// A close-on-exec duplicate of a descriptor that the caller of `sandbox` left open for writing under
/// this number.
///
/// # Errors
/// EBADF where nothing is open there, or only for reading, or a descriptor of our own: those are
/// close-on-exec, and an inherited one never is.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    let get = |command| {
        // SAFETY: takes numbers only; a number that is not open is an error.
        match unsafe { libc::fcntl(number, command) } {
            flags if flags >= 0 => Ok(flags),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let is_ours = get(libc::F_GETFD)? & libc::FD_CLOEXEC != 0;
    let is_read_only = get(libc::F_GETFL)? & libc::O_ACCMODE == libc::O_RDONLY;
    if is_ours || is_read_only {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    duplicate(number)
}

/// Takes a descriptor that whoever started this process left open for it under this number; from now on it
/// is close-on-exec.
///
/// # Errors
/// EBADF where nothing is open there.
pub fn take(number: i32) -> io::Result<OwnedFd> {
    let own = duplicate(number)?;
    // SAFETY: it was inherited, so that nothing in this process owns it.
    unsafe { libc::close(number) };
    Ok(own)
}

/// Whether the other end of a Unix socket has yet to read some of what was written to it (SIOCOUTQ, unix(7)).
/// Where that cannot be told it has not.
pub fn is_unread(socket: BorrowedFd<'_>) -> bool {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int, which lives that long.
    let told = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    told == 0 && bytes > 0
}

/// Takes descriptors that recvmsg(2) has just put into this process.
pub fn received(numbers: Vec<RawFd>) -> impl Iterator<Item = OwnedFd> {
    // SAFETY: the kernel has made them for us, and they are handed out once.
    numbers
        .into_iter()
        .map(|number| unsafe { OwnedFd::from_raw_fd(number) })
}

/// A duplicate above 2, close-on-exec. See F_DUPFD_CLOEXEC in fcntl(2).
pub(super) fn duplicate(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only; a number that is not open is an error.
    let fd: RawFd = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel just opened for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens a file to be written from its beginning, made where it is not there. Each write goes to its end, also
/// where somebody else cuts it off or writes to it too.
///
/// # Errors
/// Those of open(2).
pub fn open_to_append(path: &Path) -> io::Result<File> {
    let file = open_at_once(
        OpenOptions::new().write(true).create(true).truncate(true),
        path,
    )?;
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_APPEND))?;
    Ok(file)
}

/// Opens a file without waiting: a FIFO that nobody reads is ENXIO, instead of a wait that nothing
/// interrupts. A terminal does not become ours. The open file blocks as any other.
///
/// # Errors
/// Those of open(2).
pub fn open_at_once(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(file)
}
