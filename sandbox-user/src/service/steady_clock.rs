//! How long the clock has not been set, by which it is told whether what it says may be gone by.
//!
//! What is kept for some time would be gone at once, and for good, were a clock believed that jumps ahead: before NTP
//! has put it right, or by a slip of the hand. It is noted in /run/sandbox, so that a service goes on where one before
//! it was.

use std::{fs, path::Path, time::Duration};

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::say::say;

/// Where it is noted.
const NOTED: &str = "/run/sandbox/clock";
/// By how much the clock may go wrong unnoticed: NTP slews it by 2 s an hour at most (adjtimex(2)).
const SLIP: Duration = Duration::from_secs(60);

/// Since when the clock has not been set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Steady {
    /// How far it is ahead of the time since the host's boot, ms.
    ahead_ms: i64,
    /// Since when, in time since the boot, ms.
    since_ms: i64,
}

impl Steady {
    /// What follows from this look at both clocks.
    fn look(noted: Option<Self>, now_ms: i64, since_boot_ms: i64) -> Self {
        let ahead_ms = now_ms.saturating_sub(since_boot_ms);
        let slip_ms = i64::try_from(SLIP.as_millis()).unwrap_or(i64::MAX);
        let is_the_same = |noted: &Self| {
            let slipped_ms = ahead_ms.abs_diff(noted.ahead_ms);
            slipped_ms <= slip_ms.unsigned_abs() && noted.since_ms <= since_boot_ms
        };
        noted.filter(is_the_same).unwrap_or(Self {
            ahead_ms,
            since_ms: since_boot_ms,
        })
    }
}

/// How long the clock has not been set, as far as somebody has looked.
pub(super) fn steady_for() -> Duration {
    look(Path::new(NOTED))
}

fn look(path: &Path) -> Duration {
    let boot = clock_gettime(ClockId::Boottime);
    let since_boot_ms = boot.tv_sec * 1000 + boot.tv_nsec / 1_000_000;
    let noted = fs::read(path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    let steady = Steady::look(noted, Timestamp::now().as_millisecond(), since_boot_ms);
    if noted != Some(steady) {
        let text = serde_json::to_vec(&steady).unwrap_or_default();
        if let Err(error) = fs::write(path, text) {
            say(format_args!("{}: {error}", path.display()));
        }
    }
    Duration::from_millis(since_boot_ms.saturating_sub(steady.since_ms).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn a_clock_that_is_set_is_steady_from_then_on_only() {
        let first = Steady::look(None, 50 * DAY_MS, 1000);
        let later = |steady, now_ms, since_boot_ms| {
            Steady::look(Some(steady), now_ms, since_boot_ms).since_ms
        };
        assert_eq!(first.since_ms, 1000);
        // Slewed a little.
        assert_eq!(later(first, 50 * DAY_MS + 8000, 11_000), 1000);
        // Ahead, and back.
        let ahead = Steady::look(Some(first), 141 * DAY_MS, 21_000);
        assert_eq!(ahead.since_ms, 21_000);
        assert_eq!(later(ahead, 141 * DAY_MS + 10_000, 31_000), 21_000);
        assert_eq!(later(ahead, 50 * DAY_MS + 40_000, 41_000), 41_000);
        // What a boot before has left.
        assert_eq!(later(ahead, 141 * DAY_MS, 0), 0);
    }

    #[test]
    fn it_is_noted() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("clock");
        look(&path);
        let noted = fs::read(&path).expect("noted");
        look(&path);
        assert_eq!(fs::read(&path).expect("still noted"), noted);
        fs::write(&path, "nonsense").expect("written");
        assert!(look(&path) < Duration::from_secs(60));
    }
}
