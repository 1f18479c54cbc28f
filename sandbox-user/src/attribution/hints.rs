//! What to change before the analysis is run again.

use super::counters::{CountedOom, counted_oom};
use super::kills::{Cause, Judged, has_brackets};
use crate::evidence::Evidence;
use crate::record::{OomLevel, Reason, RetryHint};

pub(super) fn retry_hint(reason: Reason, member_died_of_own_limit: bool) -> RetryHint {
    match reason {
        Reason::Memory => RetryHint::MoreMemory,
        Reason::ExitCode if member_died_of_own_limit => RetryHint::MoreMemory,
        Reason::Pids => RetryHint::MorePids,
        Reason::Walltime | Reason::Cputime => RetryHint::MoreTime,
        Reason::MemoryAncestor
        | Reason::HostOom
        | Reason::PidsAncestor
        | Reason::ExternalKill
        | Reason::Cancelled
        | Reason::RunnerLost => RetryHint::Same,
        Reason::Completed
        | Reason::ExitCode
        | Reason::Signal
        | Reason::Escaped
        | Reason::SetupFailed => RetryHint::None,
    }
}

/// Whether a member of the run died of the leaf's own memory limit.
pub(super) fn member_died_of_own_limit(evidence: &Evidence, judged: &[Judged<'_>]) -> bool {
    let seen = judged.iter().any(|judged| {
        judged.was_delivered()
            && matches!(
                judged.cause,
                Cause::Oom {
                    level: Some(OomLevel::Leaf),
                    ..
                }
            )
    });
    let left_out = evidence
        .facts
        .is_some_and(|facts| facts.victims_left_out > 0 && facts.oom_kills > 0);
    seen || ((left_out || !has_brackets(evidence))
        && matches!(
            counted_oom(evidence),
            CountedOom::Killed {
                level: Some(OomLevel::Leaf),
                ..
            }
        ))
}
