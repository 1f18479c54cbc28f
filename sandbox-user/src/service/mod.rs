//! The host's service: one privileged process that has everybody's runs done and keeps what became of
//! them.
//!
//! [`serve`] is the service, [`follow`] what `sandbox run` is to it and [`client`] the other verbs, [`protocol`]
//! what they say. Each client is attended to by a process of its own ([`attend`]), which becomes the
//! supervisor of the run that it asks for: the same program that runs an analysis without a service, so
//! that nothing that becomes of the service ends a run, or goes into its verdict. What a run leaves for
//! the store waits in a spool, whether the service is up or not.

mod attendant;
mod charge;
pub mod client;
mod control;
mod desk;
mod files;
pub mod follow;
mod hands;
mod hearing;
mod holder;
mod in_force;
mod launch;
mod logs;
mod manager;
pub mod metrics;
mod office;
mod peer;
mod print;
pub mod protocol;
mod queue;
mod reception;
mod records;
mod serve;
mod state;
mod steady_clock;
mod trail;
mod verbs;
mod waiters;

pub use attendant::attend;
pub use client::ClientError;
pub use follow::Followed;
pub use holder::{HoldError, hold};
pub use manager::how_to_start;
pub use serve::{ServeError, serve};
pub use verbs::{Said, events, freeze, kill, list, logs, show, thaw, update, wait};

/// Where the service listens.
pub const SOCKET: &str = "/run/sandbox/sandbox.sock";
/// Where records wait for the store.
const SPOOL: &str = "/var/lib/sandbox/spool";
/// Where the event streams of runs are kept: root's alone.
const EVENTS: &str = "/var/lib/sandbox/events";
