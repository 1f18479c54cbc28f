//! The cgroups above one, held open: their limits and counters hold for it, too.
//!
//! One that has a cgroup in it can be neither removed nor renamed (cgroup v2 has no rename), so that each needs to
//! be opened but once. The root of the tree has no limits, counters or freezer at all.

use super::caller_limit::Limited;
use super::control;
use super::error::CgroupError;
use super::files::{CpuMax, Dir, Max};
use super::freezer::is_told_to_freeze;
use super::mount::Mount;
use super::stats::{self, Reading};
use crate::evidence::{CgroupRef, EventCounters};
use crate::limits::{Enclosing, EnclosingLimits};

/// The cgroups above one, nearest first, up to the root of the mount.
#[derive(Debug)]
pub(super) struct Above(Vec<Ancestor>);

#[derive(Debug)]
struct Ancestor {
    cgroup: String,
    dir: Dir,
    rank: Rank,
}

/// Whether a cgroup has interface files that are about its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    /// The root of the tree: it has none, nor a `cgroup.type`, by which it is known.
    Root,
    /// Any other, be it the root of what a container sees.
    Below,
}

impl Above {
    /// Opens them.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub(super) fn open(mount: &Mount, cgroup: &str) -> Result<Self, CgroupError> {
        let opened = mount.ancestors(cgroup).into_iter().map(|cgroup| {
            let dir = Dir::open(mount.dir(&cgroup)?)?;
            let rank = match cgroup.as_str() {
                "/" if !dir.has("cgroup.type") => Rank::Root,
                _ => Rank::Below,
            };
            Ok(Ancestor { cgroup, dir, rank })
        });
        Ok(Self(opened.collect::<Result<_, _>>()?))
    }

    /// Their paths and ids.
    ///
    /// # Errors
    /// When one cannot be looked at.
    pub(super) fn cgroups(&self) -> Result<Vec<CgroupRef>, CgroupError> {
        let named = |ancestor: &Ancestor| {
            Ok(CgroupRef {
                path: ancestor.cgroup.clone(),
                id: ancestor.dir.id()?,
            })
        };
        self.0.iter().map(named).collect()
    }

    /// Their event counters, in the same order.
    pub(super) fn counters(&self) -> Reading<Vec<EventCounters>> {
        let mut all = Reading {
            value: Vec::new(),
            failures: Vec::new(),
        };
        for Ancestor { dir, rank, .. } in &self.0 {
            all.value.push(match rank {
                Rank::Root => EventCounters::default(),
                Rank::Below => {
                    let counters = stats::counters(dir);
                    all.failures.extend(counters.failures);
                    counters.value
                }
            });
        }
        all
    }

    /// The tightest limit of each kind; of two equal ones the nearer.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn limits(&self) -> Result<EnclosingLimits, CgroupError> {
        let mut tightest = EnclosingLimits::default();
        for Ancestor { cgroup, dir, .. } in self.below_the_root() {
            let limits = control::effective(dir)?;
            tighten(&mut tightest.memory_bytes, limits.memory_bytes, cgroup);
            tighten(&mut tightest.swap_bytes, limits.swap_bytes, cgroup);
            tighten(&mut tightest.cpus, limits.cpus, cgroup);
            tighten(&mut tightest.pids, limits.pids, cgroup);
        }
        Ok(tightest)
    }

    /// The nearest that limits memory or CPU.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn nearest_limit(&self) -> Result<Option<(Limited, &str, &Dir)>, CgroupError> {
        for Ancestor { cgroup, dir, .. } in self.below_the_root() {
            let is_limited = |name| -> Result<bool, CgroupError> {
                Ok(dir.max(name)?.and_then(Max::limit).is_some())
            };
            let limited = if is_limited("memory.max")? || is_limited("memory.high")? {
                Limited::Memory
            } else if dir.cpu_max()?.and_then(CpuMax::cores).is_some() || has_own_cores(dir)? {
                Limited::Cpu
            } else {
                continue;
            };
            return Ok(Some((limited, cgroup, dir)));
        }
        Ok(None)
    }

    /// The nearest whose members are told to stand still.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn told_to_freeze(&self) -> Result<Option<&str>, CgroupError> {
        for Ancestor { cgroup, dir, .. } in self.below_the_root() {
            if is_told_to_freeze(dir)? {
                return Ok(Some(cgroup));
            }
        }
        Ok(None)
    }

    fn below_the_root(&self) -> impl Iterator<Item = &Ancestor> {
        let ancestors = self.0.iter();
        ancestors.filter(|ancestor| ancestor.rank == Rank::Below)
    }
}

