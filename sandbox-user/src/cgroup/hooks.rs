//! Where completion hooks run: each in a cgroup of its own in `hooks`, beside the leaves.
//!
//! These are no leaves: no mark is on them and nothing watches them, so that a hook may have `sandbox` do something.
//! What a hook may take is the same for all, whatever its run was given: it only tells of it.

use uuid::Uuid;

use super::error::CgroupError;
use super::files::Dir;
use super::leaf::LeafCgroup;
use super::mount::Mount;
use super::placement::{BARE_BASE, RUNS, child};
use super::unit::HOLDING;
use super::{control, tree};
use crate::limits::{Limit, Limits, OomScope, Source};

/// The cgroup of all of them, in a base.
pub(super) const HOOKS: &str = "hooks";
/// `memory.max` of each; its other limits are those of a run that says nothing.
const MEMORY_BYTES: u64 = 512 << 20;
/// `memory.max` of all of them in a base.
const MEMORY_OF_ALL_BYTES: u64 = 2 << 30;

/// The base that a leaf is in: what [`super::Place::base`] was.
pub fn base_of(leaf: &str) -> Option<&str> {
    let (runs, _) = leaf.rsplit_once('/')?;
    match runs.strip_suffix(RUNS)?.strip_suffix('/')? {
        "" => Some("/"),
        base => Some(base),
    }
}

/// Whether a cgroup is a hook's in one of the host's own bases.
pub(super) fn is_hooks(cgroup: &str) -> bool {
    [BARE_BASE, HOLDING].iter().any(|base| {
        let below = cgroup.strip_prefix(&child(base, HOOKS));
        below.is_some_and(|below| below.starts_with('/'))
    })
}

/// The base that a hook's cgroup is in; `None` where that is none. Anybody who may make cgroups may name one so, and has
/// no more by it than not to be held to limits of his own.
pub(super) fn base_around(cgroup: &str) -> Option<&str> {
    let (base, below) = cgroup.split_once(&format!("/{HOOKS}/"))?;
    let name = below.split('/').next()?;
    Uuid::parse_str(name).ok()?;
    Some(if base.is_empty() { "/" } else { base })
}

/// Makes the cgroup of a run's hook in this base, with its limits.
///
/// # Errors
/// [`CgroupError::LeafExists`] where there is one; when it cannot be made, or a limit does not hold.
pub fn make(mount: &Mount, base: &str, run_id: Uuid) -> Result<LeafCgroup, CgroupError> {
    let hooks = child(base, HOOKS);
    let path = mount.dir(&hooks)?;
    tree::make(&path)?;
    tree::enable_controllers(&path)?;
    control::set_memory(&Dir::open(&path)?, Some(MEMORY_OF_ALL_BYTES))?;
    LeafCgroup::make(mount, &cgroup_of(base, run_id), |hook| {
        let limits = Limits {
            memory_bytes: Limit::new(Some(MEMORY_BYTES), Source::Default),
            ..Limits::default()
        };
        hook.limit(&limits, OomScope::Whole).map(drop)
    })
}

/// Opens the one that is there.
///
/// # Errors
/// Where it is not.
pub fn open(mount: &Mount, base: &str, run_id: Uuid) -> Result<LeafCgroup, CgroupError> {
    LeafCgroup::open(mount, &cgroup_of(base, run_id))
}

fn cgroup_of(base: &str, run_id: Uuid) -> String {
    child(&child(base, HOOKS), &run_id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_of_a_leaf_is_two_above_it() {
        assert_eq!(base_of("/sandbox/runs/7"), Some("/sandbox"));
        assert_eq!(base_of("/runs/7"), Some("/"));
        assert_eq!(base_of("/sandbox/hooks/7"), None);
        assert_eq!(base_of("/truns/7"), None);
    }

    #[test]
    fn a_hook_is_known_by_the_name_of_its_cgroup_in_whatever_base_it_is() {
        let hook = format!("hooks/{}", Uuid::now_v7());
        for base in [
            "/sandbox",
            "/sandbox.slice/sandbox-7.scope",
            "/job_1/sandbox-7",
        ] {
            assert_eq!(base_around(&format!("{base}/{hook}")), Some(base));
            assert_eq!(base_around(&format!("{base}/{hook}/below")), Some(base));
        }
        assert_eq!(base_around(&format!("/{hook}")), Some("/"));
        assert_eq!(base_around("/sandbox/hooks/7"), None);
        assert_eq!(base_around("/sandbox/runs/7"), None);
    }

    #[test]
    fn a_cgroup_that_only_looks_like_a_hooks_is_none() {
        assert!(is_hooks("/sandbox/hooks/7"));
        assert!(is_hooks("/system.slice/sandbox-runs.service/hooks/7"));
        for other in [
            "/sandbox/hooks",
            "/sandbox/hooks7/7",
            "/user.slice/sandbox/hooks/7",
        ] {
            assert!(!is_hooks(other), "{other}");
        }
    }
}
