//! What ended the run, in a sentence or two for each reason.

use std::time::Duration;

use nix::libc::{
    SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGPIPE, SIGSEGV, SIGSYS, SIGTERM, SIGXFSZ,
};

use super::limit::CHANGED;
use super::units::format_duration;
use super::{limit, name, not_started, out_of_memory};
use crate::evidence::{Confidence, IntentReason};
use crate::record::{
    DenyingLevel, Finding, KillCause, KillEntry, Reason, RunRecord, SenderKind, signal_name,
};

const FORBIDDEN: &str = "a system call that its seccomp filter forbids";
pub(super) const AS_COUNTED: &str = ", as far as the cgroup's counters tell";

/// The sentences on why it ended, the most important first.
pub(super) fn headline(record: &RunRecord) -> Vec<String> {
    match record.termination.reason {
        Reason::Completed => vec![format!("Completed{}.", after(record))],
        Reason::ExitCode => exit_code(record),
        Reason::Signal => signal(record),
        Reason::Memory => out_of_memory::memory(record),
        Reason::MemoryAncestor => out_of_memory::memory_ancestor(record),
        Reason::HostOom => out_of_memory::host_oom(record),
        Reason::Pids => pids(record),
        Reason::PidsAncestor => pids_ancestor(record),
        Reason::Walltime => walltime(record),
        Reason::Cputime => cputime(record),
        Reason::ExternalKill => external_kill(record),
        Reason::Cancelled => cancelled(record),
        Reason::Escaped => escaped(record),
        Reason::SetupFailed => not_started::setup_failed(record),
        Reason::RunnerLost => runner_lost(record),
    }
}

/// ` after 3 min 12 s`.
pub(super) fn after(record: &RunRecord) -> String {
    match record.walltime_ns {
        Some(nanos) => format!(" after {}", format_duration(Duration::from_nanos(nanos))),
        None => String::new(),
    }
}

fn exit_code(record: &RunRecord) -> Vec<String> {
    let code = match record.exit.code {
        Some(code) => format!("with code {code}"),
        None => "with a code that was not seen".to_owned(),
    };
    let after = after(record);
    vec![format!("Failed: the main process exited {code}{after}.")]
}

fn signal(record: &RunRecord) -> Vec<String> {
    let dumped = if record.exit.core_dumped == Some(true) {
        " (core dumped)"
    } else {
        ""
    };
    let origin = match fatal(record) {
        Some(kill) => own_signal(kill),
        None if record.exit.signal == Some(SIGSYS) => FORBIDDEN.to_owned(),
        None if record.exit.signal == Some(SIGKILL) => {
            "which nobody sent: strict seccomp forbade a system call, or a tracer ended it"
                .to_owned()
        }
        None => "taken to be its own, though who sent it was not seen".to_owned(),
    };
    vec![format!(
        "Died: the main process got {}{dumped}{}, {origin}.",
        fatal_name(record),
        after(record)
    )]
}

/// What a signal of the run's own was about.
fn own_signal(kill: &KillEntry) -> String {
    let sender = kill.sender.as_ref();
    // The kernel's signals name a task only where a dying parent stood behind them.
    let other = sender.filter(|sender| sender.pid.is_some_and(|pid| pid != kill.victim.pid));
    match (kill.cause, sender.map(|sender| sender.kind), other) {
        (KillCause::Process, Some(SenderKind::Runner), _) => {
            "which sandbox had sent as a warning or passed on".to_owned()
        }
        (KillCause::Kernel, _, Some(parent)) => {
            let parent = name::sender_task(parent);
            format!("having asked for it on the death of its parent {parent}")
        }
        (KillCause::Kernel, _, None) => match kill.signal {
            SIGSEGV | SIGBUS | SIGFPE | SIGILL => "a crash of its own",
            SIGSYS => FORBIDDEN,
            SIGPIPE => "having written to a pipe that nobody reads",
            SIGXFSZ => "a file of it having grown beyond RLIMIT_FSIZE",
            SIGALRM => "a timer of its own",
            _ => "on its own account",
        }
        .to_owned(),
        (KillCause::Process, _, None) => match kill.signal {
            SIGABRT => "an abort of its own",
            _ => "which it sent to itself",
        }
        .to_owned(),
        (
            KillCause::Process | KillCause::CgroupKill | KillCause::Runner | KillCause::Oom,
            _,
            Some(other),
        ) => {
            format!("sent by {}, a process of the analysis", name::sender(other))
        }
        (KillCause::CgroupKill | KillCause::Runner | KillCause::Oom, _, None) => {
            "sent from within the analysis".to_owned()
        }
    }
}

