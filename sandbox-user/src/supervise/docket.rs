//! What supervisor and guardian both know of a run once its leaf stands: enough for either to end
//! it and to write its record. The supervisor hands it to the guardian as one line of JSON.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{clock, misses, on_complete::OnComplete};
use crate::{
    evidence::{CgroupRef, ClockAnchor, Confidence, EventCounters},
    host::HostInfo,
    limits::{EffectiveLimits, EnclosingLimits, Limit},
    record::{Intervention, RunContext, User},
    spec::RunSpec,
    sys::{creds::FileIdentity, rlimits::CallersLimits},
    trace::Tracer,
};

/// A run that is about to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Docket {
    /// What was asked for.
    pub(super) spec: RunSpec,
    /// Whom it runs as.
    pub(super) user: User,
    /// Who asked for it: whose rights the record is written with.
    pub(super) caller: FileIdentity,
    /// Where.
    pub(super) host: HostInfo,
    /// When it was asked for.
    pub(super) accepted_at: Timestamp,
    /// Both clocks at one moment.
    pub(super) clock: ClockAnchor,
    /// The leaf; `None` where it came to none.
    pub(super) leaf: Option<CgroupRef>,
    /// Its ancestors, nearest first.
    pub(super) ancestors: Vec<CgroupRef>,
    /// The limits that the leaf has.
    pub(super) effective: Option<EffectiveLimits>,
    /// The limits that its ancestors have.
    pub(super) enclosing: EnclosingLimits,
    /// The leaf's counters before anything ran in it.
    pub(super) before: EventCounters,
    /// The ancestors' counters then.
    pub(super) ancestors_before: Vec<EventCounters>,
    /// `oom_kill` of /proc/vmstat then.
    pub(super) host_oom_kills_before: Option<u64>,
    /// The caller's umask, which its files are made with.
    pub(super) umask: u32,
    /// Where `sandbox` was called, which is where its `--on-complete` runs.
    #[serde(with = "crate::spec::os_path")]
    pub(super) directory: PathBuf,
    /// The caller's resource limits, which main starts with.
    pub(super) rlimits: CallersLimits,
    /// How it is watched.
    pub(super) trace: TraceDocket,
    /// The guardian's pid and the supervisor's.
    pub(super) runner_pids: Vec<u32>,
    /// What people had done to it since it started, by time.
    #[serde(default)]
    pub(super) interventions: Vec<Intervention>,
    /// What was missing from the start, one sentence each.
    pub(super) degraded: Vec<String>,
}

/// Something that was done to a run that goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Change {
    /// By whom, and what.
    pub(super) intervention: Intervention,
    /// The wall clock limit from then on.
    pub(super) walltime: Limit<Duration>,
}

/// How a run is watched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TraceDocket {
    /// What the programs see.
    pub(super) mode: Confidence,
    /// Where they are pinned; `None` without a kernel side.
    pub(super) pins: Option<PathBuf>,
    /// Their names.
    pub(super) programs: Vec<String>,
    /// Runs that the kernel had skipped before, by program.
    pub(super) misses_before: BTreeMap<String, u64>,
}

impl TraceDocket {
    /// As these programs watch from now on.
    pub(super) fn of(tracer: &Tracer) -> Self {
        Self {
            mode: tracer.mode(),
            pins: Some(tracer.dir().path().to_owned()),
            programs: tracer
                .programs()
                .into_iter()
                .map(ToOwned::to_owned)
                .collect(),
            misses_before: misses::by_program(tracer),
        }
    }

    /// Without a kernel side.
    pub(super) const fn none() -> Self {
        Self {
            mode: Confidence::Inferred,
            pins: None,
            programs: Vec::new(),
            misses_before: BTreeMap::new(),
        }
    }
}

impl Docket {
    /// Takes in what was done to it.
    pub(super) fn take(&mut self, change: Change) {
        self.interventions.push(change.intervention);
        self.spec.limits.walltime = change.walltime;
    }

    /// What is to be run in the end, one after another.
    pub(super) fn on_complete(&self) -> impl Iterator<Item = OnComplete<'_>> {
        let hosts = self
            .spec
            .host_on_complete
            .as_deref()
            .map(|command| (command, "on-complete of the host's configuration"));
        let own = self
            .spec
            .on_complete
            .as_deref()
            .map(|command| (command, "--on-complete"));
        hosts
            .into_iter()
            .chain(own)
            .map(|(command, name)| OnComplete {
                name,
                command,
                docket: self,
            })
    }

    /// What the record says of a run apart from how it went.
    pub(super) fn context(&self) -> RunContext {
        RunContext {
            run_id: self.spec.run_id,
            analysis_id: self.spec.analysis_id.clone(),
            labels: self.spec.labels.clone(),
            attempt: self.spec.attempt,
            retry_of: self.spec.retry_of,
            command: self.spec.command.clone(),
            cwd: self.spec.cwd.clone(),
            user: self.user.clone(),
            host: self.host.clone(),
            accepted_at: self.accepted_at,
            // By the clock of all that happened in it, whatever somebody did to the wall clock meanwhile.
            ended_at: self.clock.date(clock::now_ns()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{cgroup::Proc, spec::tests::spec};

    /// A run that has come to no leaf yet.
    pub(in crate::supervise) fn docket() -> Docket {
        Docket {
            spec: spec(),
            user: User {
                uid: 1000,
                gid: 1000,
                name: Some("ana".to_owned()),
            },
            caller: FileIdentity {
                uid: 1000,
                gid: 1000,
                groups: Vec::new(),
            },
            host: HostInfo::gather(&Proc::default()),
            accepted_at: Timestamp::now(),
            clock: clock::anchor(),
            leaf: None,
            ancestors: Vec::new(),
            effective: None,
            enclosing: EnclosingLimits::default(),
            before: EventCounters::default(),
            ancestors_before: Vec::new(),
            host_oom_kills_before: None,
            umask: 0o022,
            directory: "/".into(),
            rlimits: CallersLimits::default(),
            trace: TraceDocket::none(),
            runner_pids: vec![1],
            interventions: Vec::new(),
            degraded: Vec::new(),
        }
    }
}
