//! Ending processes: the members of a leaf, and those that left it.
//!
//! A signal goes to a process by its pidfd, after a second look that it is still who it was. The
//! leaf is emptied by `cgroup.kill`, written again until nobody is left, since a fork may race it
//! on older kernels.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::libc;
use sandbox_ebpf as wire;
use tokio::io::{Interest, unix::AsyncFd};

use super::guardian::Guardian;
use crate::{
    cgroup::{CgroupError, EventFile, LeafCgroup, Population},
    procfs::Stat,
    sys::{child, pidfd, readiness},
};

/// How long a leaf may take to become empty; what is left then hangs in the kernel.
const EMPTY_WITHIN: Duration = Duration::from_secs(30);
/// Members that are told at a time: each takes a descriptor.
const AT_A_TIME: usize = 128;
/// Between two looks; the first ones come sooner.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Sends a signal to each member of the leaf; returns how many got it.
///
/// # Errors
/// Where the leaf cannot be read.
pub(super) fn signal_members(leaf: &LeafCgroup, signal: i32) -> Result<usize, CgroupError> {
    let mut told = 0;
    for some in leaf.procs()?.chunks(AT_A_TIME) {
        let members: Vec<(u32, OwnedFd)> = some
            .iter()
            .filter_map(|pid| Some((*pid, pidfd::open(i32::try_from(*pid).ok()?).ok()?)))
            .collect();
        // A pid that is still listed belongs to the process that its descriptor names.
        let still = leaf.procs()?;
        told += members
            .into_iter()
            .filter(|(pid, _)| still.contains(pid))
            .filter(|(_, fd)| pidfd::send_signal(fd.as_fd(), signal).is_ok())
            .count();
    }
    Ok(told)
}

/// Kills everything in the leaf until it is empty. Returns whether it became so. What fails once is
/// tried again: nobody else would end what is still running.
///
/// # Errors
/// Where the leaf could not be written in the end.
pub(super) async fn empty(leaf: &LeafCgroup) -> Result<Population, CgroupError> {
    let until = Instant::now() + EMPTY_WITHIN;
    let mut pause = Duration::from_millis(1);
    // Without a descriptor to spare, the pauses alone have to do.
    let events = leaf
        .event_file(EventFile::Cgroup)
        .ok()
        .flatten()
        .and_then(|file| readiness::watch(&file, Interest::PRIORITY).ok());
    loop {
        if matches!(leaf.population(), Ok(Population::Empty)) {
            return Ok(Population::Empty);
        }
        let killed = leaf.kill();
        if Instant::now() > until {
            return killed.map(|()| Population::Populated);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = changed(events.as_ref()) => {}
        }
        pause = (pause * 2).min(LOOK_EVERY);
    }
}

/// Waits for children of this process that are neither main nor the guardian: main can have it have some
/// (CLONE_PARENT), and until somebody waits for them they count in the leaf.
pub(super) fn reap_strays(main_pid: Option<u32>, mut guardian: Option<&mut Guardian>) {
    while let Some(pid) = child::ended() {
        let guardian = guardian.as_mut().filter(|guardian| guardian.pid() == pid);
        let is_taken = match guardian {
            // How it ended is kept for the record.
            Some(guardian) => guardian.end().is_some(),
            // Main's end is for the event loop, which sees it next.
            None => Some(pid) != main_pid && child::take_away(pid).is_ok(),
        };
        if !is_taken {
            return;
        }
    }
}

/// Waits for a change of `cgroup.events`, such as its last process ending.
async fn changed(events: Option<&AsyncFd<OwnedFd>>) {
    match events {
        Some(events) => {
            if let Ok(mut ready) = events.ready(Interest::PRIORITY).await {
                ready.clear_ready();
            }
        }
        None => std::future::pending().await,
    }
}

/// Kills a process that left the leaf, if it is still who it was. Returns whether it is gone; where
/// that cannot be told it is not.
pub(super) fn kill_fugitive(key: &wire::ProcessKey) -> bool {
    try_kill_fugitive(key).unwrap_or_else(|error| is_no_such_process(&error))
}

fn try_kill_fugitive(key: &wire::ProcessKey) -> io::Result<bool> {
    let pid = i32::try_from(key.tgid).map_err(io::Error::other)?;
    let fd = pidfd::open(pid)?;
    if !Stat::of(key.tgid)?.started_at(key.start_time_ns) {
        return Ok(true);
    }
    pidfd::send_signal(fd.as_fd(), libc::SIGKILL)?;
    Ok(!Stat::of(key.tgid)?.runs())
}

/// ENOENT from opening /proc/PID/stat, ESRCH from reading it and from the calls on pids.
fn is_no_such_process(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
}
