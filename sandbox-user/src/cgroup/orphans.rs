//! Finding and removing leaves that nobody looks after any more.
//!
//! A leaf outlives its run only when supervisor and guardian both died. Its mark says who they were,
//! wherever in the tree it is; a leaf whose owner lives, cannot be seen from here or cannot be read
//! is never touched. Marks count only on root's directories, so that nobody who was delegated a
//! cgroup can have somebody else's processes killed.

use std::collections::BTreeSet;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use uuid::Uuid;

use super::error::CgroupError;
use super::files::Dir;
use super::leaf::{self, Population};
use super::mount::Mount;
use super::owner::{Liveness, Mark, Owner, Proc};
use super::unit::HOLDING;
use super::{frame, kill, placement, tree};

/// How deep the tree is searched; systemd's user units nest some eight levels.
const MAX_DEPTH: usize = 24;
/// How long one orphan's processes may take to die.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// Between mkdir and mark there is a moment; a leaf without a mark is left alone this long.
const UNMARKED_GRACE: Duration = Duration::from_secs(60);

/// A leaf without an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Its cgroup.
    pub cgroup: String,
    /// Its id.
    pub id: u64,
    /// Who owned it; `None` where its supervisor died before it was marked.
    pub owner: Option<Owner>,
}

/// What a search came upon.
#[derive(Debug, Default)]
pub struct Survey {
    /// Leaves to be removed.
    pub orphans: Vec<Orphan>,
    /// Leaves of live runs.
    pub live: Vec<String>,
    /// Frames of runs from long ago: one without a leaf is what a run left that was killed as it made them.
    frames: Vec<PathBuf>,
    /// What could not be judged, and so is left alone.
    pub failures: Vec<CgroupError>,
}

/// What became of an orphan that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposal {
    /// It is gone, by this.
    Removed,
    /// Somebody else saw to it.
    Left,
}

/// Whose a leaf is once somebody wanted to adopt it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// The new owner's.
    Adopted,
    /// Somebody else's, who lives; or it is gone.
    Owned,
}

impl Survey {
    /// Removes the frames that nobody is in.
    pub fn remove_empty_frames(&self) {
        self.frames.iter().for_each(|frame| frame::remove(frame));
    }
}

/// Searches the whole tree for leaves, changing nothing.
pub fn survey(mount: &Mount, proc: &Proc) -> Survey {
    let mut found = Survey::default();
    visit(mount, proc, &mount.subtree, 0, &mut found);
    found
}

/// Which of these cgroups there are, by their ids; `None` where only a part of the tree can be seen.
pub fn present(mount: &Mount, wanted: &BTreeSet<u64>) -> Option<BTreeSet<u64>> {
    /// PROC_CGROUP_INIT_INO (include/linux/proc_ns.h): the first cgroup namespace.
    const FIRST_NAMESPACE: u64 = 0xEFFF_FFFB;
    let namespace = std::fs::metadata("/proc/self/ns/cgroup").ok()?.ino();
    if mount.subtree != "/" || namespace != FIRST_NAMESPACE {
        return None;
    }
    let mut found = BTreeSet::new();
    find(&mount.root, wanted, &mut found).ok()?;
    Some(found)
}

/// Looks for cgroups below one, until all are found: hundreds of live leaves are one directory.
fn find(path: &Path, wanted: &BTreeSet<u64>, found: &mut BTreeSet<u64>) -> Result<(), CgroupError> {
    let below = match children(path) {
        Ok(below) => below,
        Err(CgroupError::Read { source, .. }) if is_gone(&source) => return Ok(()),
        Err(error) => return Err(error),
    };
    found.extend(
        below
            .iter()
            .map(|child| child.id)
            .filter(|id| wanted.contains(id)),
    );
    for child in below.iter().filter(|child| !wanted.contains(&child.id)) {
        if found.len() == wanted.len() {
            break;
        }
        find(&path.join(&child.name), wanted, found)?;
    }
    Ok(())
}

