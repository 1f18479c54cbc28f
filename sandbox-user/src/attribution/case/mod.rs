//! Endings written down for tests: a run that goes well, and what happened to it instead.

mod counters;
mod kill;
mod outcome;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use sandbox_ebpf as wire;
use uuid::Uuid;

pub(crate) use kill::Kill;
pub(crate) use outcome::Outcome;

use super::{Attribution, attribute};
use crate::evidence::{
    CgroupRef, ClockAnchor, Confidence, CounterSpan, Delivery, DeniedForks, Evidence, Fugitive,
    IntentReason, OwnAction, Process, SetupFailure, SetupFailureKind, WaitStatus,
};
use crate::limits::{
    EffectiveLimits, Enclosing, EnclosingLimits, Limit, Limits, OnPidsLimit, OomScope, Source,
};
use crate::record::{
    Cleanup, CleanupMethod, Exit, Intervention, ProcessNode, ProcessesPart, Reason, RetryHint,
    RunContext, RunParts, RunRecord, TracingPart, Usage, User,
};
use counters::quiet;

pub(crate) const LEAF: u64 = 100;
pub(crate) const PARENT: u64 = 90;
pub(crate) const MAIN_PID: u32 = 4700;
pub(crate) const CHILD_PID: u32 = 4711;
const RUNNER_PID: u32 = 600;
const MS: u64 = 1_000_000;
/// When main's exec was.
const START_MS: u64 = 1_000;

/// A process of these stories.
pub(crate) fn process(pid: u32, comm: &str, cgroup_id: u64) -> Process {
    Process {
        pid,
        start_time_ns: u64::from(pid) * 1000,
        tid: pid,
        comm: comm.to_owned(),
        exe: None,
        uid: Some(1000),
        cgroup_id,
    }
}

pub(crate) fn main_process() -> Process {
    process(MAIN_PID, "bash", LEAF)
}

fn child() -> Process {
    process(CHILD_PID, "python3", LEAF)
}

/// One ending.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    name: &'static str,
    pub(crate) evidence: Evidence,
    pub(crate) tree: Vec<ProcessNode>,
    pub(crate) left_over: Option<u64>,
    pub(crate) interventions: Vec<Intervention>,
}

impl Case {
    /// A run that exits 0 after 192 s, watched with everything.
    pub(crate) fn named(name: &'static str) -> Self {
        let cgroup = |path: &str, id| CgroupRef {
            path: path.to_owned(),
            id,
        };
        let case = Self {
            name,
            tree: Vec::new(),
            left_over: Some(0),
            interventions: Vec::new(),
            evidence: Evidence {
                clock: ClockAnchor {
                    monotonic_ns: START_MS * MS,
                    wall: "2026-03-01T12:00:00Z".parse().expect("a date"),
                },
                confidence: Confidence::Exact,
                leaf: Some(cgroup("/sandbox/runs/r1", LEAF)),
                ancestors: vec![
                    cgroup("/sandbox/runs", PARENT),
                    cgroup("/sandbox", 80),
                    cgroup("/", 1),
                ],
                limits: Limits::default(),
                effective: EffectiveLimits {
                    memory_bytes: Some(2 << 30),
                    swap_bytes: Some(0),
                    cpus: Some(1.0),
                    pids: Some(100),
                },
                enclosing: EnclosingLimits::default(),
                on_pids_limit: OnPidsLimit::Kill,
                oom_scope: OomScope::Whole,
                setup_failure: None,
                main: Some(main_process()),
                exec_at_ns: Some(START_MS * MS),
                status: None,
                exit_at_ns: None,
                kernel_status: None,
                runner_pids: vec![RUNNER_PID, RUNNER_PID + 1],
                own_actions: Vec::new(),
                signals: Vec::new(),
                facts: Some(wire::Facts {
                    births: 1,
                    execs: 1,
                    exits: 1,
                    last_seq: 3,
                    ..wire::Facts::default()
                }),
                counters: quiet(true),
                ancestor_counters: vec![quiet(true), quiet(true), CounterSpan::default()],
                host_oom_kills: Some(0),
                denied_forks: DeniedForks::default(),
                fugitives: Vec::new(),
                rlimit_cpu_seconds: (None, None),
                cpu_usage_us: Some(1_000_000),
                degraded: Vec::new(),
            },
        };
        case.exits(0)
    }

    fn ends(mut self, ms: u64, status: WaitStatus) -> Self {
        self.evidence.status = Some(status);
        self.evidence.kernel_status = Some(status);
        self.evidence.exit_at_ns = Some((START_MS + ms) * MS);
        self
    }

    pub(crate) fn exits(self, code: i32) -> Self {
        self.exits_at(192_000, code)
    }

    pub(crate) fn exits_at(self, ms: u64, code: i32) -> Self {
        self.ends(ms, WaitStatus::Exited { code })
    }

    /// Main's wait status alone; the signal itself is added by [`Case::with`].
    pub(crate) fn dies_of(self, signal: i32) -> Self {
        self.dies_at(192_000, signal)
    }

    pub(crate) fn dies_at(self, ms: u64, signal: i32) -> Self {
        self.ends(
            ms,
            WaitStatus::Signaled {
                signal,
                core_dumped: false,
            },
        )
    }

