//! What the kernel counts of each program: runs, their time, and runs that it skipped (fdinfo of a program,
//! kernel/bpf/syscall.c, bpf_prog_show_fdinfo).

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::programs::ProgramInfo;

use super::{
    Tracer,
    programs::{self, Program},
};

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
        let count = |info: String| number_in(&info, "recursion_misses:");
        programs::of(self.mode)
            .iter()
            .map(|program| Misses {
                program: program.name,
                count: self.fdinfo(program).and_then(count),
                verdict: program.verdict,
            })
            .collect()
    }

    /// How often all programs have run and for how long, ns, while the kernel counted (BPF_ENABLE_STATS of
    /// bpf(2)); `None` where that cannot be read.
    pub fn runs(&self) -> Option<(u64, u64)> {
        let mut all = (0, 0);
        for program in programs::of(self.mode) {
            let info = self.fdinfo(program)?;
            all.0 += number_in(&info, "run_cnt:")?;
            all.1 += number_in(&info, "run_time_ns:")?;
        }
        Some(all)
    }

    /// What /proc tells of a pinned program.
    fn fdinfo(&self, program: &Program) -> Option<String> {
        let info = ProgramInfo::from_pin(self.dir.pinned_program(program)).ok()?;
        let fd = info.fd().ok()?;
        std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd())).ok()
    }
}

fn number_in(info: &str, field: &str) -> Option<u64> {
    let rest = info.lines().find_map(|line| line.strip_prefix(field))?;
    rest.trim().parse().ok()
}
