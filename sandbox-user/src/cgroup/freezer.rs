//! The freezer of a cgroup: `cgroup.freeze`, by which its members and those below stand still.
//!
//! A task stops where it would next go back to user mode, so that one in a long system call still
//! runs for a while. SIGKILL and `cgroup.kill` end a frozen one (kernel/cgroup/freezer.c).

use super::control;
use super::error::CgroupError;
use super::files::Dir;

const FILE: &str = "cgroup.freeze";

/// Tells a leaf's members to stand still, and reads that back.
///
/// # Errors
/// When it cannot be written or does not stick.
pub(super) fn freeze(dir: &Dir) -> Result<(), CgroupError> {
    control::own(dir, FILE, "1")
}

/// Has a leaf's members go on, and reads that back.
///
/// # Errors
/// As [`freeze`].
pub(super) fn thaw(dir: &Dir) -> Result<(), CgroupError> {
    control::own(dir, FILE, "0")
}

/// Whether this cgroup's members are told to stand still. The root of the cgroup tree has no such file.
///
/// # Errors
/// When it is there and cannot be read.
pub(super) fn is_told_to_freeze(dir: &Dir) -> Result<bool, CgroupError> {
    let told = dir.read(FILE)?;
    Ok(told.is_some_and(|told| told.trim() == "1"))
}
