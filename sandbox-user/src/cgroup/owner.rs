//! Whose a leaf is: the mark that keeps everybody from removing a live run's leaf.
//!
//! A pid alone is reused, so a process is named by pid and start time, and both only mean something
//! within one boot and one PID namespace. The mark is an extended attribute of the leaf's
//! directory: it lives and dies with the leaf, and in `trusted.` no analysis can write it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr, getxattr, listxattr_query};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::CgroupError;
use super::files::Dir;
use crate::procfs::{self, Stat};

/// Attributes that carry the mark, the one that is tried first leading. `trusted.` needs
/// CAP_SYS_ADMIN; `user.` is there on cgroup2 from 5.7 on (fs/kernfs/inode.c).
const ATTRIBUTES: [&str; 2] = ["trusted.sandbox.owner", "user.sandbox.owner"];

/// A process, by what makes it unique within one boot and PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its pid.
    pub pid: u32,
    /// Field 22 of /proc/PID/stat: when it started, clock ticks since boot.
    pub start_ticks: u64,
}

/// Whether a process is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It is, and it runs.
    Alive,
    /// It is gone, a zombie, or its pid is another's.
    Dead,
}

/// The owner of a leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
    /// Inode of /proc/self/ns/pid: in which namespace the pids below mean something.
    pub pid_namespace: u64,
    /// Who runs the run.
    pub supervisor: ProcessId,
    /// Who ends it when the supervisor is lost.
    pub guardian: Option<ProcessId>,
}

/// What a leaf's directory says about its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// This one.
    Owned(Owner),
    /// There is a mark, of another version or damaged: hands off.
    Unreadable(String),
    /// There is none.
    Unmarked,
}

/// A proc file system; tests point it at a directory of their own.
#[derive(Clone, Debug)]
pub struct Proc {
    root: PathBuf,
    /// These two do not change while we run, and are asked for once a leaf.
    boot_id: OnceLock<String>,
    pid_namespace: OnceLock<u64>,
}

impl Default for Proc {
    fn default() -> Self {
        Self::at("/proc")
    }
}