fn pids(record: &RunRecord) -> Vec<String> {
    let limit = limit::pids(record);
    if let Some(changed) = limit::changed_pids(record) {
        let what = format!("{changed}, {CHANGED}, reached");
        return vec![
            denied(record, &what, DenyingLevel::Leaf),
            format!("sandbox had set a {limit}."),
        ];
    }
    vec![
        denied(record, &format!("{limit} reached"), DenyingLevel::Leaf),
        limit::raise(&record.limits.pids, "pids"),
        format!(
            "If it starts a thread for each core, {} keeps that to the cores it was given.",
            limit::setting(&record.limits.pids, "thread-env")
        ),
    ]
}

fn pids_ancestor(record: &RunRecord) -> Vec<String> {
    let known = record.termination.evidence.iter().find_map(|finding| {
        if let Finding::DeniedForks {
            level: DenyingLevel::Ancestor,
            cgroup,
            ..
        } = finding
        {
            cgroup.clone()
        } else {
            None
        }
    });
    let cgroup = match known {
        Some(cgroup) => format!(" {}", name::path(&cgroup)),
        None => String::new(),
    };
    let what = format!("PID limit of the enclosing cgroup{cgroup} reached");
    vec![
        denied(record, &what, DenyingLevel::Ancestor),
        "Its own limit was not what ended it; run it again when there is room.".to_owned(),
    ]
}

/// `Killed: … reached, 7 forks were denied; the analysis was stopped after 2 s.`
fn denied(record: &RunRecord, what: &str, wanted: DenyingLevel) -> String {
    let count = record.termination.evidence.iter().find_map(|finding| {
        if let Finding::DeniedForks { level, count, .. } = finding
            && *level == wanted
        {
            Some(*count)
        } else {
            None
        }
    });
    let denied = match count {
        Some(1) => ", a fork was denied".to_owned(),
        Some(count) => format!(", {count} forks were denied"),
        None => String::new(),
    };
    let counted = if record.termination.confidence == Confidence::Inferred {
        AS_COUNTED
    } else {
        ""
    };
    let after = after(record);
    match record.exit.code {
        Some(code) => {
            format!(
                "Failed: {what}{denied}{counted}; the main process exited with code {code}{after}."
            )
        }
        None => format!("Killed: {what}{denied}{counted}; the analysis was stopped{after}."),
    }
}

fn walltime(record: &RunRecord) -> Vec<String> {
    let limit = limit::walltime(record);
    let end = how_it_went(record);
    let mut sentences = vec![format!("Killed: {limit} reached; {end}{}.", after(record))];
    if let Some(Finding::OwnAction {
        detail: Some(detail),
        ..
    }) = action(record, IntentReason::Walltime)
    {
        sentences.push(format!("At its deadline: {}.", name::text(detail)));
    }
    sentences.push(limit::raise(&record.limits.walltime_ns, "timeout"));
    sentences
}

/// What main did when it was told to end.
fn how_it_went(record: &RunRecord) -> String {
    match (record.exit.code, record.exit.signal) {
        (Some(code), _) => format!("told to end, the main process exited with code {code}"),
        (None, Some(SIGTERM)) => "the analysis ended on SIGTERM".to_owned(),
        (None, Some(SIGKILL)) => "the analysis was killed".to_owned(),
        (None, Some(signal)) => format!("the main process died of {}", signal_name(signal)),
        (None, None) => "the analysis was stopped".to_owned(),
    }
}

