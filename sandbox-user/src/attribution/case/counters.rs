//! Event counters of these stories.

use std::collections::BTreeMap;

use crate::evidence::{CounterSpan, EventCounters};

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

pub(super) fn raise(span: &mut CounterSpan, key: &str, by: u64) {
    let after = &mut span.after;
    let files = [&mut after.memory_events, &mut after.memory_events_local];
    for file in files.into_iter().flatten() {
        *file.entry(key.to_owned()).or_default() += by;
    }
}

pub(super) fn raise_denials(span: &mut CounterSpan, by: u64) {
    let after = &mut span.after;
    let files = [&mut after.pids_events, &mut after.pids_events_local];
    for file in files.into_iter().flatten() {
        *file.entry("max".to_owned()).or_default() += by;
    }
}
