//! The process of the unit that holds the host's runs: it cancels them all when that is stopped, be it
//! because the host goes down.
//!
//! It has nothing to do while they go on, so that there is nothing that could go wrong with it.

use std::{
    collections::HashSet,
    io,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use nix::libc::{SIGKILL, SIGTERM};

use super::{control, manager};
use crate::{
    cgroup::{CgroupError, HeldLeaf, HeldRuns, Liveness, Proc},
    say::say_of,
    supervise::{self, Control, Meaning, Signals, block_signals},
    sys::pidfd,
};

/// The unit, for people.
const UNIT: &str = "sandbox-runs.service";
/// How long what is left of runs that are over may take to end once it was asked to: their supervisors give
/// completion hooks 10 s.
const ENDS_WITHIN: Duration = Duration::from_secs(12);
/// How often it is looked whether all have ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why runs cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The unit's cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Signals or the event loop.
    #[error("listening to signals: {0}")]
    Signals(#[from] io::Error),
}

/// Holds the unit until it is stopped, then cancels its runs and waits until all that belongs to them has ended. How
/// long that may take is the unit's to say (`TimeoutStopSec=`).
///
/// # Errors
/// Where it was not started as that unit's, or the cgroups cannot be read.
pub fn hold() -> Result<(), HoldError> {
    let held = HeldRuns::find()?;
    block_signals()?;
    supervise::runtime()?.block_on(async {
        let signals = Signals::open()?;
        manager::ready();
        while signals.next().await?.meaning != Meaning::Cancel {}
        manager::stopping("waiting for the runs that are cancelled");
        cancel_all(&held).await
    })
}

async fn cancel_all(held: &HeldRuns) -> Result<(), HoldError> {
    let mut told = HashSet::new();
    let mut over_since: Option<Instant> = None;
    loop {
        let leaves = held.leaves()?;
        for leaf in &leaves {
            // One that has no owner yet is told later.
            if !told.contains(&leaf.name) && is_told(leaf) {
                told.insert(leaf.name.clone());
            }
        }
        if leaves.is_empty() {
            let left = held.supervisors()?;
            if left.is_empty() {
                return Ok(());
            }
            // Of runs that are over: their completion hooks, and what those have left behind.
            if over_since.is_none_or(|since| since.elapsed() > ENDS_WITHIN) {
                let signal = over_since.map_or(SIGTERM, |_| SIGKILL);
                over_since = Some(Instant::now());
                for pidfd in &left {
                    // It may have ended just now.
                    let _ = pidfd::send_signal(pidfd.as_fd(), signal);
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Tells a run's supervisor, by its socket where it has one, else by SIGTERM.
fn is_told(leaf: &HeldLeaf) -> bool {
    let order = Control::Kill {
        by: UNIT.to_owned(),
        pid: std::process::id(),
        reason: Some("the unit is being stopped".to_owned()),
        // Where the host goes down, a client has passed the end of its session on before.
        is_patient: true,
    };
    let by_socket = leaf
        .name
        .parse()
        .map(|run_id| control::order(run_id, &order));
    match by_socket {
        Ok(Ok(Some(Ok(_)))) => true,
        Ok(Ok(None)) | Err(_) => is_signalled(leaf),
        Ok(Ok(Some(Err(problem)))) => {
            say_of(&leaf.name, problem);
            is_signalled(leaf)
        }
        Ok(Err(error)) => {
            // It has heard, if it does not hang; and a second order would take its grace.
            say_of(&leaf.name, error);
            true
        }
    }
}

fn is_signalled(leaf: &HeldLeaf) -> bool {
    let Some(supervisor) = leaf.supervisor else {
        return false;
    };
    let Ok(pidfd) = i32::try_from(supervisor.pid)
        .map_err(io::Error::other)
        .and_then(pidfd::open)
    else {
        return false;
    };
    // The descriptor is that process's now, whatever becomes of its pid.
    match Proc::default().liveness(supervisor) {
        Ok(Liveness::Alive) => pidfd::send_signal(pidfd.as_fd(), SIGTERM).is_ok(),
        // Its guardian ends the run.
        Ok(Liveness::Dead) | Err(_) => false,
    }
}
