//! execve over candidates prepared beforehand, the way execvpe(3) does it.
//!
//! The lookup uses the analysis's own PATH and happens in the child, after it has become the
//! analysis's user: what that user may not reach is not found. As with `timeout` and `nice` (execvp), a
//! file that is executable but has no format the kernel knows is handed to /bin/sh.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::program::{ExecHint, Report};
use super::{Errno, check};

/// Where the command is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The command has a slash: this one file.
    Direct,
    /// Each candidate in turn.
    Search,
}

/// Everything that execve needs, as the kernel wants it.
pub struct Exec {
    candidates: Vec<CString>,
    lookup: Lookup,
    // The arrays below point into these; a CString's bytes stay put when it is moved.
    _strings: Vec<CString>,
    argv: Vec<AtomicPtr<c_char>>,
    envp: Vec<AtomicPtr<c_char>>,
    /// `/bin/sh CANDIDATE ARG…`; the child fills in the candidate.
    shell_argv: Vec<AtomicPtr<c_char>>,
}

const SHELL: &CStr = c"/bin/sh";

impl Exec {
    /// Prepares the arrays. `argv` is not empty.
    pub fn new(
        candidates: Vec<CString>,
        lookup: Lookup,
        argv: Vec<CString>,
        env: Vec<CString>,
    ) -> Self {
        let end = || AtomicPtr::new(null_mut());
        let pointer = |string: &CString| AtomicPtr::new(string.as_ptr().cast_mut());
        let shell_argv = [AtomicPtr::new(SHELL.as_ptr().cast_mut()), end()]
            .into_iter()
            .chain(argv.iter().skip(1).map(pointer))
            .chain([end()])
            .collect();
        Self {
            candidates,
            lookup,
            shell_argv,
            argv: argv.iter().map(pointer).chain([end()]).collect(),
            envp: env.iter().map(pointer).chain([end()]).collect(),
            _strings: argv.into_iter().chain(env).collect(),
        }
    }

    /// The files that are tried, in order.
    pub fn candidates(&self) -> &[CString] {
        &self.candidates
    }

    /// How they were found.
    pub const fn lookup(&self) -> Lookup {
        self.lookup
    }

    /// Tries each candidate; comes back only when none could be executed.
    ///
    /// # Safety
    /// Only in a child of [`super::clone`].
    pub(super) unsafe fn run(&self, report: &Report) -> Errno {
        let mut failure = libc::ENOENT;
        for (index, file) in self.candidates.iter().enumerate() {
            if failure == libc::ENOENT && report.exec_hint() == ExecHint::None {
                report.set_candidate(index);
            }
            // SAFETY: a live string, and NULL-terminated arrays of pointers to live strings.
            let errno = unsafe { self.execve(file, &self.argv) };
            match (errno, self.lookup) {
                (libc::ENOEXEC, _) => {
                    report.set_candidate(index);
                    report.set_exec_hint(ExecHint::Shell);
                    if let Some(slot) = self.shell_argv.get(1) {
                        slot.store(file.as_ptr().cast_mut(), Ordering::Relaxed);
                    }
                    // SAFETY: as above; the slot now holds the candidate.
                    return unsafe { self.execve(SHELL, &self.shell_argv) };
                }
                (libc::ENOENT, _) => {
                    // SAFETY: `file` is live; faccessat only reads it.
                    let there = unsafe {
                        libc::syscall(
                            libc::SYS_faccessat,
                            libc::AT_FDCWD,
                            file.as_ptr(),
                            libc::F_OK,
                        )
                    };
                    if check(there).is_ok() && failure == libc::ENOENT {
                        report.set_candidate(index);
                        report.set_exec_hint(ExecHint::InterpreterMissing);
                    }
                }
                (libc::EACCES, Lookup::Search) => {
                    if failure == libc::ENOENT {
                        report.set_candidate(index);
                        report.set_exec_hint(ExecHint::None);
                    }
                    failure = libc::EACCES;
                }
                (libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT, Lookup::Search) => {
                }
                (errno, _) => {
                    report.set_candidate(index);
                    report.set_exec_hint(ExecHint::None);
                    return errno;
                }
            }
        }
        failure
    }

    unsafe fn execve(&self, file: &CStr, argv: &[AtomicPtr<c_char>]) -> Errno {
        let argv: *const c_void = argv.as_ptr().cast();
        let envp: *const c_void = self.envp.as_ptr().cast();
        // SAFETY: AtomicPtr has the layout of a pointer; both arrays end in NULL (`new`).
        match check(unsafe { libc::syscall(libc::SYS_execve, file.as_ptr(), argv, envp) }) {
            Ok(_) => 0,
            Err(errno) => errno,
        }
    }
}
