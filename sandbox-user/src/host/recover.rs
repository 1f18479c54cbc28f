//! What runs that lost both supervisor and guardian left on this host: leaves, and what the kernel
//! side's maps hold of them. Every run and every check removes it first.

use crate::{
    cgroup::{Mount, Proc, orphans},
    trace,
};

/// What was done about it.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The leaves that were removed, by their cgroup.
    pub leaves: Vec<String>,
    /// What could not be judged or removed, one sentence each: no fault of a run that comes later.
    pub problems: Vec<String>,
}

/// Removes it. Takes up to 5 s for each leaf whose processes will not die; blocks.
pub fn recover(mount: &Mount) -> Recovered {
    let proc = Proc::default();
    let swept = orphans::sweep(mount, &proc);
    let mut problems: Vec<String> = swept.failures.iter().map(ToString::to_string).collect();
    if proc.is_in_first_pid_namespace()
        && let Err(error) = trace::remove_abandoned()
    {
        problems.push(error.to_string());
    }
    // Where only a part of the tree is seen, a leaf that is not seen may be there.
    if let Err(error) = trace::forget_gone(|known| orphans::present(mount, known)) {
        problems.push(error.to_string());
    }
    Recovered {
        leaves: swept
            .removed
            .into_iter()
            .map(|orphan| orphan.cgroup)
            .collect(),
        problems,
    }
}
