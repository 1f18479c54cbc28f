//! The `cpu.max` of a share of cores.

use super::error::CgroupError;
use super::files::{CpuMax, Max};

/// Periods to choose from, µs: the kernel's default first, its longest last (`default_cfs_period_us`
/// and `max_cfs_quota_period`, kernel/sched). Round ones, so that a share reads back as it was asked.
const PERIODS_US: [u64; 4] = [100_000, 200_000, 500_000, 1_000_000];
/// The smallest quota, µs (`min_cfs_quota_period`).
const QUOTA_MIN_US: u64 = 1_000;

/// The `cpu.max` for a share of cores: the kernel's default period, or a longer one where the quota
/// would fall under the kernel's minimum.
///
/// # Errors
/// Under 0.001 core, and for what is no positive number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "checked to be positive, finite and below 2^53 µs"
)]
pub fn cpu_max_for(cpus: Option<f64>) -> Result<CpuMax, CgroupError> {
    let Some(cores) = cpus else {
        return Ok(CpuMax {
            quota_us: Max::Unlimited,
            period_us: PERIODS_US[0],
        });
    };
    // 0.001 core is QUOTA_MIN_US in the longest period. A million cores keeps the product exact.
    if !(0.001..=1e6).contains(&cores) {
        return Err(CgroupError::LimitOutOfRange {
            limit: "cpus",
            value: cores.to_string(),
            range: "0.001 to 1000000 cores",
        });
    }
    let quota_in = |period_us: u64| (cores * period_us as f64).round() as u64;
    let [.., longest] = PERIODS_US;
    let period_us = PERIODS_US
        .into_iter()
        .find(|period_us| quota_in(*period_us) >= QUOTA_MIN_US)
        .unwrap_or(longest);
    let quota_us = Max::At(quota_in(period_us).max(QUOTA_MIN_US));
    Ok(CpuMax {
        quota_us,
        period_us,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_cores_becomes_a_quota_within_the_kernel_s_bounds() {
        let table = [
            (Some(1.0), "100000 100000"),
            (Some(1.5), "150000 100000"),
            (Some(0.01), "1000 100000"),
            (Some(0.005), "1000 200000"),
            (Some(0.003), "1500 500000"),
            (Some(0.001), "1000 1000000"),
            (Some(128.0), "12800000 100000"),
            (None, "max 100000"),
        ];
        for (cores, expected) in table {
            assert_eq!(
                cpu_max_for(cores).expect("in range").to_string(),
                expected,
                "{cores:?}"
            );
        }
        for cores in [0.0, -1.0, 0.0009, f64::NAN, f64::INFINITY] {
            assert!(cpu_max_for(Some(cores)).is_err(), "{cores}");
        }
    }
}
