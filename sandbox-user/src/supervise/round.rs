//! When somebody last looked on this host for runs that were lost, where that takes its time.
//!
//! It takes the longer the more leaves there are, and each run would do it. So where there are many, a run leaves it to
//! the next while no more than [`SHARE`] times as long has passed as it took: all of them together then spend at most
//! that part of a processor on it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::clock;

/// Kept here until the next boot: when it was over (CLOCK_MONOTONIC), and how long it took, both in ns.
const LAST: &str = "/run/sandbox/recovered";
/// One in so many parts of the time.
const SHARE: u32 = 20;
/// So many leaves are looked at every time.
const FEW: usize = 100;

/// A round that has begun.
pub(super) struct Round {
    last: PathBuf,
    began: Instant,
}

impl Round {
    /// Begins one; `None` where the last one is to do for now.
    pub(super) fn if_due() -> Option<Self> {
        Self::after(Path::new(LAST), clock::now_ns())
    }

    /// Begins one in any case.
    pub(super) fn begin() -> Self {
        Self {
            last: LAST.into(),
            began: Instant::now(),
        }
    }

    fn after(last: &Path, now_ns: u64) -> Option<Self> {
        let rests = |(over_at_ns, rest): (u64, Duration)| {
            let passed = now_ns.checked_sub(over_at_ns).map(Duration::from_nanos);
            passed.is_some_and(|passed| passed < rest)
        };
        match read(last).is_some_and(rests) {
            true => None,
            false => Some(Self {
                last: last.to_owned(),
                began: Instant::now(),
            }),
        }
    }

    /// It is over, having come to so many leaves.
    pub(super) fn end(self, leaves: usize) {
        if leaves > FEW {
            let took = self.began.elapsed().as_nanos();
            // Where it cannot be kept the next one looks.
            let _ = fs::write(self.last, format!("{} {took}\n", clock::now_ns()));
        }
    }
}

/// When the last one was over, and for how long it is to do.
fn read(last: &Path) -> Option<(u64, Duration)> {
    let text = fs::read_to_string(last).ok()?;
    let (over_at_ns, took_ns) = text.trim().split_once(' ')?;
    let took = Duration::from_nanos(took_ns.parse().ok()?);
    Some((over_at_ns.parse().ok()?, took.saturating_mul(SHARE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether one is due at this time, where that is kept of the last one.
    fn is_due(kept: &str, now_ns: u64) -> bool {
        let temp = tempfile::tempdir().expect("temp dir");
        let last = temp.path().join("recovered");
        fs::write(&last, kept).expect("written");
        Round::after(&last, now_ns).is_some()
    }

    #[test]
    fn a_long_one_does_for_a_while() {
        assert!(!is_due("1000 50\n", 1000));
        assert!(!is_due("1000 50\n", 1999));
        assert!(is_due("1000 50\n", 2000));
    }

    #[test]
    fn what_cannot_be_is_none() {
        assert!(is_due("1000 50\n", 999), "it is yet to come");
        assert!(is_due("", 1000));
        assert!(is_due("1000", 1000));
        assert!(is_due("1000 -50\n", 1000));
    }

    #[test]
    fn one_is_kept_where_it_came_to_many_leaves() {
        let temp = tempfile::tempdir().expect("temp dir");
        let last = temp.path().join("recovered");
        let begin = || Round::after(&last, u64::MAX).expect("it is due");
        begin().end(FEW);
        assert!(!last.exists());
        begin().end(FEW + 1);
        let (over_at_ns, _) = read(&last).expect("kept");
        assert!(over_at_ns <= clock::now_ns());
    }
}
