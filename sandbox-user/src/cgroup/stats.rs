//! What a leaf used, and what happened to it, as the kernel counts it.
//!
//! One file that cannot be read must not cost the others: readers go on, and hand back what they got
//! together with what failed, so that a verdict rests on everything there is and the record says
//! what is missing. A file that this kernel lacks is `None` and no failure.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::CgroupError;
use super::files::{Dir, NestedKeyed, parse_flat_keyed, parse_nested_keyed, parse_pressure};
use crate::evidence::{EventCounters, FlatKeyed};
use crate::evidence::{Pressure, PressureTotals};

/// What was read, and what could not be.
#[derive(Debug)]
pub struct Reading<T> {
    /// What there is.
    pub value: T,
    /// Each file that is there and failed.
    pub failures: Vec<CgroupError>,
}

/// A leaf's use of resources; `None` = not measured on this kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafStats {
    /// `memory.current`, page cache included.
    pub memory_current_bytes: Option<u64>,
    /// `memory.peak` (5.19), page cache included.
    pub memory_peak_bytes: Option<u64>,
    /// `anon` of memory.stat.
    pub memory_anon_bytes: Option<u64>,
    /// `file` of memory.stat: page cache, tmpfs and shared memory included.
    pub memory_file_bytes: Option<u64>,
    /// `shmem` of memory.stat, a part of `file` that cannot be dropped.
    pub memory_shmem_bytes: Option<u64>,
    /// `kernel` of memory.stat (5.18).
    pub memory_kernel_bytes: Option<u64>,
    /// `slab_reclaimable` of memory.stat, a part of `kernel` that can be dropped.
    pub memory_slab_reclaimable_bytes: Option<u64>,
    /// `memory.swap.current`.
    pub swap_current_bytes: Option<u64>,
    /// `memory.swap.peak` (6.5).
    pub swap_peak_bytes: Option<u64>,
    /// `usage_usec` of cpu.stat.
    pub cpu_usage_us: Option<u64>,
    /// `user_usec`.
    pub cpu_user_us: Option<u64>,
    /// `system_usec`.
    pub cpu_system_us: Option<u64>,
    /// `throttled_usec`.
    pub cpu_throttled_us: Option<u64>,
    /// `nr_throttled`: periods in which it was throttled.
    pub cpu_throttled_periods: Option<u64>,
    /// `pids.current`.
    pub pids_current: Option<u64>,
    /// `pids.peak` (6.1).
    pub pids_peak: Option<u64>,
    /// `rbytes` of io.stat, over all block devices; 0 when none was touched.
    pub io_read_bytes: Option<u64>,
    /// `wbytes` of io.stat.
    pub io_write_bytes: Option<u64>,
    /// How long tasks waited for want of CPU, memory and I/O.
    pub pressure: Pressure,
}

impl LeafStats {
    /// What could not have been reclaimed just then: anon + shmem + kernel − slab_reclaimable.
    /// `None` unless all four are there.
    pub fn memory_needed_bytes(&self) -> Option<u64> {
        let (anon, shmem) = (self.memory_anon_bytes?, self.memory_shmem_bytes?);
        let kernel = self
            .memory_kernel_bytes?
            .saturating_sub(self.memory_slab_reclaimable_bytes?);
        anon.checked_add(shmem)?.checked_add(kernel)
    }
}

/// Reads the event counters of a cgroup.
pub(super) fn counters(dir: &Dir) -> Reading<EventCounters> {
    let mut reader = Reader::new(dir);
    let value = EventCounters {
        memory_events: reader.flat_keyed("memory.events"),
        memory_events_local: reader.flat_keyed("memory.events.local"),
        pids_events: reader.flat_keyed("pids.events"),
        pids_events_local: reader.flat_keyed("pids.events.local"),
    };
    Reading {
        value,
        failures: reader.failures,
    }
}

/// Reads the statistics of a cgroup, as far as `files` has them.
pub(super) fn stats(files: &impl Files) -> Reading<LeafStats> {
    let mut reader = Reader::new(files);
    let memory = reader.flat_keyed("memory.stat").unwrap_or_default();
    let cpu = reader.flat_keyed("cpu.stat").unwrap_or_default();
    let io: Option<NestedKeyed> = reader.keep(
        "io.stat",
        "lines of a device and its counts",
        parse_nested_keyed,
    );
    let io_sum = |key| io.as_ref().map(|devices| sum_over_devices(devices, key));
    let value = LeafStats {
        memory_current_bytes: reader.number("memory.current"),
        memory_peak_bytes: reader.number("memory.peak"),
        memory_anon_bytes: memory.get("anon").copied(),
        memory_file_bytes: memory.get("file").copied(),
        memory_shmem_bytes: memory.get("shmem").copied(),
        memory_kernel_bytes: memory.get("kernel").copied(),
        memory_slab_reclaimable_bytes: memory.get("slab_reclaimable").copied(),
        swap_current_bytes: reader.number("memory.swap.current"),
        swap_peak_bytes: reader.number("memory.swap.peak"),
        cpu_usage_us: cpu.get("usage_usec").copied(),
        cpu_user_us: cpu.get("user_usec").copied(),
        cpu_system_us: cpu.get("system_usec").copied(),
        cpu_throttled_us: cpu.get("throttled_usec").copied(),
        cpu_throttled_periods: cpu.get("nr_throttled").copied(),
        pids_current: reader.number("pids.current"),
        pids_peak: reader.number("pids.peak"),
        io_read_bytes: io_sum("rbytes"),
        io_write_bytes: io_sum("wbytes"),
        pressure: Pressure {
            cpu: reader.pressure("cpu.pressure"),
            memory: reader.pressure("memory.pressure"),
            io: reader.pressure("io.pressure"),
        },
    };
    Reading {
        value,
        failures: reader.failures,
    }
}

