//! Children that std starts, and what it does not do for them.

use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};

use super::creds::FileIdentity;
use super::pidfd::waitid;
use super::rlimits::ResourceLimit;
use super::{Errno, check};
use crate::procfs;

/// Has the kernel keep this process's children until they are waited for: a caller that ignores SIGCHLD
/// passes that on, and they would be gone at once, whatever became of them (wait(2)).
pub fn keep_until_waited_for() {
    // SAFETY: sets a default disposition; no handler is involved.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Has the kernel see to this process's children once they end: nobody waits for them (wait(2)).
pub fn leave_ends_to_the_kernel() {
    // SAFETY: no handler is involved.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// A child that has ended and was not waited for, which it stays; `None` where there is none. Of several it is
/// any one.
pub fn ended() -> Option<u32> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    let (pid, _) = waitid(libc::P_ALL, 0, options).ok()??;
    Some(pid)
}

/// Waits for a child that has ended, however it did.
///
/// # Errors
/// ECHILD where there is no such child.
pub fn take_away(pid: u32) -> io::Result<()> {
    let options = libc::WEXITED | libc::WNOHANG | libc::__WALL;
    waitid(libc::P_PID, pid, options).map(drop)
}

/// How a child has ended, where it has and can be waited for.
pub fn try_wait(pid: u32) -> Option<ExitStatus> {
    wait_for(pid, libc::WNOHANG)
}

/// Waits for a child's end, however it comes.
pub fn wait(pid: u32) {
    // It may have been waited for already.
    let _ = wait_for(pid, 0);
}

fn wait_for(pid: u32, options: libc::c_int) -> Option<ExitStatus> {
    let pid = i32::try_from(pid).ok()?;
    let mut status = 0;
    loop {
        // SAFETY: `status` is written to, and lives that long.
        match unsafe { libc::waitpid(pid, &raw mut status, options) } {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            waited => return (waited == pid).then(|| ExitStatus::from_raw(status)),
        }
    }
}

/// Kills a child that was not waited for, whether it has ended or not.
///
/// # Errors
/// As of kill(2).
pub fn kill(pid: u32) -> io::Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
    Ok(nix::sys::signal::kill(pid, Signal::SIGKILL)?)
}

/// Has a command start without the descriptors that this process may itself have been started with, but for
/// `kept` and the standard ones.
pub fn pass_nothing_on(command: &mut Command, kept: Vec<RawFd>) {
    let prepare = move || -> Result<(), Errno> {
        // SAFETY: marks descriptors as close-on-exec in the forked child (close_range(2), 5.11), but for some.
        unsafe {
            check(libc::syscall(
                libc::SYS_close_range,
                3,
                u32::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            ))?;
            kept.iter()
                .try_for_each(|kept| check(libc::fcntl(*kept, libc::F_SETFD, 0).into()).map(drop))
        }
    };
    // SAFETY: the closure makes system calls only, which are signal-safe.
    unsafe {
        command.pre_exec(move || prepare().map_err(io::Error::from_raw_os_error));
    }
}

/// Has a command start in a session of its own, with these signals blocked.
pub fn detach(command: &mut Command, blocked: impl Iterator<Item = Signal>) {
    let mask = blocked.fold(0, |mask, signal| mask | 1 << (signal as i32 - 1));
    let prepare = move || -> Result<(), Errno> {
        super::clone::set_signal_mask(mask)?;
        // SAFETY: takes nothing; the forked child leads no process group.
        check(unsafe { libc::setsid() }.into()).map(drop)
    };
    // SAFETY: the closure makes system calls only, which are signal-safe.
    unsafe {
        command.pre_exec(move || prepare().map_err(io::Error::from_raw_os_error));
    }
}

/// Gives this process, and all that it starts, a session keyring of its own. A kernel without keyrings has none
/// to be kept from.
pub fn leave_session_keyring() {
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for an anonymous keyring (keyctl(2)).
    unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            anonymous,
        );
    }
}

/// Has a command start in the cgroup whose `cgroup.procs` this is, open for writing. To be asked for before
/// anything that takes rights away.
pub fn start_in_cgroup(command: &mut Command, procs: File) {
    let prepare = move || rustix::io::write(&procs, b"0").map(drop);
    // SAFETY: the closure makes a system call only, which is signal-safe.
    unsafe {
        command.pre_exec(move || prepare().map_err(io::Error::from));
    }
}

fn put_in_reach_of_the_oom_killer() -> Result<(), rustix::io::Errno> {
    let score = rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY, Mode::empty())?;
    rustix::io::write(score, b"0").map(drop)
}

/// Has a command start as its caller would have started it: with an empty signal mask (this process
/// blocks its signals, and std passes the mask on), with the caller's limits, and as that user with all
/// of that user's groups. Where the OOM killer spares this process, that is not for it.
pub fn start_as_caller(command: &mut Command, caller: &FileIdentity, limits: &[ResourceLimit]) {
    let (caller, limits) = (caller.clone(), limits.to_vec());
    let own = nix::unistd::geteuid().as_raw();
    let is_spared =
        procfs::text("/proc/self/oom_score_adj").is_ok_and(|score| score.starts_with('-'));
    let prepare = move || -> Result<(), Errno> {
        super::clone::set_signal_mask(0)?;
        if is_spared {
            put_in_reach_of_the_oom_killer().map_err(|errno| errno.raw_os_error())?;
        }
        // SAFETY: this is the forked child, for whom the limits are meant.
        limits.iter().try_for_each(|limit| unsafe { limit.set() })?;
        if caller.uid == own {
            return Ok(());
        }
        let FileIdentity { uid, gid, groups } = &caller;
        // SAFETY: setgroups reads the slice of the length given; the other calls take numbers.
        unsafe {
            check(libc::syscall(
                libc::SYS_setgroups,
                groups.len(),
                groups.as_ptr(),
            ))?;
            check(libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid))?;
            check(libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid)).map(drop)
        }
    };
    // SAFETY: the closure makes system calls only, which are signal-safe.
    unsafe {
        command.pre_exec(move || prepare().map_err(io::Error::from_raw_os_error));
    }
}
