//! Gathering the evidence once the leaf is empty: facts, counters, and what the runner did.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use super::{
    clock,
    docket::Docket,
    journal::Journal,
    misses::Since,
    orders::{Control, Controlled, Order},
    read_back,
    signals::{Meaning, Origin, Received},
    unreaped::{Unreaped, Why},
};
use crate::{
    cgroup::{LeafCgroup, LeafStats, Mount},
    evidence::{
        CgroupRef, Confidence, CounterSpan, DeniedForks, EventCounters, Evidence, Fugitive,
        IntentReason, OwnAction, Process, SetupFailure, Signal, WaitStatus,
    },
    trace::{MainProcess, Snapshot, Tracer},
};

/// How the run ended, as its supervisor (or guardian) saw it.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// The start came to nothing.
    pub(super) setup_failure: Option<SetupFailure>,
    /// Main's pid; all that is known of it without a kernel side.
    pub(super) main_pid: Option<u32>,
    /// When the spawn returned.
    pub(super) started_at_ns: Option<u64>,
    /// What wait(2) said.
    pub(super) status: Option<WaitStatus>,
    /// When it said so, or main was found to have ended.
    pub(super) ended_at_ns: Option<u64>,
    /// Main, where it was not waited for.
    pub(super) unreaped: Option<Unreaped>,
    /// What the runner did.
    pub(super) own_actions: Vec<OwnAction>,
    /// Whether what is to be killed in the leaf includes main, and why was declared.
    pub(super) main_is_declared: bool,
    /// When `cgroup.kill` was first written.
    pub(super) killed_at_ns: Option<u64>,
    /// Processes that were still there when main had ended.
    pub(super) left_over: Option<u64>,
    /// The highest seen of what cannot be reclaimed, bytes.
    pub(super) memory_needed_bytes: Option<u64>,
    /// Who had left the leaf and was not seen dead in the end, by pid and start time.
    pub(super) at_large: Vec<(u32, u64)>,
    /// What went wrong on the way, one sentence each.
    pub(super) degraded: Vec<String>,
}

impl Ended {
    /// A run that was asked to end when nothing was started yet, be it since this cgroup was frozen; `None`
    /// where something else was asked for.
    pub(super) fn cancelled_before_start(order: Order, frozen: Option<&str>) -> Option<Self> {
        const WHEN: &str = "before the analysis was started";
        let mut action = match order {
            Order::Signal(received) => {
                let mut action = cancellation(&received)?;
                action.detail = Some(WHEN.to_owned());
                action
            }
            Order::ClientGone => client_gone(),
            Order::Control(control, answer) => {
                let (action, done) = before_start(control);
                // Whoever asked may have gone.
                let _ = answer.send(done);
                action?
            }
        };
        if let (Some(cgroup), Some(detail)) = (frozen, &mut action.detail) {
            *detail += &format!(", while cgroup.freeze of {cgroup} held it up");
        }
        Some(Self {
            own_actions: vec![action],
            ..Self::default()
        })
    }

    /// Waits for main once the leaf is empty, where the event loop could not.
    pub(super) async fn reap_main(&mut self) {
        if let Some(unreaped) = self.unreaped.take() {
            match unreaped.wait().await {
                Ok(Some(status)) => {
                    self.status = Some(status);
                    self.ended_at_ns.get_or_insert(clock::now_ns());
                }
                Ok(None) | Err(_) => self.unreaped = Some(unreaped),
            }
        }
    }

    /// Adds what another process of the runner did, where it is not known yet.
    pub(super) fn add_action(&mut self, action: OwnAction) {
        let is_it =
            |known: &OwnAction| (known.reason, known.at_ns) == (action.reason, action.at_ns);
        if !self.own_actions.iter().any(is_it) {
            self.own_actions.push(action);
        }
        self.own_actions.sort_by_key(|action| action.at_ns);
    }

    /// Declares why the runner is about to signal members, before it does: where the kernel side sees
    /// it, and among its own actions. Where the kernel side does not take it, the verdict rests on
    /// the action's time and the sender.
    pub(super) fn declare(
        &mut self,
        tracer: Option<&mut Tracer>,
        leaf: Option<&CgroupRef>,
        action: OwnAction,
    ) {
        if let Some((tracer, leaf)) = tracer.zip(leaf)
            && let Err(error) = tracer.declare(leaf.id, action.reason, action.at_ns)
        {
            self.degraded.push(error.to_string());
        }
        self.own_actions.push(action);
    }
}