/// A device's line may lack a key; it then counts nothing.
fn sum_over_devices(devices: &NestedKeyed, key: &str) -> u64 {
    devices
        .values()
        .filter_map(|counts| counts.get(key)?.parse::<u64>().ok())
        .fold(0, u64::saturating_add)
}

/// The files of one cgroup, however they are reached.
pub(super) trait Files {
    /// The text of a file; `None` where there is no such file.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    fn text(&self, name: &str) -> Result<Option<String>, CgroupError>;

    /// Its path, for messages.
    fn path_of(&self, name: &str) -> PathBuf;
}

impl Files for Dir {
    fn text(&self, name: &str) -> Result<Option<String>, CgroupError> {
        self.read(name)
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.file_path(name)
    }
}

/// Reads file after file and keeps the failures.
struct Reader<'a, F> {
    files: &'a F,
    failures: Vec<CgroupError>,
}

impl<'a, F: Files> Reader<'a, F> {
    fn new(files: &'a F) -> Self {
        Self {
            files,
            failures: Vec::new(),
        }
    }

    fn keep<T>(
        &mut self,
        name: &str,
        expected: &'static str,
        parser: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let failure = match self.files.text(name) {
            Ok(text) => {
                let text = text?;
                match parser(&text) {
                    Some(value) => return Some(value),
                    None => CgroupError::Malformed {
                        path: self.files.path_of(name),
                        text,
                        expected,
                    },
                }
            }
            Err(error) => error,
        };
        self.failures.push(failure);
        None
    }

    fn number(&mut self, name: &str) -> Option<u64> {
        self.keep(name, "a number", |text| text.trim().parse().ok())
    }

    fn flat_keyed(&mut self, name: &str) -> Option<FlatKeyed> {
        self.keep(name, "lines of a key and a number", parse_flat_keyed)
    }

    fn pressure(&mut self, name: &str) -> Option<PressureTotals> {
        self.keep(name, "a line some … total=N", parse_pressure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(files: &[(&str, &str)]) -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().expect("temp dir");
        for (name, text) in files {
            std::fs::write(temp.path().join(name), text).expect("write");
        }
        let dir = Dir::open(temp.path()).expect("open");
        (temp, dir)
    }

    #[test]
    fn what_this_kernel_lacks_is_none_and_no_failure() {
        let (_temp, dir) = dir(&[]);
        let reading = stats(&dir);
        assert_eq!(reading.value, LeafStats::default());
        assert!(reading.failures.is_empty());
        assert_eq!(counters(&dir).value, EventCounters::default());
    }

    #[test]
    fn one_broken_file_costs_only_itself_and_is_named() {
        let (_temp, dir) = dir(&[
            ("memory.peak", "many\n"),
            ("memory.current", "4096\n"),
            ("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\n"),
        ]);
        let reading = stats(&dir);
        assert_eq!(reading.value.memory_current_bytes, Some(4096));
        assert_eq!(reading.value.cpu_user_us, Some(20));
        assert_eq!(reading.value.cpu_throttled_us, None);
        assert_eq!(reading.value.memory_peak_bytes, None);
        assert_eq!(reading.failures.len(), 1);
        assert!(reading.failures[0].to_string().contains("memory.peak"));
    }

    #[test]
    fn io_is_summed_over_devices_and_zero_when_none_was_touched() {
        let (_temp, io) = dir(&[(
            "io.stat",
            "8:0 rbytes=4096 wbytes=1\n7:0\n8:16 rbytes=4 wbytes=2\n",
        )]);
        assert_eq!(stats(&io).value.io_read_bytes, Some(4100));
        assert_eq!(stats(&io).value.io_write_bytes, Some(3));
        let (_temp, idle) = dir(&[("io.stat", "")]);
        assert_eq!(stats(&idle).value.io_read_bytes, Some(0));
    }

    #[test]
    fn memory_needed_is_known_only_when_all_its_parts_are() {
        let (_temp, dir) = dir(&[(
            "memory.stat",
            "anon 100\nfile 900\nshmem 20\nkernel 30\nslab_reclaimable 10\n",
        )]);
        let mut stats = stats(&dir).value;
        assert_eq!(stats.memory_needed_bytes(), Some(140));
        stats.memory_kernel_bytes = None;
        assert_eq!(stats.memory_needed_bytes(), None);
    }
}
