//! How the runs were ruled on, by kind.
//!
//! Its lines are an interface: `cargo xtask soak` adds up those of several guests.

use std::collections::BTreeMap;
use std::fmt;

use crate::truth::Ruling;

/// The runs of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    right: u64,
    unrecorded: u64,
    explained: u64,
    unexplained: u64,
    wrong: u64,
}

/// All runs so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally(BTreeMap<&'static str, Counts>);

impl Tally {
    /// Counts one.
    pub(crate) fn add(&mut self, kind: &'static str, ruling: &Ruling) {
        let counts = self.0.entry(kind).or_default();
        match ruling {
            Ruling::Right => counts.right += 1,
            Ruling::Unrecorded => counts.unrecorded += 1,
            Ruling::Explained(_) => counts.explained += 1,
            Ruling::Unexplained(_) => counts.unexplained += 1,
            Ruling::Wrong(_) => counts.wrong += 1,
        }
    }

    /// Whether there was a run, and none was ruled against.
    pub(crate) fn is_clean(&self) -> bool {
        !self.0.is_empty()
            && self
                .0
                .values()
                .all(|counts| counts.wrong == 0 && counts.unexplained == 0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, counts) in &self.0 {
            let Counts {
                right,
                unrecorded,
                explained,
                unexplained,
                wrong,
            } = counts;
            writeln!(
                formatter,
                "tally {kind} right {right} unrecorded {unrecorded} explained {explained} unexplained {unexplained} wrong {wrong}"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sureness::Doubt;

    #[test]
    fn nothing_run_is_not_clean_and_neither_is_a_wrong_or_unexplained_verdict() {
        let mut tally = Tally::default();
        assert!(!tally.is_clean());
        tally.add("exits", &Ruling::Right);
        tally.add("exits", &Ruling::Unrecorded);
        tally.add("exits", &Ruling::Explained(Doubt::Skipped));
        assert!(tally.is_clean());
        assert_eq!(
            tally.to_string(),
            "tally exits right 1 unrecorded 1 explained 1 unexplained 0 wrong 0\n"
        );
        for ruling in [
            Ruling::Unexplained(String::new()),
            Ruling::Wrong(String::new()),
        ] {
            let mut tally = tally.clone();
            tally.add("exits", &ruling);
            assert!(!tally.is_clean());
        }
    }
}