/// What the runner does now, of its own accord.
pub(super) fn action_now(reason: IntentReason) -> OwnAction {
    OwnAction {
        reason,
        at_ns: clock::now_ns(),
        signal: None,
        asked_by: None,
        detail: None,
    }
}

/// What a signal to `sandbox` asks for, where that is the end.
pub(super) fn cancellation(received: &Received) -> Option<OwnAction> {
    let (asked_by, detail) = match (received.meaning, received.origin) {
        (Meaning::PassOn, _) => return None,
        (Meaning::Cancel, Origin::Kernel) => (None, "from the terminal".to_owned()),
        (Meaning::Cancel, Origin::Process(pid)) => (Some(pid), format!("from pid {pid}")),
    };
    Some(OwnAction {
        signal: Some(received.signal),
        asked_by,
        detail: Some(detail),
        ..action_now(IntentReason::Cancelled)
    })
}

/// The client of a run that the service does has gone.
pub(super) fn client_gone() -> OwnAction {
    OwnAction {
        detail: Some("its client has gone".to_owned()),
        ..action_now(IntentReason::Cancelled)
    }
}

/// What is asked of a run of which nothing is started yet. To hold its leaf still would hold up its start.
fn before_start(control: Control) -> (Option<OwnAction>, Controlled) {
    match control {
        Control::Kill {
            by, pid, reason, ..
        } => (Some(killed_by(&by, pid, reason)), Ok(None)),
        Control::Freeze(_) | Control::Thaw(_) | Control::Update { .. } => {
            (None, Err("it has not begun yet".to_owned()))
        }
    }
}

/// Somebody has it ended by `sandbox kill`.
pub(super) fn killed_by(by: &str, pid: u32, reason: Option<String>) -> OwnAction {
    let why = reason
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    OwnAction {
        asked_by: Some(pid),
        detail: Some(format!("sandbox kill by {by}{why}")),
        ..action_now(IntentReason::Cancelled)
    }
}

/// What was read in the end.
pub(super) struct Gathered {
    /// For the verdict.
    pub(super) evidence: Evidence,
    /// For the usage; `None` without a leaf.
    pub(super) stats: Option<LeafStats>,
    /// What the programs that did run could show.
    pub(super) mode: Confidence,
    /// Runs of programs that the kernel skipped meanwhile.
    pub(super) missed: Option<u64>,
}

