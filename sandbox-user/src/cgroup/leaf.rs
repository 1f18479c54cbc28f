//! The leaf: the cgroup of one run, never reused.
//!
//! It is made by mkdir and marked with its owner before anything else, so that nobody takes it for
//! an orphan; it is held by directory descriptor, which clone3 needs and which a rename or a
//! namesake cannot redirect. It may hold no cgroups of its own (`cgroup.max.descendants`).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use uuid::Uuid;

use super::above::Above;
use super::error::CgroupError;
use super::files::Dir;
use super::freezer::{self, is_told_to_freeze};
use super::mount::Mount;
use super::owner::{Owner, Proc};
use super::placement::{Place, child};
use super::sampler::Sampler;
use super::stats::{self, LeafStats, Reading};
use super::tree::Removal;
use super::{control, frame, kill, tree};
use crate::evidence::{CgroupRef, EventCounters};
use crate::limits::{EffectiveLimits, EnclosingLimits, Limits, OomScope};

/// A run's cgroup. Dropping it removes nothing: the leaf is evidence until it was read.
#[derive(Debug)]
pub struct LeafCgroup {
    mount: Mount,
    cgroup: CgroupRef,
    dir: Dir,
    /// O_PATH: what CLONE_INTO_CGROUP wants.
    handle: OwnedFd,
    above: OnceLock<Above>,
}

/// Whether any process, zombies not counted, is in the leaf (`populated` of cgroup.events).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Population {
    /// There is.
    Populated,
    /// There is none, or the leaf is gone.
    Empty,
}

/// The files of a leaf that report a change to poll(2) (POLLPRI) and inotify(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFile {
    /// `cgroup.events`: populated, frozen.
    Cgroup,
    /// `pids.events`.
    Pids,
}

impl EventFile {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup.events",
            Self::Pids => "pids.events",
        }
    }
}

impl LeafCgroup {
    /// Makes the leaf of a run and marks its owner.
    ///
    /// # Errors
    /// [`CgroupError::LeafExists`] when there is one of that name; when it cannot be made or marked.
    pub fn create(place: &Place, run_id: Uuid, owner: &Owner) -> Result<Self, CgroupError> {
        Self::make(&place.mount, &leaf_path(place, run_id), |leaf| {
            owner.mark(&leaf.dir)
        })
    }

    /// Makes a cgroup and prepares it; one that cannot be prepared is removed again.
    pub(super) fn make(
        mount: &Mount,
        cgroup: &str,
        prepare: impl FnOnce(&Self) -> Result<(), CgroupError>,
    ) -> Result<Self, CgroupError> {
        let path = mount.dir(cgroup)?;
        match tree::make(&path)? {
            tree::Made::New => {}
            tree::Made::Existed => return Err(CgroupError::LeafExists { path }),
        }
        let made = Self::open(mount, cgroup).and_then(|leaf| {
            prepare(&leaf)?;
            Ok(leaf)
        });
        if made.is_err() {
            // It is ours and empty; the error that matters is the first one.
            let _ = rustix::fs::rmdir(&path);
            frame::remove_around(&path);
        }
        made
    }

    /// Opens a leaf that another process made (its guardian, a later service).
    ///
    /// # Errors
    /// When it is not there.
    pub fn open(mount: &Mount, cgroup: &str) -> Result<Self, CgroupError> {
        let dir = Dir::open(mount.dir(cgroup)?)?;
        let fail = |errno| CgroupError::read(dir.path(), std::io::Error::from(errno));
        let id = dir.id()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let handle = dir.open_file(".", flags).map_err(fail)?;
        let cgroup = CgroupRef {
            path: cgroup.to_owned(),
            id,
        };
        Ok(Self {
            mount: mount.clone(),
            cgroup,
            dir,
            handle,
            above: OnceLock::new(),
        })
    }

