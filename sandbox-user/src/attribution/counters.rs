//! What the cgroups' event counters say about OOM kills.
//!
//! They corroborate; they decide only where no kernel fact is to be had. `oom` of
//! `memory.events.local` counts OOMs of that cgroup's own limit, `oom_kill` of a leaf's
//! `memory.events` counts kills by any OOM killer, the host's too, and over-counts in group kills.

use crate::evidence::{CounterSpan, EventCounters, Evidence, FlatKeyed};
use crate::record::{Finding, OomLevel};

/// Whether members of the leaf were OOM-killed, as counted.
pub(super) enum CountedOom {
    /// No counters.
    Unreadable,
    /// None was.
    NoKill,
    /// At least one was.
    Killed {
        /// Whose memory it was; `None` where the counters leave it open.
        level: Option<OomLevel>,
        /// That cgroup.
        cgroup: Option<String>,
        /// The counters that say so.
        rises: Vec<Finding>,
    },
}

/// By how much a counter rose; `None` where either end is unknown. A key that is not there yet has
/// not counted yet.
pub(super) fn rise(
    span: &CounterSpan,
    file: fn(&EventCounters) -> &Option<FlatKeyed>,
    key: &str,
) -> Option<u64> {
    let before = file(&span.before).as_ref()?.get(key).copied().unwrap_or(0);
    let after = file(&span.after).as_ref()?.get(key).copied().unwrap_or(0);
    Some(after.saturating_sub(before))
}

pub(super) fn memory_events(counters: &EventCounters) -> &Option<FlatKeyed> {
    &counters.memory_events
}

pub(super) fn memory_events_local(counters: &EventCounters) -> &Option<FlatKeyed> {
    &counters.memory_events_local
}

pub(super) fn pids_events(counters: &EventCounters) -> &Option<FlatKeyed> {
    &counters.pids_events
}

pub(super) fn pids_events_local(counters: &EventCounters) -> &Option<FlatKeyed> {
    &counters.pids_events_local
}

/// OOM kills in the leaf as counted there, and whose memory that was.
pub(super) fn counted_oom(evidence: &Evidence) -> CountedOom {
    let Some(cgroup) = &evidence.leaf else {
        return CountedOom::Unreadable;
    };
    let leaf = &evidence.counters;
    let kills = match rise(leaf, memory_events, "oom_kill")
        .or_else(|| rise(leaf, memory_events_local, "oom_kill"))
    {
        None => return CountedOom::Unreadable,
        Some(0) => return CountedOom::NoKill,
        Some(kills) => kills,
    };
    let mut rises = vec![rose(&cgroup.path, "memory.events", "oom_kill", kills)];

    // A leaf has nothing below it, so for the leaf both files say the same.
    let own = rise(leaf, memory_events_local, "oom").or_else(|| rise(leaf, memory_events, "oom"));
    if let Some(by @ 1..) = own {
        rises.push(rose(&cgroup.path, "memory.events.local", "oom", by));
        return CountedOom::Killed {
            level: Some(OomLevel::Leaf),
            cgroup: Some(cgroup.path.clone()),
            rises,
        };
    }

    let mut all_read =
        own.is_some() && evidence.ancestor_counters.len() == evidence.ancestors.len();
    for (ancestor, span) in evidence.ancestors.iter().zip(&evidence.ancestor_counters) {
        match rise(span, memory_events_local, "oom") {
            Some(0) => {}
            Some(by) => {
                rises.push(rose(&ancestor.path, "memory.events.local", "oom", by));
                return CountedOom::Killed {
                    level: Some(OomLevel::Ancestor),
                    cgroup: Some(ancestor.path.clone()),
                    rises,
                };
            }
            // The root has no memory.events, and no limit either.
            None if ancestor.path == "/" => {}
            None => all_read = false,
        }
    }
    // Only a cgroup that has a limit runs out of it.
    let no_limit_above = evidence.enclosing.memory_bytes.is_none();
    CountedOom::Killed {
        level: (own.is_some() && (all_read || no_limit_above)).then_some(OomLevel::Host),
        cgroup: None,
        rises,
    }
}

fn rose(cgroup: &str, file: &str, key: &str, by: u64) -> Finding {
    Finding::CounterRose {
        cgroup: cgroup.to_owned(),
        file: file.to_owned(),
        key: key.to_owned(),
        by,
    }
}
