//! What stood behind each signal.
//!
//! `signal_generate` gives a signal's `info` and the current task; neither alone tells who meant it:
//! `cgroup.kill`, kill(2) from 7.x on, PDEATHSIG and PTRACE_KILL are all NOINFO, and the OOM killer,
//! RLIMIT_CPU, the terminal, alarm(2) and a PID namespace's teardown are all PRIV. So the brackets
//! around `oom_kill_process` and `cgroup_kill_write` come first, then what is left is told apart by
//! signal, group and sender. Where there are no brackets the event counters stand in for them.

use nix::libc::{SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGXCPU};

use super::Dossier;
use super::counters::{CountedOom, counted_oom, memory_events, memory_events_local, rise};
use crate::evidence::{
    Confidence, Delivery, Evidence, Fugitive, IntentReason, OomContext, Signal, SignalInfo,
};
use crate::limits::OomScope;
use crate::record::{Holder, KillCause, KillEntry, OomEntry, OomLevel, Sender, SenderKind, Victim};

/// A signal and what stood behind it.
pub(super) struct Judged<'a> {
    pub(super) signal: &'a Signal,
    pub(super) cause: Cause,
}

/// What stood behind a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The OOM killer; `level` `None` where it could not be told whose memory ran out.
    Oom {
        level: Option<OomLevel>,
        cgroup: Option<String>,
    },
    /// Somebody wrote `cgroup.kill` without the runner's intent.
    CgroupKill(Origin),
    /// A `cgroup.kill` that met its victim in the middle of its birth: the current task is who
    /// forked, so who wrote is not known.
    CgroupKillRacingFork,
    /// The runner, with this intent.
    Runner(IntentReason),
    /// A process.
    Process(Origin),
    /// The kernel on its own account.
    Kernel(KernelCause),
}

/// Where a sender belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// To the run itself.
    Run,
    /// To the runner.
    Runner,
    /// To neither.
    Outside,
}

/// What the kernel meant by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KernelCause {
    /// RLIMIT_CPU (`check_process_timers`, kernel/time/posix-cpu-timers.c).
    CpuLimit,
    /// PR_SET_PDEATHSIG: a parent died, which belonged there.
    DeathSignal(Origin),
    /// A terminal's Ctrl-C or hangup, a PID namespace's end, sysrq: meant from outside.
    FromOutside,
    /// A fault, a timer of its own, a broken pipe, a file too large …
    OfItsOwn,
}

/// Judges every signal, by time.
pub(super) fn judge<'a>(evidence: &'a Evidence, dossier: &mut Dossier) -> Vec<Judged<'a>> {
    let mut signals: Vec<&Signal> = evidence.signals.iter().collect();
    signals.sort_by_key(|signal| signal.at_ns);
    let brackets = has_brackets(evidence);
    signals
        .into_iter()
        .map(|signal| Judged {
            signal,
            cause: cause(signal, brackets, evidence, dossier),
        })
        .collect()
}

/// Whether an OOM kill or a `cgroup.kill` would have been marked as such. Where the leaf counted
/// more OOM kills than were marked, one may have been missed: a run of the program was skipped, the
/// map had no room, somebody switched fentry off meanwhile. (A group's first victim is counted
/// twice, which does no harm here: all its members are marked.)
pub(super) fn has_brackets(evidence: &Evidence) -> bool {
    let failed =
        evidence.facts.is_some_and(|facts| facts.failed_updates > 0) || missed_oom_kills(evidence);
    let seen = evidence
        .signals
        .iter()
        .any(|signal| signal.oom.is_some() || signal.cgroup_kill.is_some());
    !failed && (seen || evidence.confidence == Confidence::Exact)
}

fn missed_oom_kills(evidence: &Evidence) -> bool {
    let counted = rise(&evidence.counters, memory_events, "oom_kill").unwrap_or(0);
    evidence
        .facts
        .is_some_and(|facts| counted > facts.oom_kills)
}

