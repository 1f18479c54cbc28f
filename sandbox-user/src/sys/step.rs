//! What the child does between its birth and its exec, one step at a time.
//!
//! The list is made beforehand, strings and all: the child shares the supervisor's memory, so it may
//! not allocate, lock, panic or call anything of libc that keeps state (glibc's setresuid would signal
//! the supervisor's threads). Each step is raw system calls; where one fails, its place in the list and
//! its errno are the report, and the supervisor says in words what it was ([`fmt::Display`]).

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulong};
use std::fmt;
use std::os::fd::RawFd;
use std::ptr::null;

use super::rlimits::ResourceLimit;
use super::{Errno, check};

/// A file system that is mounted fresh for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filesystem {
    /// The unified cgroup hierarchy, seen from the cgroup namespace's root.
    Cgroup2,
    /// Memory.
    Tmpfs,
    /// POSIX message queues of the IPC namespace.
    Mqueue,
}

impl Filesystem {
    const fn name(self) -> &'static CStr {
        match self {
            Self::Cgroup2 => c"cgroup2",
            Self::Tmpfs => c"tmpfs",
            Self::Mqueue => c"mqueue",
        }
    }
}

/// One step of the child, in the order in which `spawn` puts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// setsid(2).
    OwnSession,
    /// Every signal to its default, but these, which are ignored (bit N−1 stands for signal N).
    /// CLONE_CLEAR_SIGHAND alone leaves ignored signals ignored (kernel/fork.c, copy_sighand).
    ResetSignals {
        /// Signals that stay ignored.
        ignored: u64,
    },
    /// /proc/self/oom_score_adj. The kernel copies it to other processes with the same memory, but
    /// not from or to one that is in vfork (fs/proc/base.c, __set_oom_adj), so the supervisor keeps its own.
    OomScoreAdj {
        /// The number, as text.
        value: CString,
    },
    /// unshare(2): mount, IPC and cgroup namespaces. Done in the child, since clone3 would root the
    /// cgroup namespace at the *parent's* cgroup (kernel/cgroup/namespace.c, copy_cgroup_ns).
    NewNamespaces,
    /// The whole mount tree becomes a slave: mounts come in from the host, none go out.
    MakeSlave,
    /// umount2(2) with MNT_DETACH.
    Detach {
        /// Mount point.
        at: CString,
    },
    /// mount(2) of a fresh file system.
    Mount {
        /// Which.
        filesystem: Filesystem,
        /// Mount point.
        at: CString,
        /// MS_* flags.
        flags: c_ulong,
        /// The file system's own options.
        options: CString,
    },
    /// Makes a mount read-only, and only the mount: the superblock may be shared with the host.
    MakeReadOnly {
        /// Mount point.
        at: CString,
        /// The mount's other MS_* flags, which a remount would otherwise clear.
        flags: c_ulong,
    },
    /// Hides a directory behind an empty one, all but one directory in it.
    CoverAllBut {
        /// What is hidden.
        at: CString,
        /// What stays, as an absolute path.
        kept: CString,
    },
    /// Empties the capability bounding set.
    DropBoundingSet,
    /// setgroups(2).
    SetGroups {
        /// All supplementary groups.
        groups: Vec<u32>,
    },
    /// setresgid(2), all three.
    SetGid {
        /// Group id.
        gid: u32,
    },
    /// setresuid(2), all three.
    SetUid {
        /// User id.
        uid: u32,
    },
    /// Empties the ambient, permitted, effective and inheritable sets, and clears keepcaps.
    DropCapabilities,
    /// PR_SET_NO_NEW_PRIVS.
    NoNewPrivileges,
    /// A Landlock domain of its own: its members cannot trace, enter or signal processes outside of
    /// it, the same user's included. Needs no_new_privs, or root.
    OwnDomain,
    /// Forbids typing into the caller's terminal. Needs no_new_privs.
    ForbidTyping,
    /// chdir(2).
    ChangeDirectory {
        /// Where to.
        to: CString,
    },
    /// dup3(2) onto one of the three standard descriptors.
    Stdio {
        /// A descriptor above 2.
        from: RawFd,
        /// 0, 1 or 2.
        to: RawFd,
    },
    /// Puts the caller's limits back, which `sandbox` had lifted for itself.
    RestoreLimits {
        /// All that were lifted.
        limits: Vec<ResourceLimit>,
    },
    /// close_range(2): everything above 2 goes at exec.
    CloseOnExec,
    /// An empty signal mask. Last, so that a signal finds default dispositions and a finished child.
    UnblockSignals,
}

