//! The kernel side's events in their own order.
//!
//! An event draws its number before it asks the ring for room, so that on several CPUs a later number
//! may get into the ring first. What comes early waits for what is missing; not for ever, since what
//! found no room never comes.

use std::{collections::BTreeMap, ops::RangeInclusive};

use crate::trace::Event;

/// How many events may wait for one that is missing.
const WAITING: usize = 256;
/// How long they may wait, from when something was first seen to be missing. No program was seen to take
/// longer from its number to the ring, except where the whole machine stood still.
const WAIT_NS: u64 = 200_000_000;

/// The next thing in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// An event.
    Event(Box<Event>),
    /// The numbers of events that are missing.
    Gap(RangeInclusive<u64>),
}

/// Puts events in order.
#[derive(Debug)]
pub(super) struct Sequence {
    next: u64,
    waiting: BTreeMap<u64, Event>,
    /// When what waits was first seen to wait for one that is missing.
    stuck_since_ns: Option<u64>,
    missing: u64,
}

impl Default for Sequence {
    fn default() -> Self {
        Self {
            next: 1,
            waiting: BTreeMap::new(),
            stuck_since_ns: None,
            missing: 0,
        }
    }
}

impl Sequence {
    /// Takes in an event.
    pub(super) fn push(&mut self, event: Event) {
        self.waiting.insert(event.seq, event);
    }

    /// What comes next, as of this moment, or of all there will be; `None` where it is yet to come.
    pub(super) fn next(&mut self, now_ns: Option<u64>) -> Option<Next> {
        let first = self.waiting.first_entry()?;
        let seq = *first.key();
        if seq > self.next {
            if let Some(now_ns) = now_ns {
                let since_ns = *self.stuck_since_ns.get_or_insert(now_ns);
                let waited_ns = now_ns.saturating_sub(since_ns);
                if self.waiting.len() <= WAITING && waited_ns < WAIT_NS {
                    return None;
                }
            }
            return Some(Next::Gap(self.gap(seq - 1)));
        }
        if seq < self.next {
            // It was given up.
            self.missing = self.missing.saturating_sub(1);
        } else {
            self.next += 1;
            self.stuck_since_ns = None;
        }
        self.waiting
            .pop_first()
            .map(|(_, event)| Next::Event(Box::new(event)))
    }

    /// What is missing at the end, once all that came has been taken; `last` is the last number that was
    /// drawn.
    pub(super) fn end(&mut self, last: u64) -> Option<RangeInclusive<u64>> {
        (last >= self.next).then(|| self.gap(last))
    }

    /// How many events are missing so far.
    pub(super) const fn missing(&self) -> u64 {
        self.missing
    }

    fn gap(&mut self, last: u64) -> RangeInclusive<u64> {
        let gap = self.next..=last;
        self.missing += last + 1 - self.next;
        self.next = last + 1;
        self.stuck_since_ns = None;
        gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{evidence::Process, trace::EventKind};

    fn event(seq: u64) -> Event {
        Event {
            seq,
            at_ns: seq,
            cgroup_id: 1,
            kind: EventKind::Escape {
                process: Process {
                    pid: 1,
                    start_time_ns: 1,
                    tid: 1,
                    comm: String::new(),
                    exe: None,
                    uid: None,
                    cgroup_id: 1,
                },
            },
        }
    }

    /// Numbers of events, and gaps, in the order in which they are handed on.
    fn drain(sequence: &mut Sequence, now_ns: impl Into<Option<u64>>) -> Vec<(u64, u64)> {
        let now_ns = now_ns.into();
        std::iter::from_fn(|| sequence.next(now_ns))
            .map(|next| match next {
                Next::Event(event) => (event.seq, event.seq),
                Next::Gap(missing) => missing.into_inner(),
            })
            .collect()
    }

    #[test]
    fn an_event_that_came_early_waits_for_the_one_before_it() {
        let mut sequence = Sequence::default();
        sequence.push(event(2));
        assert_eq!(drain(&mut sequence, 2), []);
        sequence.push(event(1));
        sequence.push(event(3));
        assert_eq!(drain(&mut sequence, 3), [(1, 1), (2, 2), (3, 3)]);
        assert_eq!(sequence.missing(), 0);
    }

    #[test]
    fn what_never_comes_is_a_gap_once_it_was_waited_for() {
        let mut sequence = Sequence::default();
        sequence.push(event(4));
        assert_eq!(drain(&mut sequence, 5), []);
        assert_eq!(drain(&mut sequence, WAIT_NS + 4), []);
        assert_eq!(drain(&mut sequence, WAIT_NS + 5), [(1, 3), (4, 4)]);
        assert_eq!(sequence.end(9), Some(5..=9));
        assert_eq!(sequence.end(9), None);
        assert_eq!(sequence.missing(), 8);
    }

    #[test]
    fn an_event_that_was_long_in_the_ring_waits_all_the_same() {
        let mut sequence = Sequence::default();
        let late = 10 * WAIT_NS;
        sequence.push(event(2));
        assert_eq!(drain(&mut sequence, late), []);
        sequence.push(event(1));
        sequence.push(event(4));
        assert_eq!(drain(&mut sequence, late + 1), [(1, 1), (2, 2)]);
        assert_eq!(drain(&mut sequence, late + WAIT_NS), []);
        sequence.push(event(3));
        assert_eq!(drain(&mut sequence, late + WAIT_NS), [(3, 3), (4, 4)]);
        assert_eq!(sequence.missing(), 0);
    }

    #[test]
    fn no_more_than_so_many_wait() {
        let mut sequence = Sequence::default();
        for seq in 2..2 + WAITING as u64 {
            sequence.push(event(seq));
        }
        assert_eq!(drain(&mut sequence, 0), []);
        sequence.push(event(2 + WAITING as u64));
        assert_eq!(drain(&mut sequence, 0).first(), Some(&(1, 1)));
        assert_eq!(sequence.missing(), 1);
    }

    #[test]
    fn an_event_that_was_given_up_and_comes_after_all_is_not_missing() {
        let mut sequence = Sequence::default();
        sequence.push(event(2));
        assert_eq!(drain(&mut sequence, None), [(1, 1), (2, 2)]);
        sequence.push(event(1));
        assert_eq!(drain(&mut sequence, None), [(1, 1)]);
        assert_eq!(sequence.missing(), 0);
    }
}
