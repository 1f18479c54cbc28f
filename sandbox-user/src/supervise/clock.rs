//! The clocks of a run: monotonic for what is measured, both at one moment for dates.

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use crate::evidence::ClockAnchor;

/// CLOCK_MONOTONIC, ns: the clock of `bpf_ktime_get_ns()`.
pub(super) fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .ok()
        .and_then(|time| {
            let seconds = u64::try_from(time.tv_sec()).ok()?;
            let nanos = u64::try_from(time.tv_nsec()).ok()?;
            seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
        })
        .unwrap_or_default()
}

/// Both clocks, read one after the other.
pub(super) fn anchor() -> ClockAnchor {
    ClockAnchor {
        monotonic_ns: now_ns(),
        wall: Timestamp::now(),
    }
}
