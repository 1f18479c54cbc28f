//! The start of an analysis: a clean child, born inside its leaf.
//!
//! Everything is decided and allocated beforehand ([`plan`]), the child only takes the steps. A start that
//! fails says at which step, with which errno and what that means for the exit status, apart from anything that
//! the command itself may return. Nothing outlives a failed start: the child is reaped, and its mounts
//! go with its mount namespace.

mod failure;
mod plan;
mod view;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use thiserror::Error;

use crate::evidence::{SetupFailure, SetupFailureKind, WaitStatus};
use crate::identity::Identity;
use crate::procfs::Stat;
use crate::sys::clone;
use crate::sys::creds::guard_memory;
use crate::sys::pidfd::{self, Patience, Reap};
use crate::sys::program::Progress;
use crate::sys::rlimits::ResourceLimit;

pub use crate::sys::clone::Launch;

/// Whose terminal an analysis has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// The caller's: same session and process group, so that Ctrl-C, Ctrl-Z and the foreground
    /// work as they would without `sandbox`.
    Shared,
    /// None: a session of its own.
    OwnSession,
}

impl Terminal {
    /// Shared where this process has a controlling terminal (/dev/tty opens, see tty(4)).
    pub fn detect() -> Self {
        match std::fs::File::open("/dev/tty") {
            Ok(_) => Self::Shared,
            Err(_) => Self::OwnSession,
        }
    }
}

/// Where an analysis starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkingDirectory {
    /// Where `sandbox` stands, even if the analysis's user could not go there by itself.
    Inherited,
    /// `--chdir`: gone to with the analysis's own rights.
    Path(PathBuf),
}

/// One start.
#[derive(Debug)]
pub struct SpawnSpec<'a> {
    /// Command and arguments.
    pub argv: Vec<OsString>,
    /// The whole environment; its PATH is where the command is looked for.
    pub env: Vec<(OsString, OsString)>,
    /// Where it starts.
    pub cwd: WorkingDirectory,
    /// Who it runs as.
    pub identity: &'a Identity,
    /// Its standard input.
    pub stdin: BorrowedFd<'a>,
    /// Its standard output.
    pub stdout: BorrowedFd<'a>,
    /// Its standard error.
    pub stderr: BorrowedFd<'a>,
    /// The leaf's directory; O_PATH serves.
    pub leaf: BorrowedFd<'a>,
    /// Which cgroup the clone comes from.
    pub launch: Launch<'a>,
    /// Its oom_score_adj (500 by design).
    pub oom_score_adj: i16,
    /// Its terminal.
    pub terminal: Terminal,
    /// Signals that stay ignored, such as nohup's SIGHUP; every other disposition is the default.
    pub ignored_signals: Vec<i32>,
    /// The caller's limits, where this process has lifted its own.
    pub rlimits: &'a [ResourceLimit],
}

/// A started analysis. Its exec has succeeded, or was past its point of no return.
#[derive(Debug)]
pub struct Spawned {
    /// Process id.
    pub pid: i32,
    /// A pidfd of it, close-on-exec. Not reaped.
    pub pidfd: OwnedFd,
    /// Start time in clock ticks since boot (/proc/PID/stat).
    pub start_time_ticks: u64,
}

/// A start that came to nothing; nothing of it is left, but for [`SpawnError::Unwatched`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SpawnError {
    /// A step failed.
    #[error("could not {}{}", .0.step, why(.0.errno))]
    Setup(SetupFailure),
    /// SIGKILL before its first instruction. Where nobody killed the leaf, it is what Linux ≥ 6.18
    /// does when cgroup.kill was written earlier in the leaf or in the cloner's own cgroup: start again with
    /// [`Launch::Staged`] and a fresh leaf.
    #[error(
        "the child was killed at birth: cgroup.kill was written in its leaf, or earlier in this process's own cgroup"
    )]
    KilledAtBirth,
    /// A signal ended it on its way to exec: a kill from outside, or the OOM killer during exec.
    #[error("the child was killed before its exec, at: {step}")]
    Killed {
        /// What it was doing.
        step: String,
        /// How it ended.
        status: WaitStatus,
    },
    /// It may have been executed, and may run: it is for the caller to say why before it is killed.
    #[error("could not watch the new child {pid} execute: {problem}")]
    Unwatched {
        /// Process id.
        pid: i32,
        /// What failed.
        problem: String,
    },
}

impl SpawnError {
    /// The same where an allocation in the leaf has failed meanwhile, which the kernel does not always say.
    #[must_use]
    pub fn after_failed_allocation(self, argv: &[OsString]) -> Self {
        match self {
            Self::Setup(failure) if failure::may_be_for_want_of_memory(&failure) => {
                Self::Setup(failure::for_want_of_memory(failure, argv))
            }
            other @ (Self::Setup(_)
            | Self::KilledAtBirth
            | Self::Killed { .. }
            | Self::Unwatched { .. }) => other,
        }
    }

