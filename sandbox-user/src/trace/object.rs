//! Loading the eBPF object once a host: programs attached, links and maps pinned.
//!
//! Everything lies in `/sys/fs/bpf/sandbox/<stamp>/`, where the stamp is the hash of the object, so
//! that no version ever reads another's maps. A loader works in a directory of its own and renames
//! it into place under a lock, so what has the final name is whole. Pinned links stay attached
//! when their loader dies: a run that loses its supervisor keeps being recorded.

use std::{fs, io, path::Path};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::MapData,
    programs::{BtfTracePoint, FEntry, FExit, ProgramError, links::FdLink},
};
use aya_log::{EbpfLogger, Level};
use nix::mount::{MsFlags, mount};

use super::{
    TraceError,
    btf::BtfBlob,
    log::StderrLog,
    offsets::offsets,
    pins::{LOCK, PINS, PinDir, PinLock, UNTRACED, functions_can_be_traced, remove_abandoned},
    programs::{self, Attach, Program},
};
use crate::{evidence::Confidence, host::Lockdown, sys};

/// The object, as `cargo xtask ebpf` built and committed it.
pub(super) static OBJECT: &[u8] =
    include_bytes_aligned!("../../../sandbox-ebpf/prebuilt/sandbox.bpf.o");

const BPFFS: &str = "/sys/fs/bpf";
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";
/// The map of ring buffers.
pub(super) const RINGS: &str = "RINGS";
/// Bytes of the ring that shows the kernel what rings are like; those that are used may be of any
/// other size (`bpf_map_meta_equal`, kernel/bpf/map_in_map.c, does not compare it).
const EXAMPLE_RING_BYTES: u32 = 64 * 1024;
/// As many as the kernel side has leaves (`LEAVES` in its maps).
pub(super) const RINGS_MAX: u32 = 8192;

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
        if let Some(mode) = usable_mode(dir)? {
            return Ok((mode, shared));
        }
        drop(shared);
        let exclusive = PinLock::take().map_err(lock_failed)?;
        if usable_mode(dir)?.is_none() {
            load(dir)?;
        }
        drop(exclusive);
        // Somebody may clean in between: once more.
    }
}

/// The mode of what is pinned, unless it could see more by now and is known to watch nothing.
fn usable_mode(dir: &PinDir) -> Result<Option<Confidence>, TraceError> {
    let is_unused = || super::clean::watched(dir).is_ok_and(|leaves| leaves.is_empty());
    let mode = dir.mode()?;
    Ok(mode.filter(|_| !(dir.is_outdated() && is_unused())))
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
    let own = PinDir::of_this_process("loading");
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
    PinDir::of_this_process("private")
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
    sys::bpf::create_ring(EXAMPLE_RING_BYTES)
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