    pub(crate) fn dumps_core(self, signal: i32) -> Self {
        self.ends(
            192_000,
            WaitStatus::Signaled {
                signal,
                core_dumped: true,
            },
        )
    }

    pub(crate) fn with(mut self, kill: Kill) -> Self {
        if kill.signal().oom.is_some() && kill.signal().result == Delivery::Delivered {
            if let Some(facts) = &mut self.evidence.facts {
                facts.oom_kills += 1;
            }
            self = self.counts_oom_kills(1);
        }
        self.evidence.signals.push(kill.signal().clone());
        self
    }

    pub(crate) fn acts(mut self, reason: IntentReason, ms: u64) -> Self {
        self.evidence.own_actions.push(OwnAction {
            reason,
            at_ns: (START_MS + ms) * MS,
            signal: None,
            asked_by: None,
            detail: None,
        });
        self
    }

    /// Asked for by this process's signal.
    pub(crate) fn asked_to_end(mut self, ms: u64, signal: i32, by: u32) -> Self {
        self = self.acts_on(IntentReason::Cancelled, ms, signal);
        if let Some(action) = self.evidence.own_actions.last_mut() {
            action.asked_by = Some(by);
        }
        self
    }

    pub(crate) fn acts_on(mut self, reason: IntentReason, ms: u64, signal: i32) -> Self {
        self = self.acts(reason, ms);
        if let Some(action) = self.evidence.own_actions.last_mut() {
            action.signal = Some(signal);
        }
        self
    }

    /// A kernel before 6.12.
    pub(crate) fn without_pids_events_local(mut self) -> Self {
        self.evidence.counters.before.pids_events_local = None;
        self.evidence.counters.after.pids_events_local = None;
        self
    }

    pub(crate) fn without_memory_events(mut self) -> Self {
        self.evidence.counters = CounterSpan::default();
        self
    }

    pub(crate) fn denied_by_leaf(mut self, count: u64, ms: u64) -> Self {
        self.evidence.denied_forks.by_leaf = count;
        self.evidence.denied_forks.first_at_ns = Some((START_MS + ms) * MS);
        if let Some(facts) = &mut self.evidence.facts {
            facts.denied_by_leaf = count;
        }
        self.counts_denials(count)
    }

    pub(crate) fn denied_at(mut self, max: u64) -> Self {
        self.evidence.denied_forks.leaf_max = Some(max);
        self
    }

    pub(crate) fn denied_by_ancestor(mut self, count: u64, ms: u64) -> Self {
        self.evidence.denied_forks.by_ancestor = count;
        self.evidence.denied_forks.ancestor = Some(self.evidence.ancestors[0].clone());
        self.evidence.denied_forks.first_at_ns = Some((START_MS + ms) * MS);
        self
    }

    pub(crate) fn denying_goes_on(mut self) -> Self {
        self.evidence.on_pids_limit = OnPidsLimit::Deny;
        self
    }

    pub(crate) fn enclosed_pids(mut self, value: u64) -> Self {
        self.evidence.enclosing.pids = Some(Enclosing {
            value,
            cgroup: "/sandbox".to_owned(),
        });
        self
    }

    pub(crate) fn enclosed_memory(mut self, value: u64) -> Self {
        self.evidence.enclosing.memory_bytes = Some(Enclosing {
            value,
            cgroup: "/sandbox/runs".to_owned(),
        });
        self
    }

    pub(crate) fn oom_takes_processes(mut self) -> Self {
        self.evidence.oom_scope = OomScope::Process;
        self
    }

    pub(crate) fn rlimit_cpu(mut self, soft: u64, hard: u64) -> Self {
        self.evidence.rlimit_cpu_seconds = (Some(soft), Some(hard));
        self
    }

    pub(crate) fn loses(mut self, comm: &str, ms: u64) -> Self {
        self.evidence.fugitives.push(Fugitive {
            pid: 4712,
            start_time_ns: 4_712_000,
            comm: comm.to_owned(),
            cgroup: "/user.slice/user-1000.slice".to_owned(),
            at_ns: (START_MS + ms) * MS,
            killed: true,
        });
        self
    }

    /// Never executed; main may have been born.
    pub(crate) fn never_executes(mut self) -> Self {
        self.evidence.exec_at_ns = None;
        if let Some(facts) = &mut self.evidence.facts {
            facts.execs = 0;
        }
        self
    }

    pub(crate) fn fails_setup(mut self, step: &str, errno: i32, kind: SetupFailureKind) -> Self {
        self = self.never_executes();
        self.evidence.setup_failure = Some(SetupFailure {
            step: step.to_owned(),
            errno: Some(errno),
            kind,
        });
        self
    }

    pub(crate) fn without_main(mut self) -> Self {
        self.evidence.main = None;
        self.unseen_end()
    }

    pub(crate) fn unseen_end(mut self) -> Self {
        self.evidence.status = None;
        self.evidence.kernel_status = None;
        self.evidence.exit_at_ns = None;
        self
    }

