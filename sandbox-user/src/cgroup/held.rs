//! The unit that holds the host's runs, as its own process sees it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::error::CgroupError;
use super::files::Dir;
use super::mount::Mount;
use super::orphans::{children, is_gone};
use super::owner::{Mark, Proc, ProcessId};
use super::placement::{RUNS, SUPERVISOR, child};
use super::unit::HOLDING;
use crate::sys::pidfd;

/// The unit's cgroup.
#[derive(Debug)]
pub struct HeldRuns {
    runs: PathBuf,
    supervisor: Dir,
}

/// A leaf in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLeaf {
    /// Its name, which is its run's id.
    pub name: String,
    /// Who runs the run; `None` where that is not known, or not yet.
    pub supervisor: Option<ProcessId>,
}

impl HeldRuns {
    /// Finds it around this process, which is in its `supervisor`.
    ///
    /// # Errors
    /// Where this process is somewhere else: it was not started as the unit's.
    pub fn find() -> Result<Self, CgroupError> {
        let mount = Mount::find()?;
        let supervisor = child(HOLDING, SUPERVISOR);
        let own = Proc::default().cgroup("self")?;
        if own != supervisor {
            return Err(CgroupError::NotTheHolder {
                wanted: supervisor,
                found: own,
            });
        }
        Ok(Self {
            runs: mount.dir(&child(HOLDING, RUNS))?,
            supervisor: Dir::open(mount.dir(&supervisor)?)?,
        })
    }

    /// The leaves that there are.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn leaves(&self) -> Result<Vec<HeldLeaf>, CgroupError> {
        let below = match children(&self.runs) {
            // No run has been there yet.
            Err(CgroupError::Read { source, .. }) if is_gone(&source) => return Ok(Vec::new()),
            below => below?,
        };
        Ok(below
            .into_iter()
            .map(|leaf| HeldLeaf {
                supervisor: match Mark::at(&self.runs.join(&leaf.name)) {
                    Ok(Mark::Owned(owner)) => Some(owner.supervisor),
                    // It is gone, or is being made.
                    Ok(Mark::Unreadable(_) | Mark::Unmarked) | Err(_) => None,
                },
                name: leaf.name,
            })
            .collect())
    }

    /// The processes that look after runs, as pidfds: supervisors, guardians and what those have started.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn supervisors(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        let own = std::process::id();
        let listed = || Ok(self.supervisor.procs()?.unwrap_or_default());
        let opened: Vec<(u32, OwnedFd)> = listed()?
            .into_iter()
            .filter(|pid| *pid != own)
            .filter_map(|pid| Some((pid, pidfd::open(i32::try_from(pid).ok()?).ok()?)))
            .collect();
        // Who is still there is who was opened.
        let still = listed()?;
        let there = opened.into_iter().filter(|(pid, _)| still.contains(pid));
        Ok(there.map(|(_, pidfd)| pidfd).collect())
    }
}
