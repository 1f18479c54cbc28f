//! What else happened, that did not end the run.

use std::time::Duration;

use super::limit::CHANGED;
use super::units::{format_bytes_precise, format_duration};
use super::{headline, limit, name};
use crate::record::{
    Deed, DenyingLevel, Finding, KillEntry, OomLevel, Reason, RetryHint, RunRecord, frozen_for,
    signal_name,
};

/// The sentences beside the headline, the most important first.
pub(super) fn asides(record: &RunRecord) -> Vec<String> {
    let mut sentences = Vec::new();
    members_killed(record, &mut sentences);
    for finding in &record.termination.evidence {
        match finding {
            Finding::HandledSignal { kill } => {
                sentences.extend(record.kills.get(*kill).map(handled));
            }
            Finding::DeniedForks { level, count, .. } => {
                sentences.extend(denied(record, *level, *count));
            }
            Finding::MainExited { .. }
            | Finding::MainSignaled { .. }
            | Finding::MainEndUnknown
            | Finding::NeverExecuted
            | Finding::FatalSignal { .. }
            | Finding::CgroupKillWritten { .. }
            | Finding::FatalSignalUnseen { .. }
            | Finding::MemberOomKilled { .. }
            | Finding::OwnAction { .. }
            | Finding::LeftLeaf { .. }
            | Finding::CounterRose { .. }
            | Finding::SetupFailure { .. }
            | Finding::RlimitCpu { .. }
            | Finding::Conclusion { .. } => {}
        }
    }
    sentences.extend(held_still(record));
    sentences.extend(left_behind(record));
    if record.cleanup.method.is_some() && !record.cleanup.removed {
        sentences.push("Its cgroup could not be removed.".to_owned());
    }
    sentences
}

/// How long `sandbox freeze` held it still: until it was thawed, which it is where it is ended, or main's end.
fn held_still(record: &RunRecord) -> Option<String> {
    let main_ended = record
        .started_at
        .zip(record.walltime_ns)
        .and_then(|(started, ns)| started.checked_add(Duration::from_nanos(ns)).ok())
        .unwrap_or(record.ended_at);
    let acted = record.termination.evidence.iter().filter_map(|finding| {
        if let Finding::OwnAction { at, .. } = finding {
            Some(*at)
        } else {
            None
        }
    });
    let until = acted.chain([main_ended]).min()?;
    let held = frozen_for(&record.interventions, until);
    let held_at_all = record
        .interventions
        .iter()
        .any(|done| done.deed == Deed::Freeze);
    held_at_all.then(|| {
        format!(
            "sandbox freeze held it still for {} of that.",
            format_duration(held)
        )
    })
}

/// Who was still there when main had ended, where that end was main's own: where the run was ended
/// as a whole, nobody was left behind.
fn left_behind(record: &RunRecord) -> Option<String> {
    match record.termination.reason {
        Reason::Completed | Reason::ExitCode | Reason::Signal | Reason::ExternalKill => {}
        Reason::Memory
        | Reason::MemoryAncestor
        | Reason::HostOom
        | Reason::Pids
        | Reason::PidsAncestor
        | Reason::Walltime
        | Reason::Cputime
        | Reason::Cancelled
        | Reason::Escaped
        | Reason::SetupFailed
        | Reason::RunnerLost => return None,
    }
    match record.processes.left_over {
        Some(0) | None => None,
        Some(1) => Some("A process that it left behind was killed.".to_owned()),
        Some(count) => Some(format!(
            "{count} processes that it left behind were killed."
        )),
    }
}

/// Members that the OOM killer took while main lived on.
fn members_killed(record: &RunRecord, sentences: &mut Vec<String>) {
    let killed: Vec<&KillEntry> = record
        .termination
        .evidence
        .iter()
        .filter_map(|finding| {
            if let Finding::MemberOomKilled { kill } = finding {
                record.kills.get(*kill)
            } else {
                None
            }
        })
        .collect();
    let raise = limit::raise(&record.limits.memory_bytes, "memory");
    let Some(first) = killed.first() else {
        let is_counted = record.termination.retry_hint == RetryHint::MoreMemory
            && headline::fatal(record).is_none()
            && record.termination.reason == Reason::ExitCode;
        if is_counted {
            let limit = limit::memory(record);
            sentences.push(format!(
                "As far as the cgroup's counters tell, the kernel OOM killer killed a child of it at the {limit}."
            ));
            sentences.push(raise);
        }
        return;
    };
    let victim = name::victim(record, first);
    let more = match killed.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let oom = first.oom.as_ref();
    let usage = match oom.and_then(|oom| oom.usage_bytes) {
        Some(bytes) => format!(" at {}", format_bytes_precise(bytes)),
        None => String::new(),
    };
    let scope = oom.and_then(|oom| oom.scope);
    let changed = limit::changed_memory(record, first);
    let whose = match scope {
        Some(OomLevel::Leaf) => match &changed {
            Some(changed) => format!(", the {changed} being reached, {CHANGED}"),
            None => format!(", the {} being reached", limit::memory(record)),
        },
        Some(OomLevel::Ancestor) => ", a limit above the analysis being reached".to_owned(),
        Some(OomLevel::Host) => ", the host being out of memory".to_owned(),
        None => String::new(),
    };
    sentences.push(format!(
        "The kernel OOM killer killed {victim}{more}{usage}{whose}."
    ));
    if scope == Some(OomLevel::Leaf) && changed.is_none() {
        sentences.push(raise);
    }
}

fn handled(kill: &KillEntry) -> String {
    let signal = signal_name(kill.signal);
    match &kill.sender {
        Some(sender) => format!(
            "Before that it had handled {signal} from outside, sent by {}.",
            name::sender(sender)
        ),
        None => format!("Before that it had handled {signal} from outside."),
    }
}

/// Forks that were denied and did not end the run.
fn denied(record: &RunRecord, level: DenyingLevel, count: u64) -> Option<String> {
    let is_reason = matches!(
        record.termination.reason,
        Reason::Pids | Reason::PidsAncestor
    );
    if is_reason {
        return None;
    }
    let forks = match count {
        1 => "A fork was denied".to_owned(),
        count => format!("{count} forks were denied"),
    };
    Some(match level {
        DenyingLevel::Leaf => match limit::changed_pids(record) {
            Some(changed) => format!("{forks} by a {changed}, {CHANGED}."),
            None => format!("{forks} by the {}.", limit::pids(record)),
        },
        DenyingLevel::Ancestor => format!("{forks} by the PID limit of an enclosing cgroup."),
    })
}
