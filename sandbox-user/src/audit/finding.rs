//! What is wrong with a log, in words that say what somebody did to it.

use std::fmt::{self, Display};

use serde::Serialize;

use super::Hash;
use crate::units::Printable;

/// Who knows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Witness {
    /// Whoever gave `--head`.
    CommandLine,
    /// The journal.
    Journal,
}

impl Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommandLine => "--head",
            Self::Journal => "the journal",
        })
    }
}

/// Something that the log's writer did not do. `line` and `seq` count from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Finding {
    /// A line is no entry.
    NoEntry {
        line: u64,
        /// The entry that is to be there.
        seq: u64,
        why: String,
    },
    /// An entry does not have the hash of the one before: one of the two was changed.
    Changed { line: u64, seq: u64 },
    /// An entry follows the one before, but for its number.
    Renumbered {
        line: u64,
        /// The number that it is to have.
        seq: u64,
        found: u64,
    },
    /// Entries are nowhere in the log, though there is a later one.
    Missing {
        /// The line of the later one.
        line: u64,
        first: u64,
        last: u64,
    },
    /// An entry stands behind a later one.
    Reordered {
        line: u64,
        seq: u64,
        /// The later one.
        behind: u64,
    },
    /// An entry stands there again.
    Repeated { line: u64, seq: u64 },
    /// An entry has another hash than somebody knows: it was changed, or all up to it were written anew.
    OtherHash {
        line: u64,
        seq: u64,
        found: Hash,
        known: Hash,
        witness: Witness,
    },
    /// A log before this one was damaged, and this one was begun anew.
    Damaged {
        line: u64,
        seq: u64,
        /// The file that it is kept in.
        kept_in: String,
    },
    /// The last line ends in the middle.
    Unterminated { line: u64, seq: u64 },
    /// The end is missing: entries of which somebody knows.
    Cut {
        /// The line that the first of them is to be.
        line: u64,
        first: u64,
        last: u64,
        witness: Witness,
    },
}

impl Finding {
    /// The line that it is about.
    pub(super) fn line(&self) -> u64 {
        match self {
            Self::NoEntry { line, .. }
            | Self::Changed { line, .. }
            | Self::Renumbered { line, .. }
            | Self::Missing { line, .. }
            | Self::Reordered { line, .. }
            | Self::Repeated { line, .. }
            | Self::OtherHash { line, .. }
            | Self::Damaged { line, .. }
            | Self::Unterminated { line, .. }
            | Self::Cut { line, .. } => *line,
        }
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line())?;
        match self {
            Self::NoEntry { seq, why, .. } => {
                write!(
                    f,
                    "changed: this is no entry ({why}), entry {seq} is to be here"
                )
            }
            Self::Changed { seq: 1, .. } => write!(
                f,
                "changed: entry 1 says that another one was before it; it was changed, or what was before it is missing"
            ),
            Self::Changed { seq, .. } => write!(
                f,
                "changed: entry {seq} does not have the hash of entry {}; one of the two was changed",
                seq - 1
            ),
            Self::Renumbered { seq, found, .. } => write!(
                f,
                "changed: this is entry {seq}, as the hash in it shows, but it says that it is entry {found}"
            ),
            Self::Missing { first, last, .. } => {
                write!(f, "missing: {} before this", entries(*first, *last))
            }
            Self::Reordered { seq, behind, .. } => {
                write!(f, "reordered: entry {seq} stands behind entry {behind}")
            }
            Self::Repeated { seq, .. } => write!(
                f,
                "reordered: entry {seq} is here though it, or another of that number, was before"
            ),
            Self::OtherHash {
                seq,
                found,
                known,
                witness,
                ..
            } => write!(
                f,
                "changed: entry {seq} has the hash {found}, but {witness} knows it by {known}; it was changed, or all \
                 up to it were written anew"
            ),
            Self::Damaged { seq, kept_in, .. } => write!(
                f,
                "begun anew: entry {seq} says that a log before it was damaged or taken away, and is kept as {}",
                Printable(kept_in)
            ),
            Self::Unterminated { seq, .. } => write!(
                f,
                "cut: entry {seq} ends in the middle; a crash tore it, which the next start of the service mends, or \
                 somebody cut it off"
            ),
            Self::Cut {
                first,
                last,
                witness,
                ..
            } => write!(
                f,
                "cut: the end is missing, {}; {witness} knows the last",
                entries(*first, *last)
            ),
        }
    }
}

fn entries(first: u64, last: u64) -> String {
    if first == last {
        format!("entry {first}")
    } else {
        format!("entries {first} to {last}")
    }
}
