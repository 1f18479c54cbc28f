//! Event counters of these stories.

use std::collections::BTreeMap;

use super::Case;
use crate::evidence::{CounterSpan, EventCounters};
use crate::limits::OomScope;

/// Counters that counted nothing.
pub(super) fn quiet(has_pids_events_local: bool) -> CounterSpan {
    let zeros = |keys: &[&str]| {
        Some(
            keys.iter()
                .map(|key| ((*key).to_owned(), 0))
                .collect::<BTreeMap<_, _>>(),
        )
    };
    let memory = ["low", "high", "max", "oom", "oom_kill", "oom_group_kill"];
    let counters = EventCounters {
        memory_events: zeros(&memory),
        memory_events_local: zeros(&memory),
        pids_events: zeros(&["max"]),
        pids_events_local: has_pids_events_local.then(|| zeros(&["max"])).flatten(),
    };
    CounterSpan {
        before: counters.clone(),
        after: counters,
    }
}

fn raise(span: &mut CounterSpan, key: &str, by: u64) {
    let after = &mut span.after;
    let files = [&mut after.memory_events, &mut after.memory_events_local];
    for file in files.into_iter().flatten() {
        *file.entry(key.to_owned()).or_default() += by;
    }
}

fn set(span: &mut CounterSpan, key: &str, to: u64) {
    let after = &mut span.after;
    let files = [&mut after.memory_events, &mut after.memory_events_local];
    for file in files.into_iter().flatten() {
        file.insert(key.to_owned(), to);
    }
}

fn raise_denials(span: &mut CounterSpan, by: u64) {
    let after = &mut span.after;
    let files = [&mut after.pids_events, &mut after.pids_events_local];
    for file in files.into_iter().flatten() {
        *file.entry("max".to_owned()).or_default() += by;
    }
}

impl Case {
    pub(crate) fn counts_oom_kills(mut self, by: u64) -> Self {
        raise(&mut self.evidence.counters, "oom_kill", by);
        if self.evidence.oom_scope == OomScope::Whole {
            self = self.counts_group_kills(1);
        }
        if let Some(kills) = &mut self.evidence.host_oom_kills {
            *kills += by;
        }
        self
    }

    pub(crate) fn counts_group_kills(mut self, kills: u64) -> Self {
        set(&mut self.evidence.counters, "oom_group_kill", kills);
        self
    }

    pub(crate) fn counts_own_oom(mut self) -> Self {
        raise(&mut self.evidence.counters, "oom", 1);
        self
    }

    pub(crate) fn counts_parents_oom(mut self) -> Self {
        raise(&mut self.evidence.ancestor_counters[0], "oom", 1);
        self
    }

    pub(crate) fn counts_denials(mut self, by: u64) -> Self {
        raise_denials(&mut self.evidence.counters, by);
        self
    }

    pub(crate) fn parent_counts_denials(mut self, by: u64) -> Self {
        raise_denials(&mut self.evidence.ancestor_counters[0], by);
        self
    }
}
