//! What all runs of a host may have together.

use serde::{Deserialize, Serialize};

use super::Setting;

/// What all runs may have of a host's memory where its own services are to be left enough: all but a tenth of it,
/// or 1 GiB where that is more, but half of a small one's.
pub fn share_of(memory_total_bytes: u64) -> u64 {
    const LEAST: u64 = 1 << 30;
    let kept = LEAST.max(memory_total_bytes / 10);
    memory_total_bytes - kept.min(memory_total_bytes / 2)
}

/// The host's budget: limits of the cgroup that has all its runs; `None` = nothing is said, so that
/// what is in force stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// `memory.max`, bytes.
    pub memory_bytes: Option<Setting<u64>>,
    /// The same where nothing is said of it: what is in force or, where nothing is, [`share_of`] the host's, which then
    /// comes into force; `None` = not known, or nobody's affair here.
    pub memory_share_bytes: Option<u64>,
    /// `memory.swap.max`, bytes.
    pub swap_bytes: Option<Setting<u64>>,
    /// `cpu.max`, cores.
    pub cpus: Option<Setting<f64>>,
    /// `pids.max`, tasks.
    pub pids: Option<Setting<u64>>,
}

impl Budget {
    /// What all runs may have of memory, as far as it goes by the configuration, bytes; `None` = all that there is.
    pub fn memory_most_bytes(&self) -> Option<u64> {
        self.memory_bytes
            .map_or(self.memory_share_bytes, Setting::into_option)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_own_services_are_left_a_tenth_or_a_gibibyte_or_half() {
        const GIB: u64 = 1 << 30;
        for (total, share) in [(GIB / 2, GIB / 4), (4 * GIB, 3 * GIB), (10 * GIB, 9 * GIB)] {
            assert_eq!(share_of(total), share);
        }
        assert_eq!(share_of(1000 * GIB), 900 * GIB);
    }

    #[test]
    fn what_is_said_of_memory_goes_before_the_share() {
        let share = Budget {
            memory_share_bytes: Some(7),
            ..Budget::default()
        };
        let said = |memory| Budget {
            memory_bytes: Some(memory),
            ..share.clone()
        };
        assert_eq!(share.memory_most_bytes(), Some(7));
        assert_eq!(said(Setting::Value(9)).memory_most_bytes(), Some(9));
        assert_eq!(said(Setting::Lifted).memory_most_bytes(), None);
    }
}
