//! What the engine's pinned programs have cost, by the kernel's own count (`kernel.bpf_stats_enabled`).

use std::fs;

use crate::maps::{PINS, number, open};

/// Runs of all programs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Programs {
    /// How often they ran.
    pub runs: u64,
    /// How long that took, ns.
    pub run_time_ns: u64,
}

impl Programs {
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

    /// Has the kernel count from now on; for a guest's whole life.
    ///
    /// # Panics
    ///
    /// Where it cannot.
    pub fn count() {
        fs::write(Self::SWITCH, "1").expect("root may have it count");
    }

    /// Reads what was counted so far.
    ///
    /// # Panics
    ///
    /// Where no run has loaded the programs yet.
    #[must_use]
    #[track_caller]
    pub fn read() -> Self {
        let mut all = Self::default();
        for build in fs::read_dir(PINS)
            .expect("the programs are pinned")
            .flatten()
        {
            for pin in fs::read_dir(build.path())
                .expect("a folder of pins")
                .flatten()
            {
                let name = pin.file_name().to_string_lossy().into_owned();
                if name.starts_with("program_") {
                    let program = open(&pin.path());
                    all.runs += number(&program, "run_cnt:");
                    all.run_time_ns += number(&program, "run_time_ns:");
                }
            }
        }
        assert!(all.runs > 0, "no program has run, or none is pinned");
        all
    }
}