impl Step {
    /// Takes the step.
    ///
    /// # Safety
    /// Only in a child of [`super::clone`]: it changes the calling process for good.
    pub(super) unsafe fn take(&self) -> Result<(), Errno> {
        // SAFETY: every pointer given to the kernel comes from a CString, a Vec or a local that
        // outlives the call; the lengths are theirs. None of these calls makes the kernel write to
        // memory of ours. The caller vouches that this is the child.
        unsafe {
            match self {
                Self::OwnSession => check(libc::syscall(libc::SYS_setsid)).map(drop),
                Self::ResetSignals { ignored } => reset_signals(*ignored),
                Self::OomScoreAdj { value } => write_file(c"/proc/self/oom_score_adj", value),
                Self::NewNamespaces => check(libc::syscall(
                    libc::SYS_unshare,
                    libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWCGROUP,
                ))
                .map(drop),
                Self::MakeSlave => {
                    mount(null(), c"/", null(), libc::MS_REC | libc::MS_SLAVE, null())
                }
                Self::Detach { at } => check(libc::syscall(
                    libc::SYS_umount2,
                    at.as_ptr(),
                    libc::MNT_DETACH,
                ))
                .map(drop),
                Self::Mount {
                    filesystem,
                    at,
                    flags,
                    options,
                } => {
                    let name = filesystem.name().as_ptr();
                    mount(name, at, name, *flags, options.as_ptr())
                }
                Self::MakeReadOnly { at, flags } => make_read_only(at, *flags),
                Self::CoverAllBut { at, kept } => cover_all_but(at, kept),
                Self::DropBoundingSet => drop_bounding_set(),
                Self::SetGroups { groups } => check(libc::syscall(
                    libc::SYS_setgroups,
                    groups.len(),
                    groups.as_ptr(),
                ))
                .map(drop),
                Self::SetGid { gid } => {
                    check(libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid)).map(drop)
                }
                Self::SetUid { uid } => {
                    check(libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid)).map(drop)
                }
                Self::DropCapabilities => drop_capabilities(),
                Self::NoNewPrivileges => prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0),
                Self::OwnDomain => own_domain(),
                Self::ForbidTyping => super::terminal_input::forbid(),
                Self::RestoreLimits { limits } => limits.iter().try_for_each(|limit| limit.set()),
                Self::ChangeDirectory { to } => {
                    check(libc::syscall(libc::SYS_chdir, to.as_ptr())).map(drop)
                }
                Self::Stdio { from, to } => {
                    check(libc::syscall(libc::SYS_dup3, *from, *to, 0)).map(drop)
                }
                Self::CloseOnExec => check(libc::syscall(
                    libc::SYS_close_range,
                    3,
                    c_uint::MAX,
                    libc::CLOSE_RANGE_CLOEXEC,
                ))
                .map(drop),
                Self::UnblockSignals => super::clone::set_signal_mask(0).map(drop),
            }
        }
    }
}

/// `struct sigaction` as the kernel has it on x86_64: handler, flags, restorer, mask.
type KernelSigaction = [u64; 4];

unsafe fn reset_signals(ignored: u64) -> Result<(), Errno> {
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        let handler = if ignored >> (signal - 1) & 1 == 1 {
            libc::SIG_IGN
        } else {
            libc::SIG_DFL
        };
        let action: KernelSigaction = [handler as u64, 0, 0, 0];
        // SAFETY: the kernel reads `action`, a local of the right layout, and writes nothing.
        unsafe {
            check(libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                action.as_ptr(),
                null::<u64>(),
                size_of::<u64>(),
            ))?;
        }
    }
    Ok(())
}