impl Cause {
    /// Its name in the record.
    const fn kind(&self) -> KillCause {
        match self {
            Self::Oom { .. } => KillCause::Oom,
            Self::CgroupKill(_) | Self::CgroupKillRacingFork => KillCause::CgroupKill,
            Self::Runner(_) => KillCause::Runner,
            Self::Process(_) => KillCause::Process,
            Self::Kernel(_) => KillCause::Kernel,
        }
    }
}

impl Judged<'_> {
    pub(super) fn was_delivered(&self) -> bool {
        self.signal.result == Delivery::Delivered
    }

    /// Whether a process sent itself this signal: kill(2), tgkill(2) or raise(3).
    pub(super) fn is_sent_to_itself(&self) -> bool {
        self.cause == Cause::Process(Origin::Run) && is_to_itself(self.signal)
    }

    /// Path of the cgroup whose `cgroup.kill` was written, where it is the leaf or above it.
    pub(super) fn killed_cgroup(&self, evidence: &Evidence) -> Option<String> {
        let id = self.signal.cgroup_kill?;
        evidence
            .leaf
            .iter()
            .chain(&evidence.ancestors)
            .find(|cgroup| cgroup.id == id)
            .map(|cgroup| cgroup.path.clone())
    }

    pub(super) fn entry(&self, evidence: &Evidence) -> KillEntry {
        let signal = self.signal;
        KillEntry {
            at: evidence.clock.date(signal.at_ns),
            signal: signal.signal,
            si_code: signal.si_code,
            cause: self.cause.kind(),
            delivered: match signal.result {
                Delivery::Delivered => Some(true),
                Delivery::Ignored | Delivery::AlreadyPending => Some(false),
                Delivery::Overflowed => None,
            },
            injected: signal.injected,
            victim: Victim {
                pid: signal.victim.pid,
                start_time: signal.victim.start_time_ns,
                comm: signal.victim.comm.clone(),
                exe: signal.victim.exe.clone(),
                is_main: signal.victim_is_main,
            },
            sender: self.sender(),
            oom: self.oom(evidence),
        }
    }

    fn sender(&self) -> Option<Sender> {
        match self.cause {
            Cause::Runner(_) => Some(self.task(SenderKind::Runner, Some(false))),
            Cause::Process(origin) | Cause::CgroupKill(origin) => Some(match origin {
                Origin::Run => self.task(SenderKind::Process, Some(true)),
                Origin::Runner => self.task(SenderKind::Runner, Some(false)),
                Origin::Outside => self.task(SenderKind::Process, Some(false)),
            }),
            Cause::Kernel(KernelCause::DeathSignal(origin)) => {
                Some(self.task(SenderKind::Kernel, Some(origin == Origin::Run)))
            }
            Cause::Kernel(
                KernelCause::CpuLimit | KernelCause::FromOutside | KernelCause::OfItsOwn,
            )
            | Cause::Oom { .. } => Some(Sender {
                kind: SenderKind::Kernel,
                pid: None,
                comm: None,
                uid: None,
                in_run: None,
            }),
            Cause::CgroupKillRacingFork => None,
        }
    }

    fn task(&self, kind: SenderKind, in_run: Option<bool>) -> Sender {
        Sender {
            kind,
            pid: Some(self.signal.sender.pid),
            comm: Some(self.signal.sender.comm.clone()),
            uid: self.signal.sender.uid,
            in_run,
        }
    }

    fn oom(&self, evidence: &Evidence) -> Option<OomEntry> {
        let Cause::Oom { level, cgroup } = &self.cause else {
            return None;
        };
        let context = self.signal.oom.as_ref();
        Some(OomEntry {
            scope: *level,
            cgroup: cgroup.clone(),
            usage_bytes: context.and_then(|context| context.usage_bytes),
            max_bytes: context.and_then(|context| context.max_bytes),
            demanded: context.is_some_and(|context| context.demanded),
            trigger_pid: Some(self.signal.sender.pid),
            group: is_group(evidence),
            holders: context
                .into_iter()
                .flat_map(|context| &context.holders)
                .map(|holder| Holder {
                    pid: holder.pid,
                    comm: holder.comm.clone(),
                    rss_bytes: holder.rss_bytes,
                    at: evidence.clock.date(holder.at_ns),
                    source: holder.source,
                })
                .collect(),
        })
    }
}

