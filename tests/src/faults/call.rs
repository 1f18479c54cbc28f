//! The system calls of the engine, and how each can fail.
//!
//! A call that is not in this table fails the sweep: whoever brings a new one into the engine says
//! here how it may fail, or why it cannot be made to.

use nix::errno::Errno;
use nix::libc;

/// What is done to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not made, and reports this error.
    Error(Errno),
    /// It is left alone, for this reason.
    Unfit(&'static str),
}

use Fault::{Error, Unfit};

const NEVER_FAILS: Fault = Unfit("the kernel has no error for it");
const RETURNS_NOT: Fault = Unfit("it does not return");
const OF_LIBC: Fault = Unfit("libc's own start, which has no way on without it");
const RELEASES: Fault = Unfit("it releases what it is given whatever it reports, and nobody asks");
const OTHER_THAN_BY_ERRNO: Fault = Unfit("it does not report failure by an error number");

/// Number, name and fault of each call, by name.
const CALLS: &[(i64, &str, Fault)] = &[
    (libc::SYS_access, "access", Error(Errno::EIO)),
    (libc::SYS_arch_prctl, "arch_prctl", OF_LIBC),
    (libc::SYS_bind, "bind", Error(Errno::ENOMEM)),
    (libc::SYS_bpf, "bpf", Error(Errno::ENOMEM)),
    (libc::SYS_brk, "brk", OTHER_THAN_BY_ERRNO),
    (libc::SYS_capset, "capset", Error(Errno::EPERM)),
    (libc::SYS_chdir, "chdir", Error(Errno::EACCES)),
    (libc::SYS_chmod, "chmod", Error(Errno::EPERM)),
    // A system call only where the vDSO cannot read the clock.
    (libc::SYS_clock_gettime, "clock_gettime", NEVER_FAILS),
    (
        libc::SYS_clock_nanosleep,
        "clock_nanosleep",
        Error(Errno::EINTR),
    ),
    (libc::SYS_clone, "clone", Error(Errno::EAGAIN)),
    (libc::SYS_clone3, "clone3", Error(Errno::ENOMEM)),
    (libc::SYS_close, "close", RELEASES),
    (libc::SYS_close_range, "close_range", Error(Errno::ENOMEM)),
    (libc::SYS_connect, "connect", Error(Errno::ECONNREFUSED)),
    (libc::SYS_dup, "dup", Error(Errno::EMFILE)),
    (libc::SYS_dup2, "dup2", Error(Errno::EBUSY)),
    (libc::SYS_dup3, "dup3", Error(Errno::EBUSY)),
    (
        libc::SYS_epoll_create1,
        "epoll_create1",
        Error(Errno::EMFILE),
    ),
    (libc::SYS_epoll_ctl, "epoll_ctl", Error(Errno::ENOSPC)),
    (libc::SYS_epoll_wait, "epoll_wait", Error(Errno::EINTR)),
    (libc::SYS_eventfd2, "eventfd2", Error(Errno::EMFILE)),
    (libc::SYS_execve, "execve", Error(Errno::ENOMEM)),
    (libc::SYS_exit, "exit", RETURNS_NOT),
    (libc::SYS_exit_group, "exit_group", RETURNS_NOT),
    (libc::SYS_faccessat, "faccessat", Error(Errno::EIO)),
    (libc::SYS_faccessat2, "faccessat2", Error(Errno::EIO)),
    (libc::SYS_fcntl, "fcntl", Error(Errno::EMFILE)),
    (libc::SYS_flock, "flock", Error(Errno::ENOLCK)),
    (libc::SYS_fsconfig, "fsconfig", Error(Errno::ENOMEM)),
    (libc::SYS_fsetxattr, "fsetxattr", Error(Errno::ENOSPC)),
    (libc::SYS_fsmount, "fsmount", Error(Errno::EMFILE)),
    (libc::SYS_fsopen, "fsopen", Error(Errno::EMFILE)),
    (libc::SYS_fspick, "fspick", Error(Errno::EMFILE)),
    (libc::SYS_fstat, "fstat", Error(Errno::ENOMEM)),
    (libc::SYS_fsync, "fsync", Error(Errno::EIO)),
    (libc::SYS_ftruncate, "ftruncate", Error(Errno::EIO)),
    (libc::SYS_futex, "futex", Error(Errno::EINTR)),
    (libc::SYS_getcwd, "getcwd", Error(Errno::ENOENT)),
    (libc::SYS_getdents64, "getdents64", Error(Errno::EIO)),
    (libc::SYS_getegid, "getegid", NEVER_FAILS),
    (libc::SYS_geteuid, "geteuid", NEVER_FAILS),
    (libc::SYS_getgid, "getgid", NEVER_FAILS),
    (libc::SYS_getgroups, "getgroups", Error(Errno::EINVAL)),
    (libc::SYS_getpid, "getpid", NEVER_FAILS),
    (libc::SYS_getppid, "getppid", NEVER_FAILS),
    (libc::SYS_getrandom, "getrandom", Error(Errno::EAGAIN)),
    (libc::SYS_getsockname, "getsockname", Error(Errno::ENOBUFS)),
    (libc::SYS_getsockopt, "getsockopt", Error(Errno::ENOMEM)),
    (libc::SYS_gettid, "gettid", NEVER_FAILS),
    (libc::SYS_getuid, "getuid", NEVER_FAILS),
    (libc::SYS_getxattr, "getxattr", Error(Errno::EIO)),
    (libc::SYS_ioctl, "ioctl", Error(Errno::ENOMEM)),
    (libc::SYS_keyctl, "keyctl", Error(Errno::EDQUOT)),
    (libc::SYS_kill, "kill", Error(Errno::EPERM)),
    (
        libc::SYS_landlock_create_ruleset,
        "landlock_create_ruleset",
        Error(Errno::ENOMEM),
    ),
    (
        libc::SYS_landlock_restrict_self,
        "landlock_restrict_self",
        Error(Errno::ENOMEM),
    ),
    (libc::SYS_linkat, "linkat", Error(Errno::ENOSPC)),
    (libc::SYS_listxattr, "listxattr", Error(Errno::EIO)),
    (libc::SYS_lseek, "lseek", Error(Errno::ESPIPE)),
    (libc::SYS_madvise, "madvise", Error(Errno::ENOMEM)),
    (libc::SYS_memfd_create, "memfd_create", Error(Errno::EMFILE)),
    (libc::SYS_mkdir, "mkdir", Error(Errno::ENOSPC)),
    (libc::SYS_mkdirat, "mkdirat", Error(Errno::ENOSPC)),
    (libc::SYS_mmap, "mmap", Error(Errno::ENOMEM)),
    (libc::SYS_mount, "mount", Error(Errno::ENOMEM)),
    (
        libc::SYS_mount_setattr,
        "mount_setattr",
        Error(Errno::ENOMEM),
    ),
    (libc::SYS_move_mount, "move_mount", Error(Errno::ENOMEM)),
    (libc::SYS_mprotect, "mprotect", Error(Errno::ENOMEM)),
    (libc::SYS_mremap, "mremap", Error(Errno::ENOMEM)),
    (libc::SYS_munmap, "munmap", RELEASES),
    (libc::SYS_newfstatat, "newfstatat", Error(Errno::ENOMEM)),
    (libc::SYS_open, "open", Error(Errno::EMFILE)),
    (libc::SYS_openat, "openat", Error(Errno::EMFILE)),
    (libc::SYS_open_tree, "open_tree", Error(Errno::EMFILE)),
    (libc::SYS_personality, "personality", Error(Errno::EINVAL)),
    (libc::SYS_pidfd_open, "pidfd_open", Error(Errno::EMFILE)),
    (
        libc::SYS_pidfd_send_signal,
        "pidfd_send_signal",
        Error(Errno::EPERM),
    ),
    (libc::SYS_pipe2, "pipe2", Error(Errno::EMFILE)),
    (libc::SYS_poll, "poll", Error(Errno::EINTR)),
    (libc::SYS_ppoll, "ppoll", Error(Errno::EINTR)),
    (libc::SYS_prctl, "prctl", Error(Errno::EPERM)),
    (libc::SYS_pread64, "pread64", Error(Errno::EIO)),
    (libc::SYS_prlimit64, "prlimit64", Error(Errno::EPERM)),
    (libc::SYS_read, "read", Error(Errno::EIO)),
    (libc::SYS_readlink, "readlink", Error(Errno::EIO)),
    (libc::SYS_recvfrom, "recvfrom", Error(Errno::ECONNRESET)),
    (libc::SYS_recvmsg, "recvmsg", Error(Errno::ECONNRESET)),
    (libc::SYS_rename, "rename", Error(Errno::ENOSPC)),
    (
        libc::SYS_restart_syscall,
        "restart_syscall",
        Unfit("the kernel's own way on with another call"),
    ),
    (libc::SYS_rseq, "rseq", OF_LIBC),
    (libc::SYS_rt_sigaction, "rt_sigaction", Error(Errno::EINVAL)),
    (
        libc::SYS_rt_sigprocmask,
        "rt_sigprocmask",
        Error(Errno::EINVAL),
    ),
    (libc::SYS_rt_sigreturn, "rt_sigreturn", RETURNS_NOT),
    (
        libc::SYS_sched_getaffinity,
        "sched_getaffinity",
        Error(Errno::ESRCH),
    ),
    (libc::SYS_sched_yield, "sched_yield", NEVER_FAILS),
    (libc::SYS_sendmsg, "sendmsg", Error(Errno::EPIPE)),
    (libc::SYS_sendto, "sendto", Error(Errno::EPIPE)),
    (libc::SYS_setfsgid, "setfsgid", OTHER_THAN_BY_ERRNO),
    (libc::SYS_setfsuid, "setfsuid", OTHER_THAN_BY_ERRNO),
    (libc::SYS_setgroups, "setgroups", Error(Errno::ENOMEM)),
    (libc::SYS_setpgid, "setpgid", Error(Errno::EPERM)),
    (libc::SYS_setresgid, "setresgid", Error(Errno::EPERM)),
    (libc::SYS_setresuid, "setresuid", Error(Errno::EAGAIN)),
    (libc::SYS_set_robust_list, "set_robust_list", OF_LIBC),
    (libc::SYS_setsid, "setsid", Error(Errno::EPERM)),
    (libc::SYS_setsockopt, "setsockopt", Error(Errno::ENOMEM)),
    (libc::SYS_set_tid_address, "set_tid_address", OF_LIBC),
    (libc::SYS_shutdown, "shutdown", Error(Errno::ENOTCONN)),
    (libc::SYS_sigaltstack, "sigaltstack", Error(Errno::ENOMEM)),
    (libc::SYS_signalfd4, "signalfd4", Error(Errno::EMFILE)),
    (libc::SYS_socket, "socket", Error(Errno::ENFILE)),
    (libc::SYS_socketpair, "socketpair", Error(Errno::EMFILE)),
    (libc::SYS_statfs, "statfs", Error(Errno::EIO)),
    (libc::SYS_statx, "statx", Error(Errno::ENOMEM)),
    (
        libc::SYS_timerfd_create,
        "timerfd_create",
        Error(Errno::EMFILE),
    ),
    (
        libc::SYS_timerfd_settime,
        "timerfd_settime",
        Error(Errno::EINVAL),
    ),
    (libc::SYS_umask, "umask", NEVER_FAILS),
    (libc::SYS_umount2, "umount2", Error(Errno::EBUSY)),
    (libc::SYS_uname, "uname", NEVER_FAILS),
    (libc::SYS_unlink, "unlink", Error(Errno::EACCES)),
    (libc::SYS_unlinkat, "unlinkat", Error(Errno::EBUSY)),
    (libc::SYS_unshare, "unshare", Error(Errno::ENOSPC)),
    (libc::SYS_wait4, "wait4", Error(Errno::EINTR)),
    (libc::SYS_waitid, "waitid", Error(Errno::EINTR)),
    (libc::SYS_write, "write", Error(Errno::ENOSPC)),
    (libc::SYS_writev, "writev", Error(Errno::ENOSPC)),
];

/// A system call by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call(pub(super) i64);

impl Call {
    /// Its name, where it is in the table.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Some(self.entry()?.1)
    }

    /// What can be done to it on such a subject, where it is in the table.
    #[must_use]
    pub fn fault(self, subject: &str) -> Option<Fault> {
        // What wakes an event loop: eventfd(2) knows no other error.
        if self.0 == libc::SYS_write && subject.ends_with("[eventfd]") {
            return Some(Error(Errno::EAGAIN));
        }
        Some(self.entry()?.2)
    }

    fn entry(self) -> Option<&'static (i64, &'static str, Fault)> {
        CALLS.iter().find(|(number, ..)| *number == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_listed_once_in_the_order_of_names() {
        assert!(CALLS.is_sorted_by(|(_, one, _), (_, next, _)| {
            one.replace('_', "") < next.replace('_', "")
        }));
        assert_eq!(Call(libc::SYS_read).name(), Some("read"));
        assert_eq!(Call(-7).fault(""), None);
    }
}
