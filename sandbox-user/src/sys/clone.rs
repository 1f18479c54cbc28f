//! clone3: a child that is born inside its leaf.
//!
//! CLONE_INTO_CGROUP makes birth and exit count in the leaf with no unconfined window. CLONE_VM |
//! CLONE_VFORK spare the copy of the supervisor's memory, report through it, and keep the OOM killer from
//! taking the child before exec. Linux ≥ 6.18 kills such a child at birth where the cloner's cgroup
//! has another `kill_seq` than the leaf (kernel/cgroup/cgroup.c, cgroup_post_fork), that is where cgroup.kill was
//! ever written in one of them; [`Launch::Staged`] clones from a fresh cgroup instead.

use std::ffi::{c_long, c_void};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, Ordering};

use super::pidfd::{self, Patience, Reap};
use super::program::Program;
use super::{Errno, check};
use crate::procfs;

/// Which cgroup the clone comes from.
#[derive(Clone, Copy, Debug)]
pub enum Launch<'fd> {
    /// The supervisor's own.
    Direct,
    /// A fresh one that the caller made for this and removes afterwards: a short-lived process goes
    /// there first and clones. The child is the supervisor's all the same (CLONE_PARENT).
    Staged {
        /// That cgroup's `cgroup.procs`, open for writing.
        procs: BorrowedFd<'fd>,
    },
}

/// A child that exists, or existed: it has called exec or has ended.
#[derive(Debug)]
pub struct Born {
    /// Its process id.
    pub pid: i32,
    /// A pidfd of it, close-on-exec.
    pub pidfd: OwnedFd,
}

/// Why there is no child at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unborn {
    /// No memory for the child's stack.
    Stack(Errno),
    /// The staging process could not be cloned.
    Stager(Errno),
    /// The staging process could not enter the staging cgroup.
    Staging(Errno),
    /// clone3 into the leaf failed.
    Clone(Errno),
}

/// Clones a child into the leaf and lets it run `program`, until it has called exec or has ended.
///
/// # Errors
/// Where no child came to be; see clone(2). What became of a child is in `program`.
pub fn launch(leaf: BorrowedFd<'_>, launch: Launch<'_>, program: &Program) -> Result<Born, Unborn> {
    let stack = Stack::new().map_err(Unborn::Stack)?;
    let stager_stack = Stack::new().map_err(Unborn::Stack)?;
    let birth = Birth {
        leaf: leaf.as_raw_fd(),
        program,
        stack: &stack,
        flags: match launch {
            Launch::Direct => 0,
            Launch::Staged { .. } => libc::CLONE_PARENT as u64,
        },
        procs: match launch {
            Launch::Direct => -1,
            Launch::Staged { procs } => procs.as_raw_fd(),
        },
        staging: AtomicI32::new(0),
        pid: AtomicI32::new(0),
        errno: AtomicI32::new(libc::EINTR),
        pidfd: AtomicI32::new(-1),
    };

    populate_code();
    let blocked = SignalsBlocked::new().map_err(Unborn::Clone)?;
    match launch {
        Launch::Direct => birth.clone_child(),
        Launch::Staged { .. } => birth.clone_stager(&stager_stack).map_err(Unborn::Stager)?,
    }
    drop(blocked);

    match (
        birth.pid.load(Ordering::Acquire),
        birth.errno.load(Ordering::Acquire),
    ) {
        (0, errno) => match birth.staging.load(Ordering::Acquire) {
            0 => Err(Unborn::Clone(errno)),
            staging => Err(Unborn::Staging(staging)),
        },
        (pid, errno) => {
            // SAFETY: clone3 succeeded and opened it for us alone; the stager shares our table.
            let pidfd = unsafe { OwnedFd::from_raw_fd(birth.pidfd.load(Ordering::Acquire)) };
            if errno == 0 {
                return Ok(Born { pid, pidfd });
            }
            // The stager was killed while it waited: its child may still be in our memory.
            let _ = pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL);
            let _ = pidfd::wait(pidfd.as_fd(), Reap::Take, Patience::Block);
            Err(Unborn::Stager(errno))
        }
    }
}

/// What the cloning process, the stager and the child share.
struct Birth<'a> {
    leaf: RawFd,
    program: &'a Program,
    stack: &'a Stack,
    flags: u64,
    procs: RawFd,
    /// Errno of entering the staging cgroup.
    staging: AtomicI32,
    /// Written by the kernel before the child runs, and only where there is one.
    pid: AtomicI32,
    /// Errno of the clone, 0 = it succeeded and the child has left; EINTR until then.
    errno: AtomicI32,
    /// Written by the kernel, also where the clone then fails: `pid` says whether it counts.
    pidfd: AtomicI32,
}