/// Whether a cgroup has a set of cores of its own; an empty one is that of its parent.
fn has_own_cores(dir: &Dir) -> Result<bool, CgroupError> {
    Ok(dir
        .read("cpuset.cpus")?
        .is_some_and(|cores| !cores.trim().is_empty()))
}

fn tighten<T: PartialOrd>(tightest: &mut Option<Enclosing<T>>, value: Option<T>, cgroup: &str) {
    if let Some(value) = value
        && tightest
            .as_ref()
            .is_none_or(|tightest| value < tightest.value)
    {
        *tightest = Some(Enclosing {
            value,
            cgroup: cgroup.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_nearest_limit_is_one_of_memory_or_cpu_whatever_file_has_it() {
        for (file, text, expected) in [
            ("memory.max", "4096\n", Some(Limited::Memory)),
            ("memory.high", "4096\n", Some(Limited::Memory)),
            ("cpu.max", "50000 100000\n", Some(Limited::Cpu)),
            ("cpuset.cpus", "0-1\n", Some(Limited::Cpu)),
            ("cpuset.cpus", "\n", None),
            ("cpu.max", "max 100000\n", None),
            ("pids.max", "7\n", None),
        ] {
            let temp = tempfile::tempdir().expect("temp dir");
            fs::create_dir_all(temp.path().join("a/b")).expect("mkdir");
            fs::write(temp.path().join("a").join(file), text).expect("write");
            let mount = Mount::of_test(temp.path());
            let above = Above::open(&mount, "/a/b/leaf").expect("they are there");
            let found = above.nearest_limit().expect("read");
            let found = found.map(|(limited, cgroup, _)| (limited, cgroup));
            assert_eq!(found, expected.map(|limited| (limited, "/a")), "{file}");
        }
    }

    #[test]
    fn the_tightest_ancestor_wins_and_of_equals_the_nearest() {
        let temp = tempfile::tempdir().expect("temp dir");
        fs::create_dir_all(temp.path().join("a/b/leaf")).expect("mkdir");
        let write = |name, text| fs::write(temp.path().join(name), text).expect("write");
        write("a/memory.max", "1048576\n");
        write("a/b/memory.max", "2097152\n");
        write("a/cpu.max", "50000 100000\n");
        write("a/b/cpu.max", "100000 200000\n");
        write("a/b/leaf/pids.max", "5\n");
        write("pids.max", "7\n");
        let mount = Mount::of_test(temp.path());
        let limits = || {
            let above = Above::open(&mount, "/a/b/leaf").expect("they are there");
            above.limits().expect("read")
        };
        let found = limits();
        let memory = found.memory_bytes.expect("limited");
        assert_eq!((memory.value, memory.cgroup.as_str()), (1_048_576, "/a"));
        let cpus = found.cpus.expect("limited");
        assert_eq!((cpus.value, cpus.cgroup.as_str()), (0.5, "/a/b"));
        // The leaf's own limit does not enclose it, and the root of the tree has none.
        assert_eq!(found.pids, None);

        write("cgroup.type", "domain\n");
        let pids = limits().pids.expect("limited");
        assert_eq!((pids.value, pids.cgroup.as_str()), (7, "/"));
    }
}