fn visit(mount: &Mount, proc: &Proc, cgroup: &str, depth: usize, found: &mut Survey) {
    let judged = mount.dir(cgroup).and_then(|path| {
        let verdict = judge(proc, cgroup, &path)?;
        Ok((path, verdict))
    });
    let path = match judged {
        Ok((path, Verdict::NoLeaf)) => path,
        Ok((_, Verdict::Live)) => return found.live.push(cgroup.to_owned()),
        Ok((_, Verdict::Orphan(orphan))) => return found.orphans.push(orphan),
        // A cgroup that went meanwhile is nobody's orphan.
        Err(CgroupError::Read { source, .. }) if is_gone(&source) => return,
        Err(error) => return found.failures.push(error),
    };
    if depth == MAX_DEPTH {
        return;
    }
    let frame = cgroup
        .rsplit_once('/')
        .and_then(|(_, name)| frame::run_of(name));
    if frame.is_some_and(|run_id| is_from_long_ago(run_id, SystemTime::now())) {
        found.frames.push(path.clone());
    }
    match children(&path) {
        Ok(below) => {
            for child in below {
                visit(
                    mount,
                    proc,
                    &placement::child(cgroup, &child.name),
                    depth + 1,
                    found,
                );
            }
        }
        Err(CgroupError::Read { source, .. }) if is_gone(&source) => {}
        Err(error) => found.failures.push(error),
    }
}

enum Verdict {
    NoLeaf,
    Live,
    Orphan(Orphan),
}

fn judge(proc: &Proc, cgroup: &str, path: &Path) -> Result<Verdict, CgroupError> {
    let mark = Mark::at(path)?;
    if mark == Mark::Unmarked && !is_abandoned(cgroup, SystemTime::now()) {
        return Ok(Verdict::NoLeaf);
    }
    let dir = std::fs::metadata(path).map_err(|error| CgroupError::read(path, error))?;
    if dir.uid() != effective_uid() {
        return Ok(Verdict::NoLeaf);
    }
    let orphan = |owner| Orphan {
        cgroup: cgroup.to_owned(),
        id: dir.ino(),
        owner,
    };
    match mark {
        Mark::Owned(owner) => Ok(match owner.liveness(proc)? {
            Liveness::Alive => Verdict::Live,
            Liveness::Dead => Verdict::Orphan(orphan(Some(owner))),
        }),
        Mark::Unmarked => Ok(match leaf::population(&Dir::open(path)?)? {
            Population::Empty => Verdict::Orphan(orphan(None)),
            Population::Populated => Verdict::NoLeaf,
        }),
        Mark::Unreadable(text) => Err(CgroupError::Malformed {
            path: path.to_owned(),
            text,
            expected: "an owner's mark that this version knows; remove the leaf with the version that made it",
        }),
    }
}

/// Whether a cgroup is named like a leaf of ours that should long have been marked: `…/runs/UUIDv7`
/// in a base of ours, whose time (its first 48 bits) is a minute back.
fn is_abandoned(cgroup: &str, now: SystemTime) -> bool {
    let Some((runs, name)) = cgroup.rsplit_once('/') else {
        return false;
    };
    let Some(base) = runs.strip_suffix(&format!("/{}", placement::RUNS)) else {
        return false;
    };
    let is_ours = [placement::BARE_BASE, HOLDING]
        .iter()
        .any(|ours| base.ends_with(ours));
    if !(is_ours || base.contains(&format!("{}/", placement::SLICE)) || frame::is_of(base, name)) {
        return false;
    }
    Uuid::parse_str(name).is_ok_and(|run_id| is_from_long_ago(run_id, now))
}

/// Whether an id was made so long ago that what it is of is marked by now.
fn is_from_long_ago(run_id: Uuid, now: SystemTime) -> bool {
    let Some(made) = run_id.get_timestamp() else {
        return false;
    };
    let (seconds, nanos) = made.to_unix();
    let made = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
    now.duration_since(made)
        .is_ok_and(|age| age > UNMARKED_GRACE)
}

/// A cgroup below another.
pub(super) struct Child {
    /// The last part of its path.
    pub(super) name: String,
    /// Its inode's number, which is its id (fs/kernfs/dir.c, kernfs_fop_readdir).
    id: u64,
}

