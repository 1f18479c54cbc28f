//! How many forks were denied, and whose `pids.max` that was.
//!
//! `pids.events(.local)` has the count, the fexit has the level and may miss some of them. Up to 6.11
//! a leaf's `pids.events max` also counts denials by its ancestors, later it counts its own only.

use super::counters::{pids_events, pids_events_local, rise};
use crate::evidence::{Evidence, IntentReason};

/// Denied forks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Denials {
    /// By the leaf's own limit.
    pub(super) leaf: u64,
    /// By an enclosing limit.
    pub(super) ancestor: u64,
    /// Whose that is, where known.
    pub(super) ancestor_cgroup: Option<String>,
    /// When the first was seen.
    pub(super) first_at_ns: Option<u64>,
    /// The level was concluded from where the tightest limit stands.
    pub(super) guessed: bool,
}

impl Denials {
    pub(super) fn count(evidence: &Evidence) -> Self {
        let seen = &evidence.denied_forks;
        let own = rise(&evidence.counters, pids_events_local, "max");
        let mut denials = Self {
            leaf: seen.by_leaf.max(own.unwrap_or(0)),
            ancestor: seen.by_ancestor,
            ancestor_cgroup: seen.ancestor.as_ref().map(|cgroup| cgroup.path.clone()),
            first_at_ns: seen.first_at_ns,
            guessed: false,
        };
        let all = match own {
            Some(_) => seen.unknown,
            None => rise(&evidence.counters, pids_events, "max")
                .unwrap_or(0)
                .max(seen.unknown),
        };
        let known = denials.leaf.saturating_add(denials.ancestor);
        let rest = all.saturating_sub(known);
        if rest > 0 {
            denials.place(rest, own, evidence);
        }
        denials
    }

    /// The intent with the level that the count knows: the runner may act on a denied fork before the
    /// kernel side has said whose limit it was.
    pub(super) fn settle(&self, intent: IntentReason) -> IntentReason {
        let is_pids = matches!(intent, IntentReason::Pids | IntentReason::PidsAncestor);
        if !is_pids || self.guessed {
            return intent;
        }
        match (self.leaf > 0, self.ancestor > 0) {
            (true, _) => IntentReason::Pids,
            (false, true) => IntentReason::PidsAncestor,
            (false, false) => intent,
        }
    }

    /// Puts those whose level was not seen where those are whose level was.
    fn place(&mut self, rest: u64, own: Option<u64>, evidence: &Evidence) {
        if self.leaf > 0 {
            self.leaf = self.leaf.saturating_add(rest);
        } else if self.ancestor > 0 || own == Some(0) {
            self.ancestor = self.ancestor.saturating_add(rest);
        } else {
            self.guessed = evidence.enclosing.pids.is_some();
            match evidence.enclosing.pids_met_before(evidence.effective.pids) {
                Some(above) => {
                    self.ancestor = rest;
                    self.ancestor_cgroup = Some(above.cgroup.clone());
                }
                None => self.leaf = rest,
            }
        }
    }
}
