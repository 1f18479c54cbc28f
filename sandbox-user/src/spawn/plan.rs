//! A start as a list of steps, made before there is a child.
//!
//! Order matters. Session, dispositions and oom_score_adj first; namespaces and mounts while there is
//! CAP_SYS_ADMIN; then the identity, groups before gid before uid, and the capabilities; what depends on the
//! analysis's own rights (chdir, the lookup of the command) after that; signals are unblocked last.
//! Every inherited descriptor above 2 goes at exec: an open directory of the host's cgroupfs would be a way
//! out, so nothing of the caller's is passed on (`<(…)` of a shell included).

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::failure::ours;
use super::view::View;
use super::{SpawnSpec, Terminal, WorkingDirectory};
use crate::evidence::SetupFailure;
use crate::sys::duplicate_above_stdio;
use crate::sys::exec::{Exec, Lookup};
use crate::sys::program::Program;
use crate::sys::step::{Step, knows_domains};
use crate::sys::terminal_input::can_be_forbidden;

/// What execvp uses where PATH is not set (confstr(3), _CS_PATH).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// A program, and the descriptors that it refers to.
pub(super) struct Plan {
    program: Program,
    _stdio: Vec<OwnedFd>,
}

impl Plan {
    pub(super) const fn program(&self) -> &Program {
        &self.program
    }
}

/// Makes the list.
///
/// # Errors
/// NUL bytes, no command, a host whose mounts cannot be read, no descriptors left.
pub(super) fn prepare(spec: &SpawnSpec<'_>) -> Result<Plan, SetupFailure> {
    let exec = exec(spec)?;
    let stdio = [(spec.stdin, 0), (spec.stdout, 1), (spec.stderr, 2)]
        .into_iter()
        .map(|(fd, to)| Ok((above_stdio(fd, to)?, to)))
        .collect::<Result<Vec<_>, SetupFailure>>()?;
    let view =
        View::gather().map_err(|error| ours("read this host's mounts".to_owned(), &error))?;

    let mut steps = Vec::new();
    match spec.terminal {
        Terminal::OwnSession => steps.push(Step::OwnSession),
        Terminal::Shared => {}
    }
    steps.push(Step::ResetSignals {
        ignored: signal_set(&spec.ignored_signals),
    });
    steps.push(Step::OomScoreAdj {
        value: text("oom_score_adj", spec.oom_score_adj.to_string())?,
    });
    steps.extend(view.steps());
    steps.extend(identity(spec));
    steps.extend(change_directory(spec, &view)?);
    steps.extend(stdio.iter().map(|(fd, to)| Step::Stdio {
        from: fd.as_raw_fd(),
        to: *to,
    }));
    steps.push(Step::RestoreLimits {
        limits: spec.rlimits.to_vec(),
    });
    steps.extend([Step::CloseOnExec, Step::UnblockSignals]);

    Ok(Plan {
        program: Program::new(steps, exec),
        _stdio: stdio.into_iter().map(|(fd, _)| fd).collect(),
    })
}

fn identity(spec: &SpawnSpec<'_>) -> Vec<Step> {
    let identity = spec.identity;
    let mut steps = Vec::new();
    if !identity.is_root() {
        steps.push(Step::DropBoundingSet);
    }
    // Setting what is already so needs no privilege, but setgroups asks for it all the same.
    if !has_groups(&identity.groups) {
        steps.push(Step::SetGroups {
            groups: identity.groups.clone(),
        });
    }
    steps.push(Step::SetGid { gid: identity.gid });
    steps.push(Step::SetUid { uid: identity.uid });
    if !identity.is_root() {
        steps.extend([Step::DropCapabilities, Step::NoNewPrivileges]);
        // Else it could have one of its user's processes outside act for it (ptrace), or go through
        // that one's mounts (/proc/PID/root).
        if knows_domains() {
            steps.push(Step::OwnDomain);
        }
        if spec.terminal == Terminal::Shared && can_be_forbidden() {
            steps.push(Step::ForbidTyping);
        }
    }
    steps
}

fn has_groups(groups: &[u32]) -> bool {
    let wanted: BTreeSet<u32> = groups.iter().copied().collect();
    nix::unistd::getgroups().is_ok_and(|current| {
        current
            .into_iter()
            .map(nix::unistd::Gid::as_raw)
            .collect::<BTreeSet<u32>>()
            == wanted
    })
}

/// An inherited directory inside something that the child's view replaces would still lead to the old
/// one: it is gone to anew, by its path.
fn change_directory(spec: &SpawnSpec<'_>, view: &View) -> Result<Option<Step>, SetupFailure> {
    let to = match &spec.cwd {
        WorkingDirectory::Path(path) => Some(path.clone()),
        WorkingDirectory::Inherited => std::env::current_dir()
            .ok()
            .filter(|path| view.replaces(path)),
    };
    to.map(|to| Ok(Step::ChangeDirectory { to: path(&to)? }))
        .transpose()
}

