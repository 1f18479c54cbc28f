//! A start under a freezer, which would come back only once it is thawed.
//!
//! A child that is born into a frozen cgroup stops before its exec, and whoever clones it waits for that with
//! all signals blocked (CLONE_VFORK): neither a signal nor SIGKILL would end the run then. So nothing is started
//! before all is thawed. Who freezes it between the look and the exec, some milliseconds, still holds the start
//! until it is thawed.

use std::{io, time::Duration};

use super::{gather::Ended, orders::Orders};
use crate::{cgroup::LeafCgroup, say::say};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits until nothing holds the leaf still. Gives the end of a run that was ended meanwhile.
///
/// # Errors
/// Where no orders can be taken.
pub(super) async fn wait(leaf: &LeafCgroup, orders: &mut Orders) -> io::Result<Option<Ended>> {
    let mut is_said = false;
    // No start fails for want of a look.
    while let Ok(Some(cgroup)) = leaf.frozen_by() {
        if !is_said {
            say(format_args!(
                "the analysis is started once cgroup.freeze of {cgroup} is 0: it is frozen"
            ));
            is_said = true;
        }
        tokio::select! {
            biased;
            order = orders.next() => {
                let ended = Ended::cancelled_before_start(order?, Some(&cgroup));
                if ended.is_some() {
                    return Ok(ended);
                }
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    Ok(None)
}
