//! A limit in words: how much, who set it, how to raise it.

use std::time::Duration;

use super::name;
use super::units::{format_bytes, format_duration};
use crate::limits::Source;
use crate::record::{Deed, Finding, KillEntry, LimitRecord, RunRecord};

/// `memory limit of 2 GiB (default)`.
pub(super) fn memory(record: &RunRecord) -> String {
    let limit = &record.limits.memory_bytes;
    named("memory limit", limit, "--memory", |bytes| {
        format_bytes(*bytes)
    })
}

/// `limit of 100 processes and threads (default)`.
pub(super) fn pids(record: &RunRecord) -> String {
    let limit = &record.limits.pids;
    named("limit", limit, "--pids", |pids| {
        format!("{pids} processes and threads")
    })
}

/// What is said beside a limit that is not the one that `sandbox` had set.
pub(super) const CHANGED: &str = "which somebody set from outside while it ran";

/// `memory limit of 32 MiB`: the leaf's at a kill, where it is not the one that was set.
pub(super) fn changed_memory(record: &RunRecord, kill: &KillEntry) -> Option<String> {
    let enforced = kill.oom.as_ref()?.max_bytes?;
    (record.limits.memory_bytes.effective != Some(enforced))
        .then(|| format!("memory limit of {}", format_bytes(enforced)))
}

/// `limit of 1 processes and threads`: the leaf's when it denied forks, where it is not the one that
/// was set.
pub(super) fn changed_pids(record: &RunRecord) -> Option<String> {
    let max = record.termination.evidence.iter().find_map(|finding| {
        if let Finding::DeniedForks { max, .. } = finding {
            *max
        } else {
            None
        }
    })?;
    (record.limits.pids.effective != Some(max))
        .then(|| format!("limit of {max} processes and threads"))
}

/// `wall clock limit of 30 min (default)`, `wall clock limit of 2 h (sandbox update by ana)`.
pub(super) fn walltime(record: &RunRecord) -> String {
    let limit = &record.limits.walltime_ns;
    let updates = record.interventions.iter().rev();
    let mut updates = updates.filter(|done| matches!(done.deed, Deed::Update { .. }));
    match (limit.source, updates.next(), limit.effective) {
        (Source::Update, Some(update), Some(effective)) => format!(
            "wall clock limit of {} (sandbox update by {})",
            nanos(&effective),
            name::text(&update.by)
        ),
        _ => named("wall clock limit", limit, "--timeout", nanos),
    }
}

/// `CPU time limit of 10 min (--cpu-time)`.
pub(super) fn cputime(record: &RunRecord) -> String {
    let limit = &record.limits.cputime_ns;
    named("CPU time limit", limit, "--cpu-time", nanos)
}

/// How to raise it; `key` is its name in the metadata and, with two dashes, its flag.
pub(super) fn raise<T>(limit: &LimitRecord<T>, key: &str) -> String {
    match limit.source {
        Source::CommandLine
        | Source::Update
        | Source::Default
        | Source::Host
        | Source::Metadata => {
            format!("Raise it with {}.", setting(limit, key))
        }
        Source::Ceiling => {
            "It is the host's ceiling; only its administrator can raise it.".to_owned()
        }
    }
}

/// A setting's name where `limit` was set: the flag, or the metadata's key.
pub(super) fn setting<T>(limit: &LimitRecord<T>, key: &str) -> String {
    match limit.source {
        Source::CommandLine | Source::Update => format!("--{key}"),
        Source::Default | Source::Host | Source::Metadata | Source::Ceiling => {
            format!("sandbox.{key}")
        }
    }
}

fn named<T>(
    name: &str,
    limit: &LimitRecord<T>,
    flag: &str,
    shown: impl Fn(&T) -> String,
) -> String {
    let source = match limit.source {
        Source::Default => "default",
        Source::Host => "the host's default",
        Source::Metadata => "from its metadata",
        Source::CommandLine => flag,
        Source::Update => "sandbox update",
        Source::Ceiling => "the host's ceiling",
    };
    match limit.effective.as_ref().or(limit.requested.as_ref()) {
        Some(value) => format!("{name} of {} ({source})", shown(value)),
        None => name.to_owned(),
    }
}

fn nanos(nanos: &u64) -> String {
    format_duration(Duration::from_nanos(*nanos))
}
