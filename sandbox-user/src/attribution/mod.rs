//! The verdict: one [`Reason`] for any [`Evidence`], with what it rests on and how sure it is.
//!
//! Pure: no I/O, no clock. The rules, in the order in which they apply:
//!
//! 1. A main process that never got to exec is `setup_failed`, whatever ended it, unless the runner
//!    had already decided to end the run (`cancelled`, `runner_lost` …).
//! 2. What ends a run by decision (the runner's own intents; a denied fork under
//!    `--on-pids-limit kill`; a task that left the leaf) decides if it came *before* main's end. The
//!    earliest decides. Main's end is the moment of the delivered signal that killed it, else its
//!    exit; on a tie main's own exit wins, so exit before the deadline wins.
//! 3. Otherwise main's own ending decides: its exit code, or the *last delivered* record of the
//!    signal that its wait status names. A signal that is fatal makes every later one ignored
//!    (`prepare_signal`, kernel/signal.c), so of several delivered ones the last is the fatal one; but
//!    one that came while the same signal was waiting for main's thread alone (it was stopped, or had
//!    not run since) is taken after it (`dequeue_signal`), and then that earlier one decides.
//!    Where main sent that one to itself after it had got the same from outside, as handlers do when
//!    they are done, the one from outside decides.
//! 4. Where there is no such record the cgroup's event counters decide, never a usage against a
//!    limit, and `confidence` is `inferred`.

mod counters;
mod cross_check;
mod denials;
mod hints;
mod kills;
mod limits_hit;
mod main_end;
mod reason;

#[cfg(test)]
pub(crate) mod case;
#[cfg(test)]
pub(crate) mod property;
#[cfg(test)]
mod tests;

use crate::evidence::{Confidence, Evidence, IntentReason, Signal, WaitStatus};
use crate::limits::OomScope;
use crate::record::{
    DenyingLevel, Finding, KillEntry, LimitHit, NearestTerms, Reason, RetryHint, exit_of,
};
use denials::Denials;
pub(crate) use kills::live_cause;
use kills::{Cause, Judged, KernelCause, Origin};
use main_end::MainEnd;

/// How many members' OOM kills are evidence for a verdict; all of them are in `kills`.
const MEMBERS_NAMED: usize = 8;

/// A verdict and everything that goes with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribution {
    /// Why the run ended.
    pub reason: Reason,
    /// How sure that is.
    pub confidence: Confidence,
    /// What it rests on.
    pub evidence: Vec<Finding>,
    /// What to change before it is run again.
    pub retry_hint: RetryHint,
    /// What others would call it.
    pub nearest_terms: NearestTerms,
    /// The signals, judged, by time.
    pub kills: Vec<KillEntry>,
    /// The limits that were met.
    pub limits_hit: Vec<LimitHit>,
    /// What was missing or did not agree, one sentence each.
    pub degraded: Vec<String>,
}

/// Says why the run ended.
pub fn attribute(evidence: &Evidence) -> Attribution {
    let mut dossier = Dossier::new(evidence);
    cross_check::cross_check(evidence, &mut dossier);

    let judged = kills::judge(evidence, &mut dossier);
    let main = MainEnd::find(evidence, &judged);
    let denials = Denials::count(evidence);

    dossier.note_main(evidence, &main, &judged);
    let reason = reason::decide(evidence, &main, &judged, &denials, &mut dossier);
    dossier.note_actions(evidence, &denials);
    dossier.note_denials(evidence, &denials);
    dossier.note_fugitives(evidence);
    dossier.note_signals(evidence, &main, &judged);

    let exit = exit_of(evidence);
    Attribution {
        reason,
        confidence: dossier.confidence,
        retry_hint: hints::retry_hint(reason, hints::member_died_of_own_limit(evidence, &judged)),
        nearest_terms: reason.nearest_terms(&exit),
        limits_hit: limits_hit::find(evidence, reason, &judged, &denials),
        kills: judged.iter().map(|judged| judged.entry(evidence)).collect(),
        evidence: dossier.evidence,
        degraded: dossier.degraded,
    }
}

/// How the main process ended: what wait(2) said, else the kernel side's own account.
pub fn main_status(evidence: &Evidence) -> Option<WaitStatus> {
    evidence.status.or(evidence.kernel_status)
}

/// What a verdict gathers on its way.
struct Dossier {
    evidence: Vec<Finding>,
    degraded: Vec<String>,
    confidence: Confidence,
}

impl Dossier {
    fn new(evidence: &Evidence) -> Self {
        Self {
            evidence: Vec::new(),
            degraded: evidence.degraded.clone(),
            confidence: evidence.confidence,
        }
    }

    fn note(&mut self, finding: Finding) {
        self.evidence.push(finding);
    }

    /// The verdict takes something for granted that was not seen.
    fn conclude(&mut self, text: impl Into<String>) {
        self.lower(Confidence::Inferred);
        self.note(Finding::Conclusion { text: text.into() });
    }

    /// Something was missing or does not agree.
    fn doubt(&mut self, at_most: Confidence, sentence: impl Into<String>) {
        self.lower(at_most);
        self.degraded.push(sentence.into());
    }

    fn lower(&mut self, at_most: Confidence) {
        self.confidence = self.confidence.min(at_most);
    }