/// Whether the kernel killed the whole leaf: by its own counter, where it has one, which somebody's
/// change of memory.oom.group shows in.
fn is_group(evidence: &Evidence) -> bool {
    let key = "oom_group_kill";
    let after = memory_events_local(&evidence.counters.after).as_ref();
    if after.is_some_and(|events| events.contains_key(key)) {
        rise(&evidence.counters, memory_events_local, key) > Some(0)
    } else {
        evidence.oom_scope == OomScope::Whole
    }
}

fn cause(signal: &Signal, brackets: bool, evidence: &Evidence, dossier: &mut Dossier) -> Cause {
    if let Some(context) = &signal.oom {
        return bracketed_oom(context, evidence, dossier);
    }
    let origin = origin(signal, &evidence.runner_pids, &evidence.fugitives);
    let cause = alone(signal, origin, brackets);
    let is_privileged_kill = signal.info == SignalInfo::Priv && signal.signal == SIGKILL;
    if matches!(cause, Cause::Kernel(_)) && is_privileged_kill && !brackets {
        return unbracketed_kill(signal, origin, evidence, dossier);
    }
    cause
}

/// What a signal tells of its cause by itself, while the run goes on and the counters are not in yet.
pub(crate) fn live_cause(signal: &Signal, runner_pids: &[u32]) -> KillCause {
    if signal.oom.is_some() {
        return KillCause::Oom;
    }
    alone(signal, origin(signal, runner_pids, &[]), true).kind()
}

/// The cause of a signal that was not sent within the OOM killer's bracket.
fn alone(signal: &Signal, origin: Origin, brackets: bool) -> Cause {
    if let (Some(intent), Origin::Runner) = (signal.intent, origin) {
        return Cause::Runner(intent);
    }
    let is_kill = signal.signal == SIGKILL;
    if signal.cgroup_kill.is_some() {
        return Cause::CgroupKill(origin);
    }
    match signal.info {
        SignalInfo::NoInfo if is_kill && signal.target_new => Cause::CgroupKillRacingFork,
        // `forget_original_parent`, kernel/exit.c, sends `pdeath_signal` from the dying parent.
        SignalInfo::NoInfo if signal.sender_exiting => {
            Cause::Kernel(KernelCause::DeathSignal(origin))
        }
        // send_sig(…, current, 0): SIGPIPE, SIGXFSZ. Never kill(2), which goes to the group.
        SignalInfo::NoInfo if !signal.group && is_to_itself(signal) => {
            Cause::Kernel(KernelCause::OfItsOwn)
        }
        // `__cgroup_kill` sends to one thread; with brackets only PTRACE_KILL is left of that.
        SignalInfo::NoInfo if is_kill && !signal.group && !brackets => Cause::CgroupKill(origin),
        SignalInfo::NoInfo => Cause::Process(origin),
        SignalInfo::Priv => Cause::Kernel(privileged(signal, origin)),
        SignalInfo::Siginfo => match signal.si_code {
            // SI_TIMER, SI_MESGQ, SI_ASYNCIO and SI_SIGIO come from timers and I/O of the process
            // itself, with whoever was interrupted as the current task, unless somebody claims that; what is
            // positive is a fault.
            Some(-5..=-2) if signal.by_sigqueue => Cause::Process(origin),
            Some(-5..=-2 | 1..) => Cause::Kernel(KernelCause::OfItsOwn),
            Some(i32::MIN..=-6 | -1..=0) | None => Cause::Process(origin),
        },
    }
}

