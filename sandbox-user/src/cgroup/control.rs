//! Writing a leaf's limits, reading them back, and finding the tighter ones above it.
//!
//! A limit that silently does not hold is worse than none, so each is read back and a run is refused
//! when the kernel shows another value; only rounding down to a page is allowed, and visible.
//! cgroups-rs writes memory.max, memory.swap.max, cpu.max and pids.max; what it does not know
//! (memory.oom.group, cgroup.max.descendants) we write ourselves.

use std::error::Error;
use std::path::PathBuf;

use cgroups_rs::fs::MaxValue;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;

use super::error::CgroupError;
use super::files::{CpuMax, Dir, Max};
use super::quota::cpu_max_for;
use crate::limits::{EffectiveLimits, Limits, OomScope};

/// What a swap limit is worth on a kernel whose leaf has no `memory.swap.max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoSwapFile {
    /// Nothing is lost: no limit was asked for, or the host has no swap.
    Harmless,
    /// The limit would not hold.
    Unlimited,
}

/// Writes all limits of a leaf and reads each back. `swap_total_bytes` is the host's swap.
///
/// # Errors
/// When one cannot be written or does not stick; the leaf is then not fit for use.
pub(super) fn apply(
    dir: &Dir,
    limits: &Limits,
    oom: OomScope,
    swap_total_bytes: u64,
) -> Result<EffectiveLimits, CgroupError> {
    // One leaf is one cgroup: "same cgroup id" is then an exact test of membership.
    own(dir, "cgroup.max.descendants", "0")?;
    own(dir, "memory.oom.group", oom.oom_group())?;
    let swap = set_swap(dir, limits.swap_bytes.value, swap_total_bytes)?;
    Ok(EffectiveLimits {
        memory_bytes: set_memory(dir, limits.memory_bytes.value)?.limit(),
        swap_bytes: swap.and_then(Max::limit),
        cpus: set_cpus(dir, limits.cpus.value)?.cores(),
        pids: set_pids(dir, limits.pids.value)?.limit(),
    })
}

/// Writes `memory.max` and reads it back.
///
/// # Errors
/// As [`apply`].
pub(super) fn set_memory(dir: &Dir, bytes: Option<u64>) -> Result<Max, CgroupError> {
    let memory = MemController::new(dir.path().to_owned(), PathBuf::new(), true);
    let wanted = Max::from_limit(bytes);
    through_crate(dir, "memory.max", wanted, |value| memory.set_limit(value))?;
    check_bytes(dir, "memory.max", wanted)
}

/// Writes `memory.swap.max` and reads it back, where there is swap to be limited; `None` where this kernel lacks it.
///
/// # Errors
/// As [`apply`].
pub(super) fn set_swap(
    dir: &Dir,
    bytes: Option<u64>,
    swap_total_bytes: u64,
) -> Result<Option<Max>, CgroupError> {
    let memory = MemController::new(dir.path().to_owned(), PathBuf::new(), true);
    let wanted = Max::from_limit(bytes);
    match (
        dir.has("memory.swap.max"),
        no_swap_file(wanted, swap_total_bytes),
    ) {
        (true, _) => {
            through_crate(dir, "memory.swap.max", wanted, |value| {
                memory.set_memswap_limit(value)
            })?;
            check_bytes(dir, "memory.swap.max", wanted).map(Some)
        }
        (false, NoSwapFile::Harmless) => Ok(None),
        (false, NoSwapFile::Unlimited) => Err(CgroupError::NoSwapControl {
            path: dir.file_path("memory.swap.max"),
            swap_total_bytes,
        }),
    }
}

/// Writes `pids.max` and reads it back.
///
/// # Errors
/// As [`apply`].
pub(super) fn set_pids(dir: &Dir, tasks: Option<u64>) -> Result<Max, CgroupError> {
    let pids = PidController::new(dir.path().to_owned(), PathBuf::new(), true);
    let wanted = Max::from_limit(tasks);
    through_crate(dir, "pids.max", wanted, |value| {
        pids.set_pid_max(if value < 0 {
            MaxValue::Max
        } else {
            MaxValue::Value(value)
        })
    })?;
    let got = required(dir, "pids.max", dir.max("pids.max")?)?;
    stuck(dir, "pids.max", wanted, got, wanted == got)?;
    Ok(got)
}

/// Writes `cpu.max` and reads it back.
///
/// # Errors
/// As [`apply`].
pub(super) fn set_cpus(dir: &Dir, cores: Option<f64>) -> Result<CpuMax, CgroupError> {
    let wanted = cpu_max_for(cores)?;
    let cpu = CpuController::new(dir.path().to_owned(), PathBuf::new(), true);
    through_crate(dir, "cpu.max", wanted.quota_us, |value| {
        cpu.set_cfs_quota_and_period(Some(value), Some(wanted.period_us))
    })?;
    let got = required(dir, "cpu.max", dir.cpu_max()?)?;
    stuck(dir, "cpu.max", wanted, got, wanted == got)?;
    Ok(got)
}