/// The cgroups right below one.
pub(super) fn children(path: &Path) -> Result<Vec<Child>, CgroupError> {
    let fail = |error| CgroupError::read(path, error);
    let mut children = Vec::new();
    // Two links and one for each cgroup below (fs/kernfs/inode.c, kernfs_refresh_inode). Other file systems may have
    // one alone.
    if rustix::fs::stat(path).is_ok_and(|stat| stat.st_nlink == 2) {
        return Ok(children);
    }
    for entry in std::fs::read_dir(path).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let id = entry.ino();
        if entry.file_type().map_err(fail)?.is_dir()
            && id != 0
            && let Ok(name) = entry.file_name().into_string()
        {
            children.push(Child { name, id });
        }
    }
    Ok(children)
}

/// Gives an orphan an owner, which is moved to where its leaf's guardian belongs, unless it has one by now.
///
/// # Errors
/// Where it cannot be marked.
pub fn adopt(
    mount: &Mount,
    proc: &Proc,
    orphan: &Orphan,
    owner: &Owner,
) -> Result<Adoption, CgroupError> {
    let dir = match mount.dir(&orphan.cgroup).and_then(Dir::open) {
        Ok(dir) => dir,
        Err(CgroupError::Read { source, .. }) if is_gone(&source) => return Ok(Adoption::Owned),
        Err(error) => return Err(error),
    };
    if is_owned(&dir, proc)? {
        return Ok(Adoption::Owned);
    }
    owner.mark(&dir)?;
    // To where the lost guardian was: a scope of systemd's would end, and take the leaf's counters with it,
    // once the leaf is empty. Where there is no such place any more it is as good as any other.
    let base = orphan.cgroup.rsplit_once(&format!("/{}/", placement::RUNS));
    if let Some((base, _)) = base
        && let Ok(place) = mount.dir(&placement::child(base, placement::SUPERVISOR))
    {
        let _ = tree::move_process(&place, owner.supervisor.pid);
    }
    Ok(Adoption::Adopted)
}

fn is_owned(dir: &Dir, proc: &Proc) -> Result<bool, CgroupError> {
    match Mark::of(dir)? {
        Mark::Owned(owner) => Ok(owner.liveness(proc)? == Liveness::Alive),
        Mark::Unmarked | Mark::Unreadable(_) => Ok(false),
    }
}