impl Birth<'_> {
    /// Clones the child. Also runs in the stager, so raw system calls only.
    fn clone_child(&self) {
        let sharing =
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::CLONE_PARENT_SETTID;
        let mut args = CloneArgs {
            flags: self.flags | sharing as u64 | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP,
            pidfd: self.pidfd.as_ptr() as u64,
            parent_tid: self.pid.as_ptr() as u64,
            // With CLONE_PARENT the exit signal is the stager's, and naming one is EINVAL.
            exit_signal: if self.flags == 0 {
                libc::SIGCHLD as u64
            } else {
                0
            },
            cgroup: u64::from(self.leaf.unsigned_abs()),
            ..self.stack.args()
        };
        // SAFETY: the child runs `child_main` on a stack of its own, which outlives it, as do the
        // arguments: with CLONE_VFORK we go on only when it has left this memory.
        let pid = unsafe { clone3(&mut args, child_main, (&raw const *self.program).cast()) };
        self.errno.store(errno_of(pid), Ordering::Release);
    }

    /// Clones the stager, waits until it has cloned the child, and reaps it.
    fn clone_stager(&self, stack: &Stack) -> Result<(), Errno> {
        // CLONE_FILES: the child's pidfd lands in our own table.
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES;
        let mut args = CloneArgs {
            flags: flags as u64,
            exit_signal: libc::SIGCHLD as u64,
            ..stack.args()
        };
        // SAFETY: as in `clone_child`; the stager itself waits for the child likewise.
        let pid = unsafe { clone3(&mut args, stager_main, (&raw const *self).cast()) };
        if pid < 0 {
            return Err(errno_of(pid));
        }
        // SAFETY: waits for the process cloned above; no status is asked for.
        unsafe {
            libc::syscall(
                libc::SYS_wait4,
                pid,
                null_mut::<i32>(),
                libc::__WALL,
                null_mut::<libc::rusage>(),
            );
        }
        Ok(())
    }
}

/// The errno in the result of a raw system call; 0 = success.
fn errno_of(result: i64) -> Errno {
    match i32::try_from(-result) {
        Ok(errno) if errno > 0 => errno,
        Ok(_) | Err(_) => 0,
    }
}

extern "C" fn child_main(program: *const c_void) -> ! {
    // SAFETY: `clone_child` passes the Program, which outlives this child; we are that child.
    unsafe { (*program.cast::<Program>()).run() };
    leave(125)
}

extern "C" fn stager_main(birth: *const c_void) -> ! {
    // SAFETY: `clone_stager` passes a Birth, which outlives the stager.
    let birth = unsafe { &*birth.cast::<Birth<'_>>() };
    // "0" is the writing process itself. SAFETY: one byte of a static string.
    match check(unsafe { libc::syscall(libc::SYS_write, birth.procs, c"0".as_ptr(), 1) }) {
        Ok(_) => birth.clone_child(),
        Err(errno) => birth.staging.store(errno, Ordering::Release),
    }
    leave(0)
}

fn leave(status: i32) -> ! {
    loop {
        // SAFETY: ends this process, which has no other thread, without running anything of libc.
        unsafe { libc::syscall(libc::SYS_exit_group, status) };
    }
}

const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

#[cfg(not(target_arch = "x86_64"))]
compile_error!(
    "sandbox is written and tested for x86_64 only: clone3 with a stack of its own (sys/clone.rs), \
     the seccomp filter (sys/terminal_input.rs) and the kernel's struct sigaction (sys/step.rs)"
);

/// `struct clone_args` of include/uapi/linux/sched.h.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// clone3(2) with a stack: returns in the parent only, with the pid or −errno; the child enters
/// `main(context)`. Neither libc has a wrapper, and `libc::syscall` cannot return on a fresh stack.
///
/// # Safety
/// `args` has a 16-byte aligned stack, and everything that the child uses outlives it.
unsafe fn clone3(
    args: &mut CloneArgs,
    main: extern "C" fn(*const c_void) -> !,
    context: *const c_void,
) -> i64 {
    let result: i64;
    // SAFETY: a system call, which clobbers rcx and r11. The child finds its registers copied and
    // never leaves the branch between the call and the label.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw mut *args,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") context,
            in("r13") main,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// A child's stack, with a page below it that faults.
struct Stack {
    base: *mut c_void,
}

impl Stack {
    const BYTES: usize = 64 * 1024;
    /// A page.
    const GUARD_BYTES: usize = 4096;

    fn new() -> Result<Self, Errno> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        let bytes = Self::GUARD_BYTES + Self::BYTES;
        // SAFETY: a fresh anonymous mapping touches no memory in use.
        let base = unsafe { libc::mmap(null_mut(), bytes, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::ENOMEM));
        }
        let stack = Self { base };
        // SAFETY: the lower part of the mapping just made.
        if unsafe { libc::mprotect(base, Self::GUARD_BYTES, libc::PROT_NONE) } != 0 {
            return Err(io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::ENOMEM));
        }
        let upper = base.addr() + Self::GUARD_BYTES;
        populate(upper..upper + Self::BYTES, libc::MADV_POPULATE_WRITE);
        Ok(stack)
    }

    fn args(&self) -> CloneArgs {
        CloneArgs {
            stack: self.base.addr() as u64 + Self::GUARD_BYTES as u64,
            stack_size: Self::BYTES as u64,
            ..CloneArgs::default()
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping, whose only user has left it (CLONE_VFORK).
        unsafe { libc::munmap(self.base, Self::GUARD_BYTES + Self::BYTES) };
    }
}