    /// tp_btf without fentry.
    pub(crate) fn strong(mut self) -> Self {
        self.evidence.confidence = Confidence::Strong;
        if let Some(facts) = &mut self.evidence.facts {
            facts.oom_kills = 0;
        }
        for signal in &mut self.evidence.signals {
            signal.oom = None;
            signal.cgroup_kill = None;
        }
        self
    }

    /// No kernel side at all.
    pub(crate) fn inferred(mut self) -> Self {
        self.evidence.confidence = Confidence::Inferred;
        self.evidence.facts = None;
        self.evidence.kernel_status = None;
        self.evidence.signals.clear();
        self.evidence.denied_forks = DeniedForks::default();
        self
    }

    pub(crate) fn memory_limit(mut self, bytes: u64, source: Source) -> Self {
        self.evidence.limits.memory_bytes = Limit::new(Some(bytes), source);
        self.evidence.effective.memory_bytes = Some(bytes);
        // What the kernel enforced, where it has killed by then.
        for oom in self
            .evidence
            .signals
            .iter_mut()
            .filter_map(|signal| signal.oom.as_mut())
        {
            if oom.cgroup_id == Some(LEAF) {
                oom.max_bytes = Some(bytes);
            }
        }
        self
    }

    pub(crate) fn pids_limit(mut self, value: u64, source: Source) -> Self {
        self.evidence.limits.pids = Limit::new(Some(value), source);
        self.evidence.effective.pids = Some(value);
        self
    }

    pub(crate) fn timeout(mut self, seconds: u64, source: Source) -> Self {
        self.evidence.limits.walltime = Limit::new(Some(Duration::from_secs(seconds)), source);
        self
    }

    pub(crate) fn cpu_time(mut self, seconds: u64, source: Source) -> Self {
        self.evidence.limits.cputime = Limit::new(Some(Duration::from_secs(seconds)), source);
        self
    }

    pub(crate) fn knows_tree(mut self) -> Self {
        let node = |pid: u32, comm: &str, parent: Option<u32>| ProcessNode {
            pid,
            start_time: u64::from(pid) * 1000,
            parent_pid: parent,
            parent_start_time: parent.map(|pid| u64::from(pid) * 1000),
            comm: comm.to_owned(),
            exe: None,
            argv: None,
            argv_cut: None,
            born_at: None,
            ended_at: None,
            exit: Exit::default(),
            cpu_user_us: None,
            cpu_system_us: None,
            max_rss_bytes: None,
        };
        self.tree = vec![
            node(MAIN_PID, "bash", None),
            node(CHILD_PID, "python3", Some(MAIN_PID)),
        ];
        self
    }

    pub(crate) fn has_done(mut self, intervention: Intervention) -> Self {
        self.interventions.push(intervention);
        self
    }

    pub(crate) fn leaves_over(mut self, count: u64) -> Self {
        self.left_over = Some(count);
        self
    }

    pub(crate) fn attribution(&self) -> Attribution {
        attribute(&self.evidence)
    }

    /// The record of this ending.
    pub(crate) fn record(&self) -> RunRecord {
        let mode = if self.evidence.facts.is_some() {
            Confidence::Exact
        } else {
            Confidence::Inferred
        };
        let context = RunContext {
            run_id: Uuid::from_u128(0x0195_0000_0000_7000_8000_0000_0000_0001),
            analysis_id: Some("a-17".to_owned()),
            labels: BTreeMap::from([("exp".to_owned(), "chr20".to_owned())]),
            attempt: Some(1),
            retry_of: None,
            command: ["bash", "analysis.sh"].map(OsString::from).to_vec(),
            cwd: "/home/ada".into(),
            user: User {
                uid: 1000,
                gid: 1000,
                name: Some("ada".to_owned()),
            },
            host: crate::host::HostInfo {
                hostname: Some("node1".to_owned()),
                boot_id: None,
                kernel: Some("6.12.117".to_owned()),
                cpu_model: None,
                cpus: Some(8),
                memory_bytes: Some(16 << 30),
                swap_bytes: Some(0),
                runner_version: "0.1.0".to_owned(),
            },
            accepted_at: "2026-03-01T11:59:59.5Z".parse().expect("a date"),
            ended_at: "2026-03-01T12:03:12.1Z".parse().expect("a date"),
        };
        let parts = RunParts {
            usage: Usage::default(),
            throttled_periods: None,
            interventions: self.interventions.clone(),
            processes: ProcessesPart {
                left_over: self.left_over,
                tree: self.tree.clone(),
            },
            cleanup: Cleanup {
                method: Some(CleanupMethod::CgroupKill),
                wall_ms: Some(12),
                removed: true,
            },
            timings: None,
            tracing: TracingPart {
                mode,
                programs: vec!["signal_generate".to_owned()],
                missed: Some(0),
            },
        };
        RunRecord::assemble(context, &self.evidence, self.attribution(), parts)
    }

    #[track_caller]
    pub(crate) fn expect(self, reason: Reason) -> Outcome {
        let attribution = self.attribution();
        assert_eq!(
            attribution.reason, reason,
            "{}: {attribution:#?}",
            self.name
        );
        Outcome {
            name: self.name,
            attribution,
        }
    }
}
