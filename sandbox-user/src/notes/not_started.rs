//! Starts that came to nothing: at which step, and for want of what.

use nix::errno::Errno;

use super::headline::{fatal, sent_by};
use super::{limit, name};
use crate::evidence::SetupFailureKind;
use crate::record::{Finding, OomLevel, RunRecord, signal_name};

pub(super) fn setup_failed(record: &RunRecord) -> Vec<String> {
    let failure = record.termination.evidence.iter().find_map(|finding| {
        if let Finding::SetupFailure { step, errno, kind } = finding {
            Some((step, *errno, *kind))
        } else {
            None
        }
    });
    let Some((step, errno, kind)) = failure else {
        return never_executed(record);
    };
    let step = name::step(step);
    let why = errno.map_or("", |errno| Errno::from_raw(errno).desc());
    match kind {
        SetupFailureKind::CommandNotFound => {
            vec![format!("Not started: {step}: command not found.")]
        }
        SetupFailureKind::CommandNotExecutable => {
            vec![format!("Not started: {step}: cannot be executed ({why}).")]
        }
        SetupFailureKind::OutOfMemory => vec![
            format!(
                "Not started: out of memory at {step}, under the {}.",
                limit::memory(record)
            ),
            limit::raise(&record.limits.memory_bytes, "memory"),
        ],
        SetupFailureKind::OutOfPids => vec![format!(
            "Not started: out of PIDs at {step}, under the {} or one above it.",
            limit::pids(record)
        )],
        SetupFailureKind::Other if why.is_empty() => vec![format!("Not started: {step}.")],
        SetupFailureKind::Other => vec![format!("Not started: {step} failed ({why}).")],
    }
}

fn never_executed(record: &RunRecord) -> Vec<String> {
    let why = match fatal(record) {
        Some(kill) => match kill.oom.as_ref().map(|oom| oom.scope) {
            Some(Some(OomLevel::Leaf)) => {
                let limit = limit::memory(record);
                format!(
                    "the kernel OOM killer killed it before its exec, the {limit} being reached"
                )
            }
            Some(Some(OomLevel::Ancestor) | None) => {
                "the kernel OOM killer killed it before its exec, for a limit above it".to_owned()
            }
            Some(Some(OomLevel::Host)) => {
                "the kernel OOM killer killed it before its exec, the host being out of memory"
                    .to_owned()
            }
            None => {
                let signal = signal_name(kill.signal);
                format!("{signal}{} killed it before its exec", sent_by(kill))
            }
        },
        None => "its exec was never seen".to_owned(),
    };
    vec![format!("Not started: {why}.")]
}
