//! Out of memory: whose it was, and whom the kernel killed.

use super::headline::{AS_COUNTED, after, fatal};
use super::limit::CHANGED;
use super::units::{format_bytes, format_bytes_precise};
use super::{limit, name};
use crate::evidence::Confidence;
use crate::record::{Finding, KillEntry, OomLevel, RunRecord};

pub(super) fn memory(record: &RunRecord) -> Vec<String> {
    let counted = if oom_kill(record).is_none() {
        AS_COUNTED
    } else {
        ""
    };
    if let Some(changed) = oom_kill(record).and_then(|kill| limit::changed_memory(record, kill)) {
        return vec![
            format!("Killed: {changed}, {CHANGED}, reached."),
            oom_story(record),
            format!("sandbox had set a {}.", limit::memory(record)),
        ];
    }
    vec![
        format!("Killed: {} reached{counted}.", limit::memory(record)),
        oom_story(record),
        limit::raise(&record.limits.memory_bytes, "memory"),
    ]
}

pub(super) fn memory_ancestor(record: &RunRecord) -> Vec<String> {
    let oom = oom_kill(record).and_then(|kill| kill.oom.as_ref());
    let is_known = oom.is_some_and(|oom| oom.scope == Some(OomLevel::Ancestor));
    let counted = record.termination.evidence.iter().any(|finding| {
        matches!(finding, Finding::CounterRose { cgroup, .. } if !is_leaf(record, cgroup))
    });
    let first = if is_known || counted {
        let limit = match oom.and_then(|oom| oom.max_bytes) {
            Some(bytes) => format!("memory limit of {}", format_bytes(bytes)),
            None => "memory limit".to_owned(),
        };
        let cgroup = oom
            .and_then(|oom| oom.cgroup.clone())
            .or_else(|| counted_above(record));
        let cgroup = match cgroup {
            Some(cgroup) => format!(" {}", name::path(&cgroup)),
            None => String::new(),
        };
        let counted = if is_known && record.termination.confidence > Confidence::Inferred {
            ""
        } else {
            AS_COUNTED
        };
        format!("Killed: {limit} of the enclosing cgroup{cgroup} reached{counted}.")
    } else {
        "Killed: out of memory, at a level above the analysis that could not be told.".to_owned()
    };
    vec![first, oom_story(record), elsewhere(record)]
}

/// What is to be done where the limit above was met.
fn elsewhere(record: &RunRecord) -> String {
    let own = record.limits.memory_bytes.effective;
    match &record.limits.memory_bytes.enclosing {
        Some(above) if own.is_none_or(|own| above.value < own) => format!(
            "It can never have more than {} there, whatever its own limit says; run it where there is more.",
            format_bytes(above.value)
        ),
        Some(_) | None => NOT_ITS_OWN.to_owned(),
    }
}

/// Of a limit that others share, or the host.
const NOT_ITS_OWN: &str =
    "Its own memory limit was not what ended it; run it again when there is room.";

fn is_leaf(record: &RunRecord, cgroup: &str) -> bool {
    record
        .cgroup
        .as_ref()
        .is_some_and(|leaf| leaf.path == cgroup)
}

fn counted_above(record: &RunRecord) -> Option<String> {
    record.termination.evidence.iter().find_map(|finding| {
        if let Finding::CounterRose { cgroup, .. } = finding
            && !is_leaf(record, cgroup)
        {
            Some(cgroup.clone())
        } else {
            None
        }
    })
}

pub(super) fn host_oom(record: &RunRecord) -> Vec<String> {
    let counted = if oom_kill(record).is_none() {
        AS_COUNTED
    } else {
        ""
    };
    vec![
        format!("Killed: the host ran out of memory{counted}."),
        oom_story(record),
        NOT_ITS_OWN.to_owned(),
    ]
}

/// The one to tell of: main's, or where a whole group was killed the first of it, which is the one
/// that the OOM killer chose.
fn oom_kill(record: &RunRecord) -> Option<&KillEntry> {
    let fatal = fatal(record)?;
    let oom = fatal.oom.as_ref()?;
    if !oom.group {
        return Some(fatal);
    }
    let scope = &oom.scope;
    record.kills.iter().find(|kill| {
        kill.delivered == Some(true) && kill.oom.as_ref().is_some_and(|oom| oom.scope == *scope)
    })
}

fn oom_story(record: &RunRecord) -> String {
    let after = after(record);
    let Some(kill) = oom_kill(record) else {
        return format!("The analysis was stopped{after}.");
    };
    let victim = name::victim(record, kill);
    let oom = kill.oom.as_ref();
    let usage = match oom.and_then(|oom| oom.usage_bytes) {
        Some(bytes) => format!(" at {}", format_bytes_precise(bytes)),
        None => String::new(),
    };
    let end = if oom.is_some_and(|oom| oom.group) {
        "; the whole analysis was stopped"
    } else {
        ", its main process,"
    };
    format!("The kernel OOM killer killed {victim}{usage}{end}{after}.")
}
