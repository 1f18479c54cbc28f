//! What a failed start means: which step, and whether the command, a limit or we are to blame.

use std::ffi::OsString;
use std::io;

use crate::evidence::{SetupFailure, SetupFailureKind};
use crate::sys::Errno;
use crate::sys::clone::Unborn;
use crate::sys::exec::Lookup;
use crate::sys::program::{ExecHint, Program, Progress};

/// There is no child.
pub(super) fn of_clone(unborn: Unborn) -> SetupFailure {
    let (step, errno, kind) = match unborn {
        Unborn::Stack(errno) => ("map a stack for the child", errno, SetupFailureKind::Other),
        Unborn::Stager(errno) => ("clone the staging process", errno, SetupFailureKind::Other),
        Unborn::Staging(errno) => (
            "enter the staging cgroup (write its cgroup.procs)",
            errno,
            SetupFailureKind::Other,
        ),
        Unborn::Clone(errno) => {
            let (step, kind) = match errno {
                // cgroup/pids.c, and the kernel's own pid_max and threads-max.
                libc::EAGAIN => (
                    "clone3 into the leaf: no process may be added (pids.max here or above, pid_max)",
                    SetupFailureKind::OutOfPids,
                ),
                libc::ENOMEM => (
                    "clone3 into the leaf: no memory for a process (memory.max here or above)",
                    SetupFailureKind::OutOfMemory,
                ),
                libc::ENOENT | libc::ENODEV => (
                    "clone3 into the leaf: somebody has removed it",
                    SetupFailureKind::Other,
                ),
                libc::EACCES | libc::EPERM => (
                    "clone3 into the leaf (needs write access to its cgroup.procs: run as root)",
                    SetupFailureKind::Other,
                ),
                libc::EBUSY | libc::EOPNOTSUPP => (
                    "clone3 into the leaf: it must be a domain cgroup without controllers for children",
                    SetupFailureKind::Other,
                ),
                _ => ("clone3 into the leaf", SetupFailureKind::Other),
            };
            (step, errno, kind)
        }
    };
    SetupFailure {
        step: step.to_owned(),
        errno: Some(errno),
        kind,
    }
}

/// The child gave up.
pub(super) fn of_program(program: &Program, argv: &[OsString], errno: Errno) -> SetupFailure {
    let at = program.progress();
    let kind = match (at, errno) {
        (_, libc::ENOMEM) => SetupFailureKind::OutOfMemory,
        (Progress::Exec, libc::ENOENT) => SetupFailureKind::CommandNotFound,
        (Progress::Exec, _) => SetupFailureKind::CommandNotExecutable,
        (Progress::Unborn | Progress::At(_), _) => SetupFailureKind::Other,
    };
    let step = match at {
        Progress::Exec => of_exec(program, argv, errno),
        Progress::Unborn | Progress::At(_) if errno == libc::EPERM => format!(
            "{} (needs root's capabilities here, CAP_SYS_ADMIN above all; containers and LSMs may forbid it)",
            describe(at, argv)
        ),
        Progress::Unborn | Progress::At(_) => describe(at, argv),
    };
    SetupFailure {
        step,
        errno: Some(errno),
        kind,
    }
}

fn of_exec(program: &Program, argv: &[OsString], errno: Errno) -> String {
    let (file, hint) = program.exec_failure();
    let file = file.map_or_else(String::new, |file| file.to_string_lossy().into_owned());
    match (hint, program.exec().lookup(), errno) {
        (ExecHint::InterpreterMissing, _, libc::ENOENT) => format!(
            "execve {file} (the file is there; the interpreter that its first line or its ELF header names is not)"
        ),
        (ExecHint::Shell, _, _) => {
            format!("execve /bin/sh for {file}, which has no format of its own")
        }
        (_, Lookup::Search, libc::ENOENT) => {
            let command = argv
                .first()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            format!("find {command} in the analysis's PATH")
        }
        (_, _, libc::E2BIG) => {
            format!("execve {file} (arguments and environment are too long together)")
        }
        (_, _, libc::ENOENT) if file.is_empty() => "execve '' (the command is empty)".to_owned(),
        (_, _, _) => format!("execve {file}"),
    }
}

