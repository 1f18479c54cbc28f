//! The audit log: who asked for what, when, under which policy, and how it ended.
//!
//! A file of root's that only grows, JSON, an entry a line, each with the hash of the line before it:
//! whoever changes, takes out or moves one would have to write anew all that follow. The hash of the last,
//! the head, goes to the journal as well ([`announce`]), which tells of an end that was cut off, or of a log that
//! was written anew. This makes changes known; it does not keep root from making them.

mod chain;
mod error;
mod event;
mod finding;
mod hash;
mod journal;
mod lines;
mod link;
mod log;
mod policies;
mod report;
mod sentence;
mod tail;
mod verify;

use std::error::Error;

pub use self::{
    error::AuditError,
    event::{Ended, Entry, Event, Excerpt, Exit, Limit, Limits, Order, Words},
    hash::{Hash, Head, NoHash, NoHead},
    journal::announce,
    log::{AuditLog, Opened},
    policies::keep_policy,
};
use crate::cli::{AuditArgs, AuditCommand};

/// Its file's name.
const FILE: &str = "audit.jsonl";

/// `sandbox audit`: gives the exit status.
///
/// # Errors
/// Where the log cannot be read.
pub fn audit(args: &AuditArgs) -> Result<u8, Box<dyn Error>> {
    match &args.command {
        AuditCommand::Verify(args) => report::verify_and_tell(args),
    }
}

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
