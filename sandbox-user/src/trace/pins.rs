//! Where loaded programs and maps are pinned, and the lock on all of that.
//!
//! bpffs takes no dots in names, so what is not in its place is told by a prefix and its loader's pid.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::maps::{Map, MapData};
use rustix::{fs::FlockOperation, io::Errno};
use sha2::{Digest, Sha256};

use super::{
    TraceError,
    object::OBJECT,
    programs::{self, Program},
};
use crate::{evidence::Confidence, procfs, sys::own_dir};

pub(super) const PINS: &str = "/sys/fs/bpf/sandbox";
pub(super) const LOCK: &str = "/run/sandbox/bpf.lock";
/// How long loading may take somebody else: ten times what an emulated machine needs.
const LOCKED_AT_MOST: Duration = Duration::from_secs(30);
/// A directory that marks a set as loaded while `kernel.ftrace_enabled` was 0: bpffs has no other
/// files than pins.
pub(super) const UNTRACED: &str = "untraced";

/// Where the pins of one build of the object lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinDir(PathBuf);

impl PinDir {
    /// The directory of the object that this binary carries.
    pub fn own() -> Self {
        let digest = Sha256::digest(OBJECT);
        let stamp: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self(Path::new(PINS).join(stamp))
    }

    /// One that is not in its place, and goes with this process.
    pub(super) fn of_this_process(prefix: &str) -> Self {
        Self(Path::new(PINS).join(format!("{prefix}-{}", std::process::id())))
    }

    /// Every build's directory on this host.
    ///
    /// # Errors
    /// Where the directory of pins is there but cannot be read.
    pub fn all() -> io::Result<Vec<Self>> {
        match fs::read_dir(PINS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(entries) => entries.map(|entry| Ok(Self(entry?.path()))).collect(),
        }
    }

    /// The one of that path.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The pid of who makes it, or keeps it for itself; `None` for what is in its place.
    fn maker(&self) -> Option<&str> {
        let name = self.0.file_name()?.to_str()?;
        Some(name.split_once('-')?.1)
    }

    /// Whether it is a live process's own.
    pub(super) fn is_being_made(&self) -> bool {
        self.maker()
            .is_some_and(|pid| Path::new("/proc").join(pid).try_exists().unwrap_or(true))
    }

    /// Opens a pinned map.
    pub(super) fn map(&self, name: &str) -> Result<Map, TraceError> {
        let path = self.0.join(name);
        MapData::from_pin(&path)
            .and_then(Map::from_map_data)
            .map_err(|source| TraceError::Pin {
                path: path.display().to_string(),
                source: Box::new(source),
            })
    }

    /// The mode whose links are pinned here; `None` where nothing is.
    ///
    /// # Errors
    /// Where that cannot be told: what other runs are watched with must not pass for incomplete.
    pub fn mode(&self) -> Result<Option<Confidence>, TraceError> {
        let names = fs::read_dir(&self.0).and_then(|entries| {
            let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name());
            entries.map(name).collect::<io::Result<HashSet<OsString>>>()
        });
        let pinned = match names {
            Ok(pinned) => pinned,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(TraceError::Io {
                    path: self.0.display().to_string(),
                    source,
                });
            }
        };
        let is_complete = |mode: &Confidence| {
            let mut links = programs::of(*mode).iter().map(link_name);
            links.all(|link| pinned.contains(OsStr::new(&link)))
        };
        let mut modes = [Confidence::Exact, Confidence::Strong].into_iter();
        Ok(modes.find(is_complete))
    }

    /// Whether it could see more by now: it was loaded while functions could not be traced, and they
    /// can be again.
    pub(super) fn is_outdated(&self) -> bool {
        self.0.join(UNTRACED).exists() && functions_can_be_traced()
    }

    pub(super) fn link(&self, program: &Program) -> PathBuf {
        self.0.join(link_name(program))
    }

    pub(super) fn pinned_program(&self, program: &Program) -> PathBuf {
        self.0.join(format!("program_{}", program.name))
    }

    /// Unpins everything here: the kernel detaches and frees what nobody holds open.
    ///
    /// # Errors
    /// What the system says of the first entry that cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        fs::remove_dir(&self.0)
    }
}

fn link_name(program: &Program) -> String {
    format!("link_{}", program.name)
}

/// Held while pins are made, removed or taken into use.
pub struct PinLock(File);

impl Drop for PinLock {
    fn drop(&mut self) {
        // Where that fails, closing it does the same (unless a child holds it, until its exec).
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl PinLock {
    /// Waits until nobody else holds it, to make or remove pins.
    ///
    /// # Errors
    /// Where the lock file cannot be made.
    pub fn take() -> io::Result<Self> {
        Self::with(FlockOperation::NonBlockingLockExclusive)
    }

    /// Waits until nobody makes or removes pins, to use what is there.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn share() -> io::Result<Self> {
        Self::with(FlockOperation::NonBlockingLockShared)
    }

    fn with(kind: FlockOperation) -> io::Result<Self> {
        own_dir::own_around(Path::new(LOCK))?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(LOCK)?;
        let until = Instant::now() + LOCKED_AT_MOST;
        loop {
            match rustix::fs::flock(&file, kind) {
                Ok(()) => return Ok(Self(file)),
                Err(Errno::WOULDBLOCK) if Instant::now() < until => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "another process holds it all the time (see lslocks); is a `sandbox` stopped?",
                    ));
                }
                Err(errno) => return Err(errno.into()),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Removes what a loader, or a run that logs, left where it was killed. To be called where makers' pids
/// mean something: in the first PID namespace.
///
/// # Errors
/// Where it cannot be listed or removed.
pub fn remove_abandoned() -> Result<(), TraceError> {
    let failed = |path: &Path, source: io::Error| TraceError::Io {
        path: path.display().to_string(),
        source,
    };
    for dir in PinDir::all().map_err(|source| failed(Path::new(PINS), source))? {
        if dir.maker().is_some() && !dir.is_being_made() {
            match dir.remove() {
                // Another run was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(|source| failed(dir.path(), source))?,
            }
        }
    }
    Ok(())
}

/// With `kernel.ftrace_enabled` at 0 fentry programs attach and never run.
pub(super) fn functions_can_be_traced() -> bool {
    procfs::text("/proc/sys/kernel/ftrace_enabled").map_or(true, |text| text.trim() != "0")
}
