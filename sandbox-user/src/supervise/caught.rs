//! Calls into libraries that panic where they could have failed.

use std::{
    io,
    panic::{self, AssertUnwindSafe},
};

/// What the call gives; where it panics, an error with these words, and no word on stderr. Panics of other
/// threads are silent meanwhile too.
///
/// # Errors
/// Those of the call.
pub(super) fn caught<T>(call: impl FnOnce() -> io::Result<T>, else_: &str) -> io::Result<T> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let given = panic::catch_unwind(AssertUnwindSafe(call));
    panic::set_hook(hook);
    given.unwrap_or_else(|_| Err(io::Error::other(else_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_what_is_given_comes_through() {
        assert_eq!(caught(|| Ok(7), "nothing").expect("given"), 7);
        let error = caught::<()>(|| panic!("no descriptors"), "it could not be made");
        assert_eq!(
            error.expect_err("it panicked").to_string(),
            "it could not be made"
        );
    }
}
