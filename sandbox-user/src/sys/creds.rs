//! Credentials of one thread, and the dumpable flag that changing them clears.
//!
//! glibc's set*id wrappers change every thread; these change the calling one, which is what it takes
//! to open a file as somebody else without the supervisor ever being that user.

use std::io;

use super::{Errno, check};

/// Gives the calling thread another user's file-system identity: what it opens from now on is opened
/// with that user's rights (setfsuid(2): CAP_DAC_OVERRIDE and its kin leave the effective set). Its uid
/// stays, so that user cannot signal it. For a thread that ends soon after.
///
/// # Errors
/// EPERM where the caller is not privileged.
pub fn become_file_identity(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: setgroups reads the slice of the length given; the other calls take numbers.
    let result = unsafe {
        let set = check(libc::syscall(
            libc::SYS_setgroups,
            groups.len(),
            groups.as_ptr(),
        ));
        set.and_then(|_| set_fsid(libc::SYS_setfsgid, gid))
            .and_then(|()| set_fsid(libc::SYS_setfsuid, uid))
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

/// Keeps this process's dumpable flag. The kernel clears it in a memory whose user changes identity
/// (kernel/cred.c, commit_creds), which protects that memory from the new user, but would stay.
pub struct DumpableKept {
    before: i32,
}

impl DumpableKept {
    /// Remembers the flag; it is restored on drop.
    #[expect(
        clippy::new_without_default,
        reason = "it reads the state of the process"
    )]
    pub fn new() -> Self {
        // SAFETY: takes no pointers.
        let before = unsafe { libc::prctl(libc::PR_GET_DUMPABLE) };
        Self { before }
    }
}

impl Drop for DumpableKept {
    fn drop(&mut self) {
        // 2 cannot be set, and 0 needs no setting.
        if self.before == 1 {
            // SAFETY: takes numbers only.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
        }
    }
}