fn cputime(record: &RunRecord) -> Vec<String> {
    let own = action(record, IntentReason::Cputime).is_some();
    let after = after(record);
    if own {
        let limit = limit::cputime(record);
        return vec![
            format!("Killed: {limit} used up; {}{after}.", how_it_went(record)),
            limit::raise(&record.limits.cputime_ns, "cpu-time"),
        ];
    }
    let limits = record.termination.evidence.iter().find_map(|finding| {
        if let Finding::RlimitCpu {
            soft_seconds,
            hard_seconds,
            reached_seconds,
        } = finding
        {
            let callers = if record.exit.signal == Some(SIGKILL) {
                *hard_seconds
            } else {
                *soft_seconds
            };
            Some((callers, *reached_seconds))
        } else {
            None
        }
    });
    let (callers, reached) = limits.unwrap_or_default();
    let signal = fatal_name(record);
    let told = if fatal(record).is_none() {
        ", as far as its wait status tells"
    } else {
        ""
    };
    let limit = reached.or(callers).map_or_else(
        || "an RLIMIT_CPU".to_owned(),
        |seconds| {
            let limit = format_duration(Duration::from_secs(seconds));
            format!("RLIMIT_CPU of {limit}")
        },
    );
    // The soft one goes up by a second each time that its signal was handled.
    let is_callers =
        callers.is_some_and(|callers| reached.is_none_or(|reached| reached >= callers));
    let raise = match callers {
        Some(_) if is_callers => "Raise it with ulimit -t where sandbox is called.",
        Some(_) => "That is less than it started with: the analysis lowered it, or somebody did.",
        None => "It did not start with one: the analysis set it, or somebody did.",
    };
    vec![
        format!(
            "Killed: {limit} used up; the main process got {signal} from the kernel{after}{told}."
        ),
        raise.to_owned(),
    ]
}

fn external_kill(record: &RunRecord) -> Vec<String> {
    let signal = fatal_name(record);
    let fatal = fatal(record);
    let by = match fatal {
        None => " from a sender that was not seen".to_owned(),
        Some(kill) if kill.oom.as_ref().is_some_and(|oom| oom.demanded) => {
            " of the OOM killer, which somebody had asked to kill the largest process (sysrq f)"
                .to_owned()
        }
        Some(kill) => match killed_cgroup(record) {
            Some(cgroup) => {
                let by = kill.sender.as_ref().map(name::sender);
                let by = by.map_or(String::new(), |by| format!(", written by {by}"));
                format!(" by cgroup.kill of {}{by}", name::path(cgroup))
            }
            None => sent_by(kill),
        },
    };
    let is_runner = fatal
        .and_then(|kill| kill.sender.as_ref())
        .is_some_and(|sender| sender.kind == SenderKind::Runner);
    let why = match (fatal, conclusion(record)) {
        (Some(_), _) if !is_runner => {
            "Neither sandbox nor a limit of the analysis ended it.".to_owned()
        }
        (_, Some(text)) => format!("As concluded: {}.", name::text(text)),
        (_, None) => "Who ended it is not known.".to_owned(),
    };
    let after = after(record);
    vec![
        format!("Killed from outside{after}: the main process got {signal}{by}."),
        why,
    ]
}

fn killed_cgroup(record: &RunRecord) -> Option<&String> {
    record.termination.evidence.iter().find_map(|finding| {
        if let Finding::CgroupKillWritten { cgroup } = finding {
            cgroup.as_ref()
        } else {
            None
        }
    })
}

fn conclusion(record: &RunRecord) -> Option<&String> {
    record.termination.evidence.iter().find_map(|finding| {
        if let Finding::Conclusion { text } = finding {
            Some(text)
        } else {
            None
        }
    })
}

