//! Puts a record together from its parts; pure, so that a record can be made again from them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    Cleanup, CounterRecord, Counters, Escaped, Exit, Intervention, LimitHit, LimitKind,
    LimitRecord, LimitsRecord, ProcessNode, Processes, Reason, RunRecord, SCHEMA_VERSION,
    Termination, Tracing, Usage, User, lossless,
};
use crate::attribution::{self, Attribution};
use crate::evidence::{Confidence, CounterSpan, EventCounters, Evidence, FlatKeyed, WaitStatus};
use crate::host::HostInfo;
use crate::limits::Limit;
use crate::notes;

/// What is known of a run apart from how it went.
#[derive(Clone, Debug, PartialEq)]
pub struct RunContext {
    /// The run.
    pub run_id: Uuid,
    /// The analysis, as its submitter names it.
    pub analysis_id: Option<String>,
    /// The submitter's labels.
    pub labels: BTreeMap<String, String>,
    /// Which attempt.
    pub attempt: Option<u32>,
    /// The run that this one repeats.
    pub retry_of: Option<Uuid>,
    /// The command.
    pub command: Vec<OsString>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Whom it ran as.
    pub user: User,
    /// Where.
    pub host: HostInfo,
    /// When it was asked for.
    pub accepted_at: Timestamp,
    /// When it was over.
    pub ended_at: Timestamp,
}

/// What was measured of a run, apart from what a verdict rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct RunParts {
    /// What it used.
    pub usage: Usage,
    /// `nr_throttled` of cpu.stat: periods in which it was held back; `None` = not read.
    pub throttled_periods: Option<u64>,
    /// What people had done to it, by time.
    pub interventions: Vec<Intervention>,
    /// Its processes.
    pub processes: ProcessesPart,
    /// What became of the leaf.
    pub cleanup: Cleanup,
    /// Where the time went.
    pub timings: Option<BTreeMap<String, u64>>,
    /// How it was watched.
    pub tracing: TracingPart,
}

/// What the cgroup and the event stream tell of the processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessesPart {
    /// Processes still there when main had ended.
    pub left_over: Option<u64>,
    /// Who started whom.
    pub tree: Vec<ProcessNode>,
}

/// How the run was watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracingPart {
    /// What the attached programs can tell at best.
    pub mode: Confidence,
    /// Their names.
    pub programs: Vec<String>,
    /// `recursion_misses` meanwhile; `None` = not read.
    pub missed: Option<u64>,
}

impl RunRecord {
    /// The record of a run, notes included.
    pub fn assemble(
        context: RunContext,
        evidence: &Evidence,
        attribution: Attribution,
        parts: RunParts,
    ) -> Self {
        let date = |at_ns| evidence.clock.date(at_ns);
        let reason = attribution.reason;
        let mut record = Self {
            schema_version: SCHEMA_VERSION,
            run_id: context.run_id,
            analysis_id: context.analysis_id,
            labels: context.labels,
            attempt: context.attempt,
            retry_of: context.retry_of,
            command: context.command.iter().map(|word| lossless(word)).collect(),
            cwd: lossless(context.cwd.as_os_str()),
            user: context.user,
            cgroup: evidence.leaf.clone(),
            host: context.host,
            accepted_at: context.accepted_at,
            started_at: evidence.exec_at_ns.map(date),
            ended_at: context.ended_at,
            walltime_ns: walltime_ns(evidence),
            limits: limits(evidence),
            interventions: parts.interventions,
            exit: exit_of(evidence),
            termination: Termination {
                reason,
                confidence: attribution.confidence,
                evidence: attribution.evidence,
                retry_hint: attribution.retry_hint,
                nearest_terms: attribution.nearest_terms,
            },
            kills: attribution.kills,
            limits_hit: limits_hit(attribution.limits_hit, parts.throttled_periods),
            processes: processes(evidence, parts.usage.pids_peak, parts.processes),
            usage: usage(parts.usage, reason),
            counters: counters(&evidence.counters),
            escaped: escaped(evidence),
            cleanup: parts.cleanup,
            timings: parts.timings,
            tracing: Tracing {
                mode: parts.tracing.mode,
                programs: parts.tracing.programs,
                events: evidence.facts.map(|facts| facts.last_seq),
                dropped: evidence.facts.map(|facts| facts.dropped),
                missed: parts.tracing.missed,
                degraded: attribution.degraded,
            },
            completion_notes: String::new(),
        };
        record.completion_notes = notes::render(&record);
        record
    }
}

