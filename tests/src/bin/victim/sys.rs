//! The only unsafe code of the victims: what safe Rust rightly cannot do.
#![expect(
    unsafe_code,
    reason = "crashing, forking and ignoring signals is what victims are for"
)]

use anyhow::{Context, Result};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, Pid};

/// Which side of a fork we are on.
#[derive(Debug)]
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The old one, with the new one's pid.
    Parent(Pid),
}

/// A plain fork, with no exec after it.
pub(crate) fn fork() -> Result<Forked> {
    // SAFETY: no victim that forks has started a thread, so the child may go on in Rust.
    match unsafe { nix::unistd::fork() }.context("fork was denied")? {
        ForkResult::Child => Ok(Forked::Child),
        ForkResult::Parent { child } => Ok(Forked::Parent(child)),
    }
}

/// Sets a signal's disposition to SIG_IGN.
pub(crate) fn ignore(ignored: Signal) -> Result<()> {
    // SAFETY: no handler of ours runs; SIG_IGN is the kernel's business alone.
    unsafe { signal(ignored, SigHandler::SigIgn) }.context("could not ignore the signal")?;
    Ok(())
}

/// Dies of a genuine SIGSEGV, raised by the processor's fault.
pub(crate) fn write_to_null() -> ! {
    // Rust's own handler would look for a stack overflow first.
    // SAFETY: the default action is the kernel's business alone.
    let _ = unsafe { signal(Signal::SIGSEGV, SigHandler::SigDfl) };
    let nowhere = std::hint::black_box(16_usize) as *mut u8;
    // SAFETY: none, on purpose: the page at 0 is never mapped, so that the write ends the process.
    unsafe { nowhere.write_volatile(1) };
    std::process::abort()
}
