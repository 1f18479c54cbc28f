//! The limits of one run: what was asked for, by whom, in the kernel's units.
//!
//! `None` as a value means that the limit was lifted (`none`, the kernel's `max`); a limit that
//! nobody mentioned has its built-in default and [`Source::Default`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Who set a limit's value; each later one overrides the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Built in.
    Default,
    /// The host's configuration.
    Host,
    /// The analysis's metadata.
    Metadata,
    /// The command line.
    CommandLine,
    /// `sandbox update`, while it went on.
    Update,
    /// The host's ceiling lowered what was asked for.
    Ceiling,
}

/// One limit as it was settled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit<T> {
    /// What was asked for, which the host's ceiling may have lowered; `None` = no limit.
    pub requested: Option<T>,
    /// What applies; `None` = no limit.
    pub value: Option<T>,
    /// Who said so.
    pub source: Source,
}

impl<T: Copy> Limit<T> {
    /// A limit with this value, from this source.
    pub const fn new(value: Option<T>, source: Source) -> Self {
        Self {
            requested: value,
            value,
            source,
        }
    }
}

/// All limits of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// `memory.max`, bytes.
    pub memory_bytes: Limit<u64>,
    /// `memory.swap.max`, bytes.
    pub swap_bytes: Limit<u64>,
    /// `cpu.max` as a share of cores: 1.5 = one and a half.
    pub cpus: Limit<f64>,
    /// `pids.max`: tasks, threads included.
    pub pids: Limit<u64>,
    /// Wall clock from exec to deadline.
    pub walltime: Limit<Duration>,
    /// CPU time of the whole leaf.
    pub cputime: Limit<Duration>,
}

/// `memory.max` where nobody says anything.
pub const DEFAULT_MEMORY_BYTES: u64 = 2 << 30;

impl Default for Limits {
    /// 2 GiB memory without swap, 1 core, 100 PIDs, 30 min wall clock, no CPU time budget.
    fn default() -> Self {
        Self {
            memory_bytes: Limit::new(Some(DEFAULT_MEMORY_BYTES), Source::Default),
            swap_bytes: Limit::new(Some(0), Source::Default),
            cpus: Limit::new(Some(1.0), Source::Default),
            pids: Limit::new(Some(100), Source::Default),
            walltime: Limit::new(Some(Duration::from_secs(30 * 60)), Source::Default),
            cputime: Limit::new(None, Source::Default),
        }
    }
}

/// What happens when `pids.max` denies a fork (`--on-pids-limit`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPidsLimit {
    /// The first denied fork ends the run.
    #[default]
    Kill,
    /// The fork fails with EAGAIN and the run goes on.
    Deny,
}

/// Whom the OOM killer takes (`--oom`, `memory.oom.group`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OomScope {
    /// The whole leaf.
    #[default]
    Whole,
    /// The process that the kernel chose.
    Process,
}

impl OomScope {
    /// The value of `memory.oom.group`.
    #[must_use]
    pub const fn oom_group(self) -> &'static str {
        match self {
            Self::Whole => "1",
            Self::Process => "0",
        }
    }
}

/// The limits as read back from the leaf: `None` = the kernel says `max`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EffectiveLimits {
    /// `memory.max`, bytes (rounded down to a page by the kernel).
    pub memory_bytes: Option<u64>,
    /// `memory.swap.max`, bytes; also `None` where the kernel has no swap control.
    pub swap_bytes: Option<u64>,
    /// `cpu.max`, quota over period.
    pub cpus: Option<f64>,
    /// `pids.max`.
    pub pids: Option<u64>,
}

/// The tightest limit that an enclosing cgroup sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Enclosing<T> {
    /// Its value, in the unit of the leaf's own.
    pub value: T,
    /// That cgroup, as a path from the root of the cgroup2 mount, beginning with `/`.
    pub cgroup: String,
}

/// The tightest limits above the leaf; `None` = no ancestor limits it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EnclosingLimits {
    /// `memory.max`, bytes.
    pub memory_bytes: Option<Enclosing<u64>>,
    /// `memory.swap.max`, bytes.
    pub swap_bytes: Option<Enclosing<u64>>,
    /// `cpu.max`, cores.
    pub cpus: Option<Enclosing<f64>>,
    /// `pids.max`.
    pub pids: Option<Enclosing<u64>>,
}

impl EnclosingLimits {
    /// The enclosing `pids.max` that is taken to be met before the leaf's `own`; `None` where the leaf's
    /// is. A task counts at every level (kernel/cgroup/pids.c), and above the leaf there is its guardian
    /// besides, so that a limit that is no higher is met first. What others have below that cgroup may
    /// make it first where it is higher, too: not told here.
    pub fn pids_met_before(&self, own: Option<u64>) -> Option<&Enclosing<u64>> {
        let above = self.pids.as_ref()?;
        own.is_none_or(|own| above.value <= own).then_some(above)
    }
}
