//! The limits that a run met, fatal or not.

use super::counters::{memory_events_local, rise};
use super::denials::Denials;
use super::kills::{Cause, Judged};
use crate::evidence::{Evidence, IntentReason};
use crate::record::{LimitHit, LimitKind, OomLevel, Reason};

pub(super) fn find(
    evidence: &Evidence,
    reason: Reason,
    judged: &[Judged<'_>],
    denials: &Denials,
) -> Vec<LimitHit> {
    let date = |at_ns| evidence.clock.date(at_ns);
    let first_oom = |wanted: OomLevel| {
        judged
            .iter()
            .find(|judged| {
                judged.was_delivered()
                    && matches!(&judged.cause, Cause::Oom { level, .. } if *level == Some(wanted))
            })
            .map(|judged| judged.signal.at_ns)
    };
    let first_action = |wanted: IntentReason| {
        evidence
            .own_actions
            .iter()
            .find(|action| action.reason == wanted)
            .map(|action| action.at_ns)
    };
    let mut hits = Vec::new();
    let mut hit = |limit, met: bool, count, first_at_ns: Option<u64>, fatal| {
        if met || fatal {
            hits.push(LimitHit {
                limit,
                count,
                first_at: first_at_ns.map(date),
                fatal,
            });
        }
    };

    let ooms = rise(&evidence.counters, memory_events_local, "oom");
    let first = first_oom(OomLevel::Leaf);
    let met = ooms.is_some_and(|count| count > 0) || first.is_some();
    hit(
        LimitKind::Memory,
        met,
        ooms,
        first,
        reason == Reason::Memory,
    );

    // An ancestor's own count has its other children's in it.
    let first = first_oom(OomLevel::Ancestor);
    let fatal = reason == Reason::MemoryAncestor;
    hit(
        LimitKind::MemoryAncestor,
        first.is_some(),
        None,
        first,
        fatal,
    );

    let counted = |count: u64| (count > 0).then_some(count);
    let first = denials.first_at_ns;
    let (own, above) = (counted(denials.leaf), counted(denials.ancestor));
    hit(
        LimitKind::Pids,
        own.is_some(),
        own,
        first,
        reason == Reason::Pids,
    );
    let fatal = reason == Reason::PidsAncestor;
    hit(
        LimitKind::PidsAncestor,
        above.is_some(),
        above,
        first,
        fatal,
    );

    let first = first_action(IntentReason::Walltime);
    let fatal = reason == Reason::Walltime;
    hit(LimitKind::Walltime, first.is_some(), Some(1), first, fatal);
    let first = first_action(IntentReason::Cputime);
    let fatal = reason == Reason::Cputime;
    hit(LimitKind::Cputime, first.is_some(), Some(1), first, fatal);
    hits
}