/// Reads everything; what cannot be read is said in `degraded`.
pub(super) fn gather(
    docket: &Docket,
    leaf: Option<&LeafCgroup>,
    tracer: Option<&Tracer>,
    ended: &mut Ended,
    journal: &mut Journal,
) -> Gathered {
    let mut degraded = docket.degraded.clone();
    degraded.append(&mut ended.degraded);
    let mut mode = docket.trace.mode;

    let snapshot = match (tracer, &docket.leaf) {
        (Some(tracer), Some(leaf)) => match tracer.snapshot(leaf.id) {
            Ok(Some(snapshot)) => Some(snapshot),
            Ok(None) => {
                degraded.push("the kernel side has no facts of this leaf".to_owned());
                None
            }
            Err(error) => {
                degraded.push(error.to_string());
                None
            }
        },
        (None, _) | (_, None) => None,
    };
    let blind = ended.main_pid.is_some()
        && snapshot
            .as_ref()
            .is_some_and(|snapshot| snapshot.facts.births == 0);
    if blind {
        degraded.push(
            "the kernel side saw no birth in this leaf although one took place: its fentry programs do not run (is kernel.ftrace_enabled 0, or was a pin removed?); `sandbox check --clean` unloads them, and the next run loads them anew"
                .to_owned(),
        );
        mode = mode.min(Confidence::Strong);
    }
    let mut confidence = mode;
    if snapshot.is_none() {
        confidence = Confidence::Inferred;
    }
    let missed = tracer.map(|tracer| {
        let misses = Since::the_run_began(
            &docket.trace.misses_before,
            &tracer.misses(),
            tracer.unmarked(),
        );
        if !misses.doubts.is_empty() {
            confidence = confidence.min(Confidence::Strong);
        }
        degraded.extend(misses.doubts);
        misses.runs
    });

    let (after, ancestors_after, stats) = match leaf {
        Some(leaf) => {
            let after = leaf.counters();
            let ancestors = leaf.ancestor_counters();
            let stats = leaf.stats();
            let failures = after
                .failures
                .iter()
                .chain(&ancestors.failures)
                .chain(&stats.failures);
            degraded.extend(failures.map(ToString::to_string));
            degraded.extend(read_back::changes(leaf, docket));
            (after.value, ancestors.value, Some(stats.value))
        }
        None => (EventCounters::default(), Vec::new(), None),
    };

    let mut signals = snapshot
        .as_ref()
        .map(|snapshot| snapshot.signals.clone())
        .unwrap_or_default();
    add_detail(&mut signals, docket, &mut journal.signals_to_main);
    journal.name(&mut signals);
    if blind {
        for signal in &mut signals {
            signal.victim_is_main = Some(signal.victim.pid) == ended.main_pid;
        }
    }
    let main = snapshot
        .as_ref()
        .and_then(|snapshot| snapshot.main.as_ref());
    let kernel_status = main.and_then(|main| main.status);
    match ended.unreaped.as_ref().map(|unreaped| &unreaped.why) {
        Some(Why::Withheld { tracer }) => {
            // There is one account of main's end where there are two of any other.
            confidence = confidence.min(Confidence::Strong);
            let instead = match kernel_status {
                Some(_) => "the kernel side tells how it ended",
                None => "how it ended is not known",
            };
            degraded.push(format!(
                "the main process has ended, and {tracer}, which traced it, kept its wait status back: {instead}"
            ));
        }
        Some(Why::Hangs) => {
            degraded.push("the main process does not die: it hangs in the kernel".to_owned());
        }
        Some(Why::Lost) | None => {}
    }

    let ancestors_before = docket
        .ancestors_before
        .iter()
        .cloned()
        .chain(std::iter::repeat(EventCounters::default()));
    let evidence = Evidence {
        clock: docket.clock,
        confidence,
        leaf: docket.leaf.clone(),
        ancestors: docket.ancestors.clone(),
        limits: docket.spec.limits.clone(),
        effective: docket.effective.clone().unwrap_or_default(),
        enclosing: docket.enclosing.clone(),
        on_pids_limit: docket.spec.on_pids_limit,
        oom_scope: docket.spec.oom,
        setup_failure: ended.setup_failure.clone(),
        main: main
            .map(|main| main.process.clone())
            .or_else(|| ended.main_pid.map(|pid| only_pid(docket, pid))),
        exec_at_ns: exec_at_ns(main, ended, missed),
        status: ended.status,
        exit_at_ns: main.and_then(|main| main.exit_at_ns).or(ended.ended_at_ns),
        kernel_status,
        runner_pids: docket.runner_pids.clone(),
        own_actions: ended.own_actions.clone(),
        signals,
        facts: snapshot.as_ref().map(|snapshot| snapshot.facts),
        counters: CounterSpan {
            before: docket.before.clone(),
            after,
        },
        ancestor_counters: ancestors_before
            .zip(ancestors_after)
            .map(|(before, after)| CounterSpan { before, after })
            .collect(),
        host_oom_kills: docket
            .host_oom_kills_before
            .zip(super::prepare::host_oom_kills())
            .map(|(before, after)| after.saturating_sub(before)),
        denied_forks: snapshot
            .as_ref()
            .map(|snapshot| denied_forks(docket, snapshot))
            .unwrap_or_default(),
        fugitives: snapshot
            .as_ref()
            .map(|snapshot| fugitives(snapshot, ended))
            .unwrap_or_default(),
        rlimit_cpu_seconds: docket.rlimits.cpu_seconds(),
        cpu_usage_us: stats.as_ref().and_then(|stats| stats.cpu_usage_us),
        degraded,
    };
    Gathered {
        evidence,
        stats,
        mode,
        missed,
    }
}

/// Adds what the ring alone had of the signals to main.
fn add_detail(signals: &mut Vec<Signal>, docket: &Docket, seen: &mut Vec<Signal>) {
    let by_us = |signal: &Signal| docket.runner_pids.contains(&signal.sender.pid);
    for signal in seen.drain(..).filter(|signal| !by_us(signal)) {
        let is_it = |known: &Signal| (known.at_ns, known.signal) == (signal.at_ns, signal.signal);
        if !signals.iter().any(is_it) {
            signals.push(signal);
        }
    }
    signals.sort_by_key(|signal| signal.at_ns);
}

