//! A process outside of every run that does something to one.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A shell of ours that did one thing and has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outsider {
    /// Its process id.
    pub pid: u32,
    /// Whom it ran as.
    pub uid: u32,
}

impl Outsider {
    /// Has root send a signal.
    #[track_caller]
    pub fn signals(pid: i32, signal: Signal) -> Self {
        Self::signals_as(0, pid, signal)
    }

    /// Has the user `uid` send a signal.
    #[track_caller]
    pub fn signals_as(uid: u32, pid: i32, signal: Signal) -> Self {
        // The shell's own kill, so that the sender is the process whose pid we know.
        Self::runs(uid, &format!("kill -{} {pid}", signal as i32))
    }

    /// Has root write to a cgroup's `cgroup.kill`.
    #[track_caller]
    pub fn kills_cgroup(cgroup: &Path) -> Self {
        Self::runs(0, &format!("echo 1 >{}/cgroup.kill", cgroup.display()))
    }

    #[track_caller]
    fn runs(uid: u32, script: &str) -> Self {
        let mut child = Command::new("bash")
            // With a command after it bash stays what it is instead of exec'ing.
            .args(["-c", &format!("{script}; exit $?")])
            .uid(uid)
            .stdin(Stdio::null())
            .spawn()
            .expect("the guest has bash");
        let status = child.wait().expect("a child can be waited for");
        assert!(status.success(), "{script:?} as {uid}: {status}");
        Self {
            pid: child.id(),
            uid,
        }
    }

    /// What a record says of it as the sender of a signal.
    #[must_use]
    pub fn as_sender(&self) -> Value {
        json!({"kind": "process", "pid": self.pid, "comm": "bash", "uid": self.uid, "in_run": false})
    }
}
