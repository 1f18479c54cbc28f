//! Waiting for a condition, with a limit and a name for the error.
//!
//! The kernel finishes some things later than it says so (a removed process is still accounted for
//! a moment). Tests look at the real condition until it holds; none of them hopes that a pause was
//! long enough.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many seconds the things that tests wait for may take in an emulated machine.
static LIMIT: AtomicU64 = AtomicU64::new(20);

/// How long the things that tests wait for may take.
#[must_use]
pub fn limit() -> Duration {
    Duration::from_secs(LIMIT.load(Ordering::Relaxed))
}

/// Has all waiting of this program last longer, where it keeps the guest busy itself.
pub fn be_patient(seconds: u64) {
    LIMIT.store(seconds, Ordering::Relaxed);
}

/// Looks at `condition` until it gives a value, and fails the test after [`limit`].
#[track_caller]
pub fn for_some<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    match within(limit(), condition) {
        Some(value) => value,
        None => panic!("waited {} s in vain for {what}", limit().as_secs()),
    }
}

/// Looks at `condition` until it holds, and fails the test after [`limit`].
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for_some(what, || condition().then_some(()));
}

/// Looks at `condition` until it gives a value or `limit` is over.
pub fn within<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_is_looked_at_again_until_it_holds() {
        let mut looks = 0;
        until("the third look", || {
            looks += 1;
            looks == 3
        });
        assert_eq!(looks, 3);
    }

    #[test]
    fn what_never_holds_ends_at_the_limit() {
        assert_eq!(within(Duration::from_millis(1), || None::<()>), None);
    }
}
