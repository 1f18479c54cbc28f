//! Guests side by side: each is one busy thread of an emulator.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// Guests at a time: one more than a usual machine has processors, since each waits now and then.
pub(crate) const GUESTS_AT_A_TIME: usize = 3;

/// Does the work on each item, some at a time and begun in their order; gives the results in that order.
pub(crate) fn side_by_side<T: Send, R: Send>(
    items: impl IntoIterator<Item = T, IntoIter: Send>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let queue = Mutex::new(items.into_iter().enumerate());
    // A function of its own, so that the lock is let go before the work is done.
    let next = || locked(&queue).next();
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..GUESTS_AT_A_TIME {
            scope.spawn(|| {
                while let Some((order, item)) = next() {
                    let result = work(item);
                    locked(&results).push((order, result));
                }
            });
        }
    });
    let mut results = std::mem::take(&mut *locked(&results));
    results.sort_by_key(|(order, _)| *order);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The data behind a lock, also after another thread panicked: that one's panic ends us anyway.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_is_worked_on_once_and_results_keep_the_order_of_the_items() {
        let doubled = side_by_side(0..100, |number| {
            thread::yield_now();
            number * 2
        });
        assert!(doubled.into_iter().eq((0..100).map(|number| number * 2)));
    }
}