fn exec(spec: &SpawnSpec<'_>) -> Result<Exec, SetupFailure> {
    let command = spec
        .argv
        .first()
        .ok_or_else(|| invalid("run nothing: there is no command"))?;
    let argv = spec
        .argv
        .iter()
        .map(|argument| text("an argument", argument.as_bytes()))
        .collect::<Result<_, _>>()?;
    let env = spec
        .env
        .iter()
        .map(|(name, value)| {
            let what = format!("environment variable {}", name.to_string_lossy());
            text(&what, [name.as_bytes(), b"=", value.as_bytes()].concat())
        })
        .collect::<Result<_, _>>()?;
    let search_path = spec
        .env
        .iter()
        .rev()
        .find(|(name, _)| name == "PATH")
        .map(|(_, value)| value);
    let (files, lookup) = candidates(command, search_path.map(OsString::as_os_str));
    let files = files
        .iter()
        .map(|file| path(file))
        .collect::<Result<_, _>>()?;
    Ok(Exec::new(files, lookup, argv, env))
}

/// The files that a command may mean, as execvp(3) would try them.
fn candidates(command: &OsStr, search_path: Option<&OsStr>) -> (Vec<PathBuf>, Lookup) {
    if command.is_empty() || command.as_bytes().contains(&b'/') {
        return (vec![command.into()], Lookup::Direct);
    }
    let search_path = search_path.unwrap_or_else(|| OsStr::new(DEFAULT_PATH));
    // An empty entry is the working directory.
    (
        std::env::split_paths(search_path)
            .map(|folder| folder.join(command))
            .collect(),
        Lookup::Search,
    )
}

/// A duplicate above 2, so that setting up one standard descriptor never overwrites another's source.
fn above_stdio(fd: BorrowedFd<'_>, to: i32) -> Result<OwnedFd, SetupFailure> {
    duplicate_above_stdio(fd).map_err(|error| {
        ours(
            format!("duplicate the descriptor for standard descriptor {to}"),
            &error,
        )
    })
}

fn signal_set(signals: &[i32]) -> u64 {
    signals
        .iter()
        .filter(|signal| (1..=64).contains(*signal))
        .fold(0, |set, signal| set | 1 << (signal - 1))
}

fn path(path: &Path) -> Result<CString, SetupFailure> {
    text("a path", path.as_os_str().as_bytes())
}

fn text(what: &str, bytes: impl Into<Vec<u8>>) -> Result<CString, SetupFailure> {
    CString::new(bytes).map_err(|_| invalid(&format!("pass on {what} with a NUL byte in it")))
}

fn invalid(step: &str) -> SetupFailure {
    ours(
        step.to_owned(),
        &std::io::Error::from_raw_os_error(libc::EINVAL),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(command: &str, search_path: Option<&str>) -> (Vec<String>, Lookup) {
        let (files, lookup) = candidates(OsStr::new(command), search_path.map(OsStr::new));
        (
            files
                .iter()
                .map(|file| file.to_string_lossy().into_owned())
                .collect(),
            lookup,
        )
    }

    #[test]
    fn commands_are_looked_for_as_execvp_does() {
        for (command, search_path, files, lookup) in [
            ("ls", Some("/a:/b"), vec!["/a/ls", "/b/ls"], Lookup::Search),
            ("ls", None, vec!["/bin/ls", "/usr/bin/ls"], Lookup::Search),
            (
                "ls",
                Some("/a::b"),
                vec!["/a/ls", "ls", "b/ls"],
                Lookup::Search,
            ),
            ("./ls", Some("/a"), vec!["./ls"], Lookup::Direct),
            ("/bin/ls", Some("/a"), vec!["/bin/ls"], Lookup::Direct),
            ("", Some("/a"), vec![""], Lookup::Direct),
        ] {
            let files = files.into_iter().map(str::to_owned).collect();
            assert_eq!(
                tried(command, search_path),
                (files, lookup),
                "{command} in {search_path:?}"
            );
        }
    }

    #[test]
    fn signals_become_bits_and_nonsense_is_left_out() {
        assert_eq!(signal_set(&[1, 64, 0, 65, -3]), 1 | 1 << 63);
        assert_eq!(signal_set(&[]), 0);
    }

    #[test]
    fn a_nul_byte_is_named() {
        let step = text("an argument", "a\0b").map_err(|failure| failure.step);
        assert_eq!(
            step,
            Err("pass on an argument with a NUL byte in it".to_owned())
        );
    }
}