/// Kills and removes an orphan, unless it has an owner by now, or is gone: then it was left to others. Takes
/// up to 5 s where its processes will not die; blocks.
///
/// # Errors
/// Where it cannot be removed.
pub fn remove(mount: &Mount, proc: &Proc, orphan: &Orphan) -> Result<Disposal, CgroupError> {
    let path = mount.dir(&orphan.cgroup)?;
    let dir = match Dir::open(&path) {
        Ok(dir) => dir,
        Err(CgroupError::Read { source, .. }) if is_gone(&source) => return Ok(Disposal::Left),
        Err(error) => return Err(error),
    };
    if is_owned(&dir, proc)? {
        return Ok(Disposal::Left);
    }
    let deadline = Instant::now() + KILL_TIMEOUT;
    while leaf::population(&dir)? == Population::Populated {
        if Instant::now() >= deadline {
            return Err(CgroupError::Remove {
                path,
                source: Errno::BUSY.into(),
            });
        }
        // Frozen processes die of it too, forks may race it: until nobody is left.
        kill::kill(&dir)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    remove_bottom_up(&path, 0)?;
    frame::remove_around(&path);
    Ok(Disposal::Removed)
}

fn remove_bottom_up(path: &Path, depth: usize) -> Result<(), CgroupError> {
    if depth < MAX_DEPTH {
        let below = match children(path) {
            Ok(below) => below,
            Err(CgroupError::Read { source, .. }) if is_gone(&source) => return Ok(()),
            Err(error) => return Err(error),
        };
        for child in below {
            remove_bottom_up(&path.join(child.name), depth + 1)?;
        }
    }
    tree::remove(path, Duration::from_secs(1))
}

pub(super) fn is_gone(error: &std::io::Error) -> bool {
    [Errno::NOENT, Errno::NODEV]
        .into_iter()
        .any(|errno| tree::is(error, errno))
}

fn effective_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::owner::tests::FakeProc;

    const RUN: &str = "019aa3c2-5e00-7000-8000-000000000001";

    #[test]
    fn only_a_run_s_name_in_a_base_of_ours_and_an_old_one_counts_as_abandoned() {
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        let table = [
            (format!("/sandbox/runs/{RUN}"), true),
            (
                format!("/sandbox.slice/sandbox-{RUN}.scope/runs/{RUN}"),
                true,
            ),
            (
                format!("/system.slice/sandbox-runs.service/runs/{RUN}"),
                true,
            ),
            (format!("/job_7/user/sandbox-{RUN}/runs/{RUN}"), true),
            (format!("/a.slice/sandbox-{RUN}.scope/runs/{RUN}"), true),
            (format!("/system.slice/other.service/runs/{RUN}"), false),
            (format!("/sandbox/{RUN}"), false),
            ("/sandbox/runs/build".to_owned(), false),
            // A version 4 UUID carries no time.
            (
                "/sandbox/runs/9f2d6e1c-3b7a-4c55-8a51-000000000001".to_owned(),
                false,
            ),
        ];
        for (cgroup, expected) in table {
            assert_eq!(is_abandoned(&cgroup, later), expected, "{cgroup}");
        }
        let made = Uuid::parse_str(RUN)
            .expect("a UUID")
            .get_timestamp()
            .expect("v7")
            .to_unix()
            .0;
        let soon = SystemTime::UNIX_EPOCH + Duration::from_secs(made + 30);
        assert!(!is_abandoned(&format!("/sandbox/runs/{RUN}"), soon));
    }

    #[test]
    fn a_frame_without_a_leaf_is_removed_where_it_is_old_and_one_with_a_leaf_stays() {
        let temp = tempfile::tempdir().expect("temp dir");
        let frame = |run: &str| temp.path().join(format!("job/sandbox-{run}"));
        let other = RUN.replace("001", "002");
        let young = Uuid::now_v7().to_string();
        for path in [
            frame(RUN).join("runs"),
            frame(&other).join("runs").join(&other),
            frame(&young),
        ] {
            std::fs::create_dir_all(path).expect("mkdir");
        }
        survey(&Mount::of_test(temp.path()), &FakeProc::new().proc()).remove_empty_frames();
        let left = [RUN, &other, &young].map(|run| frame(run).exists());
        assert_eq!(left, [false, true, true]);
    }

    #[test]
    fn an_unmarked_leaf_is_an_orphan_only_when_it_is_empty() {
        let temp = tempfile::tempdir().expect("temp dir");
        let leaf = temp.path().join("sandbox/runs").join(RUN);
        std::fs::create_dir_all(&leaf).expect("mkdir");
        let fake = FakeProc::new();
        let populated = |text: &str| {
            std::fs::write(leaf.join("cgroup.events"), text).expect("write");
            survey(&Mount::of_test(temp.path()), &fake.proc())
        };
        assert!(populated("populated 1\n").orphans.is_empty());
        let found = populated("populated 0\n");
        assert_eq!(found.orphans.len(), 1, "{found:?}");
        assert_eq!(found.orphans[0].cgroup, format!("/sandbox/runs/{RUN}"));
    }

    #[test]
    fn cgroups_are_found_by_their_ids_wherever_they_are_and_those_that_are_gone_are_not() {
        let temp = tempfile::tempdir().expect("temp dir");
        let id = |path: &str| {
            std::fs::create_dir_all(temp.path().join(path)).expect("mkdir");
            std::fs::metadata(temp.path().join(path))
                .expect("it is there")
                .ino()
        };
        let there = BTreeSet::from([
            id("sandbox/runs/a"),
            id("sandbox/runs/b"),
            id("user/c/runs/d"),
        ]);
        id("user/c/runs/not-wanted");
        let mut wanted = there.clone();
        wanted.insert(u64::MAX);
        let mut found = BTreeSet::new();
        find(temp.path(), &wanted, &mut found).expect("all can be read");
        assert_eq!(found, there);
    }

    #[test]
    fn a_leaf_is_removed_with_what_is_below_it_and_nothing_beside_it() {
        let temp = tempfile::tempdir().expect("temp dir");
        std::fs::create_dir_all(temp.path().join("runs/a/b/c")).expect("mkdir");
        std::fs::create_dir_all(temp.path().join("runs/d")).expect("mkdir");
        remove_bottom_up(&temp.path().join("runs/a"), 0).expect("removed");
        let left = children(&temp.path().join("runs")).expect("read");
        assert!(matches!(&left[..], [child] if child.name == "d"));
    }
}
