//! What makes a line a part of the chain.
//!
//! What an entry says beyond that is vouched for by the hash of its line, so that a log with entries of a
//! later version is verified as any other.

use std::num::NonZeroU64;

use jiff::Timestamp;
use serde::Deserialize;

use super::Hash;

/// The fields that every entry has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Link {
    pub(super) seq: NonZeroU64,
    pub(super) at: Timestamp,
    pub(super) prev: Hash,
    #[serde(rename = "event")]
    _event: String,
}

impl Link {
    /// Reads a line, without its newline.
    ///
    /// # Errors
    /// Where it is no entry.
    pub(super) fn read(line: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(line)
    }
}
