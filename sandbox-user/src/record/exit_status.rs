//! The exit status of `sandbox run` and `sandbox wait`.

use nix::libc::{SIGINT, SIGTERM};

use super::{Finding, Reason, RunRecord};
use crate::evidence::SetupFailureKind;

/// A limit ended the run although main exited 0, as timeout(1) has it.
const ENDED_FOR_A_LIMIT: u8 = 124;
/// `sandbox` failed.
const RUNNER_FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The status that tells this run to a shell: the analysis's own, 128+N when it died of signal N,
/// and 0 only where the reason is `completed`.
pub fn exit_status(record: &RunRecord) -> u8 {
    if record.termination.reason == Reason::SetupFailed {
        return setup_status(record);
    }
    match (record.exit.code, record.exit.signal) {
        (Some(0), _) => status_of_zero(record),
        // wait(2) gives eight bits; anything else is no exit code.
        (Some(code), _) => u8::try_from(code).unwrap_or(RUNNER_FAILED),
        (None, Some(signal)) => with_signal(signal),
        // Cancelled before it was started.
        (None, None) if record.termination.reason == Reason::Cancelled => status_of_zero(record),
        (None, None) => RUNNER_FAILED,
    }
}

/// Main exited 0 all the same.
fn status_of_zero(record: &RunRecord) -> u8 {
    match record.termination.reason {
        Reason::Completed => 0,
        Reason::Memory
        | Reason::MemoryAncestor
        | Reason::HostOom
        | Reason::Pids
        | Reason::PidsAncestor
        | Reason::Walltime
        | Reason::Cputime => ENDED_FOR_A_LIMIT,
        Reason::Cancelled => {
            let asked = record.termination.evidence.iter().find_map(asking_signal);
            with_signal(if asked == Some(SIGINT) {
                SIGINT
            } else {
                SIGTERM
            })
        }
        // `exit_code`, `signal` and `external_kill` do not go with an exit of 0; the rest is that
        // the run could not be kept or finished.
        Reason::ExitCode
        | Reason::Signal
        | Reason::ExternalKill
        | Reason::Escaped
        | Reason::SetupFailed
        | Reason::RunnerLost => RUNNER_FAILED,
    }
}

fn setup_status(record: &RunRecord) -> u8 {
    let kind = record.termination.evidence.iter().find_map(setup_kind);
    match kind {
        Some(SetupFailureKind::CommandNotFound) => NOT_FOUND,
        Some(SetupFailureKind::CommandNotExecutable) => NOT_EXECUTABLE,
        Some(
            SetupFailureKind::OutOfMemory | SetupFailureKind::OutOfPids | SetupFailureKind::Other,
        )
        | None => RUNNER_FAILED,
    }
}

fn asking_signal(finding: &Finding) -> Option<i32> {
    if let Finding::OwnAction { signal, .. } = finding {
        *signal
    } else {
        None
    }
}

fn setup_kind(finding: &Finding) -> Option<SetupFailureKind> {
    if let Finding::SetupFailure { kind, .. } = finding {
        Some(*kind)
    } else {
        None
    }
}

fn with_signal(signal: i32) -> u8 {
    u8::try_from(signal.saturating_add(128)).unwrap_or(RUNNER_FAILED)
}
