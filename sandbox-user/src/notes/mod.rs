//! The verdict as one line for people, rendered from the record alone.
//!
//! Whoever reads it has no other tool at hand: it says which limit and who set it, which process,
//! who sent the signal, when, and what to do. It claims no more than the record holds; where the
//! verdict was only inferred it says so. The first sentence always stands, of the others as many as
//! fit into [`MAX_BYTES`].

mod aside;
mod headline;
mod limit;
mod name;
mod not_started;
mod out_of_memory;
mod units;

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;

use crate::record::RunRecord;

/// The longest a note gets.
pub const MAX_BYTES: usize = 500;

/// The note on a run; safe to print, so not to be escaped again.
pub fn render(record: &RunRecord) -> String {
    let mut sentences = headline::headline(record).into_iter();
    let first = sentences.next().unwrap_or_default();
    let mut note = name::shorten(&first, MAX_BYTES);
    for sentence in sentences.chain(aside::asides(record)) {
        if note.len() + 1 + sentence.len() <= MAX_BYTES {
            note.push(' ');
            note.push_str(&sentence);
        }
    }
    note
}
