//! Facts that should agree, held against each other. What disagrees lowers `confidence` and is named;
//! it never changes a verdict by itself.

use sandbox_ebpf::Facts;

use super::Dossier;
use super::counters::{memory_events, pids_events, pids_events_local, rise};
use crate::evidence::{Confidence, Evidence};

pub(super) fn cross_check(evidence: &Evidence, dossier: &mut Dossier) {
    if let (Some(waited), Some(kernel)) = (evidence.status, evidence.kernel_status)
        && waited != kernel
    {
        dossier.doubt(
            Confidence::Strong,
            "wait(2) and the kernel's exit code tell different ends of the main process",
        );
    }
    // `__oom_kill_process`, mm/oom_kill.c, counts in both.
    if evidence.host_oom_kills == Some(0)
        && rise(&evidence.counters, memory_events, "oom_kill").is_some_and(|counted| counted > 0)
    {
        dossier.doubt(
            Confidence::Strong,
            "memory.events counted OOM kills and /proc/vmstat none",
        );
    }
    denials_above(evidence, dossier);
    let Some(facts) = evidence.facts else {
        return;
    };

    let came = facts
        .births
        .saturating_add(facts.threads)
        .saturating_add(facts.joined);
    let went = facts.exits.saturating_add(facts.escapes);
    if came != went {
        dossier.doubt(
            Confidence::Strong,
            format!("{came} tasks were seen to come into the leaf and {went} to leave it"),
        );
    }
    if facts.failed_updates > 0 {
        let failed = facts.failed_updates;
        dossier.doubt(
            Confidence::Strong,
            format!("{failed} map updates of the kernel side failed"),
        );
    }
    if facts.victims_left_out > 0 {
        // Main's own are always kept, and no verdict rests on another's.
        let left_out = facts.victims_left_out;
        dossier.degraded.push(format!(
            "{left_out} signals to members other than the main process are not in kills"
        ));
    }
    if facts.escapes > 0 && evidence.fugitives.is_empty() {
        let escapes = facts.escapes;
        dossier.doubt(
            Confidence::Strong,
            format!("{escapes} tasks left the leaf and nobody knows where to"),
        );
    }
    // The counter counts a group's first victim twice, so it may be higher, never lower.
    if let Some(counted) = rise(&evidence.counters, memory_events, "oom_kill")
        && (counted < facts.oom_kills || (counted > 0) != (facts.oom_kills > 0))
    {
        // Without brackets nobody can count them, and then the counter is what there is.
        let at_most = if evidence.confidence == Confidence::Exact {
            dossier.degraded.push(format!(
                "the kernel side saw {} OOM kills and memory.events counted {counted}",
                facts.oom_kills
            ));
            Confidence::Strong
        } else {
            evidence.confidence
        };
        dossier.lower(at_most);
    }
    denials(evidence, &facts, dossier);
}

/// The fexit adds detail and may miss denials where the kernel is preemptible, so that the counter may
/// be higher; not all of them, and it makes none up.
fn denials(evidence: &Evidence, facts: &Facts, dossier: &mut Dossier) {
    let local = rise(&evidence.counters, pids_events_local, "max");
    // Up to 6.11 there is but one counter, of whoever's limit it was.
    let above = facts
        .denied_by_ancestor
        .saturating_add(facts.denied_unknown);
    let (counted, seen, whose) = match local {
        Some(_) if facts.denied_unknown > 0 => return,
        Some(counted) => (
            counted,
            facts.denied_by_leaf,
            "by the leaf's limit and pids.events.local",
        ),
        None => match rise(&evidence.counters, pids_events, "max") {
            Some(counted) => (
                counted,
                facts.denied_by_leaf.saturating_add(above),
                "and pids.events",
            ),
            None => return,
        },
    };
    if counted < seen || (counted > 0) != (seen > 0) {
        dossier.doubt(
            Confidence::Strong,
            format!("the kernel side saw {seen} forks denied {whose} counted {counted}"),
        );
    }
}

/// From 6.12 on the denial of an enclosing limit is counted up there only, for whoever met it: where
/// no fexit runs, nobody knows whether this run did.
fn denials_above(evidence: &Evidence, dossier: &mut Dossier) {
    let counts_above = evidence.counters.after.pids_events_local.is_some();
    if evidence.confidence == Confidence::Exact || !counts_above {
        return;
    }
    let above = evidence.ancestors.iter().zip(&evidence.ancestor_counters);
    for (ancestor, span) in above {
        if rise(span, pids_events_local, "max").is_some_and(|denied| denied > 0) {
            let path = &ancestor.path;
            dossier.doubt(
                Confidence::Inferred,
                format!("forks were denied at the pids.max of {path} meanwhile; without fentry it is not known whether they were this run's"),
            );
        }
    }
}