/// Reads a cgroup's limits.
///
/// # Errors
/// When a file is there and cannot be read.
pub(super) fn effective(dir: &Dir) -> Result<EffectiveLimits, CgroupError> {
    Ok(EffectiveLimits {
        memory_bytes: dir.max("memory.max")?.and_then(Max::limit),
        swap_bytes: dir.max("memory.swap.max")?.and_then(Max::limit),
        cpus: dir.cpu_max()?.and_then(CpuMax::cores),
        pids: dir.max("pids.max")?.and_then(Max::limit),
    })
}

/// Reads a leaf's limits again. A leaf has these files: one that is missing, as where somebody removed
/// the leaf, is no lifted limit.
///
/// # Errors
/// When a file is missing or cannot be read.
pub(super) fn read_back(dir: &Dir) -> Result<EffectiveLimits, CgroupError> {
    Ok(EffectiveLimits {
        memory_bytes: required(dir, "memory.max", dir.max("memory.max")?)?.limit(),
        swap_bytes: dir.max("memory.swap.max")?.and_then(Max::limit),
        cpus: required(dir, "cpu.max", dir.cpu_max()?)?.cores(),
        pids: required(dir, "pids.max", dir.max("pids.max")?)?.limit(),
    })
}

/// Reads whom the OOM killer takes in a leaf.
///
/// # Errors
/// When the file is missing or cannot be read.
pub(super) fn oom_scope(dir: &Dir) -> Result<OomScope, CgroupError> {
    let name = "memory.oom.group";
    let group = required(dir, name, dir.read(name)?)?;
    Ok(if group.trim() == OomScope::Whole.oom_group() {
        OomScope::Whole
    } else {
        OomScope::Process
    })
}

/// Reads at how many bytes the members of a leaf are slowed down; `None` = `max`.
///
/// # Errors
/// When the file is missing or cannot be read.
pub(super) fn memory_high(dir: &Dir) -> Result<Option<u64>, CgroupError> {
    let name = "memory.high";
    Ok(required(dir, name, dir.max(name)?)?.limit())
}

fn no_swap_file(wanted: Max, swap_total_bytes: u64) -> NoSwapFile {
    match (wanted, swap_total_bytes) {
        (Max::Unlimited, _) | (Max::At(_), 0) => NoSwapFile::Harmless,
        (Max::At(_), _) => NoSwapFile::Unlimited,
    }
}

/// Writes a file that cgroups-rs does not know, and reads it back.
pub(super) fn own(dir: &Dir, name: &str, wanted: &str) -> Result<(), CgroupError> {
    there(dir, name)?;
    dir.write(name, wanted)?;
    let got = required(dir, name, dir.read(name)?)?;
    let got = got.trim();
    stuck(dir, name, wanted, got, wanted == got)
}

/// Writes through cgroups-rs, which takes -1 for `max` and never says on which path it failed.
fn through_crate(
    dir: &Dir,
    name: &'static str,
    wanted: Max,
    write: impl FnOnce(i64) -> Result<(), cgroups_rs::fs::error::Error>,
) -> Result<(), CgroupError> {
    // The crate would create a file that is not there.
    there(dir, name)?;
    let value = match wanted {
        Max::Unlimited => -1,
        Max::At(value) => i64::try_from(value).map_err(|_| CgroupError::LimitOutOfRange {
            limit: name,
            value: value.to_string(),
            range: "at most 2^63 - 1",
        })?,
    };
    write(value).map_err(|error| {
        let source = error
            .source()
            .and_then(|cause| cause.downcast_ref::<std::io::Error>())
            .and_then(std::io::Error::raw_os_error)
            .map_or_else(
                || std::io::Error::other(error.to_string()),
                std::io::Error::from_raw_os_error,
            );
        CgroupError::write(dir.file_path(name), wanted.to_string(), source)
    })
}

/// Bytes may be rounded down to a page (`page_counter_memparse`, mm/page_counter.c).
fn check_bytes(dir: &Dir, name: &'static str, wanted: Max) -> Result<Max, CgroupError> {
    let got = required(dir, name, dir.max(name)?)?;
    let page = crate::procfs::page_size();
    stuck(dir, name, wanted, got, is_rounded_down(wanted, got, page))?;
    Ok(got)
}

fn is_rounded_down(wanted: Max, got: Max, page: u64) -> bool {
    match (wanted, got) {
        (Max::At(wanted), Max::At(got)) => got <= wanted && wanted - got < page,
        (Max::Unlimited, Max::Unlimited) => true,
        (Max::At(_), Max::Unlimited) | (Max::Unlimited, Max::At(_)) => false,
    }
}

fn there(dir: &Dir, name: &str) -> Result<(), CgroupError> {
    required(dir, name, dir.has(name).then_some(()))
}

fn required<T>(dir: &Dir, name: &str, value: Option<T>) -> Result<T, CgroupError> {
    value.ok_or_else(|| CgroupError::Absent {
        path: dir.file_path(name),
        mend: "its controller is not enabled for this cgroup, or the kernel is older than 5.14",
    })
}

