//! How the main process ended, and when that was settled.

use super::kills::Judged;
use super::main_status;
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
        /// The fatal signal's place among those judged, where there is a record of it.
        kill: Option<usize>,
        /// When that was delivered, else when it exited.
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
                let kill = judged.iter().rposition(|judged| {
                    judged.signal.victim_is_main
                        && judged.signal.signal == signal
                        && judged.was_delivered()
                        && evidence
                            .exit_at_ns
                            .is_none_or(|exit| judged.signal.at_ns <= exit)
                });
                Self::Killed {
                    signal,
                    core_dumped,
                    kill,
                    at_ns: kill
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

    /// The fatal signal's place among those judged.
    pub(super) fn fatal_kill(&self) -> Option<usize> {
        match self {
            Self::Killed { kill, .. } => *kill,
            Self::Exited { .. } | Self::Unknown => None,
        }
    }
}
