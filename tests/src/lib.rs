//! The harness of the guest tests: what every test in `tests/tests/` is written with.
//!
//! A test holds a [`Guest`] from its first line to its last: it proves that we are in a guest (a
//! test never skips, it fails elsewhere), and at the end it fails the test if a leaf, a process or
//! a pin is left over. [`Sandbox`] runs the tool under test on a victim, [`Record`] reads what it
//! wrote, and [`wait`] is the only place that waits for anything.

mod configured;
mod crowd;
pub mod enclosing;
mod events;
pub mod faults;
mod guest;
mod leftovers;
mod maps;
mod output;
mod outsider;
mod package;
mod programs;
mod record;
mod run;
mod scene;
mod service;
mod sound;
mod sys;
mod systemctl;
mod verdict;
pub mod wait;
mod weight;
mod withheld;

pub use configured::Configured;
pub use crowd::Crowd;
pub use enclosing::Enclosing;
pub use events::Events;
pub use guest::{Guest, Mode};
pub use leftovers::Leftovers;
pub use maps::{FullMap, Maps, PINS, unpin};
pub use outsider::Outsider;
pub use package::Package;
pub use programs::Programs;
pub use record::Record;
pub use run::{Outcome, Running, Sandbox, cache_victim, guardians, has_ended, parent_of, victim};
pub use scene::{Scene, Spoken};
pub use service::Service;
pub use systemctl::systemctl;
pub use verdict::assert_has;
pub use weight::pss_kib;
pub use withheld::Withheld;
