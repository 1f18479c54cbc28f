//! Reading and writing the small files of one cgroup directory.
//!
//! A cgroup can go while it is being read, and a kernel can lack a file: so a directory is held by
//! descriptor, every read tells *absent* (`None`) from *failing* (an error with the path), and no
//! failed read ever becomes 0. Formats: Documentation/admin-guide/cgroup-v2.rst, "Interface files".

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::error::CgroupError;
use super::mount::Controller;
use crate::evidence::FlatKeyed;
use crate::evidence::PressureTotals;
use crate::procfs;

/// A value that may be the kernel's `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Max {
    /// This much. Ordered below [`Max::Unlimited`].
    At(u64),
    /// `max`: no limit.
    Unlimited,
}

impl Max {
    /// From our own convention, where `None` lifts a limit.
    pub const fn from_limit(limit: Option<u64>) -> Self {
        match limit {
            Some(value) => Self::At(value),
            None => Self::Unlimited,
        }
    }

    /// Into our own convention.
    pub const fn limit(self) -> Option<u64> {
        match self {
            Self::At(value) => Some(value),
            Self::Unlimited => None,
        }
    }
}

impl std::fmt::Display for Max {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::At(value) => value.fmt(f),
            Self::Unlimited => f.write_str("max"),
        }
    }
}

/// `cpu.max`: so much CPU time (or `max`) in each period, both in µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuMax {
    /// CPU time a period, µs.
    pub quota_us: Max,
    /// Length of a period, µs; never 0.
    pub period_us: u64,
}

impl CpuMax {
    /// The share of cores; `None` = no limit.
    #[expect(clippy::cast_precision_loss, reason = "µs counts far below 2^53")]
    pub fn cores(self) -> Option<f64> {
        self.quota_us
            .limit()
            .map(|quota| quota as f64 / self.period_us as f64)
    }
}

impl std::fmt::Display for CpuMax {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.quota_us, self.period_us)
    }
}

/// A nested-keyed file (`io.stat`, `*.pressure`): first word of a line to its `key=value` pairs.
pub(super) type NestedKeyed = BTreeMap<String, BTreeMap<String, String>>;

/// Parses a single value or `max`.
pub(super) fn parse_max(text: &str) -> Option<Max> {
    match text.trim() {
        "max" => Some(Max::Unlimited),
        number => number.parse().ok().map(Max::At),
    }
}

/// Parses `cpu.max`: `$MAX $PERIOD`.
pub(super) fn parse_cpu_max(text: &str) -> Option<CpuMax> {
    let mut words = text.split_whitespace();
    let quota_us = parse_max(words.next()?)?;
    let period_us = words.next()?.parse().ok().filter(|period| *period > 0)?;
    words.next().is_none().then_some(CpuMax {
        quota_us,
        period_us,
    })
}

/// Parses a flat-keyed file: `KEY VALUE` a line. Empty text is an empty map.
pub(super) fn parse_flat_keyed(text: &str) -> Option<FlatKeyed> {
    text.lines()
        .map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// Parses a nested-keyed file: `KEY SUBKEY=VALUE …` a line. A line that is a bare key (devices
/// without statistics in `io.stat`) gives an empty entry.
pub(super) fn parse_nested_keyed(text: &str) -> Option<NestedKeyed> {
    text.lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let key = words.next()?.to_owned();
            let pairs = words
                .map(|pair| {
                    let (subkey, value) = pair.split_once('=')?;
                    Some((subkey.to_owned(), value.to_owned()))
                })
                .collect::<Option<_>>()?;
            Some((key, pairs))
        })
        .collect()
}

/// The `total` of each line of a pressure file, µs (Documentation/accounting/psi.rst).
pub(super) fn parse_pressure(text: &str) -> Option<PressureTotals> {
    let lines = parse_nested_keyed(text)?;
    let total = |line: &str| lines.get(line)?.get("total")?.parse().ok();
    Some(PressureTotals {
        some_us: total("some")?,
        full_us: total("full"),
    })
}

/// Parses a file of one number a line (`cgroup.procs`).
pub(super) fn parse_pids(text: &str) -> Option<Vec<u32>> {
    text.lines().map(|line| line.trim().parse().ok()).collect()
}

