//! Removing pinned programs that nothing on this host uses.

use std::{error::Error, os::unix::fs::MetadataExt as _};

use crate::{
    cgroup::{Mount, Proc, orphans},
    trace::{self, Unused},
};

/// What was removed, and what could not be judged, one line each.
pub(crate) type Removed = (Vec<String>, Vec<String>);

/// Removes pinned programs that watch no live run.
///
/// # Errors
/// Where it cannot be told which do, in one sentence.
pub(crate) fn remove_pins(unused: Unused) -> Result<Removed, String> {
    let cleaned = trace::clean(unused, live_leaves).map_err(|error: CleanError| error.0)?;
    let removed = cleaned.removed.into_iter();
    let problems = cleaned.problems.iter();
    Ok((
        removed
            .map(|path| format!("unused eBPF programs {path}"))
            .collect(),
        problems.map(ToString::to_string).collect(),
    ))
}

struct CleanError(String);

impl<E: Error> From<E> for CleanError {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// The ids of what may be a live run's leaf: also of one that cannot be judged.
fn live_leaves() -> Result<Vec<u64>, CleanError> {
    let mount = Mount::find()?;
    let survey = orphans::survey(&mount, &Proc::default());
    if let Some(failure) = survey.failures.first() {
        return Err(CleanError(format!("no pins were removed: {failure}")));
    }
    Ok(survey
        .live
        .iter()
        .chain(survey.orphans.iter().map(|orphan| &orphan.cgroup))
        .filter_map(|leaf| Some(std::fs::metadata(mount.dir(leaf).ok()?).ok()?.ino()))
        .collect())
}
