//! The last steps of a run, the same for supervisor and guardian: empty the leaf, read everything,
//! judge, record durably, remove the leaf. To have the kernel side forget it comes after, and takes its time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    clock,
    docket::Docket,
    event_loop::take_events,
    gather::{Ended, Gathered, action_now, add_declared, gather},
    journal::Journal,
    reaper,
    record_error::RecordError,
    record_file::RecordFile,
    spool::Latencies,
};
use crate::{
    attribution,
    cgroup::{CgroupError, LeafCgroup, LeafStats, Mount, Population, Removal},
    evidence::{Evidence, IntentReason},
    notes,
    record::{
        Cleanup, CleanupMethod, MemoryNeeded, NeededSource, ProcessesPart, RunParts, RunRecord,
        TracingPart, Usage,
    },
    say::say,
    spec::Timings,
    trace::{Ring, Tracer},
};

/// How long rmdir may say EBUSY; the last exit's accounting was seen to take up to 1 s.
const REMOVE_WITHIN: Duration = Duration::from_secs(5);
/// How long those who left the leaf may take to die.
const FUGITIVES_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_millis(5);

/// What a run is concluded with.
pub(super) struct Ending<'a> {
    /// What was asked for and set up.
    pub(super) docket: &'a Docket,
    /// The leaf, where there is one.
    pub(super) leaf: Option<&'a LeafCgroup>,
    /// The kernel side, where there is one.
    pub(super) tracer: Option<&'a mut Tracer>,
    /// The events that were not read yet.
    pub(super) ring: Option<Ring>,
    /// What the others told.
    pub(super) journal: Journal,
    /// How it ended.
    pub(super) ended: Ended,
    /// Where the record goes.
    pub(super) record_file: Option<RecordFile>,
    /// How long each step took, ns.
    pub(super) timings: BTreeMap<String, u64>,
}

/// A run that is over.
pub(super) struct Concluded {
    /// Its record.
    pub(super) record: RunRecord,
    /// Whether that could be written where it was asked for; the leaf is removed all the same.
    pub(super) recorded: Result<(), RecordError>,
    /// How long that took.
    pub(super) latencies: Latencies,
}

/// Ends what is left, judges, records and removes.
pub(super) async fn conclude(mut ending: Ending<'_>) -> Concluded {
    let began = Instant::now();
    let method = ending.close_leaf().await;
    let is_empty = |leaf: &LeafCgroup| matches!(leaf.population(), Ok(Population::Empty));
    let killed_at_ns = ending.ended.killed_at_ns;
    let killed_at_ns = killed_at_ns.filter(|_| ending.leaf.is_some_and(is_empty));
    let latencies = Latencies {
        spawn_ns: ending.timings.get("spawn").copied(),
        kill_ns: killed_at_ns.map(|at_ns| clock::now_ns().saturating_sub(at_ns)),
    };
    ending.end_fugitives().await;
    ending.ended.reap_main().await;
    let ring = ending.ring.take();
    let is_read = ring.is_some();
    if let Some(mut ring) = ring {
        while take_events(&mut ring, &mut ending.journal, &mut ending.ended) {}
    }
    ending.journal.settle_all();
    ending.lap("empty", began);

    let reading = Instant::now();
    let gathered = gather(
        ending.docket,
        ending.leaf,
        ending.tracer.as_deref(),
        &mut ending.ended,
        &mut ending.journal,
    );
    ending.lap("read", reading);
    let facts = gathered.evidence.facts.filter(|_| is_read);
    let counted = facts.map(|facts| (facts.last_seq, facts.dropped));
    let mut record = ending.judge(gathered, method);

    let mut record_file = ending.record_file.take();
    let recording = Instant::now();
    let mut recorded = record_file
        .as_mut()
        .map_or(Ok(()), |file| file.draft(&record));
    ending.lap("record", recording);

    // After the draft: its reader may take his time.
    let streaming = Instant::now();
    let problems = ending.journal.end(record.termination.reason, counted);
    record.tracing.degraded.extend(problems);
    ending.lap("events", streaming);

    let removing = Instant::now();
    match ending.leaf {
        Some(leaf) => match remove(leaf).await {
            Ok(()) => record.cleanup.removed = true,
            Err(error) => record.tracing.degraded.push(error.to_string()),
        },
        None => record.cleanup.removed = method.is_some(),
    }
    ending.lap("remove", removing);
    record.cleanup.wall_ms = u64::try_from(began.elapsed().as_millis()).ok();
    if ending.docket.spec.timings == Timings::Include {
        record.timings = Some(ending.timings);
    }
    record.completion_notes = notes::render(&record);
    if let Some(file) = record_file {
        match recorded {
            Ok(()) => recorded = file.finish(&record),
            Err(_) => file.discard(),
        }
    }
    Concluded {
        record,
        recorded,
        latencies,
    }
}

