//! Whether a log is what its writer made of it.
//!
//! Each entry has the hash of the line before, so that a change shows in the entry behind it. The last
//! entry has none behind it: its hash has to be known from elsewhere, and with it all before it are known.
//! One pass, in bounded memory; one thing that somebody did is told once where that can be.

use std::{io, io::BufRead, ops::RangeInclusive, time::Duration};

use jiff::Timestamp;

use super::{
    Hash, Head,
    chain::next_seq,
    event::MAX_LINE_BYTES,
    finding::{Finding, Witness},
    lines::{Line, Lines},
    link::{Link, is_torn},
};

/// As many findings are told; further ones are counted.
const MOST_FINDINGS: usize = 100;

/// A head that somebody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Known {
    pub(super) head: Head,
    pub(super) witness: Witness,
}

/// What a log is found to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// Its last entry.
    pub(super) head: Option<Head>,
    /// When that was written.
    pub(super) at: Option<Timestamp>,
    /// How many lines are entries.
    pub(super) entries: u64,
    /// What is wrong, by line.
    pub(super) findings: Vec<Finding>,
    /// How much else is.
    pub(super) further: u64,
}

/// Verifies a log, and that the heads which are known are of it. Waits so long for the rest of a last line, which
/// may just be written.
///
/// # Errors
/// Where it cannot be read.
pub(super) fn verify(
    log: impl BufRead,
    mut known: Vec<Known>,
    patience: Duration,
) -> io::Result<Report> {
    known.sort_unstable();
    known.dedup();
    let mut walk = Walk {
        known,
        ..Walk::default()
    };
    let mut lines = Lines::of(log, patience);
    while let Some(line) = lines.next()? {
        walk.line += 1;
        match line {
            Line::Whole { text, hash } => match Link::read(&text) {
                Ok(link) => walk.entry(&link, hash),
                // Without what it says of the place: `line 1` is of this text.
                Err(error) => walk.no_entry(match error.classify() {
                    serde_json::error::Category::Data => "JSON of another kind".to_owned(),
                    serde_json::error::Category::Io
                    | serde_json::error::Category::Syntax
                    | serde_json::error::Category::Eof => "it is no JSON".to_owned(),
                }),
            },
            Line::TooLong => walk.no_entry(format!("it is longer than {MAX_LINE_BYTES} bytes")),
            Line::Unterminated { text } if is_torn(&text, walk.expected()) => walk.unterminated(),
            Line::Unterminated { .. } => {
                walk.no_entry("it does not begin as one, and has no end".to_owned());
            }
        }
    }
    Ok(walk.finish())
}

/// Where the pass is.
#[derive(Debug, Default)]
struct Walk {
    /// By number.
    known: Vec<Known>,
    line: u64,
    entries: u64,
    /// The entry with the highest number.
    last: Option<Head>,
    at: Option<Timestamp>,
    /// Lines since then that are no entries, but may have been.
    unread: u64,
    /// Numbers that were left out, each time with the line behind.
    gaps: Vec<(u64, RangeInclusive<u64>)>,
    findings: Vec<Finding>,
    further: u64,
}

impl Walk {
    /// The number that the next line is to have.
    fn expected(&self) -> u64 {
        next_seq(self.last).saturating_add(self.unread)
    }

    fn entry(&mut self, link: &Link, hash: Hash) {
        let line = self.line;
        let follows = link.prev == self.last.map_or(Hash::ZERO, |last| last.hash);
        let (next, found) = (next_seq(self.last), link.seq.get());
        self.entries += 1;
        let seq = if found == next {
            if !follows {
                self.find(Finding::Changed { line, seq: found });
            }
            found
        } else if follows {
            self.find(Finding::Renumbered {
                line,
                seq: next,
                found,
            });
            next
        } else if found > next {
            self.leave_out(self.expected()..=found - 1);
            found
        } else {
            return self.late(found, hash);
        };
        self.compare(seq, hash);
        if let Some(kept_in) = link.damaged() {
            let kept_in = kept_in.to_owned();
            self.find(Finding::Damaged { line, seq, kept_in });
        }
        self.last = Some(Head { seq, hash });
        self.at = Some(link.at);
        self.unread = 0;
    }

    /// An entry whose number is below that of one before it.
    fn late(&mut self, seq: u64, hash: Hash) {
        let line = self.line;
        let behind = self.last.map_or(0, |last| last.seq);
        let gap = self.gaps.iter().position(|(_, gap)| gap.contains(&seq));
        let Some(index) = gap else {
            return self.find(Finding::Repeated { line, seq });
        };
        let (line_behind, gap) = self.gaps.remove(index);
        for rest in [*gap.start()..=seq - 1, seq + 1..=*gap.end()] {
            if !rest.is_empty() {
                self.gaps.push((line_behind, rest));
            }
        }
        self.find(Finding::Reordered { line, seq, behind });
        self.compare(seq, hash);
    }

    fn leave_out(&mut self, gap: RangeInclusive<u64>) {
        if gap.is_empty() {
            // Lines that are no entries stand for them.
        } else if self.gaps.len() < MOST_FINDINGS {
            self.gaps.push((self.line, gap));
        } else {
            self.further += 1;
        }
    }

    fn no_entry(&mut self, why: String) {
        self.find(Finding::NoEntry {
            line: self.line,
            seq: self.expected(),
            why,
        });
        self.unread += 1;
    }

    fn unterminated(&mut self) {
        self.find(Finding::Unterminated {
            line: self.line,
            seq: self.expected(),
        });
        self.unread += 1;
    }

    fn compare(&mut self, seq: u64, found: Hash) {
        let from = self.known.partition_point(|known| known.head.seq < seq);
        let of_seq = self.known[from..]
            .iter()
            .take_while(|known| known.head.seq == seq);
        let other: Vec<Finding> = of_seq
            .filter(|known| known.head.hash != found)
            .map(|known| Finding::OtherHash {
                line: self.line,
                seq,
                found,
                known: known.head.hash,
                witness: known.witness,
            })
            .collect();
        other.into_iter().for_each(|finding| self.find(finding));
    }

    fn find(&mut self, finding: Finding) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(finding);
        } else {
            self.further += 1;
        }
    }

    fn finish(mut self) -> Report {
        for (line, gap) in std::mem::take(&mut self.gaps) {
            let (first, last) = gap.into_inner();
            self.find(Finding::Missing { line, first, last });
        }
        let first = self.expected();
        if let Some(known) = self.known.last().filter(|known| known.head.seq >= first) {
            let cut = Finding::Cut {
                line: self.line + 1,
                first,
                last: known.head.seq,
                witness: known.witness,
            };
            self.find(cut);
        }
        self.findings.sort_by_key(Finding::line);
        Report {
            head: self.last,
            at: self.at,
            entries: self.entries,
            findings: self.findings,
            further: self.further,
        }
    }
}

#[cfg(test)]
mod tests;
