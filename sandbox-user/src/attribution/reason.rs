//! The decision itself. The rules stand in the module above.

use nix::libc::{SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGSYS, SIGTERM, SIGXCPU};

use super::Dossier;
use super::counters::{CountedOom, counted_oom};
use super::denials::Denials;
use super::kills::{Cause, Judged, KernelCause, Origin};
use super::main_end::MainEnd;
use crate::evidence::{Confidence, Evidence, IntentReason};
use crate::limits::OnPidsLimit;
use crate::record::{Finding, OomLevel, Reason};

/// Something that ends a run by decision; `at_ns` `None` where its time was not seen.
struct Ender {
    reason: Reason,
    at_ns: Option<u64>,
}

pub(super) fn decide(
    evidence: &Evidence,
    main: &MainEnd,
    judged: &[Judged<'_>],
    denials: &Denials,
    dossier: &mut Dossier,
) -> Reason {
    if !started(evidence) {
        return before_exec(evidence, dossier);
    }
    if evidence.setup_failure.is_some() {
        dossier.doubt(
            Confidence::Strong,
            "the start was reported as failed although the kernel saw its exec",
        );
    }
    let decided = enders(evidence, judged, denials)
        .into_iter()
        .filter(|ender| came_first(ender, main, judged))
        // Those whose time was seen first, by time; `min_by_key` keeps the first of equals.
        .min_by_key(|ender| (ender.at_ns.is_none(), ender.at_ns));
    if let Some(ender) = decided {
        return ender.reason;
    }
    match *main {
        MainEnd::Exited { code: 0, .. } => Reason::Completed,
        MainEnd::Exited { .. } => Reason::ExitCode,
        MainEnd::Killed { signal, kill, .. } => match kill.and_then(|kill| judged.get(kill)) {
            Some(fatal) => killed(evidence, fatal, dossier),
            None => killed_unseen(signal, evidence, dossier),
        },
        MainEnd::Unknown => {
            dossier.conclude("the main process had started, and nobody was there when it ended");
            Reason::RunnerLost
        }
    }
}

/// Whether the command was executed. Its exec event says so; without a kernel side a main process
/// that no step failed for is taken to have started.
fn started(evidence: &Evidence) -> bool {
    let executed = evidence.facts.is_none_or(|facts| facts.execs > 0);
    evidence.exec_at_ns.is_some()
        || (evidence.setup_failure.is_none() && evidence.main.is_some() && executed)
}

fn before_exec(evidence: &Evidence, dossier: &mut Dossier) -> Reason {
    let failed_at_ns = evidence
        .own_actions
        .iter()
        .find(|action| action.reason == IntentReason::SetupFailed)
        .map(|action| action.at_ns);
    let decided = evidence
        .own_actions
        .iter()
        .filter(|action| match failed_at_ns {
            Some(failed_at_ns) => action.at_ns < failed_at_ns,
            None => evidence.setup_failure.is_none(),
        })
        .filter_map(|action| Some((action.at_ns, reason_of(action.reason)?)))
        .min_by_key(|(at_ns, _)| *at_ns);
    dossier.note(match &evidence.setup_failure {
        Some(failure) => Finding::SetupFailure {
            step: failure.step.clone(),
            errno: failure.errno,
            kind: failure.kind,
        },
        None => Finding::NeverExecuted,
    });
    match decided {
        Some((_, reason)) => reason,
        None => {
            if evidence.setup_failure.is_none() && evidence.main.is_none() {
                dossier.conclude("no main process was ever seen");
            }
            Reason::SetupFailed
        }
    }
}

/// What an intent ends a run as; `None` for those that do not decide.
fn reason_of(intent: IntentReason) -> Option<Reason> {
    match intent {
        IntentReason::Walltime => Some(Reason::Walltime),
        IntentReason::Cputime => Some(Reason::Cputime),
        IntentReason::Pids => Some(Reason::Pids),
        IntentReason::PidsAncestor => Some(Reason::PidsAncestor),
        IntentReason::Escaped => Some(Reason::Escaped),
        IntentReason::Cancelled => Some(Reason::Cancelled),
        IntentReason::RunnerLost => Some(Reason::RunnerLost),
        // Main had ended; the start is judged before this.
        IntentReason::LeftOver | IntentReason::SetupFailed => None,
    }
}

fn enders(evidence: &Evidence, judged: &[Judged<'_>], denials: &Denials) -> Vec<Ender> {
    let mut enders = Vec::new();
    let mut add = |reason, at_ns| enders.push(Ender { reason, at_ns });
    for action in &evidence.own_actions {
        if let Some(reason) = reason_of(denials.settle(action.reason)) {
            add(reason, Some(action.at_ns));
        }
    }
    // An intent that only the kernel side remembers: its supervisor is dead.
    for judged in judged {
        if let Cause::Runner(intent) = judged.cause
            && let Some(reason) = reason_of(denials.settle(intent))
        {
            add(reason, Some(judged.signal.at_ns));
        }
    }
    match evidence.on_pids_limit {
        OnPidsLimit::Kill if denials.leaf > 0 => add(Reason::Pids, denials.first_at_ns),
        OnPidsLimit::Kill if denials.ancestor > 0 => {
            add(Reason::PidsAncestor, denials.first_at_ns);
        }
        OnPidsLimit::Kill | OnPidsLimit::Deny => {}
    }
    for fugitive in &evidence.fugitives {
        add(Reason::Escaped, Some(fugitive.at_ns));
    }
    let escapes = evidence.facts.map_or(0, |facts| facts.escapes);
    if escapes > 0 && evidence.fugitives.is_empty() {
        add(Reason::Escaped, None);
    }
    enders
}

/// Whether it came before main's end.
fn came_first(ender: &Ender, main: &MainEnd, judged: &[Judged<'_>]) -> bool {
    let fatal = main.fatal_kill().and_then(|kill| judged.get(kill));
    match (ender.at_ns, main.at_ns()) {
        (Some(ender_ns), Some(main_ns)) => {
            let ours = fatal.is_some_and(|fatal| matches!(fatal.cause, Cause::Runner(_)));
            ender_ns < main_ns || (ender_ns == main_ns && ours)
        }
        (Some(_), None) => true,
        // Its time is not known: then it explains an end that main made itself, and nobody's kill.
        (None, Some(_) | None) => match main {
            MainEnd::Exited { .. } | MainEnd::Unknown => true,
            MainEnd::Killed { signal, .. } => match fatal {
                Some(fatal) => killed_itself(&fatal.cause),
                None => *signal != SIGKILL,
            },
        },
    }
}

fn killed_itself(cause: &Cause) -> bool {
    match cause {
        Cause::Process(origin)
        | Cause::CgroupKill(origin)
        | Cause::Kernel(KernelCause::DeathSignal(origin)) => *origin == Origin::Run,
        Cause::Kernel(KernelCause::OfItsOwn) => true,
        Cause::Kernel(KernelCause::CpuLimit | KernelCause::FromOutside)
        | Cause::CgroupKillRacingFork
        | Cause::Oom { .. }
        | Cause::Runner(_) => false,
    }
}

/// Main died of this signal.
fn killed(evidence: &Evidence, fatal: &Judged<'_>, dossier: &mut Dossier) -> Reason {
    match &fatal.cause {
        Cause::Oom { .. } if fatal.signal.oom.as_ref().is_some_and(|oom| oom.demanded) => {
            dossier.note(Finding::Conclusion {
                text: "nothing had run out: somebody had the kernel kill the largest process (sysrq f)"
                    .to_owned(),
            });
            Reason::ExternalKill
        }
        Cause::Oom { level, .. } => {
            // Where nobody marks the OOM killer's kills the counters did.
            if fatal.signal.oom.is_none()
                && let CountedOom::Killed { rises, .. } = counted_oom(evidence)
            {
                rises.into_iter().for_each(|rise| dossier.note(rise));
            }
            out_of_memory(*level, dossier)
        }
        Cause::Runner(intent) => reason_of(*intent).unwrap_or_else(|| {
            dossier.conclude("sandbox killed the main process where it meant to clear up after it");
            Reason::Cancelled
        }),
        Cause::CgroupKill(Origin::Runner) => {
            dossier.conclude("sandbox wrote cgroup.kill and no intent of it is on record");
            Reason::ExternalKill
        }
        Cause::CgroupKill(Origin::Outside) | Cause::CgroupKillRacingFork => Reason::ExternalKill,
        Cause::CgroupKill(Origin::Run) => {
            doubt_the_joined(evidence, fatal, dossier);
            Reason::Signal
        }
        Cause::Process(Origin::Outside) if is_cancellation(evidence, fatal) => Reason::Cancelled,
        Cause::Process(Origin::Outside) => Reason::ExternalKill,
        Cause::Process(Origin::Run) => {
            doubt_the_joined(evidence, fatal, dossier);
            Reason::Signal
        }
        // A warning or a forwarded signal that main did not survive: sandbox did not mean to end it.
        Cause::Process(Origin::Runner) => Reason::Signal,
        Cause::Kernel(KernelCause::CpuLimit) => {
            note_rlimit(evidence, fatal.signal.cpu_limit_s, dossier);
            Reason::Cputime
        }
        // It had asked to die with its parent, which was the runner.
        Cause::Kernel(KernelCause::DeathSignal(Origin::Runner)) => Reason::RunnerLost,
        Cause::Kernel(KernelCause::DeathSignal(Origin::Run)) => Reason::Signal,
        Cause::Kernel(KernelCause::DeathSignal(Origin::Outside)) => Reason::ExternalKill,
        Cause::Kernel(KernelCause::FromOutside) => {
            from_terminal(evidence, fatal.signal.signal, dossier)
        }
        Cause::Kernel(KernelCause::OfItsOwn) => Reason::Signal,
    }
}

/// Whoever moves into the leaf sends from within, and is none of the analysis's processes.
fn doubt_the_joined(evidence: &Evidence, fatal: &Judged<'_>, dossier: &mut Dossier) {
    let joined = evidence.facts.map_or(0, |facts| facts.joined);
    if joined > 0 && !fatal.is_sent_to_itself() {
        dossier.doubt(
            Confidence::Strong,
            format!(
                "{joined} tasks were moved into the run from outside, and one of them may have sent the signal"
            ),
        );
    }
}

/// A terminal's Ctrl-C reaches main and `sandbox` at once, and main may be gone before `sandbox` has
/// written its intent: it is one cancellation.
fn from_terminal(evidence: &Evidence, signal: i32, dossier: &mut Dossier) -> Reason {
    match signal {
        SIGINT | SIGQUIT | SIGHUP if is_cancelled_by(evidence, signal) => Reason::Cancelled,
        SIGINT | SIGQUIT | SIGHUP => {
            dossier.doubt(
                Confidence::Strong,
                "a terminal sent the signal, and whether it is one that the analysis had made for itself is not known",
            );
            Reason::ExternalKill
        }
        _ => Reason::ExternalKill,
    }
}

/// Whether `sandbox` was asked to end the run by this signal.
fn is_cancelled_by(evidence: &Evidence, signal: i32) -> bool {
    evidence
        .own_actions
        .iter()
        .any(|action| action.reason == IntentReason::Cancelled && action.signal == Some(signal))
}

/// Whether the same sender sent `sandbox` the same signal, as `kill %1` and timeout(1) send theirs to
/// the whole process group: that is one cancellation, whoever was quicker to die.
fn is_cancellation(evidence: &Evidence, fatal: &Judged<'_>) -> bool {
    evidence.own_actions.iter().any(|action| {
        action.reason == IntentReason::Cancelled
            && action.signal == Some(fatal.signal.signal)
            && action.asked_by == Some(fatal.signal.sender.pid)
    })
}

fn out_of_memory(level: Option<OomLevel>, dossier: &mut Dossier) -> Reason {
    match level {
        Some(OomLevel::Leaf) => Reason::Memory,
        Some(OomLevel::Ancestor) => Reason::MemoryAncestor,
        Some(OomLevel::Host) => Reason::HostOom,
        // An OOM of a cgroup kills below it only, and it was not the leaf's own.
        None => {
            dossier.conclude(
                "whose memory ran out could not be told; it was not seen to be the leaf's own",
            );
            Reason::MemoryAncestor
        }
    }
}

/// Main died of a signal of which there is no record.
fn killed_unseen(signal: i32, evidence: &Evidence, dossier: &mut Dossier) -> Reason {
    if evidence.facts.is_some() && signal == SIGSYS {
        // `__seccomp_filter` ends a task by do_exit(SIGSYS), which generates no signal.
        dossier.note(Finding::Conclusion {
            text: "SIGSYS without a signal is a seccomp filter's".to_owned(),
        });
        return Reason::Signal;
    }
    if signal == SIGKILL && nothing_was_missed(evidence) {
        // `__secure_computing_strict`, kernel/seccomp.c: do_exit(SIGKILL); and `page_fault_oops`,
        // arch/x86/mm/fault.c.
        dossier.lower(Confidence::Strong);
        dossier.note(Finding::Conclusion {
            text: "SIGKILL without a signal is strict seccomp's, or a kernel oops's".to_owned(),
        });
        return Reason::Signal;
    }
    if evidence.facts.is_some() {
        dossier.doubt(
            Confidence::Inferred,
            "the kernel side has no record of the signal that ended the main process",
        );
    }
    match signal {
        SIGKILL => match counted_oom(evidence) {
            CountedOom::Killed { level, rises, .. } => {
                rises.into_iter().for_each(|rise| dossier.note(rise));
                dossier.conclude("the OOM killer is taken to have killed the main process too");
                out_of_memory(level, dossier)
            }
            CountedOom::NoKill => {
                dossier.conclude("a SIGKILL that sandbox did not send, with no OOM kill counted, is taken to be from outside");
                Reason::ExternalKill
            }
            CountedOom::Unreadable => {
                dossier.conclude("OOM kills could not be counted; a SIGKILL that sandbox did not send is taken to be from outside");
                Reason::ExternalKill
            }
        },
        SIGXCPU => {
            note_rlimit(evidence, None, dossier);
            dossier.conclude("SIGXCPU is taken to be RLIMIT_CPU's");
            Reason::Cputime
        }
        SIGTERM | SIGINT | SIGHUP | SIGQUIT if is_cancelled_by(evidence, signal) => {
            dossier.conclude("sandbox got the same signal, and both are taken to be one's");
            Reason::Cancelled
        }
        SIGTERM | SIGINT | SIGHUP => {
            dossier.conclude("who sent the signal is not known; a program seldom ends itself by it, so it is taken to be from outside");
            Reason::ExternalKill
        }
        _ => {
            dossier
                .conclude("who sent the signal is not known; it is taken to be the analysis's own");
            Reason::Signal
        }
    }
}

/// Whether the kernel side has a record of each signal that main got: it saw main being born, all
/// programs ran each time, every map took what it was given, and the counters agree.
fn nothing_was_missed(evidence: &Evidence) -> bool {
    evidence.confidence == Confidence::Exact
        && evidence
            .facts
            .is_some_and(|facts| facts.births > 0 && facts.failed_updates == 0)
        && matches!(counted_oom(evidence), CountedOom::NoKill)
}

fn note_rlimit(evidence: &Evidence, reached_seconds: Option<u64>, dossier: &mut Dossier) {
    let (soft_seconds, hard_seconds) = evidence.rlimit_cpu_seconds;
    dossier.note(Finding::RlimitCpu {
        soft_seconds,
        hard_seconds,
        reached_seconds,
    });
}