/// Has the kernel side forget a run, once it is recorded. The process's end then waits as [`Tracer::forget`] says.
pub(super) fn forget_watch(tracer: &mut Tracer, docket: &Docket) {
    // What fails once may not the next time. The record is out by now.
    if let Some(leaf) = &docket.leaf
        && tracer.forget(leaf.id).is_err()
        && let Err(error) = tracer.forget(leaf.id)
    {
        say(format_args!(
            "what the kernel side knows of the run is left behind, for `sandbox check --clean`: {error}"
        ));
    }
}

impl Ending<'_> {
    fn lap(&mut self, step: &str, since: Instant) {
        let ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.timings.insert(step.to_owned(), ns);
    }

    /// Whether there was a leaf, and it has been removed by somebody else: systemd's scope of a run that lost
    /// its supervisor ends with its last process.
    fn leaf_is_gone(&self) -> bool {
        let Some(leaf) = &self.docket.leaf else {
            return false;
        };
        Mount::find()
            .and_then(|mount| mount.dir(&leaf.path))
            .is_ok_and(|dir| !dir.exists())
    }

    /// Kills what main left behind. Returns how the leaf became empty; `None` without one.
    async fn close_leaf(&mut self) -> Option<CleanupMethod> {
        let Some(leaf) = self.leaf else {
            return self.leaf_is_gone().then_some(CleanupMethod::AlreadyEmpty);
        };
        add_declared(
            self.docket,
            self.tracer.as_deref(),
            &mut self.ended.own_actions,
        );
        match leaf.population() {
            Ok(Population::Empty) => {
                self.ended.left_over = Some(0);
                return Some(CleanupMethod::AlreadyEmpty);
            }
            Ok(Population::Populated) => {}
            // It may run: what is not known to be empty is emptied.
            Err(error) => self.ended.degraded.push(error.to_string()),
        }
        // Main is none of them, also where it is yet to be killed.
        let main = match self.ended.status {
            Some(_) => None,
            None => self.ended.main_pid,
        };
        match leaf.procs() {
            Ok(pids) => {
                let left_over = pids.into_iter().filter(|pid| Some(*pid) != main);
                self.ended.left_over = u64::try_from(left_over.count()).ok();
            }
            Err(error) => self.ended.degraded.push(error.to_string()),
        }
        // Why main itself is to be killed has been declared, and stands.
        if !self.ended.main_is_declared {
            let action = action_now(IntentReason::LeftOver);
            let tracer = self.tracer.as_deref_mut();
            self.ended.declare(tracer, Some(leaf.cgroup()), action);
        }
        self.ended.killed_at_ns.get_or_insert_with(clock::now_ns);
        match reaper::empty(leaf).await {
            Ok(Population::Empty) => Some(CleanupMethod::CgroupKill),
            Ok(Population::Populated) => {
                self.ended
                    .degraded
                    .push("processes in the leaf do not die: they hang in the kernel".to_owned());
                Some(CleanupMethod::CgroupKill)
            }
            Err(error) => {
                self.ended.degraded.push(error.to_string());
                None
            }
        }
    }

    /// Kills those who left the leaf, and whom they started, until none is left.
    async fn end_fugitives(&mut self) {
        let (Some(tracer), Some(leaf)) = (self.tracer.as_deref(), &self.docket.leaf) else {
            return;
        };
        let until = Instant::now() + FUGITIVES_WITHIN;
        loop {
            let known = match tracer.fugitives_of(leaf.id) {
                Ok(known) => known,
                Err(error) => {
                    self.ended.degraded.push(error.to_string());
                    return;
                }
            };
            self.ended.at_large = known
                .iter()
                .filter(|(key, _)| !reaper::kill_fugitive(key))
                .map(|(key, _)| (key.tgid, key.start_time_ns))
                .collect();
            if self.ended.at_large.is_empty() || Instant::now() > until {
                return;
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    fn judge(&mut self, gathered: Gathered, method: Option<CleanupMethod>) -> RunRecord {
        let attribution = attribution::attribute(&gathered.evidence);
        let needed = memory_needed(self.ended.memory_needed_bytes, &gathered.evidence);
        let parts = RunParts {
            usage: gathered
                .stats
                .as_ref()
                .map(|stats| usage(stats, needed))
                .unwrap_or_default(),
            throttled_periods: gathered
                .stats
                .as_ref()
                .and_then(|stats| stats.cpu_throttled_periods),
            interventions: self.docket.interventions.clone(),
            processes: ProcessesPart {
                left_over: self.ended.left_over,
                tree: self.journal.tree(&self.docket.clock),
            },
            cleanup: Cleanup {
                method,
                wall_ms: None,
                removed: false,
            },
            timings: None,
            tracing: TracingPart {
                mode: gathered.mode,
                programs: self.docket.trace.programs.clone(),
                missed: gathered.missed,
            },
        };
        RunRecord::assemble(
            self.docket.context(),
            &gathered.evidence,
            attribution,
            parts,
        )
    }
}

/// Removes an empty leaf; what fails once is tried again.
///
/// # Errors
/// Where it stays busy, or cannot be removed at all.
pub(super) async fn remove(leaf: &LeafCgroup) -> Result<(), CgroupError> {
    let until = Instant::now() + REMOVE_WITHIN;
    while Instant::now() < until {
        if matches!(leaf.try_remove(), Ok(Removal::Removed)) {
            return Ok(());
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
    // Says why, where it is still busy.
    leaf.remove(Duration::ZERO)
}

/// Kills what is left in a leaf and removes it.
///
/// # Errors
/// As [`remove`]; where it cannot be killed.
pub(super) async fn clear(leaf: &LeafCgroup) -> Result<(), CgroupError> {
    reaper::empty(leaf).await?;
    remove(leaf).await
}

/// What the run needed at least: the highest sample, or where the leaf's own limit was met, what the
/// kernel found no way to reclaim then.
fn memory_needed(sampled: Option<u64>, evidence: &Evidence) -> Option<MemoryNeeded> {
    let leaf_id = evidence.leaf.as_ref().map(|leaf| leaf.id);
    let at_oom = evidence
        .signals
        .iter()
        .filter_map(|signal| signal.oom.as_ref())
        .filter(|oom| oom.cgroup_id.is_some() && oom.cgroup_id == leaf_id)
        .filter_map(|oom| oom.usage_bytes)
        .max();
    let (value, source) = if at_oom > sampled {
        (at_oom?, NeededSource::Oom)
    } else {
        (sampled?, NeededSource::Samples)
    };
    Some(MemoryNeeded {
        value,
        lower_bound: at_oom.is_some(),
        source,
    })
}

fn usage(stats: &LeafStats, needed: Option<MemoryNeeded>) -> Usage {
    Usage {
        cpu_user_us: stats.cpu_user_us,
        cpu_system_us: stats.cpu_system_us,
        memory_peak_bytes: stats.memory_peak_bytes,
        memory_needed_bytes: needed,
        swap_peak_bytes: stats.swap_peak_bytes,
        pids_peak: stats.pids_peak,
        throttled_us: stats.cpu_throttled_us,
        io_read_bytes: stats.io_read_bytes,
        io_write_bytes: stats.io_write_bytes,
        pressure: stats.pressure.clone(),
    }
}
