//! The words of a verdict: why a run ended, what to do about it, and what others would call it.
//!
//! The table stands in the design as it stands here; the names are part of the record's contract.

use serde::{Deserialize, Serialize};

use super::Exit;

/// Why a run ended. Exactly one fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Main exited 0.
    Completed,
    /// Main exited non-zero by itself.
    ExitCode,
    /// Main died of its own signal: a crash, an abort, a sibling's kill, SIGPIPE.
    Signal,
    /// The leaf's own `memory.max`.
    Memory,
    /// An enclosing cgroup's `memory.max`.
    MemoryAncestor,
    /// The host ran out of memory.
    HostOom,
    /// The leaf's own `pids.max` denied a fork, and that ends a run.
    Pids,
    /// An enclosing cgroup's `pids.max` did.
    PidsAncestor,
    /// The wall clock.
    Walltime,
    /// The CPU time budget, or RLIMIT_CPU.
    Cputime,
    /// A signal or a `cgroup.kill` from outside the run.
    ExternalKill,
    /// Somebody asked `sandbox` to end it.
    Cancelled,
    /// A task left the leaf.
    Escaped,
    /// It never got to exec.
    SetupFailed,
    /// The runner or the host died under it.
    RunnerLost,
}

impl Reason {
    /// Every reason, in the order of the table.
    pub const ALL: [Self; 15] = [
        Self::Completed,
        Self::ExitCode,
        Self::Signal,
        Self::Memory,
        Self::MemoryAncestor,
        Self::HostOom,
        Self::Pids,
        Self::PidsAncestor,
        Self::Walltime,
        Self::Cputime,
        Self::ExternalKill,
        Self::Cancelled,
        Self::Escaped,
        Self::SetupFailed,
        Self::RunnerLost,
    ];

    /// Its name in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ExitCode => "exit_code",
            Self::Signal => "signal",
            Self::Memory => "memory",
            Self::MemoryAncestor => "memory_ancestor",
            Self::HostOom => "host_oom",
            Self::Pids => "pids",
            Self::PidsAncestor => "pids_ancestor",
            Self::Walltime => "walltime",
            Self::Cputime => "cputime",
            Self::ExternalKill => "external_kill",
            Self::Cancelled => "cancelled",
            Self::Escaped => "escaped",
            Self::SetupFailed => "setup_failed",
            Self::RunnerLost => "runner_lost",
        }
    }

    /// What other systems would report for such an end.
    pub fn nearest_terms(self, exit: &Exit) -> NearestTerms {
        let dumped = exit.core_dumped == Some(true);
        let sigterm = exit.signal == Some(nix::libc::SIGTERM);
        match self {
            Self::Completed => {
                NearestTerms::new(Some("success"), "COMPLETED", Some("Completed"), None)
            }
            Self::ExitCode => NearestTerms::new(Some("exit-code"), "FAILED", Some("Error"), None),
            Self::Signal => {
                let systemd = if dumped { "core-dump" } else { "signal" };
                NearestTerms::new(Some(systemd), "FAILED", Some("Error"), None)
            }
            Self::Memory | Self::MemoryAncestor | Self::HostOom => NearestTerms::new(
                Some("oom-kill"),
                "OUT_OF_MEMORY",
                Some("OOMKilled"),
                Some("memory"),
            ),
            Self::Pids | Self::PidsAncestor => {
                NearestTerms::new(Some("exit-code"), "FAILED", Some("Error"), None)
            }
            Self::Walltime => NearestTerms::new(
                Some("timeout"),
                "TIMEOUT",
                Some("DeadlineExceeded"),
                Some("walltime"),
            ),
            Self::Cputime => {
                NearestTerms::new(Some("signal"), "TIMEOUT", Some("Error"), Some("cputime"))
            }
            Self::ExternalKill => {
                let systemd = if sigterm { "success" } else { "signal" };
                NearestTerms::new(Some(systemd), "FAILED", Some("Error"), Some("killed"))
            }
            Self::Cancelled => {
                NearestTerms::new(Some("signal"), "CANCELLED", Some("Error"), Some("killed"))
            }
            Self::Escaped => NearestTerms::new(None, "FAILED", Some("Error"), None),
            Self::SetupFailed => NearestTerms::new(
                Some("exit-code"),
                "FAILED",
                Some("StartError"),
                Some("failed"),
            ),
            Self::RunnerLost => NearestTerms::new(None, "NODE_FAIL", Some("Unknown"), None),
        }
    }
}

/// What somebody who runs it again should change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryHint {
    /// Give it more memory.
    MoreMemory,
    /// Give it more time.
    MoreTime,
    /// Give it more PIDs.
    MorePids,
    /// Run it again as it was.
    Same,
    /// Nothing: it would end the same way, or it need not run again.
    None,
}

/// The nearest words of other systems; null where they have none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearestTerms {
    /// systemd's `Result=`.
    pub systemd: Option<String>,
    /// Slurm's job state.
    pub slurm: Option<String>,
    /// Kubernetes' container or pod reason.
    pub kubernetes: Option<String>,
    /// BenchExec's `terminationreason`.
    pub benchexec: Option<String>,
}

impl NearestTerms {
    fn new(
        systemd: Option<&str>,
        slurm: &str,
        kubernetes: Option<&str>,
        benchexec: Option<&str>,
    ) -> Self {
        Self {
            systemd: systemd.map(str::to_owned),
            slurm: Some(slurm.to_owned()),
            kubernetes: kubernetes.map(str::to_owned),
            benchexec: benchexec.map(str::to_owned),
        }
    }
}

/// The kernel's name of a signal: `SIGKILL`, `SIGRTMIN+3`; a bare number where it has none.
///
/// Real-time signals count from glibc's SIGRTMIN, 34: the kernel's 32 and 33 are glibc's own.
pub fn signal_name(signal: i32) -> String {
    match (nix::sys::signal::Signal::try_from(signal), signal) {
        (Ok(known), _) => known.as_str().to_owned(),
        (Err(_), 34) => "SIGRTMIN".to_owned(),
        (Err(_), 35..=64) => format!("SIGRTMIN+{}", signal - 34),
        (Err(_), _) => format!("signal {signal}"),
    }
}