    fn note_main(&mut self, evidence: &Evidence, main: &MainEnd, judged: &[Judged<'_>]) {
        match *main {
            // Our own code in the child: the command has no exit code.
            MainEnd::Exited { .. } if evidence.gave_up_before_exec() => {}
            MainEnd::Exited { code, .. } => self.note(Finding::MainExited { code }),
            MainEnd::Killed {
                signal,
                core_dumped,
                kill,
                passed_on,
                ..
            } => {
                self.note(Finding::MainSignaled {
                    signal,
                    core_dumped,
                });
                self.note(match kill {
                    Some(kill) => Finding::FatalSignal { kill },
                    None => Finding::FatalSignalUnseen { signal },
                });
                if let (Some(kill), Some(own)) = (kill, passed_on) {
                    self.note(Finding::Conclusion {
                        text: format!(
                            "kills[{own}] is how the main process passed kills[{kill}] on to itself, as a handler does when it is done"
                        ),
                    });
                }
                let has_threads = evidence.facts.is_some_and(|facts| facts.threads > 0);
                let is_behind = |judged: &Judged<'_>| {
                    judged.signal.victim_is_main
                        && judged.signal.signal == signal
                        && judged.signal.behind_another
                };
                if has_threads && judged.iter().any(is_behind) {
                    self.doubt(
                        Confidence::Strong,
                        "the main process was sent its fatal signal twice, once to a thread alone: which of its threads took which is not known",
                    );
                }
                let fatal = kill.and_then(|kill| judged.get(kill));
                if let Some(fatal) = fatal
                    && matches!(
                        fatal.cause,
                        Cause::CgroupKill(_) | Cause::CgroupKillRacingFork
                    )
                {
                    self.note(Finding::CgroupKillWritten {
                        cgroup: fatal.killed_cgroup(evidence),
                    });
                }
            }
            MainEnd::Unknown => self.note(Finding::MainEndUnknown),
        }
    }

    fn note_actions(&mut self, evidence: &Evidence, denials: &Denials) {
        for action in &evidence.own_actions {
            // Removing what main left behind says nothing about why main ended.
            if action.reason == IntentReason::LeftOver {
                continue;
            }
            self.note(Finding::OwnAction {
                reason: denials.settle(action.reason),
                at: evidence.clock.date(action.at_ns),
                signal: action.signal,
                detail: action.detail.clone(),
            });
        }
    }

    fn note_denials(&mut self, evidence: &Evidence, denials: &Denials) {
        let first_at = denials.first_at_ns.map(|at_ns| evidence.clock.date(at_ns));
        if denials.leaf > 0 {
            self.note(Finding::DeniedForks {
                level: DenyingLevel::Leaf,
                count: denials.leaf,
                cgroup: evidence.leaf_path(),
                first_at,
                max: evidence.denied_forks.leaf_max,
            });
        }
        if denials.ancestor > 0 {
            self.note(Finding::DeniedForks {
                level: DenyingLevel::Ancestor,
                count: denials.ancestor,
                cgroup: denials.ancestor_cgroup.clone(),
                first_at,
                max: None,
            });
        }
        if denials.guessed {
            self.doubt(
                Confidence::Inferred,
                "whose pids.max denied the forks was concluded from where the tightest limit stands",
            );
        }
    }

    fn note_fugitives(&mut self, evidence: &Evidence) {
        for fugitive in evidence.fugitives.iter().take(MEMBERS_NAMED) {
            self.note(Finding::LeftLeaf {
                pid: Some(fugitive.pid),
                comm: Some(fugitive.comm.clone()),
                cgroup: Some(fugitive.cgroup.clone()),
                at: Some(evidence.clock.date(fugitive.at_ns)),
            });
        }
        let counted = evidence.facts.map_or(0, |facts| facts.escapes);
        if counted > 0 && evidence.fugitives.is_empty() {
            self.note(Finding::LeftLeaf {
                pid: None,
                comm: None,
                cgroup: None,
                at: None,
            });
        }
    }

    /// Signals that are part of the story without having decided it.
    fn note_signals(&mut self, evidence: &Evidence, main: &MainEnd, judged: &[Judged<'_>]) {
        let fatal = main.fatal_kill();
        // What came after it found nobody to handle it.
        let was_handled = |signal: &Signal| {
            !signal.behind_another
                && (fatal.is_none() || main.at_ns().is_none_or(|at_ns| signal.at_ns < at_ns))
        };
        let oom_took_all = fatal
            .and_then(|kill| judged.get(kill))
            .is_some_and(|judged| matches!(judged.cause, Cause::Oom { .. }))
            && evidence.oom_scope == OomScope::Whole;
        let mut members = 0;
        for (kill, judged) in judged.iter().enumerate() {
            if fatal == Some(kill) || !judged.was_delivered() {
                continue;
            }
            if judged.signal.victim_is_main {
                if from_outside(&judged.cause) && was_handled(judged.signal) {
                    self.note(Finding::HandledSignal { kill });
                }
            } else if matches!(judged.cause, Cause::Oom { .. })
                && !oom_took_all
                && members < MEMBERS_NAMED
            {
                members += 1;
                self.note(Finding::MemberOomKilled { kill });
            }
        }
    }
}

fn from_outside(cause: &Cause) -> bool {
    match cause {
        Cause::Process(origin)
        | Cause::CgroupKill(origin)
        | Cause::Kernel(KernelCause::DeathSignal(origin)) => *origin == Origin::Outside,
        Cause::Kernel(KernelCause::FromOutside) => true,
        Cause::Kernel(KernelCause::CpuLimit | KernelCause::OfItsOwn)
        | Cause::CgroupKillRacingFork
        | Cause::Oom { .. }
        | Cause::Runner(_) => false,
    }
}
