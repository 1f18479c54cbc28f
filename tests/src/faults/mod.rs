//! Faults, one at a time: each system call that the engine makes for a run fails once.
//!
//! A run with all that can be asked for (a record, events, metadata, a command for the end) is watched
//! once to list its steps. Then it is run again for each of them, with that step failing, and looked
//! at from outside: the analysis was confined or not started, nothing of it is left, and there is a
//! record or an error that says why not. `cargo xtask test` takes a part of the steps on each kernel;
//! all of them, some thousands, are for `cargo xtask vm run --kernel 6.12 --time-limit 36000 -- faults`.

mod call;
mod sweep;
mod tracer;
mod trial;
mod witness;

pub use call::{Call, Fault};
pub use sweep::{Share, Sweep, Tally};
pub use tracer::{Role, Step, Taken};
pub use trial::{Scenario, Trial};
