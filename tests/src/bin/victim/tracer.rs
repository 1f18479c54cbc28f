//! Killing as debuggers do: by ptrace(2), from within the run or from outside of it.

use anyhow::{Context, Result, bail};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

use crate::sys::{self, Forked};

/// What a tracer does to the process that it traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Deed {
    /// Exit, having asked that its tracee dies with it (PTRACE_O_EXITKILL).
    Exit,
    /// PTRACE_KILL.
    Kill,
    /// Have it go on with SIGTERM when it stops for another signal (PTRACE_CONT).
    InjectTerm,
    /// Leave it with SIGKILL when it stops for another signal (PTRACE_DETACH).
    InjectKill,
}

/// Seizes the process and does the deed.
pub(crate) fn trace(pid: Pid, deed: Deed) -> Result<()> {
    let options = match deed {
        Deed::Exit | Deed::Kill => Options::PTRACE_O_EXITKILL,
        Deed::InjectTerm | Deed::InjectKill => Options::empty(),
    };
    ptrace::seize(pid, options).with_context(|| format!("could not trace process {pid}"))?;
    match deed {
        Deed::Exit => Ok(()),
        Deed::Kill => ptrace::kill(pid).with_context(|| format!("could not kill process {pid}")),
        Deed::InjectTerm => {
            stop_by_a_signal(pid)?;
            ptrace::cont(pid, Signal::SIGTERM)?;
            waitpid(pid, None)?;
            Ok(())
        }
        Deed::InjectKill => {
            stop_by_a_signal(pid)?;
            Ok(ptrace::detach(pid, Signal::SIGKILL)?)
        }
    }
}

/// Has a tracee stop for a signal that it would take no notice of.
fn stop_by_a_signal(pid: Pid) -> Result<()> {
    kill(pid, Signal::SIGURG).with_context(|| format!("could not signal process {pid}"))?;
    let status = waitpid(pid, None)?;
    if status != WaitStatus::Stopped(pid, Signal::SIGURG) {
        bail!("process {pid} did not stop for SIGURG: {status:?}");
    }
    Ok(())
}

/// Has a child do it to us.
pub(crate) fn traced_by_child(deed: Deed) -> Result<()> {
    let us = getpid();
    sys::let_anybody_trace_us()?;
    if let Forked::Child = sys::fork()? {
        trace(us, deed)?;
        std::process::exit(0);
    }
    Ok(())
}
