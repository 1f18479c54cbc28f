//! Loading the eBPF object once a host: programs attached, links and maps pinned.
//!
//! Everything lies in `/sys/fs/bpf/sandbox/<stamp>/`, where the stamp is the hash of the object, so
//! that no version ever reads another's maps. A loader works in a directory of its own and renames
//! it into place under a lock, so what has the final name is whole. Pinned links stay attached
//! when their loader dies: a run that loses its supervisor keeps being recorded. bpffs takes no
//! dots in names, so what is not in its place is told by a prefix and its loader's pid.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Map, MapData},
    programs::{BtfTracePoint, FEntry, FExit, ProgramError, links::FdLink},
};
use aya_log::{EbpfLogger, Level};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
};
use sha2::{Digest, Sha256};

use super::{
    TraceError,
    btf::BtfBlob,
    log::StderrLog,
    offsets::offsets,
    programs::{self, Attach, Program},
};
use crate::{evidence::Confidence, host::Lockdown, sys};

/// The object, as `cargo xtask ebpf` built and committed it.
static OBJECT: &[u8] = include_bytes_aligned!("../../../sandbox-ebpf/prebuilt/sandbox.bpf.o");

const BPFFS: &str = "/sys/fs/bpf";
const PINS: &str = "/sys/fs/bpf/sandbox";
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";
const LOCK: &str = "/run/sandbox/bpf.lock";
/// How long loading may take somebody else: ten times what an emulated machine needs.
const LOCKED_AT_MOST: Duration = Duration::from_secs(30);
/// The map of ring buffers.
pub(super) const RINGS: &str = "RINGS";
/// A directory that marks a set as loaded while `kernel.ftrace_enabled` was 0: bpffs has no other
/// files than pins.
const UNTRACED: &str = "untraced";
const LINK_PREFIX: &str = "link_";
/// Bytes of a supervisor's ring; detail beyond it is dropped and counted.
pub(super) const RING_BYTES: u32 = 512 * 1024;
/// As many as the kernel side has leaves (`LEAVES` in its maps).
const RINGS_MAX: u32 = 8192;

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
            .is_some_and(|pid| Path::new("/proc").join(pid).exists())
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
    pub fn mode(&self) -> Option<Confidence> {
        [Confidence::Exact, Confidence::Strong]
            .into_iter()
            .find(|mode| {
                programs::of(*mode)
                    .iter()
                    .all(|program| self.link(program).exists())
            })
    }

    /// Whether it could see more by now: it was loaded while functions could not be traced, and they
    /// can be again.
    fn is_outdated(&self) -> bool {
        self.0.join(UNTRACED).exists() && functions_can_be_traced()
    }

    pub(super) fn link(&self, program: &Program) -> PathBuf {
        self.0.join(format!("{LINK_PREFIX}{}", program.name))
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

/// Held while pins are made, removed or taken into use.
pub struct PinLock(#[expect(dead_code, reason = "held for its Drop")] Flock<File>);

impl PinLock {
    /// Waits until nobody else holds it, to make or remove pins.
    ///
    /// # Errors
    /// Where the lock file cannot be made.
    pub fn take() -> io::Result<Self> {
        Self::with(FlockArg::LockExclusiveNonblock)
    }

    /// Waits until nobody makes or removes pins, to use what is there.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn share() -> io::Result<Self> {
        Self::with(FlockArg::LockSharedNonblock)
    }

    fn with(kind: FlockArg) -> io::Result<Self> {
        if let Some(parent) = Path::new(LOCK).parent() {
            fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(LOCK)?;
        let until = Instant::now() + LOCKED_AT_MOST;
        let mut file = file;
        loop {
            match Flock::lock(file, kind) {
                Ok(locked) => return Ok(Self(locked)),
                Err((unlocked, Errno::EWOULDBLOCK)) if Instant::now() < until => file = unlocked,
                Err((_, Errno::EWOULDBLOCK)) => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "another process holds it all the time (see lslocks); is a `sandbox` stopped?",
                    ));
                }
                Err((_, errno)) => return Err(errno.into()),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Makes sure that this build's programs are loaded and pinned, and says in which mode. They stay
/// while the lock that comes with it is held, and from then on while they watch a leaf.
///
/// # Errors
/// Why nothing can be loaded here, in one line that says how to mend it.
pub(super) fn ensure_pinned(dir: &PinDir) -> Result<(Confidence, PinLock), TraceError> {
    let lock_failed = |source| TraceError::Io {
        path: LOCK.into(),
        source,
    };
    loop {
        let shared = PinLock::share().map_err(lock_failed)?;
        if let Some(mode) = dir.mode()
            && !(dir.is_outdated() && is_unused(dir))
        {
            return Ok((mode, shared));
        }
        drop(shared);
        let exclusive = PinLock::take().map_err(lock_failed)?;
        if dir.mode().is_none() || (dir.is_outdated() && is_unused(dir)) {
            load(dir)?;
        }
        drop(exclusive);
        // Somebody may clean in between: once more.
    }
}

/// Whether a set is known to watch nothing.
fn is_unused(dir: &PinDir) -> bool {
    super::clean::watched(dir).is_ok_and(|leaves| leaves.is_empty())
}

fn load(dir: &PinDir) -> Result<(), TraceError> {
    prepare_pins()?;
    if dir.path().exists() {
        // Some of its links were taken away, so that what is left sees only half; or it is outdated.
        dir.remove().map_err(|source| TraceError::Io {
            path: dir.path().display().to_string(),
            source,
        })?;
    }
    let own = PinDir(Path::new(PINS).join(format!("loading-{}", std::process::id())));
    let loaded = load_into(&own, None).and_then(|_| {
        fs::rename(own.path(), dir.path()).map_err(|source| TraceError::Io {
            path: dir.path().display().to_string(),
            source,
        })
    });
    if loaded.is_err() && own.path().exists() {
        own.remove().map_err(|source| TraceError::Io {
            path: own.path().display().to_string(),
            source,
        })?;
    }
    loaded.map_err(name_lockdown)
}

/// The kernel's own words for what lockdown forbids are those for a helper that it does not know.
fn name_lockdown(error: TraceError) -> TraceError {
    match (error, Lockdown::of_host()) {
        (TraceError::Load { what, reason }, Some(Lockdown::Confidentiality)) => TraceError::Load {
            what,
            reason: format!(
                "{reason}; it is locked down (confidentiality), which forbids programs that read its memory: boot with lockdown=integrity, or without"
            ),
        },
        (error, _) => error,
    }
}

/// Loads a set of its own that logs what it sees at this level, for debugging; its pins are the
/// caller's to remove.
///
/// # Errors
/// As [`ensure_pinned`].
pub(super) fn load_logging(
    dir: &PinDir,
    level: Level,
) -> Result<(Confidence, EbpfLogger<StderrLog>), TraceError> {
    prepare_pins()?;
    let (mode, mut object) = load_into(dir, Some(level))?;
    let logger =
        EbpfLogger::init_with_logger(&mut object, StderrLog).map_err(|error| TraceError::Load {
            what: "the log's ring buffer",
            reason: error.to_string(),
        })?;
    Ok((mode, logger))
}

/// A directory for a set that is not shared.
pub(super) fn private_dir() -> PinDir {
    PinDir(Path::new(PINS).join(format!("private-{}", std::process::id())))
}

/// Mounts bpffs where it is not, makes the directory of pins, and clears it of what was abandoned.
fn prepare_pins() -> Result<(), TraceError> {
    let failed = |path: &Path, source: io::Error| TraceError::Io {
        path: path.display().to_string(),
        source,
    };
    let bpffs = Path::new(BPFFS);
    let magic = nix::sys::statfs::statfs(bpffs)
        .map_err(|errno| failed(bpffs, errno.into()))?
        .filesystem_type();
    if magic != nix::sys::statfs::BPF_FS_MAGIC {
        mount(
            Some("bpf"),
            bpffs,
            Some("bpf"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            Some("mode=700"),
        )
        .map_err(|errno| failed(bpffs, errno.into()))?;
    }
    let pins = Path::new(PINS);
    fs::create_dir_all(pins).map_err(|source| failed(pins, source))?;
    remove_abandoned()
}

/// Removes what a loader, or a run that logs, left where it was killed.
///
/// # Errors
/// Where it cannot be listed or removed.
pub(super) fn remove_abandoned() -> Result<(), TraceError> {
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

fn load_into(dir: &PinDir, level: Option<Level>) -> Result<(Confidence, Ebpf), TraceError> {
    let io_failed = |source| TraceError::Io {
        path: dir.path().display().to_string(),
        source,
    };
    let blob = BtfBlob::read(Path::new(KERNEL_BTF))?;
    let offsets = offsets(&blob)?;
    drop(blob);
    let load_failed = |what| {
        move |error: &dyn std::fmt::Display| TraceError::Load {
            what,
            reason: error.to_string(),
        }
    };
    let btf = aya::Btf::from_sys_fs().map_err(|error| load_failed("the kernel's BTF")(&error))?;

    fs::create_dir(dir.path()).map_err(io_failed)?;
    let rings = dir.path().join(RINGS);
    sys::bpf::create_ring(RING_BYTES)
        .and_then(|ring| {
            use std::os::fd::AsFd as _;
            sys::bpf::create_hash_of_rings(RINGS_MAX, ring.as_fd())
        })
        .map_err(|error| load_failed("the hash of ring buffers")(&error))
        .and_then(|fd| {
            MapData::from_fd(fd)
                .map_err(|error| load_failed("the hash of ring buffers")(&error))?
                .pin(&rings)
                .map_err(|error| load_failed("the hash of ring buffers")(&error))
        })?;

    let level = level.map_or(0, |level| level as u8);
    let mut object = EbpfLoader::default()
        .btf(Some(&btf))
        .override_global("OFFSETS", &offsets, true)
        .override_global(aya_log::LEVEL, &level, true)
        .map_pin_path(RINGS, rings.as_path())
        .load(OBJECT)
        .map_err(|error| load_failed("the object")(&error))?;
    for (name, map) in object.maps() {
        if name != RINGS && !name.starts_with('.') {
            map.pin(dir.path().join(name))
                .map_err(|error| load_failed("a map")(&error))?;
        }
    }
    let exact = if functions_can_be_traced() {
        attach_all(&mut object, dir, Confidence::Exact, &btf)
    } else {
        fs::create_dir(dir.path().join(UNTRACED)).map_err(io_failed)?;
        Err("kernel.ftrace_enabled is 0".to_owned())
    };
    match exact {
        Ok(()) => Ok((Confidence::Exact, object)),
        Err(refused) => {
            for program in programs::of(Confidence::Exact) {
                for path in [dir.link(program), dir.pinned_program(program)] {
                    match fs::remove_file(path) {
                        Ok(()) => {}
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => return Err(io_failed(error)),
                    }
                }
            }
            attach_all(&mut object, dir, Confidence::Strong, &btf).map_err(|also| {
                TraceError::Load {
                    what: "any set of programs",
                    reason: format!("{refused}; {also}"),
                }
            })?;
            Ok((Confidence::Strong, object))
        }
    }
}

/// With `kernel.ftrace_enabled` at 0 fentry programs attach and never run.
fn functions_can_be_traced() -> bool {
    fs::read_to_string("/proc/sys/kernel/ftrace_enabled").map_or(true, |text| text.trim() != "0")
}

fn attach_all(
    object: &mut Ebpf,
    dir: &PinDir,
    mode: Confidence,
    btf: &aya::Btf,
) -> Result<(), String> {
    programs::of(mode).iter().try_for_each(|program| {
        attach(object, dir, program, btf).map_err(|reason| {
            format!(
                "{} on {}: {}",
                program.name,
                program.hook,
                first_line(&reason)
            )
        })
    })
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn attach(
    object: &mut Ebpf,
    dir: &PinDir,
    program: &Program,
    btf: &aya::Btf,
) -> Result<(), String> {
    let loaded = object
        .program_mut(program.name)
        .ok_or_else(|| "not in the object".to_owned())?;
    let failed = |error: ProgramError| chain(&error);
    let link: FdLink = match program.attach {
        Attach::TpBtf => {
            let loaded: &mut BtfTracePoint = loaded.try_into().map_err(failed)?;
            if loaded.fd().is_err() {
                loaded.load(program.hook, btf).map_err(failed)?;
            }
            let id = loaded.attach().map_err(failed)?;
            loaded.take_link(id).map_err(failed)?.into()
        }
        Attach::Fentry => {
            let loaded: &mut FEntry = loaded.try_into().map_err(failed)?;
            loaded.load(program.hook, btf).map_err(failed)?;
            let id = loaded.attach().map_err(failed)?;
            loaded.take_link(id).map_err(failed)?.into()
        }
        Attach::Fexit => {
            let loaded: &mut FExit = loaded.try_into().map_err(failed)?;
            loaded.load(program.hook, btf).map_err(failed)?;
            let id = loaded.attach().map_err(failed)?;
            loaded.take_link(id).map_err(failed)?.into()
        }
    };
    link.pin(dir.link(program)).map_err(|error| chain(&error))?;
    object
        .program_mut(program.name)
        .ok_or_else(|| "not in the object".to_owned())?
        .pin(dir.pinned_program(program))
        .map_err(|error| chain(&error))
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