/// Faults in the code and constants that the child will use.
///
/// What the child faults in is charged to its leaf. A leaf that is full then has the fault tried
/// again for ever, since the OOM killer spares tasks in vfork (mm/oom_kill.c, oom_badness): measured with
/// memory.max=0 on 6.12. A system call fails with ENOMEM instead, so only those are left to the child.
fn populate_code() {
    // Where it cannot be read, the child faults its pages in by itself, as ever.
    let maps = procfs::text("/proc/self/maps").unwrap_or_default();
    let exe = std::env::current_exe().unwrap_or_default();
    for line in maps.lines() {
        if let Some((range, file)) = mapping(line)
            && (file == exe || is_libc(file))
        {
            populate(range, libc::MADV_POPULATE_READ);
        }
    }
}

fn is_libc(file: &Path) -> bool {
    let name = file.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| name.starts_with("libc.so") || name.starts_with("libc-"))
}

/// Range and file of a readable line of /proc/PID/maps. See proc_pid_maps(5).
fn mapping(line: &str) -> Option<(Range<usize>, &Path)> {
    let (start, rest) = line.split_once('-')?;
    let (end, rest) = rest.split_once(' ')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let file = rest.get(rest.find('/')?..)?;
    rest.starts_with('r')
        .then_some((start..end, Path::new(file)))
}

/// madvise(2) with MADV_POPULATE_*; a failure leaves things as they were.
fn populate(range: Range<usize>, how: libc::c_int) {
    // SAFETY: populating changes no content, and an address that is not mapped gives ENOMEM.
    unsafe {
        libc::madvise(
            std::ptr::without_provenance_mut(range.start),
            range.len(),
            how,
        )
    };
}

/// All signals blocked on this thread, until dropped: a handler of ours must not run in the child.
struct SignalsBlocked {
    before: u64,
}

impl SignalsBlocked {
    fn new() -> Result<Self, Errno> {
        set_signal_mask(u64::MAX).map(|before| Self { before })
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // The same call worked when it blocked them; there is nobody to tell if it did not now.
        let _ = set_signal_mask(self.before);
    }
}

/// Sets the calling thread's whole signal mask, libc's internal signals included; returns the old one.
pub(super) fn set_signal_mask(mask: u64) -> Result<u64, Errno> {
    let mut before = 0_u64;
    // SAFETY: both point to locals of the eight bytes that are announced.
    let result: c_long = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            &raw mut before,
            size_of::<u64>(),
        )
    };
    check(result).map(|_| before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_readable_file_mappings_are_populated() {
        let code = "55d0-55f0 r-xp 00001000 08:01 42                         /usr/bin/a b";
        assert_eq!(
            mapping(code),
            Some((0x55d0..0x55f0, Path::new("/usr/bin/a b")))
        );
        assert_eq!(mapping("55d0-55f0 ---p 00001000 08:01 42 /usr/bin/a"), None);
        assert_eq!(mapping("7ffc-7ffd rw-p 00000000 00:00 0 [stack]"), None);
    }

    #[test]
    fn this_process_survives_populating_its_code() {
        populate_code();
        assert!(Stack::new().is_ok());
    }
}
