//! What makes a line a part of the chain.
//!
//! What an entry says beyond that is vouched for by the hash of its line, so that a log with entries of a
//! later version is verified as any other.

use std::num::NonZeroU64;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Hash, event::MAX_LINE_BYTES};

/// The fields that every entry has, and what one says of a log before it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Link {
    pub(super) seq: NonZeroU64,
    pub(super) at: Timestamp,
    pub(super) prev: Hash,
    event: String,
    kept_in: Option<String>,
}

impl Link {
    /// Reads a line, without its newline.
    ///
    /// # Errors
    /// Where it is no entry.
    pub(super) fn read(line: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(line)
    }

    /// The file that a log before this one is kept in, since it was damaged; `None` where this tells of none.
    pub(super) fn damaged(&self) -> Option<&str> {
        match self.event.as_str() {
            "damaged" => self.kept_in.as_deref(),
            _ => None,
        }
    }
}

/// Whether a text without a newline may be what a crash left of the entry of this number: its beginning, with NUL
/// bytes where its blocks did not get to the disk.
pub(super) fn is_torn(text: &[u8], seq: u64) -> bool {
    let begins = format!("{{\"seq\":{seq},\"at\":\"");
    text.len() < MAX_LINE_BYTES
        && text
            .iter()
            .zip(begins.bytes())
            .all(|(found, begins)| *found == begins || *found == 0)
}
