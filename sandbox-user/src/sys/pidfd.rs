//! Processes by descriptor: waiting, signalling and telling one apart from its pid's next owner.
//!
//! nix's waitid refuses statuses with a real-time signal, and a run may die of one, so waitid(2) is
//! called here.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::evidence::WaitStatus;

/// Whether a wait takes the dead child away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reap {
    /// It stays a zombie (WNOWAIT): its /proc entry and its pid are still its own.
    Leave,
    /// It is gone afterwards.
    Take,
}

/// Whether a wait waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Until the child has ended.
    Block,
    /// Not at all (WNOHANG).
    Poll,
}

/// How the child behind `pidfd` ended; `None` = it has not yet. See waitid(2), P_PIDFD.
///
/// # Errors
/// ECHILD where it is not a child of ours or was reaped before.
pub fn wait(
    pidfd: BorrowedFd<'_>,
    reap: Reap,
    patience: Patience,
) -> io::Result<Option<WaitStatus>> {
    let options = libc::WEXITED
        | match reap {
            Reap::Leave => libc::WNOWAIT,
            Reap::Take => 0,
        }
        | match patience {
            Patience::Block => 0,
            Patience::Poll => libc::WNOHANG,
        };
    let ended = waitid(libc::P_PIDFD, pidfd.as_raw_fd().unsigned_abs(), options)?;
    Ok(ended.map(|(_, status)| status))
}

/// Waits for children (waitid(2)): the pid and the end of one; `None` = none has ended, with WNOHANG.
///
/// # Errors
/// ECHILD where there is none.
pub(super) fn waitid(
    of: libc::idtype_t,
    id: u32,
    options: i32,
) -> io::Result<Option<(u32, WaitStatus)>> {
    loop {
        // SAFETY: siginfo_t is plain data, for which all zeroes is a value; waitid(2) leaves si_pid 0
        // where no child has ended.
        let mut info: libc::siginfo_t = unsafe { zeroed() };
        // SAFETY: `info` is a live siginfo_t for the kernel to fill in.
        if unsafe { libc::waitid(of, id, &raw mut info, options) } != 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        // SAFETY: waitid fills in the SIGCHLD fields, or has left them zero.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        if pid == 0 {
            return Ok(None);
        }
        let status = match info.si_code {
            libc::CLD_EXITED => WaitStatus::Exited { code: status },
            code => WaitStatus::Signaled {
                signal: status,
                core_dumped: code == libc::CLD_DUMPED,
            },
        };
        return Ok(Some((pid.unsigned_abs(), status)));
    }
}

/// Sends a signal to the process behind `pidfd`, and to no other. See pidfd_send_signal(2).
///
/// # Errors
/// ESRCH where it has ended and was reaped; EPERM, EINVAL as kill(2).
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo asks for the one that kill(2) sends.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A pidfd of a running process, close-on-exec. See pidfd_open(2).
///
/// # Errors
/// ESRCH where there is no such process.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match RawFd::try_from(fd) {
        // SAFETY: a descriptor that the kernel just opened for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn status_of(script: &str) -> io::Result<(Option<WaitStatus>, Option<WaitStatus>)> {
        use std::os::fd::AsFd;
        let child = Command::new("/bin/sh")
            .args(["-c", script])
            .stdout(Stdio::null())
            .spawn()?;
        let pidfd = open(i32::try_from(child.id()).unwrap_or(-1))?;
        let left = wait(pidfd.as_fd(), Reap::Leave, Patience::Block)?;
        let taken = wait(pidfd.as_fd(), Reap::Take, Patience::Poll)?;
        Ok((left, taken))
    }

    #[test]
    fn an_exit_status_is_seen_twice_when_the_first_wait_leaves_it() -> io::Result<()> {
        let exited = Some(WaitStatus::Exited { code: 42 });
        assert_eq!(status_of("exit 42")?, (exited, exited));
        Ok(())
    }

    #[test]
    fn death_by_a_real_time_signal_is_a_status_too() -> io::Result<()> {
        let died = Some(WaitStatus::Signaled {
            signal: 40,
            core_dumped: false,
        });
        assert_eq!(status_of("kill -40 $$")?, (died, died));
        Ok(())
    }

    #[test]
    fn a_running_child_has_no_status_and_takes_a_signal() -> io::Result<()> {
        use std::os::fd::AsFd;
        let child = Command::new("/bin/sleep").arg("60").spawn()?;
        let pidfd = open(i32::try_from(child.id()).unwrap_or(-1))?;
        assert_eq!(wait(pidfd.as_fd(), Reap::Take, Patience::Poll)?, None);
        send_signal(pidfd.as_fd(), libc::SIGTERM)?;
        let died = Some(WaitStatus::Signaled {
            signal: libc::SIGTERM,
            core_dumped: false,
        });
        assert_eq!(wait(pidfd.as_fd(), Reap::Take, Patience::Block)?, died);
        assert!(send_signal(pidfd.as_fd(), libc::SIGTERM).is_err());
        Ok(())
    }
}
