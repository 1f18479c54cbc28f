//! SIGKILL to everybody in a cgroup, those included that `cgroup.kill` does not reach.
//!
//! `__cgroup_kill` (kernel/cgroup/cgroup.c) sends it to the leading thread of each process alone. On
//! Linux 6.1 nothing comes of that where this thread has exited while others live on: an analysis
//! could outlive every limit that way. A signal to the process as a whole ends it.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;

use nix::libc;

use super::error::CgroupError;
use super::files::Dir;
use crate::procfs::Stat;
use crate::sys::pidfd;

/// How many descriptors are held at a time.
const AT_A_TIME: usize = 256;

/// Kills all members. New ones may be born meanwhile: to be done again until nobody is left.
///
/// # Errors
/// When `cgroup.kill` cannot be written or the members cannot be read.
pub(super) fn kill(dir: &Dir) -> Result<(), CgroupError> {
    dir.write("cgroup.kill", "1")?;
    let has_lost_its_leader = |pid: &u32| Stat::of(*pid).is_ok_and(|stat| !stat.runs());
    let open = |pid: u32| {
        let process = pidfd::open(i32::try_from(pid).ok()?).ok()?;
        Some((pid, process))
    };
    let lost = members(dir)?.into_iter().filter(has_lost_its_leader);
    let mut lost = lost.filter_map(open).peekable();
    while lost.peek().is_some() {
        let some: Vec<_> = lost.by_ref().take(AT_A_TIME).collect();
        // A pid that is still listed belongs to the process that its descriptor names.
        let listed: BTreeSet<u32> = members(dir)?.into_iter().collect();
        for (_, process) in some.iter().filter(|(pid, _)| listed.contains(pid)) {
            // It may have ended just now.
            let _ = pidfd::send_signal(process.as_fd(), libc::SIGKILL);
        }
    }
    Ok(())
}

fn members(dir: &Dir) -> Result<Vec<u32>, CgroupError> {
    Ok(dir.procs()?.unwrap_or_default())
}
