//! Memory that a guest has and nobody gets.
//!
//! Page by page, an emulated processor would need a minute to use up most of a guest's memory.

use std::fs;

/// Memory taken from the guest at a stroke, as huge pages that nobody uses, until this is dropped.
#[derive(Debug)]
pub struct Withheld(());

impl Withheld {
    const POOL: &str = "/proc/sys/vm/nr_hugepages";
    const PAGE: i64 = 2 << 20;

    /// Takes all but so many bytes of what is available.
    #[must_use]
    #[track_caller]
    pub fn all_but(bytes: i64) -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").expect("proc is mounted");
        let available = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemAvailable:")?.strip_suffix(" kB"))
            .and_then(|kib| kib.trim().parse::<i64>().ok())
            .expect("the kernel tells what is available");
        let pages = (available * 1024 - bytes) / Self::PAGE;
        fs::write(Self::POOL, pages.to_string()).expect("the kernel has huge pages");
        Self(())
    }
}

impl Drop for Withheld {
    fn drop(&mut self) {
        fs::write(Self::POOL, "0").expect("what was written before");
    }
}