/// When main was executed. Its exec event says so; where the kernel side did not see main, or skipped
/// something, that its spawn came back does too: an exec may fail past the point from which on the
/// spawn cannot tell any more.
fn exec_at_ns(main: Option<&MainProcess>, ended: &Ended, missed: Option<u64>) -> Option<u64> {
    let seen = main.and_then(|main| main.exec_at_ns);
    let nothing_was_missed = main.is_some() && missed == Some(0);
    if nothing_was_missed || ended.setup_failure.is_some() {
        return seen;
    }
    seen.or(ended.started_at_ns)
}

/// An intent that another process of the runner declared (the guardian, while the supervisor was
/// stopped) is an action of ours too. To be asked before the next declaration takes its place.
pub(super) fn add_declared(docket: &Docket, tracer: Option<&Tracer>, actions: &mut Vec<OwnAction>) {
    let declared = tracer
        .zip(docket.leaf.as_ref())
        .and_then(|(tracer, leaf)| tracer.declared(leaf.id).ok().flatten());
    if let Some((reason, at_ns)) = declared
        && !actions
            .iter()
            .any(|action| action.reason == reason && action.at_ns <= at_ns)
    {
        actions.push(OwnAction {
            at_ns,
            ..action_now(reason)
        });
        actions.sort_by_key(|action| action.at_ns);
    }
}

fn denied_forks(docket: &Docket, snapshot: &Snapshot) -> DeniedForks {
    let facts = &snapshot.facts;
    let ancestor = (facts.denying_cgroup_id != 0).then(|| {
        docket
            .ancestors
            .iter()
            .find(|cgroup| cgroup.id == facts.denying_cgroup_id)
            .cloned()
            .unwrap_or(CgroupRef {
                path: format!("(cgroup {})", facts.denying_cgroup_id),
                id: facts.denying_cgroup_id,
            })
    });
    DeniedForks {
        by_leaf: facts.denied_by_leaf,
        by_ancestor: facts.denied_by_ancestor,
        unknown: facts.denied_unknown,
        ancestor,
        leaf_max: (facts.denied_by_leaf > 0).then_some(facts.denied_max),
        first_at_ns: (facts.first_denied_ns != 0).then_some(facts.first_denied_ns),
    }
}

fn fugitives(snapshot: &Snapshot, ended: &Ended) -> Vec<Fugitive> {
    let root = match snapshot.fugitives.is_empty() {
        true => None,
        false => Mount::find().ok().map(|mount| mount.root),
    };
    let path_of = |id| {
        root.as_deref()
            .and_then(|root| cgroup_path(root, Path::new("/"), id))
            .unwrap_or_else(|| format!("(cgroup {id})"))
    };
    snapshot
        .fugitives
        .iter()
        .map(|(key, fugitive)| Fugitive {
            pid: key.tgid,
            start_time_ns: key.start_time_ns,
            comm: crate::trace::comm(&fugitive.comm),
            cgroup: path_of(fugitive.cgroup_id),
            at_ns: fugitive.at_ns,
            killed: !ended.at_large.contains(&(key.tgid, key.start_time_ns)),
        })
        .collect()
}

/// The path of a cgroup, whose id is the inode number of its directory (kernfs_id_ino); `None` = it
/// is gone by now.
fn cgroup_path(mount: &Path, cgroup: &Path, id: u64) -> Option<String> {
    let dir = mount.join(cgroup.strip_prefix("/").ok()?);
    if std::fs::metadata(&dir).ok()?.ino() == id {
        return Some(cgroup.to_string_lossy().into_owned());
    }
    std::fs::read_dir(&dir)
        .ok()?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .find_map(|entry| cgroup_path(mount, &cgroup.join(entry.file_name()), id))
}

fn only_pid(docket: &Docket, pid: u32) -> Process {
    Process {
        pid,
        start_time_ns: 0,
        tid: pid,
        comm: docket
            .spec
            .command
            .first()
            .map(|program| crate::record::lossless(program))
            .unwrap_or_default(),
        exe: None,
        uid: Some(docket.user.uid),
        cgroup_id: docket.leaf.as_ref().map_or(0, |leaf| leaf.id),
    }
}