/// ` from earlyoom (pid 900, uid 0)`.
pub(super) fn sent_by(kill: &KillEntry) -> String {
    let sender = kill.sender.as_ref();
    let by = sender.map(name::sender);
    match (kill.cause, by) {
        (KillCause::CgroupKill, Some(by)) => format!(" by cgroup.kill, written by {by}"),
        (KillCause::CgroupKill, None) => " by cgroup.kill".to_owned(),
        (KillCause::Kernel, Some(_)) if sender.is_some_and(|sender| sender.pid.is_none()) => {
            " from the kernel (a terminal, the end of a PID namespace, sysrq)".to_owned()
        }
        (KillCause::Kernel | KillCause::Process | KillCause::Runner | KillCause::Oom, Some(by)) => {
            format!(" from {by}")
        }
        (KillCause::Kernel | KillCause::Process | KillCause::Runner | KillCause::Oom, None) => {
            String::new()
        }
    }
}

fn cancelled(record: &RunRecord) -> Vec<String> {
    let after = after(record);
    let Some(Finding::OwnAction { signal, detail, .. }) = action(record, IntentReason::Cancelled)
    else {
        return vec![format!("Cancelled{after}.")];
    };
    let why = match (signal, detail) {
        (Some(signal), Some(detail)) => {
            format!(
                ": sandbox got {} ({})",
                signal_name(*signal),
                name::text(detail)
            )
        }
        (Some(signal), None) => format!(": sandbox got {}", signal_name(*signal)),
        (None, Some(detail)) => format!(": {}", name::text(detail)),
        (None, None) => String::new(),
    };
    vec![format!("Cancelled{after}{why}.")]
}

fn escaped(record: &RunRecord) -> Vec<String> {
    let after = after(record);
    let Some(first) = record.escaped.first() else {
        return vec![format!(
            "Stopped{after}: a task left the analysis's cgroup."
        )];
    };
    let others = match record.escaped.len() {
        1 => String::new(),
        more => format!(" and {} more", more - 1),
    };
    let end = if record.escaped.iter().all(|escaped| escaped.killed) {
        "and was killed all the same"
    } else {
        "and was not seen dead"
    };
    vec![format!(
        "Stopped{after}: {} (pid {}){others} left the analysis's cgroup for {} {end}.",
        name::program(&first.comm),
        first.pid,
        name::path(&first.cgroup)
    )]
}

fn runner_lost(record: &RunRecord) -> Vec<String> {
    if record
        .termination
        .evidence
        .iter()
        .any(|finding| matches!(finding, Finding::NeverExecuted))
    {
        return vec!["Lost: sandbox died before the analysis was started.".to_owned()];
    }
    let after = after(record);
    vec![
        match (action(record, IntentReason::RunnerLost), record.exit.signal) {
            (
                Some(Finding::OwnAction {
                    detail: Some(detail),
                    ..
                }),
                _,
            ) => {
                format!(
                    "Lost: sandbox stopped the analysis{after}, since {}.",
                    name::text(detail)
                )
            }
            (Some(_), _) => {
                format!("Lost: sandbox died under the analysis, which was stopped{after}.")
            }
            (None, Some(signal)) => format!(
                "Lost: sandbox died under the analysis, which had asked to get {} then, and got it{after}.",
                signal_name(signal)
            ),
            (None, None) => {
                "Lost: nobody was there when the analysis ended; how it ended is not known."
                    .to_owned()
            }
        },
    ]
}

/// The signal that decided, where there is a record of it.
pub(super) fn fatal(record: &RunRecord) -> Option<&KillEntry> {
    let place = record.termination.evidence.iter().find_map(|finding| {
        if let Finding::FatalSignal { kill } = finding {
            Some(*kill)
        } else {
            None
        }
    })?;
    record.kills.get(place)
}

fn fatal_name(record: &RunRecord) -> String {
    match &record.exit.signal_name {
        Some(name) => name.clone(),
        None => "a signal".to_owned(),
    }
}

fn action(record: &RunRecord, wanted: IntentReason) -> Option<&Finding> {
    record
        .termination
        .evidence
        .iter()
        .find(|finding| matches!(finding, Finding::OwnAction { reason, .. } if *reason == wanted))
}