unsafe fn write_file(path: &CStr, content: &CStr) -> Result<(), Errno> {
    // SAFETY: path and content are NUL-terminated and live; the descriptor is closed by its opener.
    unsafe {
        let flags = libc::O_WRONLY | libc::O_CLOEXEC;
        let fd = check(libc::syscall(
            libc::SYS_openat,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
        ))?;
        let bytes = content.to_bytes();
        let written = check(libc::syscall(
            libc::SYS_write,
            fd,
            bytes.as_ptr(),
            bytes.len(),
        ));
        libc::syscall(libc::SYS_close, fd);
        written.map(drop)
    }
}

unsafe fn mount(
    source: *const c_char,
    at: &CStr,
    filesystem: *const c_char,
    flags: c_ulong,
    options: *const c_char,
) -> Result<(), Errno> {
    // SAFETY: null or NUL-terminated strings that the caller keeps alive.
    unsafe {
        check(libc::syscall(
            libc::SYS_mount,
            source,
            at.as_ptr(),
            filesystem,
            flags,
            options,
        ))
        .map(drop)
    }
}

unsafe fn make_read_only(at: &CStr, flags: c_ulong) -> Result<(), Errno> {
    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | flags;
    // SAFETY: `at` is live; a remount takes no source, type or options.
    unsafe { mount(null(), at, null(), flags, null()) }
}

unsafe fn cover_all_but(at: &CStr, kept: &CStr) -> Result<(), Errno> {
    const OPEN_TREE_CLONE: c_uint = 1;
    const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 4;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: live strings, flags of the calls they are given to; the descriptor of the detached
    // tree is closed here, and otherwise at exec.
    unsafe {
        let tree = check(libc::syscall(
            libc::SYS_open_tree,
            libc::AT_FDCWD,
            kept.as_ptr(),
            OPEN_TREE_CLONE | libc::O_CLOEXEC as c_uint | libc::AT_RECURSIVE as c_uint,
        ))?;
        let tmpfs = Filesystem::Tmpfs.name().as_ptr();
        mount(tmpfs, at, tmpfs, flags, c"mode=0755".as_ptr())?;
        check(libc::syscall(
            libc::SYS_mkdirat,
            libc::AT_FDCWD,
            kept.as_ptr(),
            0o755,
        ))?;
        check(libc::syscall(
            libc::SYS_move_mount,
            tree,
            c"".as_ptr(),
            libc::AT_FDCWD,
            kept.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        ))?;
        libc::syscall(libc::SYS_close, tree);
        make_read_only(at, flags)
    }
}

unsafe fn prctl(option: c_int, first: c_ulong, second: c_ulong) -> Result<(), Errno> {
    let none: c_ulong = 0;
    // SAFETY: only options that take numbers are passed.
    unsafe {
        check(libc::syscall(
            libc::SYS_prctl,
            option,
            first,
            second,
            none,
            none,
        ))
        .map(drop)
    }
}

