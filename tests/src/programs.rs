//! What eBPF programs have cost, by the kernel's own count (`kernel.bpf_stats_enabled`).

use std::collections::BTreeMap;
use std::fs;

use crate::maps::{PINS, number, number_in, open};

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

    /// Has the kernel count from now on; for a guest's whole life, or until [`Programs::count_no_more`].
    ///
    /// # Panics
    ///
    /// Where it cannot.
    pub fn count() {
        fs::write(Self::SWITCH, "1").expect("root may have it count");
    }

    /// Spares the programs the counting.
    ///
    /// # Panics
    ///
    /// Where that cannot be.
    pub fn count_no_more() {
        fs::write(Self::SWITCH, "0").expect("root may have it stop");
    }

    /// Reads what was counted so far of the programs that a process has open, each once.
    ///
    /// # Panics
    ///
    /// Where it has none.
    #[must_use]
    #[track_caller]
    pub fn held_by(pid: u32) -> Self {
        let folder = format!("/proc/{pid}/fdinfo");
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
        let programs: BTreeMap<u64, String> = files
            .flatten()
            // What was closed meanwhile is none of them.
            .filter_map(|file| fs::read_to_string(file.path()).ok())
            .filter(|info| info.contains("prog_id:") && info.contains("run_cnt:"))
            .map(|info| (number_in(&info, "prog_id:"), info))
            .collect();
        assert!(!programs.is_empty(), "{pid} has no program open");
        Self {
            runs: programs
                .values()
                .map(|info| number_in(info, "run_cnt:"))
                .sum(),
            run_time_ns: programs
                .values()
                .map(|info| number_in(info, "run_time_ns:"))
                .sum(),
        }
    }

    /// Reads what was counted so far of the engine's, which are pinned.
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