fn stuck(
    dir: &Dir,
    name: &str,
    wanted: impl ToString,
    got: impl ToString,
    holds: bool,
) -> Result<(), CgroupError> {
    if holds {
        return Ok(());
    }
    Err(CgroupError::LimitDidNotStick {
        path: dir.file_path(name),
        wanted: wanted.to_string(),
        got: got.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::limits::{Limit, Source};

    /// A directory that looks like a fresh leaf.
    fn leaf(path: &Path) {
        std::fs::create_dir_all(path).expect("mkdir");
        let files = [
            ("cgroup.max.descendants", "max\n"),
            ("memory.oom.group", "0\n"),
            ("memory.max", "max\n"),
            ("memory.swap.max", "max\n"),
            ("pids.max", "max\n"),
            ("cpu.max", "max 100000\n"),
        ];
        for (name, text) in files {
            std::fs::write(path.join(name), text).expect("write");
        }
    }

    #[test]
    fn all_limits_are_written_and_read_back() {
        let temp = tempfile::tempdir().expect("temp dir");
        leaf(temp.path());
        let dir = Dir::open(temp.path()).expect("open");
        let effective = apply(&dir, &Limits::default(), OomScope::Whole, 0).expect("applied");
        let expected = EffectiveLimits {
            memory_bytes: Some(2 << 30),
            swap_bytes: Some(0),
            cpus: Some(1.0),
            pids: Some(100),
        };
        assert_eq!(effective, expected);
        let text = |name| std::fs::read_to_string(temp.path().join(name)).expect("read");
        assert_eq!(
            (text("memory.oom.group"), text("cgroup.max.descendants")),
            ("1".into(), "0".into())
        );
        assert_eq!(text("cpu.max"), "100000 100000");
    }

    #[test]
    fn a_lifted_limit_is_written_as_max() {
        let temp = tempfile::tempdir().expect("temp dir");
        leaf(temp.path());
        let dir = Dir::open(temp.path()).expect("open");
        let lifted = Limits {
            memory_bytes: Limit::new(None, Source::CommandLine),
            swap_bytes: Limit::new(None, Source::CommandLine),
            cpus: Limit::new(None, Source::CommandLine),
            pids: Limit::new(None, Source::CommandLine),
            ..Limits::default()
        };
        let effective = apply(&dir, &lifted, OomScope::Process, 1).expect("applied");
        assert_eq!(effective, EffectiveLimits::default());
    }

    #[test]
    fn a_leaf_that_is_gone_has_no_lifted_limits() {
        let temp = tempfile::tempdir().expect("temp dir");
        leaf(temp.path());
        let dir = Dir::open(temp.path()).expect("open");
        let set = apply(&dir, &Limits::default(), OomScope::Whole, 0).expect("applied");
        assert_eq!(read_back(&dir).expect("there"), set);
        std::fs::remove_file(temp.path().join("pids.max")).expect("rm");
        assert!(read_back(&dir).is_err());
    }

    #[test]
    fn a_missing_swap_file_matters_only_where_there_is_swap() {
        let temp = tempfile::tempdir().expect("temp dir");
        leaf(temp.path());
        std::fs::remove_file(temp.path().join("memory.swap.max")).expect("rm");
        let dir = Dir::open(temp.path()).expect("open");
        let effective = apply(&dir, &Limits::default(), OomScope::Whole, 0).expect("no swap");
        assert_eq!(effective.swap_bytes, None);
        let error = apply(&dir, &Limits::default(), OomScope::Whole, 4096).expect_err("swap");
        assert!(matches!(
            error,
            CgroupError::NoSwapControl {
                swap_total_bytes: 4096,
                ..
            }
        ));
    }

    #[test]
    fn a_missing_control_file_is_an_error_and_is_not_created() {
        let temp = tempfile::tempdir().expect("temp dir");
        leaf(temp.path());
        std::fs::remove_file(temp.path().join("pids.max")).expect("rm");
        let dir = Dir::open(temp.path()).expect("open");
        let error = apply(&dir, &Limits::default(), OomScope::Whole, 0).expect_err("no pids.max");
        assert!(matches!(error, CgroupError::Absent { .. }), "{error}");
        assert!(!temp.path().join("pids.max").exists());
    }

    #[test]
    fn only_rounding_down_within_a_page_counts_as_stuck() {
        let table = [
            (Max::At(8192), Max::At(8192), true),
            (Max::At(8191), Max::At(4096), true),
            (Max::At(8192), Max::At(4096), false),
            (Max::At(8192), Max::At(12288), false),
            (Max::At(u64::MAX), Max::Unlimited, false),
            (Max::Unlimited, Max::Unlimited, true),
            (Max::Unlimited, Max::At(0), false),
        ];
        for (wanted, got, expected) in table {
            assert_eq!(
                is_rounded_down(wanted, got, 4096),
                expected,
                "{wanted} {got}"
            );
        }
    }
}
