//! What all runs of a host may have together.

use serde::{Deserialize, Serialize};

use super::Setting;

/// The host's budget: limits of the cgroup that has all its runs; `None` = nothing is said, so that
/// what is in force stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// `memory.max`, bytes.
    pub memory_bytes: Option<Setting<u64>>,
    /// `memory.swap.max`, bytes.
    pub swap_bytes: Option<Setting<u64>>,
    /// `cpu.max`, cores.
    pub cpus: Option<Setting<f64>>,
    /// `pids.max`, tasks.
    pub pids: Option<Setting<u64>>,
}
