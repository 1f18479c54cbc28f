//! The host's service in a guest, for as long as a test holds it.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// A running `sandbox serve` with a store of its own. Dropped, both are gone.
#[derive(Debug)]
pub struct Service(Child);

impl Service {
    /// Where it listens.
    pub const SOCKET: &str = "/run/sandbox/sandbox.sock";
    /// A line of shell that kills the supervisor of the one run that it does.
    pub const SUPERVISOR_IS_LOST: &str = "pkill -KILL -f '^sandbox attend'";
    /// One that kills its guardian as well, before that can do anything.
    pub const BOTH_ARE_LOST: &str = "guardian=$(pgrep -x sandbox-guard); kill -STOP $guardian; pkill -KILL -f '^sandbox attend'; \
         kill -KILL $guardian; while pgrep -x sandbox-guard; do sleep 0.05; done";
    const STORE: &str = "/var/lib/sandbox";

    /// Starts it and waits until it listens.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        assert!(fs::metadata(Self::STORE).is_err(), "the guest has none");
        Self(serve())
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
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
        self.0.kill().expect("it runs");
        self.0.wait().expect("a child can be waited for");
    }

    /// Starts it once more, with what it had stored.
    #[track_caller]
    pub fn restart(&mut self) {
        self.0 = serve();
    }
}

#[track_caller]
fn serve() -> Child {
    let mut child = Command::new("sandbox")
        .arg("serve")
        .stdin(Stdio::null())
        .spawn()
        .expect("`sandbox` is in the guest");
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
        let _ = self.0.kill();
        let _ = self.0.wait();
        drop(fs::remove_file(Self::SOCKET));
        drop(fs::remove_dir_all(Self::STORE));
    }
}
