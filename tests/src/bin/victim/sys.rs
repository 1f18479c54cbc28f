//! The only unsafe code of the victims: what safe Rust rightly cannot do.
#![expect(
    unsafe_code,
    reason = "crashing, forking and ignoring signals is what victims are for"
)]

use anyhow::{Context, Result};
use nix::libc;
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

/// Ends the calling thread alone, as exit(2) does and Rust never would.
pub(crate) fn end_this_thread() -> ! {
    // SAFETY: the thread's stack stays mapped, and nobody waits for its destructors.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    std::process::abort()
}

/// Lets any process of the same user trace this one, where Yama would allow ancestors only.
pub(crate) fn let_anybody_trace_us() -> Result<()> {
    // SAFETY: takes numbers only.
    let done = unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
    match nix::errno::Errno::result(done) {
        // Without Yama there is nothing to allow.
        Ok(_) | Err(nix::errno::Errno::EINVAL) => Ok(()),
        Err(error) => Err(error).context("could not allow to be traced"),
    }
}

/// Dies of a seccomp filter that kills the process at any system call.
pub(crate) fn break_a_seccomp_filter() -> Result<u8> {
    let mut forbid = [libc::sock_filter {
        code: u16::try_from(libc::BPF_RET | libc::BPF_K).context("a code of BPF is a u16")?,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_KILL_PROCESS,
    }];
    let program = libc::sock_fprog {
        len: 1,
        filter: forbid.as_mut_ptr(),
    };
    nix::sys::prctl::set_no_new_privs().context("could not set no_new_privs")?;
    crate::ready();
    // SAFETY: the kernel copies the program, which outlives the call.
    unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    std::process::exit(98)
}

/// Dies of strict seccomp, which allows read, write, exit and sigreturn only.
pub(crate) fn break_strict_seccomp() -> Result<u8> {
    crate::ready();
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) };
    let _ = nix::unistd::getpid();
    std::process::exit(98)
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
