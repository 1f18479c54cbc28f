//! One fact that a verdict rests on, in a form that a program can read and a person can.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::terms::signal_name;
use crate::escape::escape_untrusted;
use crate::evidence::{IntentReason, SetupFailureKind};

/// A line of `termination.evidence`; `fact` names its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Finding {
    /// The main process called exit.
    MainExited {
        /// With this code.
        code: i32,
    },
    /// A signal ended the main process.
    MainSignaled {
        /// Its number.
        signal: i32,
        /// Whether a core was dumped.
        core_dumped: bool,
    },
    /// Nobody saw how the main process ended.
    MainEndUnknown,
    /// The exec of the command was never seen.
    NeverExecuted,
    /// The signal that decided.
    FatalSignal {
        /// Its place in `kills`, from 0.
        kill: usize,
    },
    /// The fatal signal came of a `cgroup.kill` that was not the runner's.
    CgroupKillWritten {
        /// Whose `cgroup.kill`: the leaf's or an enclosing cgroup's; null where it is unknown.
        cgroup: Option<String>,
    },
    /// The main process died of a signal of which there is no record.
    FatalSignalUnseen {
        /// Its number.
        signal: i32,
    },
    /// A signal that the main process was sent from outside the run, and lived on.
    HandledSignal {
        /// Its place in `kills`, from 0.
        kill: usize,
    },
    /// The OOM killer took another member of the run than the main process.
    MemberOomKilled {
        /// Its place in `kills`, from 0.
        kill: usize,
    },
    /// What the runner did to end the run.
    OwnAction {
        /// Why.
        reason: IntentReason,
        /// When it wrote that down, before it acted.
        at: Timestamp,
        /// The signal that made it act; null where none did.
        signal: Option<i32>,
        /// More for people.
        detail: Option<String>,
    },
    /// Forks were denied.
    DeniedForks {
        /// Whose `pids.max` it was.
        level: DenyingLevel,
        /// How many.
        count: u64,
        /// That cgroup; null where it is unknown.
        cgroup: Option<String>,
        /// When first; null where that was not seen.
        first_at: Option<Timestamp>,
        /// The leaf's `pids.max` when it denied last; null where that was not seen, and for an enclosing
        /// cgroup.
        max: Option<u64>,
    },
    /// A task left the leaf.
    LeftLeaf {
        /// Process id; null where only the count is known.
        pid: Option<u32>,
        /// Its name.
        comm: Option<String>,
        /// Where it went.
        cgroup: Option<String>,
        /// When.
        at: Option<Timestamp>,
    },
    /// A cgroup's event counter rose.
    CounterRose {
        /// Whose.
        cgroup: String,
        /// `memory.events.local` …
        file: String,
        /// `oom`, `oom_kill` …
        key: String,
        /// By how much.
        by: u64,
    },
    /// The start came to nothing.
    SetupFailure {
        /// What was being done.
        step: String,
        /// Its errno; null where it failed in another way, which `step` then says.
        errno: Option<i32>,
        /// What that means.
        kind: SetupFailureKind,
    },
    /// RLIMIT_CPU that the main process started with; null = infinity.
    RlimitCpu {
        /// The soft limit: SIGXCPU.
        soft_seconds: Option<u64>,
        /// The hard limit: SIGKILL.
        hard_seconds: Option<u64>,
        /// The one that was reached, which may have been set since; null where that was not seen.
        reached_seconds: Option<u64>,
    },
    /// What was concluded where no fact was to be had.
    Conclusion {
        /// A clause without its full stop.
        text: String,
    },
}

/// Whose `pids.max` denied a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenyingLevel {
    /// The leaf's.
    Leaf,
    /// An enclosing cgroup's.
    Ancestor,
}

impl fmt::Display for Finding {
    /// For people; safe to print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MainExited { code } => write!(f, "the main process exited with {code}"),
            Self::MainSignaled {
                signal,
                core_dumped,
            } => {
                let dumped = if *core_dumped { ", core dumped" } else { "" };
                let name = signal_name(*signal);
                write!(f, "the main process died of {name}{dumped}")
            }
            Self::MainEndUnknown => write!(f, "how the main process ended was not seen"),
            Self::NeverExecuted => write!(f, "the exec of the command was never seen"),
            Self::FatalSignal { kill } => write!(f, "the fatal signal is kills[{kill}]"),
            Self::CgroupKillWritten { cgroup } => {
                let cgroup = cgroup.as_deref().unwrap_or("an unknown cgroup");
                let cgroup = escape_untrusted(cgroup);
                write!(f, "somebody wrote cgroup.kill of {cgroup}")
            }
            Self::FatalSignalUnseen { signal } => {
                write!(f, "no record of the fatal {}", signal_name(*signal))
            }
            Self::HandledSignal { kill } => {
                write!(f, "the main process handled kills[{kill}], from outside")
            }
            Self::MemberOomKilled { kill } => {
                write!(f, "the OOM killer took another member: kills[{kill}]")
            }
            Self::OwnAction {
                reason,
                at,
                signal,
                detail,
            } => {
                write!(f, "sandbox meant to end it at {at}: {}", reason.as_str())?;
                if let Some(signal) = signal {
                    write!(f, ", on {}", signal_name(*signal))?;
                }
                match detail {
                    Some(detail) => write!(f, " ({})", escape_untrusted(detail)),
                    None => Ok(()),
                }
            }
            Self::DeniedForks {
                level,
                count,
                cgroup,
                first_at,
                max: _,
            } => {
                let whose = match level {
                    DenyingLevel::Leaf => "the leaf",
                    DenyingLevel::Ancestor => "an enclosing cgroup",
                };
                write!(f, "{count} forks denied by the pids.max of {whose}")?;
                if let Some(cgroup) = cgroup {
                    write!(f, " {}", escape_untrusted(cgroup))?;
                }
                match first_at {
                    Some(at) => write!(f, ", first at {at}"),
                    None => Ok(()),
                }
            }
            Self::LeftLeaf {
                pid,
                comm,
                cgroup,
                at,
            } => {
                write!(f, "a task left the leaf")?;
                if let (Some(pid), Some(comm)) = (pid, comm) {
                    write!(f, ": {} (pid {pid})", escape_untrusted(comm))?;
                }
                if let Some(cgroup) = cgroup {
                    write!(f, ", to {}", escape_untrusted(cgroup))?;
                }
                match at {
                    Some(at) => write!(f, ", at {at}"),
                    None => Ok(()),
                }
            }
            Self::CounterRose {
                cgroup,
                file,
                key,
                by,
            } => {
                write!(
                    f,
                    "{key} of {}/{file} rose by {by}",
                    escape_untrusted(cgroup)
                )
            }
            Self::SetupFailure { step, errno, .. } => match errno {
                Some(errno) => write!(f, "{} failed with errno {errno}", escape_untrusted(step)),
                None => f.write_str(&escape_untrusted(step)),
            },
            Self::RlimitCpu {
                soft_seconds,
                hard_seconds,
                reached_seconds,
            } => {
                let shown = |limit: &Option<u64>| match limit {
                    Some(seconds) => format!("{seconds} s"),
                    None => "none".to_owned(),
                };
                let (soft, hard) = (shown(soft_seconds), shown(hard_seconds));
                write!(f, "RLIMIT_CPU at the start: soft {soft}, hard {hard}")?;
                match reached_seconds {
                    Some(seconds) => write!(f, "; {seconds} s when it was reached"),
                    None => Ok(()),
                }
            }
            Self::Conclusion { text } => write!(f, "{}", escape_untrusted(text)),
        }
    }
}
