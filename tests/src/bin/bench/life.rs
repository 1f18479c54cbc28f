//! How long a command lives, seen from outside and in the same way whoever runs it.
//!
//! It opens a FIFO, says there that it has begun, and holds (`victim hold-open`). Whoever reads that sees its first
//! word, and the FIFO's end once the kernel has closed the descriptors of the process, which is dead then: no waiting
//! for a shell, a client or a service that may be told of it later. What a command needs from its exec to that word
//! is taken of one that is started directly.

use std::fs::{self, File, Permissions};
use std::io::{Read, Result};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::libc::O_NONBLOCK;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use sandbox_tests::{victim, wait};

/// The life of one command to come.
#[derive(Debug)]
pub(crate) struct Life {
    path: PathBuf,
    fifo: File,
}

impl Life {
    /// That of who opens this path, which is new.
    pub(crate) fn at(path: &Path) -> Self {
        mkfifo(path, Mode::S_IRWXU).expect("a FIFO");
        fs::set_permissions(path, Permissions::from_mode(0o666)).expect("it is ours");
        let mut options = File::options();
        let fifo = options.read(true).custom_flags(O_NONBLOCK).open(path);
        Self {
            path: path.to_owned(),
            fifo: fifo.expect("it has been made"),
        }
    }

    /// The words of the command that lives it.
    pub(crate) fn command(&self) -> [String; 3] {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        [text(&victim()), "hold-open".to_owned(), text(&self.path)]
    }

    /// When its command said that it had begun.
    pub(crate) fn begun(&mut self) -> Instant {
        let (bytes, at) = self.next();
        assert!(bytes > 0, "it ended before it began");
        at
    }

    /// When its command had ended, after [`Life::begun`].
    pub(crate) fn ended(&mut self) -> Instant {
        loop {
            if let (0, at) = self.next() {
                return at;
            }
        }
    }

    /// What comes next in the FIFO, as a number of bytes, and when it came.
    fn next(&mut self) -> (usize, Instant) {
        let limit = PollTimeout::try_from(wait::limit()).expect("less than a month");
        let mut fds = [PollFd::new(self.fifo.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, limit).expect("a FIFO can be waited for");
        let at = Instant::now();
        assert_eq!(ready, 1, "waited in vain for {}", self.path.display());
        let read: Result<usize> = self.fifo.read(&mut [0; 64]);
        (read.expect("a FIFO can be read"), at)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

/// What such a command needs from its exec to its first word, of one that is started here and now.
pub(crate) fn start_up(path: &Path) -> Duration {
    let mut life = Life::at(path);
    let [program, arguments @ ..] = life.command();
    let mut command = Command::new(program);
    let child = command.args(arguments).stdout(Stdio::null()).spawn();
    // spawn() comes back once the exec has succeeded (vfork(2)).
    let executed = Instant::now();
    let mut child = child.expect("the guest has the victim");
    let took = life.begun().saturating_duration_since(executed);
    child.kill().expect("it is ours");
    let _status = child.wait().expect("it is ours");
    took
}