fn walltime_ns(evidence: &Evidence) -> Option<u64> {
    let (start, end) = (evidence.exec_at_ns?, evidence.exit_at_ns?);
    // An exit before the exec is a main process that failed between the two: no time at all.
    Some(end.saturating_sub(start))
}

pub(crate) fn exit_of(evidence: &Evidence) -> Exit {
    match attribution::main_status(evidence) {
        // It was our own code in the child that gave up; the analysis has no exit code.
        Some(WaitStatus::Exited { .. }) if evidence.gave_up_before_exec() => Exit::default(),
        Some(status) => Exit::from(status),
        None => Exit::default(),
    }
}

fn limits(evidence: &Evidence) -> LimitsRecord {
    let (asked, has, above) = (&evidence.limits, &evidence.effective, &evidence.enclosing);
    LimitsRecord {
        memory_bytes: LimitRecord {
            requested: asked.memory_bytes.requested,
            effective: has.memory_bytes,
            source: asked.memory_bytes.source,
            enclosing: above.memory_bytes.clone(),
        },
        swap_bytes: LimitRecord {
            requested: asked.swap_bytes.requested,
            effective: has.swap_bytes,
            source: asked.swap_bytes.source,
            enclosing: above.swap_bytes.clone(),
        },
        cpus: LimitRecord {
            requested: asked.cpus.requested,
            effective: has.cpus,
            source: asked.cpus.source,
            enclosing: above.cpus.clone(),
        },
        pids: LimitRecord {
            requested: asked.pids.requested,
            effective: has.pids,
            source: asked.pids.source,
            enclosing: above.pids.clone(),
        },
        walltime_ns: time_limit(&asked.walltime),
        cputime_ns: time_limit(&asked.cputime),
    }
}

/// A time as the record has it: 584 years fit.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The runner keeps it itself, and no cgroup above has one.
fn time_limit(limit: &Limit<Duration>) -> LimitRecord<u64> {
    LimitRecord {
        requested: limit.requested.map(nanos),
        effective: limit.value.map(nanos),
        source: limit.source,
        enclosing: None,
    }
}

fn limits_hit(mut hits: Vec<LimitHit>, throttled_periods: Option<u64>) -> Vec<LimitHit> {
    if let Some(count @ 1..) = throttled_periods {
        hits.push(LimitHit {
            limit: LimitKind::Cpus,
            count: Some(count),
            first_at: None,
            fatal: false,
        });
    }
    hits
}

fn processes(evidence: &Evidence, peak: Option<u64>, part: ProcessesPart) -> Processes {
    let facts = evidence.facts;
    // Main was born, so none means that nobody looked.
    let lives = facts.filter(|facts| facts.births > 0 || evidence.main.is_none());
    Processes {
        births: lives.map(|facts| facts.births.saturating_add(facts.threads)),
        joined: facts.map(|facts| facts.joined),
        execs: facts.map(|facts| facts.execs),
        exits: lives.map(|facts| facts.exits),
        killed: facts.map(|facts| {
            let own = facts.oom_kills.saturating_add(facts.cgroup_kills);
            own.saturating_add(facts.other_kills)
        }),
        peak,
        left_over: part.left_over,
        tree_left_out: lives.map(|facts| facts.births.saturating_sub(part.tree.len() as u64)),
        tree: part.tree,
    }
}

fn usage(mut usage: Usage, reason: Reason) -> Usage {
    if let Some(needed) = &mut usage.memory_needed_bytes {
        needed.lower_bound |= matches!(
            reason,
            Reason::Memory | Reason::MemoryAncestor | Reason::HostOom
        );
    }
    usage
}

fn counters(span: &CounterSpan) -> Counters {
    let both = |file: fn(&EventCounters) -> &Option<FlatKeyed>| CounterRecord {
        before: file(&span.before).clone(),
        after: file(&span.after).clone(),
    };
    Counters {
        memory_events: both(|counters| &counters.memory_events),
        memory_events_local: both(|counters| &counters.memory_events_local),
        pids_events: both(|counters| &counters.pids_events),
        pids_events_local: both(|counters| &counters.pids_events_local),
    }
}

fn escaped(evidence: &Evidence) -> Vec<Escaped> {
    evidence
        .fugitives
        .iter()
        .map(|fugitive| Escaped {
            pid: fugitive.pid,
            start_time: fugitive.start_time_ns,
            comm: fugitive.comm.clone(),
            cgroup: fugitive.cgroup.clone(),
            at: evidence.clock.date(fugitive.at_ns),
            killed: fugitive.killed,
        })
        .collect()
}
