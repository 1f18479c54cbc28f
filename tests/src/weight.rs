//! What memory a process takes.

use std::fs;

/// Memory of a process, what it shares with others by their number (`proc_pid_smaps(5)`), KiB.
///
/// # Panics
///
/// Where it is not there.
#[must_use]
#[track_caller]
pub fn pss_kib(pid: i32) -> u64 {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let pss = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = pss.and_then(|pss| pss.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("{path} has no Pss:\n{text}"))
}
