//! One run from its leaf to its record.
//!
//! [`foreground`] is `sandbox run`: it prepares, spawns, waits in one event loop, ends what has to be
//! ended, and concludes. Nothing is decided while the run goes on: what happens is gathered, and
//! judged once the leaf is empty. [`guardian`] is the small process that takes the same last steps
//! where the supervisor is gone; where both are, [`recover`] starts another one.

mod alarm;
mod caught;
mod clock;
mod conclude;
mod denied;
mod docket;
mod errand;
mod event_loop;
mod events_file;
mod foreground;
mod gather;
pub mod guardian;
mod holders;
mod hook_cgroup;
mod journal;
mod live;
mod misses;
mod on_complete;
mod orders;
mod prepare;
mod processes;
mod read_back;
mod reaper;
mod record_error;
mod record_file;
pub(crate) mod record_path;
mod recover;
mod round;
mod runtime;
mod samples;
mod sequence;
mod signals;
mod sources;
pub mod spool;
mod staged;
mod standstill;
mod state;
mod thaw;
mod unreaped;

pub use events_file::EventsError;
pub use foreground::{Outcome, foreground};
pub(crate) use live::Lives;
pub(crate) use orders::is_passed_on;
pub use orders::{Asker, Client, ClientOrder, Control, Controlled, Remote};
pub use prepare::{RunError, with_callers_rights};
pub use record_error::RecordError;
pub use recover::{Left, Recovered, recover};
pub(crate) use runtime::runtime;
pub(crate) use signals::{
    Meaning, Signals, block as block_signals, cancellations, meant as meant_signals,
};
pub(crate) use state::is_kept;
