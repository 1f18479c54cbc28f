//! The runtime of an event loop, on the calling thread.
//!
//! zbus switches on tokio's signal driver for the whole build. Nobody uses it here (signals come by a
//! signalfd), but every runtime makes its socket pair, and panics where that cannot be had.

use std::io;

use tokio::runtime::{Builder, Runtime};

use super::caught::caught;

/// Makes one. To be called before there is another thread.
///
/// # Errors
/// EMFILE and the like.
pub(crate) fn runtime() -> io::Result<Runtime> {
    caught(
        || Builder::new_current_thread().enable_all().build(),
        "tokio could not make the socket pair of its signal driver: no descriptors are left",
    )
}