fn origin(signal: &Signal, runner_pids: &[u32], fugitives: &[Fugitive]) -> Origin {
    let sender = &signal.sender;
    let is_fugitive = || {
        fugitives.iter().any(|fugitive| {
            (fugitive.pid, fugitive.start_time_ns) == (sender.pid, sender.start_time_ns)
        })
    };
    if signal.sender_in_leaf {
        Origin::Run
    } else if runner_pids.contains(&sender.pid) {
        Origin::Runner
    } else if is_fugitive() {
        Origin::Run
    } else {
        Origin::Outside
    }
}

fn is_to_itself(signal: &Signal) -> bool {
    (signal.sender.pid, signal.sender.start_time_ns)
        == (signal.victim.pid, signal.victim.start_time_ns)
}

fn bracketed_oom(context: &OomContext, evidence: &Evidence, dossier: &mut Dossier) -> Cause {
    let (level, cgroup) = match context.cgroup_id {
        None => (Some(OomLevel::Host), None),
        Some(id) if evidence.leaf.as_ref().is_some_and(|leaf| leaf.id == id) => {
            (Some(OomLevel::Leaf), evidence.leaf_path())
        }
        Some(id) => match evidence.ancestors.iter().find(|above| above.id == id) {
            Some(ancestor) => (Some(OomLevel::Ancestor), Some(ancestor.path.clone())),
            None => {
                let sentence = format!(
                    "the OOM killer acted for cgroup {id}, which is neither the leaf nor a known ancestor of it"
                );
                if !dossier.degraded.contains(&sentence) {
                    dossier.doubt(Confidence::Strong, sentence);
                }
                (None, None)
            }
        },
    };
    Cause::Oom { level, cgroup }
}

/// A SIGKILL of the kernel's, where nobody marks those of the OOM killer.
fn unbracketed_kill(
    signal: &Signal,
    origin: Origin,
    evidence: &Evidence,
    dossier: &mut Dossier,
) -> Cause {
    let (_, hard_limit) = evidence.rlimit_cpu_seconds;
    let could_be_cpu_limit = is_to_itself(signal) && hard_limit.is_some();
    match counted_oom(evidence) {
        CountedOom::Killed { level, cgroup, .. } => {
            dossier.lower(Confidence::Strong);
            if could_be_cpu_limit {
                dossier.doubt(
                    Confidence::Inferred,
                    "without fentry a SIGKILL of the OOM killer and one of RLIMIT_CPU look alike; the cgroup counted an OOM kill",
                );
            }
            Cause::Oom { level, cgroup }
        }
        CountedOom::NoKill => Cause::Kernel(privileged(signal, origin)),
        CountedOom::Unreadable => {
            dossier.doubt(
                Confidence::Inferred,
                "without fentry and memory.events it is not known what a SIGKILL of the kernel's was for",
            );
            if could_be_cpu_limit {
                Cause::Kernel(KernelCause::CpuLimit)
            } else {
                Cause::Oom {
                    level: None,
                    cgroup: None,
                }
            }
        }
    }
}

/// A signal sent with SEND_SIG_PRIV that the OOM killer did not send.
fn privileged(signal: &Signal, origin: Origin) -> KernelCause {
    match signal.signal {
        SIGXCPU => KernelCause::CpuLimit,
        SIGKILL if is_to_itself(signal) => KernelCause::CpuLimit,
        // Of a terminal, an ending PID namespace, sysrq; the current task is not in the run. Other
        // signals (SIGALRM, SIGIO …) are of the run's own timers, whoever was interrupted.
        SIGKILL | SIGTERM | SIGINT | SIGQUIT | SIGHUP if origin != Origin::Run => {
            KernelCause::FromOutside
        }
        _ => KernelCause::OfItsOwn,
    }
}