impl Proc {
    /// One that is mounted there.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            boot_id: OnceLock::new(),
            pid_namespace: OnceLock::new(),
        }
    }

    /// The text of a file in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, name: &str) -> Result<String, CgroupError> {
        let path = self.root.join(name);
        // comm in `stat` is any bytes.
        match procfs::bytes(&path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => Err(CgroupError::read(path, error)),
        }
    }

    /// The text at the beginning of one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn head(&self, name: &str) -> Result<String, CgroupError> {
        let path = self.root.join(name);
        procfs::head(&path).map_err(|error| CgroupError::read(path, error))
    }

    /// Names a process that is running now.
    ///
    /// # Errors
    /// [`CgroupError::ProcessGone`] when it is not there any more.
    pub fn process(&self, pid: u32) -> Result<ProcessId, CgroupError> {
        match self.stat(pid)? {
            Some(stat) => Ok(ProcessId {
                pid,
                start_ticks: stat.start_time_ticks,
            }),
            None => Err(CgroupError::ProcessGone { pid }),
        }
    }

    /// Whether that process still runs.
    ///
    /// # Errors
    /// When /proc cannot be read, so that nothing is known.
    pub fn liveness(&self, process: ProcessId) -> Result<Liveness, CgroupError> {
        Ok(match self.stat(process.pid)? {
            Some(stat) if stat.start_time_ticks == process.start_ticks && stat.runs() => {
                Liveness::Alive
            }
            Some(_) | None => Liveness::Dead,
        })
    }

    /// This boot's id.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn boot_id(&self) -> Result<&str, CgroupError> {
        if let Some(known) = self.boot_id.get() {
            return Ok(known);
        }
        let text = self.read("sys/kernel/random/boot_id")?;
        Ok(self.boot_id.get_or_init(|| text.trim().to_owned()))
    }

    /// The inode of this process's PID namespace.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn pid_namespace(&self) -> Result<u64, CgroupError> {
        if let Some(known) = self.pid_namespace.get() {
            return Ok(*known);
        }
        let path = self.root.join("self/ns/pid");
        match rustix::fs::stat(&path) {
            Ok(stat) => Ok(*self.pid_namespace.get_or_init(|| stat.st_ino)),
            Err(errno) => Err(CgroupError::read(path, errno)),
        }
    }

    /// Whether this process is in the first PID namespace, whose pids the kernel side speaks of. Where
    /// that cannot be told it is taken to be.
    pub fn is_in_first_pid_namespace(&self) -> bool {
        /// PROC_PID_INIT_INO (include/linux/proc_ns.h).
        const FIRST: u64 = 0xEFFF_FFFC;
        self.pid_namespace().map_or(true, |inode| inode == FIRST)
    }

    /// Whether a PID namespace has a process, as far as that can be seen from here.
    fn namespace_liveness(&self, inode: u64) -> Liveness {
        let Ok(entries) = std::fs::read_dir(&self.root) else {
            return Liveness::Alive;
        };
        let is_in_it = |entry: std::fs::DirEntry| {
            rustix::fs::stat(entry.path().join("ns/pid")).is_ok_and(|stat| stat.st_ino == inode)
        };
        match self.is_in_first_pid_namespace() {
            true if !entries.flatten().any(is_in_it) => Liveness::Dead,
            true | false => Liveness::Alive,
        }
    }

    /// The cgroup2 path of a process (`self` or a pid).
    ///
    /// # Errors
    /// When it cannot be read, or the process is in no cgroup2.
    pub fn cgroup(&self, process: &str) -> Result<String, CgroupError> {
        let name = format!("{process}/cgroup");
        let text = self.read(&name)?;
        super::mount::parse_proc_cgroup(&text).ok_or_else(|| CgroupError::Malformed {
            path: self.root.join(name),
            text,
            expected: "a list with a line 0::PATH",
        })
    }

    /// `SwapTotal` of /proc/meminfo, bytes; `None` where it is not said.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn swap_total_bytes(&self) -> Result<Option<u64>, CgroupError> {
        Ok(parse_meminfo(&self.read("meminfo")?, "SwapTotal"))
    }

    /// `MemTotal` of /proc/meminfo, bytes; `None` where that cannot be told.
    pub fn memory_total_bytes(&self) -> Option<u64> {
        parse_meminfo(&self.read("meminfo").ok()?, "MemTotal")
    }

    fn stat(&self, pid: u32) -> Result<Option<Stat>, CgroupError> {
        let name = format!("{pid}/stat");
        let text = match self.read(&name) {
            Ok(text) => text,
            Err(CgroupError::Read { source, .. }) if is_gone(&source) => return Ok(None),
            Err(error) => return Err(error),
        };
        match Stat::parse(&text) {
            Some(stat) => Ok(Some(stat)),
            None => Err(CgroupError::Malformed {
                path: self.root.join(name),
                text,
                expected: "the fields of proc_pid_stat(5)",
            }),
        }
    }
}

impl Owner {
    /// Marks a leaf as this supervisor's.
    ///
    /// # Errors
    /// When one of the processes is gone or /proc cannot be read.
    pub fn of(proc: &Proc, supervisor: u32, guardian: Option<u32>) -> Result<Self, CgroupError> {
        Ok(Self {
            boot_id: proc.boot_id()?.to_owned(),
            pid_namespace: proc.pid_namespace()?,
            supervisor: proc.process(supervisor)?,
            guardian: guardian.map(|pid| proc.process(pid)).transpose()?,
        })
    }

