//! Keeping an analysis from typing into its caller's terminal.
//!
//! TIOCSTI puts a character into the input of a terminal as if it were typed, and TIOCLINUX pastes:
//! an analysis on root's terminal, running as somebody else, could so have root's shell run what it
//! likes once it has ended. From 6.2 on `dev.tty.legacy_tiocsti` may forbid the first; this does
//! everywhere. See ioctl_tty(2), seccomp(2).

use super::{Errno, check};

/// `struct seccomp_data`: offsets of `nr`, `arch` and the low half of `args[1]`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const COMMAND: u32 = 24;

const AUDIT_ARCH_X86_64: u32 = 0xC000_003E;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// ioctl's number natively, of the x32 ABI, and of 32-bit programs.
const IOCTL_X86_64: u32 = 16;
const IOCTL_X32: u32 = 0x4000_0000 + 514;
const IOCTL_I386: u32 = 54;
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541C;

/// BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K (linux/bpf_common.h).
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

const fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

const fn equal(k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: EQUAL,
        jt,
        jf,
        k,
    }
}

/// EPERM for the two commands, by whatever ABI; everything else is allowed.
const FILTER: [libc::sock_filter; 12] = [
    statement(LOAD, ARCH),
    equal(AUDIT_ARCH_X86_64, 0, 3),
    statement(LOAD, NR),
    equal(IOCTL_X86_64, 4, 0),
    equal(IOCTL_X32, 3, 6),
    equal(AUDIT_ARCH_I386, 0, 5),
    statement(LOAD, NR),
    equal(IOCTL_I386, 0, 3),
    statement(LOAD, COMMAND),
    equal(TIOCSTI, 2, 0),
    equal(TIOCLINUX, 1, 0),
    statement(RETURN, libc::SECCOMP_RET_ALLOW),
];
const FORBID: libc::sock_filter = statement(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);

/// Whether this kernel knows seccomp filters.
pub fn can_be_forbidden() -> bool {
    const SECCOMP_GET_ACTION_AVAIL: u32 = 2;
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads one u32.
    unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        ) == 0
    }
}

/// Forbids it to the calling thread and all that it becomes or starts. Needs no_new_privs.
///
/// # Safety
/// Only in a child of [`super::clone`]: it cannot be undone.
pub(super) unsafe fn forbid() -> Result<(), Errno> {
    let mut filter = [FORBID; FILTER.len() + 1];
    let (allowing, _) = filter.split_at_mut(FILTER.len());
    allowing.copy_from_slice(&FILTER);
    let program = libc::sock_fprog {
        len: 13,
        filter: filter.as_mut_ptr(),
    };
    const _: () = assert!(FILTER.len() + 1 == 13);
    // SAFETY: the kernel copies the program, which is live.
    unsafe {
        check(libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        ))
        .map(drop)
    }
}
