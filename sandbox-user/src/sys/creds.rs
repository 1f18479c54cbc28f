//! Credentials of one thread, and what protects the memory it shares with others.
//!
//! glibc's set*id wrappers change every thread; these change the calling one, which is what it takes
//! to open a file as somebody else without the supervisor ever being that user.

use std::io;
use std::thread;

use serde::{Deserialize, Serialize};

use super::{Errno, check};

/// Whose rights decide what may be opened and made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Does something on files with this user's rights: in a thread that ends with it, unless they are
/// this process's own.
///
/// # Errors
/// What the deed itself says; EPERM where the caller is not privileged.
pub fn with_file_identity<T: Send>(
    identity: &FileIdentity,
    deed: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } == identity.uid {
        return deed();
    }
    guard_memory();
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            become_file_identity(identity)?;
            deed()
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that opens files panicked")))
    })
}

/// Gives the calling thread another user's file-system identity: what it opens from now on is opened
/// with that user's rights (setfsuid(2): CAP_DAC_OVERRIDE and its kin leave the effective set). Its uid
/// stays, so that user cannot signal it. For a thread that ends soon after.
///
/// # Errors
/// EPERM where the caller is not privileged.
fn become_file_identity(identity: &FileIdentity) -> io::Result<()> {
    let FileIdentity { uid, gid, groups } = identity;
    // SAFETY: setgroups reads the slice of the length given; the other calls take numbers.
    let result = unsafe {
        let set = check(libc::syscall(
            libc::SYS_setgroups,
            groups.len(),
            groups.as_ptr(),
        ));
        // Last of all the capabilities that setfsuid leaves: CAP_SYS_PTRACE opens /proc/PID/cwd and root of
        // other users' processes.
        set.and_then(|_| set_fsid(libc::SYS_setfsgid, *gid))
            .and_then(|()| set_fsid(libc::SYS_setfsuid, *uid))
            .and_then(|()| super::step::clear_capabilities())
    };
    result.map_err(io::Error::from_raw_os_error)
}

/// setfsuid and setfsgid do not report failure: the second call tells what the first one did.
unsafe fn set_fsid(call: libc::c_long, id: u32) -> Result<(), Errno> {
    // SAFETY: takes a number; the caller passes one of the two calls.
    let now = unsafe {
        libc::syscall(call, id);
        libc::syscall(call, u32::MAX)
    };
    if now == i64::from(id) {
        Ok(())
    } else {
        Err(libc::EPERM)
    }
}

/// Makes this process's memory its own: not dumpable, from now on.
///
/// A child of [`super::clone`] shares that memory and has become the analysis's user before it has
/// left it; were it dumpable, that user could trace the child and so write to the supervisor. The kernel clears
/// the flag at such a change (kernel/cred.c, commit_creds); it is cleared here for good, since restoring it
/// after one start would open the window for another that is under way on another thread. The price is a
/// supervisor that leaves no core dump.
pub fn guard_memory() {
    // SAFETY: takes numbers only; with these it cannot fail (prctl(2)).
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}
