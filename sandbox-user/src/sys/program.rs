//! What the child runs, and the memory through which it reports how far it came.
//!
//! With CLONE_VM the report needs no pipe: the supervisor wakes when the child has called exec (and has
//! left this memory) or has ended, and reads it then.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicUsize, Ordering};

use super::Errno;
use super::exec::Exec;
use super::step::Step;

/// The child's whole life before exec.
pub struct Program {
    steps: Vec<Step>,
    exec: Exec,
    report: Report,
}

/// How far the child came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// It never ran its first instruction.
    Unborn,
    /// It was at this step.
    At(&'a Step),
    /// It had come to exec.
    Exec,
}

/// What else is known about a failed exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecHint {
    /// Nothing.
    None,
    /// The file is there, so it is its `#!` interpreter or its ELF loader that is missing.
    InterpreterMissing,
    /// The kernel knew no format, and /bin/sh could not be executed either.
    Shell,
}

/// Written by the child, read by the supervisor once the child has left.
#[derive(Default)]
pub(super) struct Report {
    /// 0: nothing yet; N: at step N−1; one more than there are steps: at exec.
    progress: AtomicUsize,
    errno: AtomicI32,
    candidate: AtomicUsize,
    hint: AtomicU8,
}

impl Report {
    pub(super) fn set_candidate(&self, index: usize) {
        self.candidate.store(index, Ordering::Relaxed);
    }

    pub(super) fn set_exec_hint(&self, hint: ExecHint) {
        self.hint.store(hint as u8, Ordering::Relaxed);
    }

    pub(super) fn exec_hint(&self) -> ExecHint {
        match self.hint.load(Ordering::Relaxed) {
            hint if hint == ExecHint::InterpreterMissing as u8 => ExecHint::InterpreterMissing,
            hint if hint == ExecHint::Shell as u8 => ExecHint::Shell,
            _ => ExecHint::None,
        }
    }
}

impl Program {
    /// A child that takes these steps and executes that.
    pub fn new(steps: Vec<Step>, exec: Exec) -> Self {
        Self {
            steps,
            exec,
            report: Report::default(),
        }
    }

    /// The steps.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What it executes.
    pub fn exec(&self) -> &Exec {
        &self.exec
    }

    /// How far the child came.
    pub fn progress(&self) -> Progress<'_> {
        match self.report.progress.load(Ordering::Acquire) {
            0 => Progress::Unborn,
            at => self.steps.get(at - 1).map_or(Progress::Exec, Progress::At),
        }
    }

    /// The errno that the child gave up with, at [`Self::progress`]; `None` = it did not give up.
    pub fn errno(&self) -> Option<Errno> {
        match self.report.errno.load(Ordering::Acquire) {
            0 => None,
            errno => Some(errno),
        }
    }

    /// Which candidate the exec failure is about, and what is known about it.
    pub fn exec_failure(&self) -> (Option<&std::ffi::CStr>, ExecHint) {
        let index = self.report.candidate.load(Ordering::Acquire);
        (
            self.exec.candidates().get(index).map(AsRef::as_ref),
            self.report.exec_hint(),
        )
    }

    /// Runs in the child; returns only on failure, with the report written.
    ///
    /// # Safety
    /// Only in a child of [`super::clone`].
    pub(super) unsafe fn run(&self) {
        let mut at = 0_usize;
        for step in &self.steps {
            at = at.wrapping_add(1);
            self.report.progress.store(at, Ordering::Release);
            // SAFETY: the caller vouches that this is the child.
            if let Err(errno) = unsafe { step.take() } {
                self.report.errno.store(errno, Ordering::Release);
                return;
            }
        }
        self.report
            .progress
            .store(at.wrapping_add(1), Ordering::Release);
        // SAFETY: as above.
        let errno = unsafe { self.exec.run(&self.report) };
        self.report.errno.store(errno, Ordering::Release);
    }
}
