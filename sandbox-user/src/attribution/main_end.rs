//! How the main process ended, and when that was settled.

use super::kills::Judged;
use super::{from_outside, main_status};
use crate::evidence::{Evidence, WaitStatus};

/// The main process's end.
pub(super) enum MainEnd {
    /// It called exit.
    Exited {
        code: i32,
        /// When; `None` where nobody saw.
        at_ns: Option<u64>,
    },
    /// A signal ended it.
    Killed {
        signal: i32,
        core_dumped: bool,
        /// The place among those judged of the signal that decided, where there is a record of it.
        kill: Option<usize>,
        /// The place of main's own, where that one was handled and main then sent it to itself.
        passed_on: Option<usize>,
        /// When the one that it died of was delivered, else when it exited.
        at_ns: Option<u64>,
    },
    /// Nobody saw.
    Unknown,
}

impl MainEnd {
    pub(super) fn find(evidence: &Evidence, judged: &[Judged<'_>]) -> Self {
        match main_status(evidence) {
            None => Self::Unknown,
            Some(WaitStatus::Exited { code }) => Self::Exited {
                code,
                at_ns: evidence.exit_at_ns,
            },
            Some(WaitStatus::Signaled {
                signal,
                core_dumped,
            }) => {
                let could_kill = |judged: &Judged<'_>| {
                    judged.signal.victim_is_main
                        && judged.signal.signal == signal
                        && judged.was_delivered()
                        && evidence
                            .exit_at_ns
                            .is_none_or(|exit| judged.signal.at_ns <= exit)
                };
                let last = judged.iter().rposition(could_kill);
                let was_ahead_of = |last: usize| {
                    if !judged.get(last)?.signal.behind_another {
                        return None;
                    }
                    let mut earlier = judged.iter().take(last);
                    earlier.rposition(|judged| could_kill(judged) && !judged.signal.group)
                };
                let last = last.and_then(was_ahead_of).or(last);
                let of_itself = last.filter(|last| {
                    judged
                        .get(*last)
                        .is_some_and(|judged| judged.is_sent_to_itself())
                });
                let from_outside = of_itself.and_then(|last| {
                    judged
                        .iter()
                        .take(last)
                        .rposition(|judged| could_kill(judged) && from_outside(&judged.cause))
                });
                Self::Killed {
                    signal,
                    core_dumped,
                    kill: from_outside.or(last),
                    passed_on: from_outside.and(of_itself),
                    at_ns: last
                        .and_then(|kill| judged.get(kill))
                        .map(|judged| judged.signal.at_ns)
                        .or(evidence.exit_at_ns),
                }
            }
        }
    }

    /// When its fate was settled.
    pub(super) fn at_ns(&self) -> Option<u64> {
        match self {
            Self::Exited { at_ns, .. } | Self::Killed { at_ns, .. } => *at_ns,
            Self::Unknown => None,
        }
    }

    /// The place among those judged of the signal that decided.
    pub(super) fn fatal_kill(&self) -> Option<usize> {
        match self {
            Self::Killed { kill, .. } => *kill,
            Self::Exited { .. } | Self::Unknown => None,
        }
    }
}