    /// Its path and id.
    pub fn cgroup(&self) -> &CgroupRef {
        &self.cgroup
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// An O_PATH descriptor of its directory, for clone3 with CLONE_INTO_CGROUP.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Its `cgroup.procs`, open for writing: a process that writes 0 there is in it (cgroups(7)).
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_procs(&self) -> Result<File, CgroupError> {
        self.dir.open_procs()
    }

    /// The cgroups above it, which are opened where somebody first asks.
    fn above(&self) -> Result<&Above, CgroupError> {
        match self.above.get() {
            Some(above) => Ok(above),
            None => {
                let above = Above::open(&self.mount, &self.cgroup.path)?;
                Ok(self.above.get_or_init(|| above))
            }
        }
    }

    /// Its ancestors, nearest first, up to the root of the mount.
    ///
    /// # Errors
    /// When one cannot be looked at.
    pub fn ancestors(&self) -> Result<Vec<CgroupRef>, CgroupError> {
        self.above()?.cgroups()
    }

    /// Writes the limits and reads each back. Nothing may be born in the leaf before.
    ///
    /// # Errors
    /// When one cannot be written or does not hold.
    pub fn limit(&self, limits: &Limits, oom: OomScope) -> Result<EffectiveLimits, CgroupError> {
        let swap_total_bytes = Proc::default().swap_total_bytes()?.unwrap_or(0);
        control::apply(&self.dir, limits, oom, swap_total_bytes)
    }

    /// The limits as they stand now.
    ///
    /// # Errors
    /// When a file is missing or cannot be read.
    pub fn effective(&self) -> Result<EffectiveLimits, CgroupError> {
        control::read_back(&self.dir)
    }

    /// Whom the OOM killer takes when its memory runs out, as it stands now.
    ///
    /// # Errors
    /// When the file is missing or cannot be read.
    pub fn oom_scope(&self) -> Result<OomScope, CgroupError> {
        control::oom_scope(&self.dir)
    }

    /// Its `memory.high`, bytes, as it stands now; `None` = `max`.
    ///
    /// # Errors
    /// When the file is missing or cannot be read.
    pub fn memory_high_bytes(&self) -> Result<Option<u64>, CgroupError> {
        control::memory_high(&self.dir)
    }

    /// The tightest limits above it.
    ///
    /// # Errors
    /// When an ancestor cannot be read.
    pub fn enclosing(&self) -> Result<EnclosingLimits, CgroupError> {
        self.above()?.limits()
    }

    /// Its event counters.
    pub fn counters(&self) -> Reading<EventCounters> {
        stats::counters(&self.dir)
    }

    /// The event counters of its ancestors, in the order of [`Self::ancestors`].
    pub fn ancestor_counters(&self) -> Reading<Vec<EventCounters>> {
        match self.above() {
            Ok(above) => above.counters(),
            Err(error) => Reading {
                value: Vec::new(),
                failures: vec![error],
            },
        }
    }

    /// What it used.
    pub fn stats(&self) -> Reading<LeafStats> {
        stats::stats(&self.dir)
    }

    /// SIGKILL to all its processes (`cgroup.kill`, 5.14). It can race a fork on older kernels: to
    /// be done again until the leaf is empty.
    ///
    /// # Errors
    /// When it cannot be written, or the members cannot be read.
    pub fn kill(&self) -> Result<(), CgroupError> {
        kill::kill(&self.dir)
    }

    /// Whether anybody is in it.
    ///
    /// # Errors
    /// When cgroup.events cannot be read.
    pub fn population(&self) -> Result<Population, CgroupError> {
        population(&self.dir)
    }

    /// Has its members stand still, until [`Self::thaw`] or their end.
    ///
    /// # Errors
    /// When `cgroup.freeze` cannot be written or does not stick.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        freezer::freeze(&self.dir)
    }

    /// Has its members go on, where no cgroup above holds them still.
    ///
    /// # Errors
    /// As [`Self::freeze`].
    pub fn thaw(&self) -> Result<(), CgroupError> {
        freezer::thaw(&self.dir)
    }

    /// The cgroup, itself or one above, whose `cgroup.freeze` holds it still; `None` where none does.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn frozen_by(&self) -> Result<Option<String>, CgroupError> {
        if is_told_to_freeze(&self.dir)? {
            return Ok(Some(self.cgroup.path.clone()));
        }
        Ok(self.above()?.told_to_freeze()?.map(str::to_owned))
    }

    /// Its processes, zombies not counted.
    ///
    /// # Errors
    /// When cgroup.procs cannot be read.
    pub fn procs(&self) -> Result<Vec<u32>, CgroupError> {
        Ok(self.dir.procs()?.unwrap_or_default())
    }

    /// Opens what a sample of its use is read from.
    ///
    /// # Errors
    /// When a file is there and cannot be opened.
    pub fn sampler(&self) -> Result<Sampler, CgroupError> {
        Sampler::open(&self.dir)
    }

    /// Opens a file that reports changes as POLLPRI; read it once before polling, and again after
    /// each report. `None` where this kernel lacks it.
    ///
    /// # Errors
    /// When it is there and cannot be opened.
    pub fn event_file(&self, file: EventFile) -> Result<Option<File>, CgroupError> {
        match self.dir.open_file(file.name(), OFlags::RDONLY) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(CgroupError::read(self.dir.file_path(file.name()), errno)),
        }
    }

    /// Tries once to remove it. Counters are gone with it: read them first.
    ///
    /// # Errors
    /// Other than EBUSY; a leaf that is gone already counts as removed.
    pub fn try_remove(&self) -> Result<Removal, CgroupError> {
        let removal = tree::try_remove(self.dir.path())?;
        if removal == Removal::Removed {
            frame::remove_around(self.dir.path());
        }
        Ok(removal)
    }

    /// Removes it, trying again for so long while the kernel says EBUSY. Blocks; an event loop calls
    /// [`Self::try_remove`] from its own timer.
    ///
    /// # Errors
    /// When it cannot be removed by then.
    pub fn remove(&self, within: Duration) -> Result<(), CgroupError> {
        tree::remove(self.dir.path(), within)?;
        frame::remove_around(self.dir.path());
        Ok(())
    }
}

