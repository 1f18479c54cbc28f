//! Who is at the other end of a connection, and whether a run of theirs may be started here.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

use nix::{
    sys::socket::{getsockopt, sockopt},
    unistd::User,
};
use serde::{Deserialize, Serialize};

use super::metrics::Refusal;
use crate::{
    caller::{Caller, ignored_in, umask_in},
    cgroup::{CallerLimit, Mount, Proc, leaf_around},
    policy::LimitedCallers,
    procfs::{self, status_field},
    store::Whose,
    sys::{pidfd, rlimits::ResourceLimit},
};

/// A client, as the kernel knew it when it connected.
#[derive(Debug)]
pub(super) struct Peer {
    /// Who it is.
    pub(super) caller: Caller,
    /// Its pid.
    pub(super) pid: i32,
    /// Holds the pid's place: what /proc says of it is said of this process while this is not readable.
    process: OwnedFd,
    /// Its /proc/PID/status.
    status: String,
}

/// What a run takes over from its client besides its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manners {
    /// Its umask.
    pub(super) umask: u32,
    /// Signals that it ignores.
    pub(super) ignored_signals: Vec<i32>,
    /// Its resource limits.
    pub(super) rlimits: Vec<ResourceLimit>,
}

/// Why a client can have no run of the service's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Objection {
    pub(super) kind: Refusal,
    /// For people.
    pub(super) reason: String,
}

impl Objection {
    const fn bound(reason: String) -> Self {
        Self {
            kind: Refusal::Bound,
            reason,
        }
    }
}

impl Peer {
    /// Asks the kernel: SO_PEERCRED, SO_PEERPIDFD (6.5; before, pidfd_open(2)), and /proc for its groups.
    ///
    /// # Errors
    /// Where it has gone already.
    pub(super) fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = getsockopt(socket, sockopt::PeerCredentials)?;
        let pid = credentials.pid();
        let process = match getsockopt(socket, sockopt::PeerPidfd) {
            Ok(process) => process,
            Err(_) => pidfd::open(pid)?,
        };
        let path = format!("/proc/{pid}/status");
        let status = alive(&process, procfs::text(&path))?;
        let numbers = |name| -> io::Result<Vec<u32>> {
            let text = status_field(&status, name);
            let numbers = text.map(|text| text.split_whitespace().map(str::parse).collect());
            numbers
                .and_then(Result::ok)
                .ok_or_else(|| io::Error::other(format!("{path} is not as proc(5) has it")))
        };
        // One that has executed a setuid program since it connected has that program's groups.
        if numbers("Uid")?.iter().any(|uid| *uid != credentials.uid()) {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        let groups = numbers("Groups")?;
        Ok(Self {
            caller: Caller {
                uid: credentials.uid(),
                gid: credentials.gid(),
                groups,
            },
            pid,
            process,
            status,
        })
    }

    /// Whose runs it may see and end.
    pub(super) const fn whose(&self) -> Whose {
        match self.caller.uid {
            0 => Whose::All,
            uid => Whose::Of(uid),
        }
    }

    /// Its user, for people.
    pub(super) fn name(&self) -> String {
        let account = User::from_uid(self.caller.uid.into()).ok().flatten();
        account.map_or_else(|| self.caller.uid.to_string(), |account| account.name)
    }

    /// What a run of its takes over.
    ///
    /// # Errors
    /// Where it has gone.
    pub(super) fn manners(&self) -> io::Result<Manners> {
        Ok(Manners {
            umask: umask_in(&self.status)
                .ok_or_else(|| io::Error::other("the kernel does not tell its umask"))?,
            ignored_signals: ignored_in(&self.status),
            rlimits: alive(&self.process, ResourceLimit::all_of(self.pid))?,
        })
    }

    /// The leaf that it is in, if any: for an analysis the service does nothing.
    ///
    /// # Errors
    /// Where it has gone, or the cgroup tree cannot be read.
    pub(super) fn leaf(&self) -> io::Result<Option<String>> {
        let (mount, cgroup) = self.cgroup()?;
        leaf_around(&mount, &cgroup).map_err(io::Error::other)
    }

    fn cgroup(&self) -> io::Result<(Mount, String)> {
        let cgroup = alive(
            &self.process,
            Proc::default()
                .cgroup(&self.pid.to_string())
                .map_err(io::Error::other),
        )?;
        Ok((Mount::find().map_err(io::Error::other)?, cgroup))
    }

    /// Why no run of its may be started by the service; `None` where it may.
    ///
    /// # Errors
    /// Where it has gone, or the cgroup tree cannot be read.
    pub(super) fn objection(&self, limited: LimitedCallers) -> io::Result<Option<Objection>> {
        for (what, link) in [("mount namespace", "ns/mnt"), ("root directory", "root")] {
            let identity =
                |path: String| fs::metadata(path).map(|found| (found.dev(), found.ino()));
            let theirs = alive(
                &self.process,
                identity(format!("/proc/{}/{link}", self.pid)),
            )?;
            if theirs != identity(format!("/proc/self/{link}"))? {
                return Ok(Some(Objection::bound(format!(
                    "you have another {what} than the service, which would not find your files: use --standalone"
                ))));
            }
        }
        if let Some(bond) = bond_in(&self.status) {
            return Ok(Some(Objection::bound(format!(
                "you have {bond}, and a run that the service does would be free of it: use --standalone"
            ))));
        }
        if limited == LimitedCallers::Allow {
            return Ok(None);
        }
        let (mount, cgroup) = self.cgroup()?;
        let limit = CallerLimit::of(&mount, &cgroup).map_err(io::Error::other)?;
        Ok(limit.map(|CallerLimit { limited, cgroup, .. }| Objection {
            kind: Refusal::LimitedCaller,
            reason: format!(
                "your {limited} is limited by the cgroup {cgroup}, and a run that the service does would leave that: root's `sandbox run --standalone` stays below it, where it can have a leaf there; `limited-callers` in the host's configuration allows it"
            ),
        }))
    }
}

/// What was read of a process's pid, provided that it was still its own.
fn alive<T>(process: &OwnedFd, read: io::Result<T>) -> io::Result<T> {
    // ESRCH: it has ended, and the pid may be another's.
    pidfd::send_signal(process.as_fd(), 0)?;
    read
}

/// What a process is bound by for good, itself and all that it starts; from the text of its /proc/PID/status.
fn bond_in(status: &str) -> Option<&'static str> {
    let is_set = |name| status_field(status, name).is_some_and(|value| value != "0");
    if is_set("NoNewPrivs") {
        Some("no_new_privs")
    } else if is_set("Seccomp") {
        Some("a seccomp filter")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_binds_a_process_is_named() {
        assert_eq!(bond_in("NoNewPrivs:\t0\nSeccomp:\t0\n"), None);
        assert_eq!(
            bond_in("NoNewPrivs:\t1\nSeccomp:\t2\n"),
            Some("no_new_privs")
        );
        assert_eq!(
            bond_in("NoNewPrivs:\t0\nSeccomp:\t2\n"),
            Some("a seccomp filter")
        );
    }
}
