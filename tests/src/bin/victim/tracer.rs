//! Killing as debuggers do: by ptrace(2), from within the run or from outside of it.

use anyhow::{Context, Result};
use nix::sys::ptrace::{self, Options};
use nix::unistd::{Pid, getpid};

use crate::sys::{self, Forked};

/// What a tracer does to the process that it traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Deed {
    /// Exit, having asked that its tracee dies with it (PTRACE_O_EXITKILL).
    Exit,
    /// PTRACE_KILL.
    Kill,
}

/// Seizes the process and does the deed.
pub(crate) fn trace(pid: Pid, deed: Deed) -> Result<()> {
    ptrace::seize(pid, Options::PTRACE_O_EXITKILL)
        .with_context(|| format!("could not trace process {pid}"))?;
    match deed {
        Deed::Exit => Ok(()),
        Deed::Kill => ptrace::kill(pid).with_context(|| format!("could not kill process {pid}")),
    }
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