unsafe fn drop_bounding_set() -> Result<(), Errno> {
    for capability in 0..64 {
        // SAFETY: takes a number.
        match unsafe { prctl(libc::PR_CAPBSET_DROP, capability, 0) } {
            Ok(()) => {}
            // Past the last capability that this kernel knows.
            Err(libc::EINVAL) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

unsafe fn drop_capabilities() -> Result<(), Errno> {
    // SAFETY: prctl takes numbers only.
    unsafe {
        prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong,
            0,
        )?;
        prctl(libc::PR_SET_KEEPCAPS, 0, 0)?;
    }
    clear_capabilities()
}

/// Takes all capabilities from the calling thread.
pub(super) fn clear_capabilities() -> Result<(), Errno> {
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let header: [u32; 2] = [LINUX_CAPABILITY_VERSION_3, 0];
    let empty = [0_u32; 6];
    // SAFETY: capset reads both arrays, which have the size that version 3 asks for; it would write
    // to the header only for an unknown version.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), empty.as_ptr()) };
    check(result).map(drop)
}

/// Whether Landlock is on and knows a domain that restricts nothing but its members' reach
/// (`scoped`, ABI 6, Linux 6.12). Before, a domain always costs its members mount(2), which containers
/// inside an analysis need.
pub fn knows_domains() -> bool {
    const LANDLOCK_CREATE_RULESET_VERSION: c_uint = 1;
    // SAFETY: a null attribute of size 0 with this flag asks for the version alone.
    let version = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            null::<u64>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    });
    match version {
        Ok(version) => version >= 6,
        // Not built, not switched on, not for this container.
        Err(libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM) => false,
        // It could not be asked, which does not mean that it is not there: the step itself will tell.
        Err(_) => true,
    }
}

unsafe fn own_domain() -> Result<(), Errno> {
    const LANDLOCK_SCOPE_SIGNAL: u64 = 2;
    // struct landlock_ruleset_attr: handled_access_fs, handled_access_net, scoped.
    let attributes: [u64; 3] = [0, 0, LANDLOCK_SCOPE_SIGNAL];
    // SAFETY: the kernel reads `attributes`, of the size given; the descriptor is closed here.
    unsafe {
        let ruleset = check(libc::syscall(
            libc::SYS_landlock_create_ruleset,
            attributes.as_ptr(),
            size_of_val(&attributes),
            0,
        ))?;
        let entered = check(libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0));
        libc::syscall(libc::SYS_close, ruleset);
        entered.map(drop)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnSession => f.write_str("start a session (setsid)"),
            Self::ResetSignals { .. } => f.write_str("reset signal dispositions"),
            Self::OomScoreAdj { value } => {
                write!(
                    f,
                    "write {} to /proc/self/oom_score_adj",
                    value.to_string_lossy()
                )
            }
            Self::NewNamespaces => f.write_str("unshare mount, IPC and cgroup namespaces"),
            Self::MakeSlave => f.write_str("make / a recursive slave mount"),
            Self::Detach { at } => {
                write!(f, "unmount the host's cgroup2 at {}", at.to_string_lossy())
            }
            Self::Mount { filesystem, at, .. } => {
                let name = filesystem.name().to_string_lossy();
                write!(f, "mount {name} on {}", at.to_string_lossy())
            }
            Self::MakeReadOnly { at, .. } => {
                write!(f, "remount {} read-only", at.to_string_lossy())
            }
            Self::CoverAllBut { at, kept } => {
                write!(
                    f,
                    "hide {} but {}",
                    at.to_string_lossy(),
                    kept.to_string_lossy()
                )
            }
            Self::DropBoundingSet => f.write_str("empty the capability bounding set"),
            Self::SetGroups { groups } => write!(f, "set supplementary groups {groups:?}"),
            Self::SetGid { gid } => write!(f, "become gid {gid}"),
            Self::SetUid { uid } => write!(f, "become uid {uid}"),
            Self::DropCapabilities => f.write_str("drop all capabilities"),
            Self::NoNewPrivileges => f.write_str("set no_new_privs"),
            Self::OwnDomain => f.write_str("enter a Landlock domain"),
            Self::ForbidTyping => f.write_str("forbid typing into the terminal (seccomp)"),
            Self::RestoreLimits { .. } => f.write_str("put the caller's resource limits back"),
            Self::ChangeDirectory { to } => {
                write!(
                    f,
                    "change to directory {} (as the analysis's user)",
                    to.to_string_lossy()
                )
            }
            Self::Stdio { to, .. } => write!(f, "set up file descriptor {to}"),
            Self::CloseOnExec => f.write_str("mark descriptors close-on-exec"),
            Self::UnblockSignals => f.write_str("unblock signals"),
        }
    }
}