/// A directory held open, whose files are read and written by name.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens it.
    ///
    /// # Errors
    /// When it is not there, or is no directory.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, CgroupError> {
        let path = path.into();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|errno| CgroupError::read(&path, errno))?;
        Ok(Self { fd, path })
    }

    /// Where it was when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id of the cgroup, as of cgroup_id(): the inode of its directory.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub(super) fn id(&self) -> Result<u64, CgroupError> {
        let stat = rustix::fs::fstat(self).map_err(|errno| CgroupError::read(&self.path, errno))?;
        Ok(stat.st_ino)
    }

    /// The path of a file in it, for messages.
    pub fn file_path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The text of a file; `None` where there is no such file.
    ///
    /// # Errors
    /// When it is there but cannot be read; ENODEV when the cgroup was removed meanwhile.
    pub fn read(&self, name: &str) -> Result<Option<String>, CgroupError> {
        let fail = |source: io::Error| CgroupError::read(self.file_path(name), source);
        let fd = match self.open_file(name, OFlags::RDONLY) {
            Ok(fd) => fd,
            Err(Errno::NOENT) if self.is_removed() => return Err(fail(Errno::NODEV.into())),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(fail(errno.into())),
        };
        match procfs::bytes_of(File::from(fd)) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            // A file of a feature that this kernel has but does not run (PSI without psi=1).
            Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }

    /// Whether there is such a file. Where that cannot be told, whoever uses it will see.
    pub fn has(&self, name: &str) -> bool {
        let found = rustix::fs::accessat(&self.fd, name, Access::EXISTS, AtFlags::empty());
        found != Err(Errno::NOENT)
    }

    /// Opens `cgroup.procs` for writing, for whoever is to move.
    ///
    /// # Errors
    /// With the kernel's errno.
    pub(super) fn open_procs(&self) -> Result<File, CgroupError> {
        let opened = self.open_file("cgroup.procs", OFlags::WRONLY);
        opened
            .map(File::from)
            .map_err(|errno| CgroupError::write(self.file_path("cgroup.procs"), "open", errno))
    }

    /// Writes a value in a single write(2), as cgroupfs wants it; never creates a file.
    ///
    /// # Errors
    /// With the kernel's errno.
    pub fn write(&self, name: &str, value: &str) -> Result<(), CgroupError> {
        let fail =
            |source: io::Error| CgroupError::write(self.file_path(name), value.to_owned(), source);
        let fd = self
            // cgroupfs ignores O_TRUNC; a test's plain file needs it.
            .open_file(name, OFlags::WRONLY | OFlags::TRUNC)
            .map_err(|errno| fail(errno.into()))?;
        File::from(fd).write_all(value.as_bytes()).map_err(fail)
    }

    /// Reads a file and parses it with one of this module's parsers.
    ///
    /// # Errors
    /// When it cannot be read or parsed.
    pub fn parse<T>(
        &self,
        name: &str,
        expected: &'static str,
        parser: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, CgroupError> {
        let Some(text) = self.read(name)? else {
            return Ok(None);
        };
        match parser(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(CgroupError::Malformed {
                path: self.file_path(name),
                text,
                expected,
            }),
        }
    }

    /// A single value or `max`.
    ///
    /// # Errors
    /// When it cannot be read or parsed.
    pub fn max(&self, name: &str) -> Result<Option<Max>, CgroupError> {
        self.parse(name, "a number or max", parse_max)
    }

    /// `cpu.max`.
    ///
    /// # Errors
    /// When it cannot be read or parsed.
    pub fn cpu_max(&self) -> Result<Option<CpuMax>, CgroupError> {
        self.parse("cpu.max", "a quota and a period", parse_cpu_max)
    }

    /// A flat-keyed file.
    ///
    /// # Errors
    /// When it cannot be read or parsed.
    pub fn flat_keyed(&self, name: &str) -> Result<Option<FlatKeyed>, CgroupError> {
        self.parse(name, "lines of a key and a number", parse_flat_keyed)
    }

    /// `cgroup.controllers` or `cgroup.subtree_control`; empty where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn controllers(&self, name: &str) -> Result<BTreeSet<Controller>, CgroupError> {
        let parse = |text: &str| Some(Controller::parse_list(text));
        Ok(self.parse(name, "controllers", parse)?.unwrap_or_default())
    }

    /// The processes in the cgroup itself.
    ///
    /// # Errors
    /// When they cannot be read; EOPNOTSUPP comes as `None` (a threaded cgroup).
    pub fn procs(&self) -> Result<Option<Vec<u32>>, CgroupError> {
        self.parse("cgroup.procs", "a pid a line", parse_pids)
    }

    /// Opens a file in it.
    pub(super) fn open_file(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.fd, name, flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// Whether the directory was removed since it was opened.
    fn is_removed(&self) -> bool {
        !self.path.exists()
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn max_is_unlimited_and_anything_but_a_number_is_refused() {
        let table = [
            ("max\n", Some(Max::Unlimited)),
            ("0\n", Some(Max::At(0))),
            ("67108864\n", Some(Max::At(67_108_864))),
            ("18446744073709551615", Some(Max::At(u64::MAX))),
            ("", None),
            ("-1", None),
            ("1 2", None),
            ("18446744073709551616", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_max(text), expected, "{text:?}");
        }
    }

    #[test]
    fn cpu_max_needs_a_quota_and_a_period_that_is_not_zero() {
        let half = CpuMax {
            quota_us: Max::At(50_000),
            period_us: 100_000,
        };
        assert_eq!(parse_cpu_max("50000 100000\n"), Some(half));
        assert_eq!(half.cores(), Some(0.5));
        assert_eq!(parse_cpu_max("max 100000\n").map(CpuMax::cores), Some(None));
        for text in ["", "max", "1000 0", "1000 x", "1 2 3"] {
            assert_eq!(parse_cpu_max(text), None, "{text:?}");
        }
    }

    #[test]
    fn flat_keyed_files_keep_the_kernels_own_keys() {
        let parsed = parse_flat_keyed("low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\n").expect("valid");
        assert_eq!(parsed["oom_kill"], 3);
        assert_eq!(parsed.len(), 5);
        assert_eq!(parse_flat_keyed(""), Some(FlatKeyed::new()));
        assert_eq!(parse_flat_keyed("oom\n"), None);
        assert_eq!(parse_flat_keyed("oom x\n"), None);
    }

    #[test]
    fn nested_keyed_files_allow_devices_without_numbers() {
        let io = parse_nested_keyed("8:0 rbytes=4096 wbytes=0\n7:0\n").expect("valid");
        assert_eq!(io["8:0"]["rbytes"], "4096");
        assert!(io["7:0"].is_empty());
    }

    #[test]
    fn pressure_is_the_total_of_each_line_and_full_may_be_missing() {
        let text = "some avg10=0.12 avg60=0.00 avg300=0.00 total=8123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let both = PressureTotals {
            some_us: 8123,
            full_us: Some(7),
        };
        assert_eq!(parse_pressure(text), Some(both));
        let some = PressureTotals {
            full_us: None,
            ..both
        };
        assert_eq!(parse_pressure("some total=8123\n"), Some(some));
        assert_eq!(parse_pressure("full total=7\n"), None);
    }

    #[test]
    fn an_absent_file_is_none_and_a_removed_directory_is_an_error() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("leaf");
        std::fs::create_dir(&path).expect("mkdir");
        let dir = Dir::open(&path).expect("open");
        assert_eq!(dir.max("memory.max").expect("absent is no error"), None);
        std::fs::write(path.join("memory.max"), "many\n").expect("write");
        assert!(matches!(
            dir.max("memory.max"),
            Err(CgroupError::Malformed { .. })
        ));
        std::fs::remove_dir_all(&path).expect("rmdir");
        assert!(matches!(
            dir.max("memory.max"),
            Err(CgroupError::Read { .. })
        ));
    }

    #[test]
    fn writing_never_creates_a_file() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = Dir::open(temp.path()).expect("open");
        let error = dir
            .write("cgroup.kill", "1")
            .expect_err("there is no such file");
        assert!(error.to_string().contains("cgroup.kill"), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let text = String::from_utf8_lossy(&bytes);
            let _ = parse_max(&text);
            let _ = parse_cpu_max(&text);
            let _ = parse_flat_keyed(&text);
            let _ = parse_nested_keyed(&text);
            let _ = parse_pressure(&text);
            let _ = parse_pids(&text);
        }

        #[test]
        fn flat_keyed_files_round_trip(map in proptest::collection::btree_map("[a-z_]{1,12}", any::<u64>(), 0..8)) {
            let text: String = map.iter().map(|(key, value)| format!("{key} {value}\n")).collect();
            prop_assert_eq!(parse_flat_keyed(&text), Some(map));
        }
    }
}