impl AsFd for LeafCgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

pub(super) fn population(dir: &Dir) -> Result<Population, CgroupError> {
    let events = dir.flat_keyed("cgroup.events");
    match events {
        Ok(Some(events)) => match events.get("populated") {
            Some(0) => Ok(Population::Empty),
            Some(_) => Ok(Population::Populated),
            None => Err(CgroupError::Malformed {
                path: dir.file_path("cgroup.events"),
                text: format!("{events:?}"),
                expected: "a list with populated",
            }),
        },
        Ok(None) => Err(CgroupError::Absent {
            path: dir.file_path("cgroup.events"),
            mend: "only the root of the cgroup tree has none, and that is no leaf",
        }),
        Err(CgroupError::Read { source, .. }) if tree::is(&source, Errno::NODEV) => {
            Ok(Population::Empty)
        }
        Err(error) => Err(error),
    }
}

/// Where a leaf of that id is, should it be made in a place.
pub fn leaf_path(place: &Place, run_id: Uuid) -> String {
    child(&place.runs(), &run_id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::placement::Placement;

    fn place(root: &Path) -> Place {
        std::fs::create_dir_all(root.join("sandbox/runs")).expect("mkdir");
        Place {
            mount: Mount::of_test(root),
            placement: Placement::Bare("/sandbox".to_owned()),
            base: "/sandbox".to_owned(),
            degraded: Vec::new(),
        }
    }

    #[test]
    fn a_leaf_is_never_reused() {
        let temp = tempfile::tempdir().expect("temp dir");
        let place = place(temp.path());
        let run_id = Uuid::from_u128(1);
        std::fs::create_dir(place.mount.dir(&leaf_path(&place, run_id)).expect("inside"))
            .expect("mkdir");
        let owner = Owner::of(&Proc::default(), std::process::id(), None).expect("we run");
        let error = LeafCgroup::create(&place, run_id, &owner).expect_err("it exists");
        assert!(matches!(error, CgroupError::LeafExists { .. }), "{error}");
    }

    #[test]
    fn the_id_of_a_leaf_is_the_inode_of_its_directory() {
        use std::os::unix::fs::MetadataExt;
        let temp = tempfile::tempdir().expect("temp dir");
        let place = place(temp.path());
        let leaf = LeafCgroup::open(&place.mount, "/sandbox/runs").expect("it is there");
        let inode = std::fs::metadata(temp.path().join("sandbox/runs"))
            .expect("stat")
            .ino();
        assert_eq!(leaf.cgroup().id, inode);
        let ancestors = leaf.ancestors().expect("they are there");
        let paths: Vec<&str> = ancestors
            .iter()
            .map(|ancestor| ancestor.path.as_str())
            .collect();
        assert_eq!(paths, ["/sandbox", "/"]);
    }

    #[test]
    fn a_leaf_that_is_gone_is_empty_and_removed() {
        let temp = tempfile::tempdir().expect("temp dir");
        let place = place(temp.path());
        let leaf = LeafCgroup::open(&place.mount, "/sandbox/runs").expect("it is there");
        std::fs::write(
            temp.path().join("sandbox/runs/cgroup.events"),
            "populated 1\nfrozen 1\n",
        )
        .expect("write");
        assert_eq!(leaf.population().expect("read"), Population::Populated);
        std::fs::remove_dir_all(leaf.path()).expect("rm");
        assert_eq!(leaf.population().expect("gone"), Population::Empty);
        assert_eq!(leaf.try_remove().expect("gone"), Removal::Removed);
    }

    #[test]
    fn a_leaf_without_populated_is_never_taken_for_empty() {
        let temp = tempfile::tempdir().expect("temp dir");
        let place = place(temp.path());
        let leaf = LeafCgroup::open(&place.mount, "/sandbox/runs").expect("it is there");
        assert!(leaf.population().is_err());
        std::fs::write(temp.path().join("sandbox/runs/cgroup.events"), "frozen 0\n")
            .expect("write");
        assert!(leaf.population().is_err());
    }

    #[test]
    fn whoever_holds_it_still_is_named() {
        let temp = tempfile::tempdir().expect("temp dir");
        let place = place(temp.path());
        let leaf = LeafCgroup::open(&place.mount, "/sandbox/runs").expect("it is there");
        let freeze = |cgroup: &str, told: &str| {
            std::fs::write(temp.path().join(cgroup).join("cgroup.freeze"), told).expect("write");
            leaf.frozen_by().expect("read")
        };
        assert_eq!(freeze("sandbox/runs", "0\n"), None);
        assert_eq!(freeze("sandbox", "1\n").as_deref(), Some("/sandbox"));
        assert_eq!(
            freeze("sandbox/runs", "1\n").as_deref(),
            Some("/sandbox/runs")
        );
    }
}
