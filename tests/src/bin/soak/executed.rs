//! Whether the kernel was ever asked to execute a run's command.
//!
//! `sandbox` may die before its analysis is there, and then nothing is there to be recorded. That the
//! analysis said nothing does not prove it: it may have died before its first word, or have none to
//! say. So the command of such a run gets a name of its own, which whoever executes it has to open.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use sandbox_tests::{Outcome, victim};

/// What such commands execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// The one that misbehaves on request.
    Victim,
    /// A shell.
    Bash,
}

impl Program {
    const ALL: [Self; 2] = [Self::Victim, Self::Bash];

    const fn name(self) -> &'static str {
        match self {
            Self::Victim => "victim",
            Self::Bash => "bash",
        }
    }

    fn original(self) -> PathBuf {
        match self {
            Self::Victim => victim(),
            Self::Bash => PathBuf::from("/usr/bin/bash"),
        }
    }
}

/// A copy of each program, where commands can be other names of it. Dropped, they are removed.
///
/// Made before any run: what was just written cannot be executed while a child that another thread
/// forked meanwhile holds it open for writing.
pub(crate) struct Copies(());

impl Copies {
    /// Makes them.
    pub(crate) fn make() -> Self {
        fs::create_dir_all(Self::folder()).expect("/tmp can be written to");
        for program in Program::ALL {
            fs::copy(program.original(), Self::of(program)).expect("the guest has this program");
        }
        Self(())
    }

    fn folder() -> PathBuf {
        std::env::temp_dir().join("soak-programs")
    }

    fn of(program: Program) -> PathBuf {
        Self::folder().join(program.name())
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        // It lies in a guest that is thrown away.
        drop(fs::remove_dir_all(Self::folder()));
    }
}

/// The command of one run.
pub(crate) struct Command {
    folder: PathBuf,
    path: PathBuf,
    opened: Inotify,
}

/// Proof that a run is over and that its command was never executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NeverExecuted(());

impl Command {
    /// Another name of a program's copy, that nobody else has.
    pub(crate) fn new(program: Program) -> Self {
        Self::naming(&Copies::of(program))
    }

    fn naming(file: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("soak-command-{}-{count}", std::process::id()));
        fs::create_dir_all(&folder).expect("/tmp can be written to");
        let path = folder.join(file.file_name().expect("a file has a name"));
        fs::hard_link(file, &path).expect("both are in /tmp");
        let opened = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        let opened = opened.expect("the kernel has inotify(7)");
        // Of the folder: a watch of the file itself would tell of its other names too.
        let watch = opened.add_watch(&folder, AddWatchFlags::IN_OPEN);
        let _ = watch.expect("the folder is there");
        Self {
            folder,
            path,
            opened,
        }
    }

    /// It and its arguments.
    pub(crate) fn with(&self, arguments: &[&str]) -> Vec<OsString> {
        let path = self.path.clone().into_os_string();
        let arguments = arguments.iter().map(OsString::from);
        std::iter::once(path).chain(arguments).collect()
    }

    /// The proof, where that is so.
    pub(crate) fn was_never_executed(self, _over: &Outcome) -> Option<NeverExecuted> {
        (!self.was_opened()).then_some(NeverExecuted(()))
    }

    fn was_opened(&self) -> bool {
        match self.opened.read_events() {
            // One without a name is of the folder itself.
            Ok(events) => events.iter().any(|event| event.name.is_some()),
            Err(Errno::EAGAIN) => false,
            Err(error) => panic!("inotify(7): {error}"),
        }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        // It lies in a guest that is thrown away.
        drop(fs::remove_dir_all(&self.folder));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_executes_a_command_by_its_own_name_is_noticed() {
        let shell = std::env::temp_dir().join(format!("soak-shell-{}", std::process::id()));
        fs::copy("/bin/sh", &shell).expect("there is a shell");
        let (one, other) = (Command::naming(&shell), Command::naming(&shell));
        let _listed = fs::read_dir(&other.folder).expect("it is there").count();
        let ran = std::process::Command::new(&one.path)
            .args(["-c", ":"])
            .status();
        drop(fs::remove_file(&shell));
        assert!(ran.expect("a shell can be executed").success());
        assert!(one.was_opened());
        assert!(!other.was_opened());
    }
}