    /// The same as evidence; a killed child has no errno.
    pub fn into_failure(self) -> SetupFailure {
        let killed = |step| SetupFailure {
            step,
            errno: None,
            kind: SetupFailureKind::Other,
        };
        match self {
            Self::Setup(failure) => failure,
            Self::KilledAtBirth => killed("start the child (it was killed at birth)".to_owned()),
            Self::Killed { step, .. } => killed(format!("{step} (the child was killed)")),
            Self::Unwatched { pid, problem } => {
                killed(format!("watch the new child {pid} execute ({problem})"))
            }
        }
    }
}

fn why(errno: Option<i32>) -> String {
    errno.map_or_else(String::new, |errno| {
        format!(": {}", io::Error::from_raw_os_error(errno))
    })
}

impl From<SetupFailure> for SpawnError {
    fn from(failure: SetupFailure) -> Self {
        Self::Setup(failure)
    }
}

/// Starts an analysis in its leaf; comes back when its exec has succeeded or the start has failed.
///
/// Leaves this process non-dumpable ([`guard_memory`]). Blocks the calling thread, with all signals blocked, for the milliseconds that takes.
///
/// # Errors
/// [`SpawnError`]; the leaf is then as empty as before, but for [`SpawnError::Unwatched`].
pub fn spawn(spec: &SpawnSpec<'_>) -> Result<Spawned, SpawnError> {
    let plan = plan::prepare(spec)?;
    let program = plan.program();
    guard_memory();
    let born = clone::launch(spec.leaf, spec.launch, program).map_err(failure::of_clone)?;
    let pidfd = born.pidfd.as_fd();

    if let Some(errno) = program.errno() {
        take_away(pidfd);
        return Err(failure::of_program(program, &spec.argv, errno).into());
    }
    match outcome_of_exec(born.pid, pidfd) {
        Ok(ExecOutcome::Executed { start_time_ticks }) => Ok(Spawned {
            pid: born.pid,
            pidfd: born.pidfd,
            start_time_ticks,
        }),
        Ok(ExecOutcome::Died(status)) => {
            take_away(pidfd);
            Err(match program.progress() {
                Progress::Unborn => SpawnError::KilledAtBirth,
                at @ (Progress::At(_) | Progress::Exec) => SpawnError::Killed {
                    step: failure::describe(at, &spec.argv),
                    status,
                },
            })
        }
        // Without its start time nobody could tell it from its pid's next owner.
        Err(error) => Err(SpawnError::Unwatched {
            pid: born.pid,
            problem: error.to_string(),
        }),
    }
}

/// What came of a child that has left the shared memory without giving up.
enum ExecOutcome {
    Executed { start_time_ticks: u64 },
    Died(WaitStatus),
}

/// Exec and death both wake the cloner a moment before they show: exec leaves the memory first and
/// clears the flag then (fs/exec.c, begin_new_exec), and an exiting child is no zombie yet. So look
/// until one shows.
fn outcome_of_exec(pid: i32, pidfd: BorrowedFd<'_>) -> io::Result<ExecOutcome> {
    loop {
        // Before the flag, which a dead child does not change any more.
        let status = pidfd::wait(pidfd, Reap::Leave, Patience::Poll)?;
        let stat = Stat::of(pid.unsigned_abs())?;
        match status {
            _ if !stat.never_executed() => {
                return Ok(ExecOutcome::Executed {
                    start_time_ticks: stat.start_time_ticks,
                });
            }
            Some(status) => return Ok(ExecOutcome::Died(status)),
            None => {
                // Returns early when the child dies.
                let _ = poll(
                    &mut [PollFd::new(pidfd, PollFlags::POLLIN)],
                    PollTimeout::from(1_u8),
                );
            }
        }
    }
}

/// Reaps a child that has ended or is about to. `None`: somebody else did.
fn take_away(pidfd: BorrowedFd<'_>) -> Option<WaitStatus> {
    pidfd::wait(pidfd, Reap::Take, Patience::Block)
        .ok()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Change;

    #[test]
    fn a_directory_that_is_no_cgroup_is_refused_and_leaves_no_child() -> io::Result<()> {
        let not_a_leaf = std::fs::File::open("/")?;
        let null = std::fs::File::open("/dev/null")?;
        let identity = Identity {
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
            groups: Vec::new(),
            name: None,
            home: None,
            change: Change::Same,
        };
        for launch in [
            Launch::Direct,
            Launch::Staged {
                procs: null.as_fd(),
            },
        ] {
            let started = spawn(&SpawnSpec {
                argv: vec!["true".into()],
                env: Vec::new(),
                cwd: WorkingDirectory::Inherited,
                identity: &identity,
                stdin: null.as_fd(),
                stdout: null.as_fd(),
                stderr: null.as_fd(),
                leaf: not_a_leaf.as_fd(),
                launch,
                oom_score_adj: 500,
                terminal: Terminal::Shared,
                ignored_signals: Vec::new(),
                rlimits: &[],
            });
            let kind = started
                .map(|_| ())
                .map_err(|error| error.into_failure().kind);
            assert_eq!(kind, Err(SetupFailureKind::Other), "{launch:?}");
        }
        Ok(())
    }
}
