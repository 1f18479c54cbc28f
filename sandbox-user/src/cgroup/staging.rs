//! A fresh cgroup to clone from, where the supervisor's own will not do.
//!
//! Linux ≥ 6.18 kills a CLONE_INTO_CGROUP child at birth where `cgroup.kill` was ever written in the
//! cloner's own cgroup (kernel/cgroup/cgroup.c, `cgroup_post_fork`). The cloning process then goes
//! through here first. It holds nobody for longer than that, and goes with the start.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use super::error::CgroupError;
use super::files::Dir;
use super::placement::{Place, child};
use super::tree;

/// How long the one process that went through may take to be accounted for.
const REMOVE_WITHIN: Duration = Duration::from_secs(1);

/// Such a cgroup, removed on drop.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    procs: File,
}

impl Staging {
    /// Makes one beside a run's leaf.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn create(place: &Place, run_id: Uuid) -> Result<Self, CgroupError> {
        let cgroup = child(&place.base, &format!("staging-{run_id}"));
        let path = place.mount.dir(&cgroup)?;
        tree::make(&path)?;
        match Dir::open(&path)?.open_procs() {
            Ok(procs) => Ok(Self { path, procs }),
            Err(error) => {
                // It is ours and empty; the error that matters is the first one.
                let _ = rustix::fs::rmdir(&path);
                Err(error)
            }
        }
    }

    /// Its `cgroup.procs`, open for writing.
    pub fn procs(&self) -> BorrowedFd<'_> {
        self.procs.as_fd()
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What is left of it is an empty cgroup, which limits and holds nobody.
        let _ = tree::remove(&self.path, REMOVE_WITHIN);
    }
}
