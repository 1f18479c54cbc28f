//! What a panic said, with its place, kept for the ruling on its run.
//!
//! A run with several truths fails all but one of them when it is right: printed, those would bury
//! the one ruling that counts.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};

thread_local! {
    static LISTENS: Cell<bool> = const { Cell::new(false) };
    static HEARD: RefCell<String> = const { RefCell::new(String::new()) };
}

/// From now on panics within [`catch`] are kept instead of printed.
pub(crate) fn listen() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if LISTENS.get() {
            HEARD.set(info.to_string());
        } else {
            print(info);
        }
    }));
}

/// Plays something; where it panics on this thread, what it said and where.
///
/// # Errors
///
/// The panic.
pub(crate) fn catch<T>(play: impl FnOnce() -> T) -> Result<T, String> {
    let outer = LISTENS.replace(true);
    let played = panic::catch_unwind(AssertUnwindSafe(play));
    LISTENS.set(outer);
    played.map_err(|_| HEARD.take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_kept_with_its_place() {
        listen();
        assert_eq!(catch(|| 7), Ok(7));
        let inner = catch(|| catch(|| panic!("of {}", "itself")));
        let said = inner.expect("only the inner one").expect_err("a panic");
        assert!(said.contains("heard.rs:"), "{said}");
        assert!(said.ends_with("of itself"), "{said}");
    }
}
