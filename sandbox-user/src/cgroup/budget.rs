//! Holding all runs of the host together to its budget, by limits of the cgroup that has them all.
//!
//! On a bare host that is `runs`. On a systemd host it is `sandbox.slice`, whose files are systemd's to
//! write: it is asked to, until the next boot. In a unit that is delegated to us it is the unit's `runs`,
//! and what the unit itself may have is its file's to say.
//!
//! A `memory.max` that is lowered below what is in use has the kernel kill for it (mm/memcontrol.c,
//! memory_max_write). So the budget is never lowered under what runs that go on need: this is said, and
//! the next start looks again.

use std::path::Path;
use std::time::Duration;

use super::error::CgroupError;
use super::files::{CpuMax, Dir, Max};
use super::mount::Mount;
use super::orphans::is_gone;
use super::owner::Proc;
use super::placement::{Place, Placement, PlacementFacts, RUNS, SLICE, child};
use super::quota::cpu_max_for;
use super::{control, placement, stats, systemd};
use crate::limits::EffectiveLimits;
use crate::policy::{Budget, Setting};
use crate::units::format_bytes;

/// How long systemd may take to write what it was asked to: it does so after its answer.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);
const LOOKED_AT_EVERY: Duration = Duration::from_millis(10);

/// The limits that are to change, each with what it is to be (`None` = `max`).
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Changes {
    pub(super) memory_bytes: Option<Option<u64>>,
    pub(super) swap_bytes: Option<Option<u64>>,
    pub(super) cpus: Option<Option<f64>>,
    pub(super) pids: Option<Option<u64>>,
}

impl Place {
    /// Sees to it that the budget is in force. Returns what is not yet, as one sentence.
    ///
    /// # Errors
    /// Where a limit cannot be read, written or does not stick, or systemd refuses: the run is then not
    /// to start.
    pub async fn hold(&self, budget: &Budget) -> Result<Option<String>, CgroupError> {
        let (of_all, is_systemds) = match &self.placement {
            Placement::Scope(slice) if slice == SLICE => (slice_of(&self.base), true),
            Placement::Unit(_) | Placement::Bare(_) => (self.runs(), false),
            // What the caller is limited to is the caller's, not for all runs.
            Placement::Scope(_) | Placement::Within(_) => return Ok(None),
        };
        if *budget == Budget::default() {
            return Ok(None);
        }
        let dir = Dir::open(self.mount.dir(&of_all)?)?;
        let mut changes = Changes::between(&control::effective(&dir)?, budget)?;
        let needed_bytes = || stats::stats(&dir).value.memory_needed_bytes();
        let withheld = changes.withhold(&of_all, needed_bytes);
        match is_systemds {
            true => changes.ask_for(&dir, &of_all).await?,
            false => changes.write(&dir)?,
        }
        Ok(withheld)
    }
}

/// What limits the memory of all runs of this host now, bytes; `None` where nothing does, as before the first run.
///
/// # Errors
/// When the cgroup tree cannot be read.
pub fn memory_limit_of_all_runs() -> Result<Option<u64>, CgroupError> {
    let mount = Mount::find()?;
    let facts = PlacementFacts::gather(&mount, None)?;
    let of_all = match placement::decide(&facts)? {
        Placement::Scope(slice) => slice,
        Placement::Unit(base) | Placement::Bare(base) | Placement::Within(base) => {
            child(&base, RUNS)
        }
    };
    match Dir::open(mount.dir(&of_all)?) {
        Err(CgroupError::Read { source, .. }) if is_gone(&source) => Ok(None),
        dir => Ok(dir?.max("memory.max")?.and_then(Max::limit)),
    }
}

impl Changes {
    fn between(now: &EffectiveLimits, budget: &Budget) -> Result<Self, CgroupError> {
        let page = crate::procfs::page_size();
        let whole_pages = |bytes: u64| bytes - bytes % page;
        let cpus = wanted(budget.cpus).map(cpu_max_for).transpose()?;
        let share = budget
            .memory_share_bytes
            .filter(|_| now.memory_bytes.is_none());
        let memory = wanted(budget.memory_bytes).or(share.map(Some));
        Ok(Self {
            memory_bytes: change(now.memory_bytes, memory.map(|bytes| bytes.map(whole_pages))),
            swap_bytes: change(
                now.swap_bytes,
                wanted(budget.swap_bytes).map(|bytes| bytes.map(whole_pages)),
            ),
            cpus: change(now.cpus, cpus.map(CpuMax::cores)),
            pids: change(now.pids, wanted(budget.pids)),
        })
    }

    /// Leaves the memory as it is where runs that go on need more than it is to be.
    fn withhold(
        &mut self,
        of_all: &str,
        needed_bytes: impl FnOnce() -> Option<u64>,
    ) -> Option<String> {
        let bytes = self.memory_bytes.flatten()?;
        let need = match needed_bytes() {
            Some(needed) if needed <= bytes => return None,
            Some(needed) => format!("need {}", format_bytes(needed)),
            None => "may need more".to_owned(),
        };
        self.memory_bytes = None;
        Some(format!(
            "the host's memory budget of {} does not hold yet: the runs in {of_all} {need}, and to lower it now would kill some",
            format_bytes(bytes)
        ))
    }

