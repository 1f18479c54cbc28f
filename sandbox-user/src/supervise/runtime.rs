//! The runtime of an event loop, on the calling thread.
//!
//! zbus switches on tokio's signal driver for the whole build. Nobody uses it here (signals come by a
//! signalfd), but every runtime makes its socket pair, and panics where that cannot be had.

use std::{io, panic};

use tokio::runtime::{Builder, Runtime};

/// Makes one. To be called before there is another thread, since it silences panics meanwhile.
///
/// # Errors
/// EMFILE and the like.
pub(crate) fn runtime() -> io::Result<Runtime> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let built = panic::catch_unwind(|| Builder::new_current_thread().enable_all().build());
    panic::set_hook(hook);
    built.unwrap_or_else(|_| {
        Err(io::Error::other(
            "tokio could not make the socket pair of its signal driver: no descriptors are left",
        ))
    })
}
