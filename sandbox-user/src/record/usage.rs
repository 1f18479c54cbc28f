//! What a run used. Null = not measured.

pub use crate::evidence::{Pressure, PressureTotals};
use serde::{Deserialize, Serialize};

/// What a run used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode.
    pub cpu_user_us: Option<u64>,
    /// CPU time in the kernel.
    pub cpu_system_us: Option<u64>,
    /// Highest memory, page cache included (`memory.peak`, 5.19 and later).
    pub memory_peak_bytes: Option<u64>,
    /// Highest memory that could not be reclaimed.
    pub memory_needed_bytes: Option<MemoryNeeded>,
    /// Highest swap.
    pub swap_peak_bytes: Option<u64>,
    /// Most tasks at a time.
    pub pids_peak: Option<u64>,
    /// Time that tasks were held back by `cpu.max`.
    pub throttled_us: Option<u64>,
    /// Read from block devices.
    pub io_read_bytes: Option<u64>,
    /// Written to block devices.
    pub io_write_bytes: Option<u64>,
    /// Time lost waiting for resources.
    pub pressure: Pressure,
}

/// The highest seen of anon + shmem + kernel − slab_reclaimable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryNeeded {
    /// The figure.
    pub value: u64,
    /// Memory ran out, so it may have needed more.
    pub lower_bound: bool,
    /// Where the figure is from.
    pub source: NeededSource,
}

/// Where it is known from what memory a run needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NeededSource {
    /// The highest of the samples.
    Samples,
    /// What the leaf used when the kernel found nothing more in it to reclaim.
    Oom,
}