    fn write(&self, dir: &Dir) -> Result<(), CgroupError> {
        if let Some(bytes) = self.memory_bytes {
            control::set_memory(dir, bytes)?;
        }
        if let Some(bytes) = self.swap_bytes {
            let swap_total_bytes = Proc::default().swap_total_bytes()?.unwrap_or(0);
            control::set_swap(dir, bytes, swap_total_bytes)?;
        }
        if let Some(cores) = self.cpus {
            control::set_cpus(dir, cores)?;
        }
        if let Some(pids) = self.pids {
            control::set_pids(dir, pids)?;
        }
        Ok(())
    }

    /// Has systemd write them.
    async fn ask_for(&self, dir: &Dir, slice: &str) -> Result<(), CgroupError> {
        if *self == Self::default() {
            return Ok(());
        }
        let unit = slice.rsplit('/').next().unwrap_or(slice);
        systemd::set_limits(unit, self).await?;
        let holds = async || {
            while !self.hold_in(&control::effective(dir)?) {
                tokio::time::sleep(LOOKED_AT_EVERY).await;
            }
            Ok(())
        };
        match tokio::time::timeout(WRITTEN_WITHIN, holds()).await {
            Ok(held) => held,
            Err(_) => Err(CgroupError::LimitDidNotStick {
                path: dir.path().to_owned(),
                wanted: format!("{self:?}"),
                got: format!("{:?}", control::effective(dir)?),
            }),
        }
    }

    fn hold_in(&self, now: &EffectiveLimits) -> bool {
        change(now.memory_bytes, self.memory_bytes).is_none()
            && change(now.swap_bytes, self.swap_bytes).is_none()
            && change(now.cpus, self.cpus).is_none()
            && change(now.pids, self.pids).is_none()
    }
}

/// What is said of a limit; `None` within = it is lifted.
fn wanted<T>(said: Option<Setting<T>>) -> Option<Option<T>> {
    said.map(Setting::into_option)
}

/// What a limit is to become, where it is not that yet.
fn change<T: PartialEq>(now: Option<T>, wanted: Option<Option<T>>) -> Option<Option<T>> {
    wanted.filter(|wanted| *wanted != now)
}

/// The slice that a scope is in.
fn slice_of(scope: &str) -> String {
    let parent = Path::new(scope).parent();
    parent.map_or_else(String::new, |slice| slice.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn between(now: &EffectiveLimits, budget: &Budget) -> Changes {
        Changes::between(now, budget).expect("in range")
    }

    #[test]
    fn only_what_is_said_and_not_in_force_changes() {
        let budget = Budget {
            memory_bytes: Some(Setting::Value(4 * GIB + 1)),
            cpus: Some(Setting::Value(1.5)),
            pids: Some(Setting::Lifted),
            ..Budget::default()
        };
        let now = EffectiveLimits {
            swap_bytes: Some(0),
            pids: Some(100),
            ..EffectiveLimits::default()
        };
        let changes = between(&now, &budget);
        assert_eq!(
            changes,
            Changes {
                memory_bytes: Some(Some(4 * GIB)),
                swap_bytes: None,
                cpus: Some(Some(1.5)),
                pids: Some(None),
            }
        );
        let then = EffectiveLimits {
            memory_bytes: Some(4 * GIB),
            swap_bytes: Some(0),
            cpus: Some(1.5),
            pids: None,
        };
        assert!(changes.hold_in(&then) && !changes.hold_in(&now));
        assert_eq!(between(&then, &budget), Changes::default());
    }

    #[test]
    fn the_hosts_share_of_memory_is_for_where_nothing_is_said_and_nothing_limits_it() {
        let share = Budget {
            memory_share_bytes: Some(3 * GIB),
            ..Budget::default()
        };
        let limited = |memory_bytes| EffectiveLimits {
            memory_bytes,
            ..EffectiveLimits::default()
        };
        let memory = |now, budget: &Budget| between(&limited(now), budget).memory_bytes;
        assert_eq!(memory(None, &share), Some(Some(3 * GIB)));
        assert_eq!(memory(Some(9 * GIB), &share), None);
        let said = |memory| Budget {
            memory_bytes: Some(memory),
            ..share.clone()
        };
        assert_eq!(memory(None, &said(Setting::Lifted)), None);
        let four = said(Setting::Value(4 * GIB));
        assert_eq!(memory(Some(9 * GIB), &four), Some(Some(4 * GIB)));
    }

    #[test]
    fn memory_is_not_lowered_under_what_runs_need_or_may_need() {
        let lowered = || Changes {
            memory_bytes: Some(Some(4 * GIB)),
            pids: Some(Some(7)),
            ..Changes::default()
        };
        for (needed, holds) in [
            (Some(4 * GIB), true),
            (Some(4 * GIB + 1), false),
            (None, false),
        ] {
            let mut changes = lowered();
            let said = changes.withhold("/sandbox/runs", || needed);
            assert_eq!(said.is_none(), holds, "{said:?}");
            assert_eq!(changes.memory_bytes.is_some(), holds);
            assert_eq!(changes.pids, Some(Some(7)), "the rest holds at once");
        }
        let mut lifted = Changes {
            memory_bytes: Some(None),
            ..Changes::default()
        };
        assert_eq!(lifted.withhold("/sandbox/runs", || None), None);
        assert_eq!(lifted.memory_bytes, Some(None));
    }

    #[test]
    fn the_slice_of_a_scope_is_right_above_it() {
        assert_eq!(slice_of("/sandbox.slice/sandbox-1.scope"), "/sandbox.slice");
    }
}
