//! The cgroup of a completion hook, for the time that it runs.

use std::fs::File;

use super::{conclude::clear, docket::Docket, reaper};
use crate::{
    cgroup::{self, CgroupError, LeafCgroup, Mount, Population, hooks},
    evidence::FlatKeyed,
    say::say,
};

/// It: a hook and all that it starts, under limits.
#[derive(Debug)]
pub(super) struct HookCgroup(LeafCgroup);

impl HookCgroup {
    /// Makes one; `None` for a run that came to no leaf, since there is no place for this either then. What a
    /// hook that was cut short has left in it is killed first: there are no two at a time.
    ///
    /// # Errors
    /// Where it cannot be made or limited.
    pub(super) async fn make(docket: &Docket) -> Result<Option<Self>, CgroupError> {
        let Some(leaf) = &docket.leaf else {
            return Ok(None);
        };
        let run_id = docket.spec.run_id;
        let mount = Mount::find()?;
        let base = match hooks::base_of(&leaf.path) {
            Some(base) if mount.dir(base)?.is_dir() => base.to_owned(),
            // A scope of systemd's has ended with the run's own guardian, a frame with the leaf.
            _ => {
                let limited = docket.spec.limited_callers();
                let place = cgroup::prepare(std::process::id(), run_id, limited).await?;
                place.base
            }
        };
        if let Some(left) = Self::left(docket) {
            clear(&left.0).await?;
        }
        hooks::make(&mount, &base, run_id).map(|made| Some(Self(made)))
    }

    /// That of a hook that was cut short, where it is there.
    pub(super) fn left(docket: &Docket) -> Option<Self> {
        let base = hooks::base_of(&docket.leaf.as_ref()?.path)?;
        let left = hooks::open(&Mount::find().ok()?, base, docket.spec.run_id);
        left.ok().map(Self)
    }

    /// Its `cgroup.procs`, open for writing.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open_procs(&self) -> Result<File, CgroupError> {
        self.0.open_procs()
    }

    /// Sends all in it a signal.
    pub(super) fn signal(&self, signal: i32) {
        // Who cannot be told is killed in the end.
        let _ = reaper::signal_members(&self.0, signal);
    }

    /// Whether nobody is in it.
    pub(super) fn is_empty(&self) -> bool {
        !matches!(self.0.population(), Ok(Population::Populated))
    }

    /// What it has run out of, for people.
    pub(super) fn shortage(&self) -> Option<&'static str> {
        let counters = self.0.counters().value;
        let happened = |events: Option<FlatKeyed>, name| {
            let count = events.as_ref().and_then(|events| events.get(name));
            count.is_some_and(|count| *count > 0)
        };
        if happened(counters.memory_events, "oom_kill") {
            Some("memory")
        } else if happened(counters.pids_events, "max") {
            Some("PIDs")
        } else {
            None
        }
    }

    /// Removes it; what the hook has left in it is killed.
    pub(super) async fn remove(self) {
        if let Err(error) = clear(&self.0).await {
            say(error);
        }
    }
}
