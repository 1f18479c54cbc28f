//! Whether a fork was denied, and by whose `pids.max`, as far as that can be known while the run goes on.
//!
//! `pids.events` is counted, and its readers are woken, before the fexit on the same call has looked
//! for the level (kernel/cgroup/pids.c), so there may be a count without a level. The record is
//! written later and knows better.

use sandbox_ebpf::Facts;

use crate::{
    evidence::{EventCounters, FlatKeyed, IntentReason},
    limits::EnclosingLimits,
};

/// Why a run is to end whose forks are not to be denied; `None` where none was. `counted` is read after
/// `facts`; `limit` is the leaf's.
pub(super) fn intent(
    facts: Option<&Facts>,
    counted: &EventCounters,
    limit: Option<u64>,
    enclosing: &EnclosingLimits,
) -> Option<IntentReason> {
    let seen = facts.copied().unwrap_or_default();
    let denials = |events: &Option<FlatKeyed>| {
        events
            .as_ref()
            .map(|events| *events.get("max").unwrap_or(&0))
    };
    let own = denials(&counted.pids_events_local);
    if seen.denied_by_leaf > 0 || own > Some(0) {
        return Some(IntentReason::Pids);
    }
    if seen.denied_by_ancestor > 0 || (own == Some(0) && seen.denied_unknown > 0) {
        return Some(IntentReason::PidsAncestor);
    }
    // Without `pids.events.local` (up to 6.11) `pids.events` has both.
    if own.is_some() || (seen.denied_unknown == 0 && denials(&counted.pids_events) <= Some(0)) {
        return None;
    }
    match enclosing.pids_met_before(limit) {
        Some(_) => Some(IntentReason::PidsAncestor),
        None => Some(IntentReason::Pids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Enclosing;

    fn counted(local: Option<u64>, all: u64) -> EventCounters {
        let max = |count| FlatKeyed::from([("max".to_owned(), count)]);
        EventCounters {
            pids_events: Some(max(all)),
            pids_events_local: local.map(max),
            ..EventCounters::default()
        }
    }

    /// What comes of it under a leaf's limit of 100 and one of 8 above, or none above.
    fn intents(facts: Facts, counted: &EventCounters) -> [Option<IntentReason>; 2] {
        let enclosing = EnclosingLimits {
            pids: Some(Enclosing {
                value: 8,
                cgroup: "/sandbox/runs".to_owned(),
            }),
            ..EnclosingLimits::default()
        };
        [&enclosing, &EnclosingLimits::default()]
            .map(|enclosing| intent(Some(&facts), counted, Some(100), enclosing))
    }

    #[test]
    fn a_level_that_was_seen_decides() {
        let by_leaf = Facts {
            denied_by_leaf: 1,
            ..Facts::default()
        };
        let above = Facts {
            denied_by_ancestor: 1,
            ..Facts::default()
        };
        for counted in [counted(Some(0), 0), counted(None, 1)] {
            assert_eq!(intents(by_leaf, &counted), [Some(IntentReason::Pids); 2]);
            assert_eq!(
                intents(above, &counted),
                [Some(IntentReason::PidsAncestor); 2]
            );
        }
    }

    #[test]
    fn a_count_of_the_leafs_own_needs_no_level() {
        let counted = counted(Some(1), 1);
        assert_eq!(
            intents(Facts::default(), &counted),
            [Some(IntentReason::Pids); 2]
        );
    }

    #[test]
    fn a_denial_that_the_leaf_did_not_count_was_above() {
        let unknown = Facts {
            denied_unknown: 1,
            ..Facts::default()
        };
        let counted = counted(Some(0), 0);
        assert_eq!(
            intents(unknown, &counted),
            [Some(IntentReason::PidsAncestor); 2]
        );
    }

    #[test]
    fn a_count_of_both_is_the_tighter_limits() {
        let counted = counted(None, 1);
        assert_eq!(
            intents(Facts::default(), &counted),
            [Some(IntentReason::PidsAncestor), Some(IntentReason::Pids)]
        );
        let unwatched = intent(None, &counted, Some(100), &EnclosingLimits::default());
        assert_eq!(unwatched, Some(IntentReason::Pids));
    }

    #[test]
    fn nothing_denied_ends_nothing() {
        for counted in [
            counted(Some(0), 0),
            counted(None, 0),
            EventCounters::default(),
        ] {
            assert_eq!(intents(Facts::default(), &counted), [None; 2]);
        }
    }
}