    /// Whether anybody is left who looks after the leaf: supervisor or guardian. Of an owner in another
    /// PID namespace it can only be told that the whole namespace is gone, and only from the first
    /// one; else it counts as alive.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn liveness(&self, proc: &Proc) -> Result<Liveness, CgroupError> {
        if self.boot_id != proc.boot_id()? {
            return Ok(Liveness::Dead);
        }
        if self.pid_namespace != proc.pid_namespace()? {
            return Ok(proc.namespace_liveness(self.pid_namespace));
        }
        for process in std::iter::once(self.supervisor).chain(self.guardian) {
            if proc.liveness(process)? == Liveness::Alive {
                return Ok(Liveness::Alive);
            }
        }
        Ok(Liveness::Dead)
    }

    /// Writes the mark on a directory, over an earlier one.
    ///
    /// # Errors
    /// When neither attribute can be written.
    pub fn mark(&self, dir: &Dir) -> Result<(), CgroupError> {
        let text = serde_json::to_string(self)
            .map_err(|error| CgroupError::write(dir.path(), "owner", error))?;
        let mut last = Errno::NOTSUP;
        for name in ATTRIBUTES {
            match fsetxattr(dir, name, text.as_bytes(), XattrFlags::empty()) {
                Ok(()) => return Ok(()),
                Err(errno) => last = errno,
            }
        }
        let value = format!("{}={text}", ATTRIBUTES[0]);
        Err(CgroupError::write(dir.path(), value, last))
    }
}

impl Mark {
    /// Reads the mark of a directory that is held open.
    ///
    /// # Errors
    /// When the attributes cannot be read (but a file system without them is [`Mark::Unmarked`]).
    pub fn of(dir: &Dir) -> Result<Self, CgroupError> {
        Self::from_attributes(dir.path(), |name, buffer| fgetxattr(dir, name, buffer))
    }

    /// Reads the mark of a directory by path.
    ///
    /// # Errors
    /// As [`Mark::of`].
    pub fn at(path: &Path) -> Result<Self, CgroupError> {
        // Most cgroups have none at all.
        if listxattr_query(path).is_ok_and(|length| length == 0) {
            return Ok(Self::Unmarked);
        }
        Self::from_attributes(path, |name, buffer| getxattr(path, name, buffer))
    }

    fn from_attributes(
        path: &Path,
        get: impl Fn(&str, &mut [u8]) -> Result<usize, Errno>,
    ) -> Result<Self, CgroupError> {
        for name in ATTRIBUTES {
            let mut buffer = [0_u8; 1024];
            match get(name, &mut buffer) {
                Ok(length) => return Ok(Self::parse(buffer.get(..length).unwrap_or_default())),
                Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
                Err(Errno::RANGE) => return Ok(Self::Unreadable("over 1024 bytes".to_owned())),
                Err(errno) => return Err(CgroupError::read(path, errno)),
            }
        }
        Ok(Self::Unmarked)
    }

    fn parse(bytes: &[u8]) -> Self {
        match serde_json::from_slice(bytes) {
            Ok(owner) => Self::Owned(owner),
            Err(_) => Self::Unreadable(String::from_utf8_lossy(bytes).into_owned()),
        }
    }
}

