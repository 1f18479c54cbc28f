//! The host's service in a guest, for as long as a test holds it.

use std::fs::{self, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Configured, guardians, parent_of, wait};

/// A running `sandbox serve` with a store of its own. Dropped, both are gone.
#[derive(Debug)]
pub struct Service {
    child: Child,
    /// Whether the store stays.
    is_kept: bool,
    /// Held for it, so that whoever connects while it is down waits.
    socket: Option<UnixListener>,
    _config: Option<Configured>,
}

/// Where a test says nothing: a guest is too small for the limits of several runs together.
const UNBOUNDED: &str = "[budget]\nmemory = 'keep'\n";

impl Service {
    /// Where it listens.
    pub const SOCKET: &str = "/run/sandbox/sandbox.sock";
    /// A line of shell that kills the supervisor of the one run that it does.
    pub const SUPERVISOR_IS_LOST: &str = "pkill -KILL -f '^sandbox attend'";
    /// One that kills its guardian as well, before that can do anything.
    pub const BOTH_ARE_LOST: &str = "guardian=$(pgrep -x sandbox-guard); kill -STOP $guardian; pkill -KILL -f '^sandbox attend'; \
         kill -KILL $guardian; while pgrep -x sandbox-guard; do sleep 0.05; done";
    /// Where its store is.
    pub const STORE: &str = "/var/lib/sandbox";

    /// Starts it and waits until it listens.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        Self::begin(None)
    }

    /// Starts it with the store that there is, and leaves that in the end.
    #[must_use]
    #[track_caller]
    pub fn on_kept_store() -> Self {
        Self::serving(None, true)
    }

    /// Starts it with a socket that stays while it is down, as systemd does (sd_listen_fds(3)).
    #[must_use]
    #[track_caller]
    pub fn activated() -> Self {
        fs::create_dir_all("/run/sandbox").expect("root may make it");
        let socket = UnixListener::bind(Self::SOCKET).expect("nobody listens there");
        fs::set_permissions(Self::SOCKET, Permissions::from_mode(0o666)).expect("it is ours");
        Self::begin(Some(socket))
    }

    #[track_caller]
    fn begin(socket: Option<UnixListener>) -> Self {
        assert!(fs::metadata(Self::STORE).is_err(), "the guest has none");
        Self::serving(socket, false)
    }

    #[track_caller]
    fn serving(socket: Option<UnixListener>, is_kept: bool) -> Self {
        let is_configured = fs::exists(Configured::FILE).expect("root may look");
        let config = (!is_configured).then(|| Configured::with(UNBOUNDED));
        Self {
            child: serve(socket.as_ref()),
            is_kept,
            socket,
            _config: config,
        }
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Who has rights while it does one run: itself, the run's supervisor and its guardian, with their pids. The guardian
    /// of a run before has to be gone.
    #[must_use]
    #[track_caller]
    pub fn privileged(&self) -> [(&'static str, i32); 3] {
        let guardian = wait::for_some("its guardian", || guardians().into_iter().next());
        let supervisor = parent_of(guardian).expect("it has one");
        [
            ("service", self.pid().cast_signed()),
            ("supervisor", supervisor),
            ("guardian", guardian),
        ]
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }

    /// Kills it by SIGKILL.
    #[track_caller]
    pub fn kill(&mut self) {
        self.child.kill().expect("it is a child of ours");
        let status = self.child.wait().expect("a child can be waited for");
        let killed = Some(Signal::SIGKILL as i32);
        assert_eq!(status.signal(), killed, "it had ended by itself");
    }

    /// Starts it once more, with what it had stored.
    #[track_caller]
    pub fn restart(&mut self) {
        self.child = serve(self.socket.as_ref());
    }
}

#[track_caller]
fn serve(socket: Option<&UnixListener>) -> Child {
    let mut command = match socket {
        None => {
            let mut sandbox = Command::new("sandbox");
            sandbox.arg("serve").stdin(Stdio::null());
            sandbox
        }
        Some(socket) => {
            let mut bash = Command::new("bash");
            let passed = "LISTEN_FDS=1 LISTEN_PID=$$ exec sandbox serve 3<&0 </dev/null";
            let socket = socket.try_clone().expect("descriptors are left");
            bash.args(["-c", passed]).stdin(OwnedFd::from(socket));
            bash
        }
    };
    let mut child = command.spawn().expect("both are in the guest");
    wait::until("the service to listen", || {
        let ended = child.try_wait().expect("a child can be asked");
        assert!(ended.is_none(), "the service ended: {ended:?}");
        UnixStream::connect(Service::SOCKET).is_ok()
    });
    child
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        drop(fs::remove_file(Self::SOCKET));
        if !self.is_kept {
            drop(fs::remove_dir_all(Self::STORE));
        }
    }
}
