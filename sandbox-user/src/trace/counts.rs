//! What the kernel counts of each program: runs, their time, and runs that it skipped.

use super::{
    Tracer,
    programs::{self, Program},
};
use crate::sys::bpf::{ProgramCounts, counts_of_pinned};

/// Runs of a program that the kernel skipped (`recursion_misses`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misses {
    /// The program.
    pub program: &'static str,
    /// How many since it was loaded; `None` where that cannot be read.
    pub count: Option<u64>,
    /// Whether a verdict rests on it.
    pub verdict: bool,
}

impl Tracer {
    /// The runs that the kernel skipped, program by program.
    pub fn misses(&self) -> Vec<Misses> {
        programs::of(self.mode)
            .iter()
            .map(|program| Misses {
                program: program.name,
                count: self.counts(program).map(|counts| counts.recursion_misses),
                verdict: program.verdict,
            })
            .collect()
    }

    /// How often all programs have run and for how long, ns, while the kernel counted (BPF_ENABLE_STATS of
    /// bpf(2)); `None` where that cannot be read.
    pub fn runs(&self) -> Option<(u64, u64)> {
        let mut all = (0, 0);
        for program in programs::of(self.mode) {
            let counts = self.counts(program)?;
            all.0 += counts.runs;
            all.1 += counts.run_time_ns;
        }
        Some(all)
    }

    fn counts(&self, program: &Program) -> Option<ProgramCounts> {
        counts_of_pinned(&self.dir.pinned_program(program)).ok()
    }
}