/// A value of /proc/meminfo, bytes.
pub(crate) fn parse_meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// ENOENT from open, ESRCH from read.
fn is_gone(error: &std::io::Error) -> bool {
    [Errno::NOENT, Errno::SRCH]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A /proc with a boot id, a PID namespace and processes.
    pub(in crate::cgroup) struct FakeProc(tempfile::TempDir);

    impl FakeProc {
        pub(in crate::cgroup) fn new() -> Self {
            let fake = Self(tempfile::tempdir().expect("temp dir"));
            fake.write("sys/kernel/random/boot_id", "boot-1\n")
                .write("self/ns/pid", "")
                .write("meminfo", "SwapTotal: 0 kB\n")
        }

        pub(in crate::cgroup) fn write(self, name: &str, text: &str) -> Self {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
            std::fs::write(path, text).expect("write");
            self
        }

        pub(in crate::cgroup) fn process(self, pid: u32, state: char, start_ticks: u64) -> Self {
            let zeros = "0 ".repeat(18);
            self.write(
                &format!("{pid}/stat"),
                &format!("{pid} (a) b) {state} {zeros}{start_ticks} 0 0\n"),
            )
        }

        pub(in crate::cgroup) fn proc(&self) -> Proc {
            Proc::at(self.0.path())
        }
    }

    fn owner(proc: &Proc) -> Owner {
        Owner {
            boot_id: "boot-1".to_owned(),
            pid_namespace: proc.pid_namespace().expect("a namespace"),
            supervisor: ProcessId {
                pid: 10,
                start_ticks: 100,
            },
            guardian: Some(ProcessId {
                pid: 11,
                start_ticks: 101,
            }),
        }
    }

    #[test]
    fn a_leaf_has_a_live_owner_as_long_as_supervisor_or_guardian_runs() {
        let table = [
            (vec![(10, 'S', 100), (11, 'S', 101)], Liveness::Alive),
            (vec![(11, 'S', 101)], Liveness::Alive),
            (vec![(10, 'R', 100)], Liveness::Alive),
            (vec![], Liveness::Dead),
            // Their pids were reused.
            (vec![(10, 'S', 999), (11, 'S', 999)], Liveness::Dead),
            // Nobody has waited for them yet.
            (vec![(10, 'Z', 100), (11, 'X', 101)], Liveness::Dead),
        ];
        for (processes, expected) in table {
            let fake = processes
                .iter()
                .fold(FakeProc::new(), |fake, (pid, state, start)| {
                    fake.process(*pid, *state, *start)
                });
            let proc = fake.proc();
            assert_eq!(
                owner(&proc).liveness(&proc).expect("known"),
                expected,
                "{processes:?}"
            );
        }
    }

    #[test]
    fn an_owner_of_another_boot_is_dead_and_one_of_another_pid_namespace_is_left_alone() {
        let fake = FakeProc::new().process(10, 'S', 100);
        let proc = fake.proc();
        let other_boot = Owner {
            boot_id: "boot-0".to_owned(),
            ..owner(&proc)
        };
        assert_eq!(other_boot.liveness(&proc).expect("known"), Liveness::Dead);
        let elsewhere = Owner {
            pid_namespace: 1,
            supervisor: ProcessId {
                pid: 7,
                start_ticks: 7,
            },
            ..owner(&proc)
        };
        assert_eq!(elsewhere.liveness(&proc).expect("known"), Liveness::Alive);
    }

    #[test]
    fn a_process_that_is_gone_cannot_own_a_leaf() {
        let fake = FakeProc::new();
        assert!(matches!(
            Owner::of(&fake.proc(), 10, None),
            Err(CgroupError::ProcessGone { pid: 10 })
        ));
    }

    #[test]
    fn a_mark_of_another_version_is_unreadable_and_not_unmarked() {
        let mark = owner(&FakeProc::new().proc());
        let text = serde_json::to_vec(&mark).expect("JSON");
        assert_eq!(Mark::parse(&text), Mark::Owned(mark));
        assert_eq!(Mark::parse(b"v9 x"), Mark::Unreadable("v9 x".to_owned()));
    }

    #[test]
    fn meminfo_is_in_kibibytes() {
        let text = "MemTotal:       16384 kB\nSwapTotal:          0 kB\n";
        assert_eq!(parse_meminfo(text, "MemTotal"), Some(16_777_216));
        assert_eq!(parse_meminfo(text, "SwapTotal"), Some(0));
        assert_eq!(parse_meminfo(text, "SwapFree"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_stat_or_a_mark_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let text = String::from_utf8_lossy(&bytes);
            let _ = Stat::parse(&text);
            let _ = Mark::parse(&bytes);
            let _ = parse_meminfo(&text, "MemTotal");
        }
    }
}