/// Whether something failed in a way that the kernel also has where it gets no page: an execve for the arguments
/// (E2BIG of fs/exec.c, `get_arg_page`; EFAULT where they cannot be read), or for the file, of which it then reads less
/// than there is (fs/binfmt_elf.c: EIO of `elf_read`, ENOEXEC without `load_elf_phdrs`); a file of /proc, which makes
/// an inode for whoever looks it up (ENOENT of fs/proc/base.c, `proc_pident_instantiate`); a new tmpfs, for its root
/// (ENOSPC of mm/shmem.c, `__shmem_get_inode`).
pub(super) fn may_be_for_want_of_memory(failure: &SetupFailure) -> bool {
    use SetupFailureKind::{CommandNotExecutable, Other};
    match (failure.kind, failure.errno) {
        (CommandNotExecutable, Some(errno)) => matches!(
            errno,
            libc::E2BIG | libc::EFAULT | libc::EIO | libc::ENOEXEC
        ),
        (Other, Some(libc::ENOENT)) => failure.step.contains(" /proc/"),
        (Other, Some(libc::ENOSPC)) => failure.step.starts_with("mount tmpfs "),
        (_, _) => false,
    }
}

/// What such a failure comes to where the leaf's memory had run out.
pub(super) fn for_want_of_memory(failure: SetupFailure, argv: &[OsString]) -> SetupFailure {
    let step = match failure.kind {
        SetupFailureKind::CommandNotExecutable => describe(Progress::Exec, argv),
        SetupFailureKind::CommandNotFound
        | SetupFailureKind::OutOfMemory
        | SetupFailureKind::OutOfPids
        | SetupFailureKind::Other => failure.step,
    };
    SetupFailure {
        step,
        errno: Some(libc::ENOMEM),
        kind: SetupFailureKind::OutOfMemory,
    }
}

/// What the child was doing, in words.
pub(super) fn describe(at: Progress<'_>, argv: &[OsString]) -> String {
    match at {
        Progress::Unborn => "start the child".to_owned(),
        Progress::At(step) => step.to_string(),
        Progress::Exec => {
            let command = argv
                .first()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            format!("execve {command}")
        }
    }
}

/// Something on our side of the clone.
pub(super) fn ours(step: String, error: &io::Error) -> SetupFailure {
    SetupFailure {
        step,
        errno: error.raw_os_error(),
        kind: SetupFailureKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::step::{Filesystem, Step};

    #[test]
    fn what_wants_memory_may_say_something_else() {
        use SetupFailureKind::{CommandNotExecutable, Other, OutOfMemory};
        const EXECVE: &str = "execve /bin/true";
        let score = Step::OomScoreAdj {
            value: c"500".to_owned(),
        };
        let tmpfs = Step::Mount {
            filesystem: Filesystem::Tmpfs,
            at: c"/dev/shm".to_owned(),
            flags: 0,
            options: c"".to_owned(),
        };
        let (proc, tmpfs) = (score.to_string(), tmpfs.to_string());
        let table = [
            (EXECVE, CommandNotExecutable, libc::EIO, true),
            (EXECVE, CommandNotExecutable, libc::E2BIG, true),
            (EXECVE, CommandNotExecutable, libc::EACCES, false),
            (&proc, Other, libc::ENOENT, true),
            (&proc, Other, libc::EACCES, false),
            (&tmpfs, Other, libc::ENOSPC, true),
            ("unshare the IPC namespace", Other, libc::ENOSPC, false),
            ("mount cgroup2", Other, libc::ENOENT, false),
            ("mount cgroup2", Other, libc::EIO, false),
        ];
        for (step, kind, errno, expected) in table {
            let failure = SetupFailure {
                step: step.to_owned(),
                errno: Some(errno),
                kind,
            };
            assert_eq!(may_be_for_want_of_memory(&failure), expected, "{failure:?}");
            let told = for_want_of_memory(failure, &["/bin/true".into()]);
            let said = (told.step.as_str(), told.errno, told.kind);
            assert_eq!(said, (step, Some(libc::ENOMEM), OutOfMemory));
        }
    }

    #[test]
    fn a_failed_clone_names_the_limit_that_forbade_it() {
        for (unborn, kind) in [
            (Unborn::Clone(libc::EAGAIN), SetupFailureKind::OutOfPids),
            (Unborn::Clone(libc::ENOMEM), SetupFailureKind::OutOfMemory),
            (Unborn::Clone(libc::ENOENT), SetupFailureKind::Other),
            (Unborn::Clone(libc::EPERM), SetupFailureKind::Other),
            // Not in the leaf: the supervisor's own surroundings.
            (Unborn::Stager(libc::EAGAIN), SetupFailureKind::Other),
            (Unborn::Staging(libc::ENOMEM), SetupFailureKind::Other),
        ] {
            assert_eq!(of_clone(unborn).kind, kind, "{unborn:?}");
        }
    }
}
