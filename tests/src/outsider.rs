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

    /// Has root send a signal to the first thread of a process alone: tgkill(2), of which a shell has none.
    #[track_caller]
    pub fn signals_first_thread(pid: i32, signal: Signal) -> Self {
        let tgkill = nix::libc::SYS_tgkill;
        let number = signal as i32;
        let script =
            format!("import ctypes; ctypes.CDLL(None).syscall({tgkill}, {pid}, {pid}, {number})");
        Self::runs(0, &format!("exec python3 -c '{script}'"))
    }

    /// Has root queue a signal of an `si_code` of its choice: rt_sigqueueinfo(2).
    #[track_caller]
    pub fn queues(pid: i32, signal: Signal, si_code: i32) -> Self {
        let rt_sigqueueinfo = nix::libc::SYS_rt_sigqueueinfo;
        let number = signal as i32;
        let script = format!(
            "import ctypes, struct; \
             info = struct.pack(\"iii116x\", {number}, 0, {si_code}); \
             raise SystemExit(ctypes.CDLL(None).syscall({rt_sigqueueinfo}, {pid}, {number}, info))"
        );
        Self::runs(0, &format!("exec python3 -c '{script}'"))
    }

    /// Has root move into a cgroup and kill a process of it from there.
    #[track_caller]
    pub fn joins_and_kills(procs: &Path, pid: i32) {
        // It may be killed with the rest.
        Self::tries(
            "bash",
            0,
            &format!("echo $$ >{}; kill -9 {pid}", procs.display()),
        );
    }

    /// Has the user `uid` try to signal somebody who may be gone by then; says whether it could.
    #[must_use]
    #[track_caller]
    pub fn tries_to_signal_as(uid: u32, pid: i32, signal: Signal) -> (Self, bool) {
        Self::tries("bash", uid, &format!("kill -{} {pid}", signal as i32))
    }

    /// Has the user `uid` run a line of shell in a process called `name`, which lies on the PATH.
    #[track_caller]
    pub fn called(name: &str, uid: u32, script: &str) -> Self {
        let (outsider, done) = Self::tries(name, uid, script);
        assert!(done, "{script:?} as {uid} failed");
        outsider
    }

    /// Has root write to a cgroup's `cgroup.kill`.
    #[track_caller]
    pub fn kills_cgroup(cgroup: &Path) -> Self {
        Self::runs(0, &format!("echo 1 >{}/cgroup.kill", cgroup.display()))
    }

    #[track_caller]
    fn runs(uid: u32, script: &str) -> Self {
        Self::called("bash", uid, script)
    }

    #[track_caller]
    fn tries(name: &str, uid: u32, script: &str) -> (Self, bool) {
        let mut child = Command::new(name)
            // With a command after it bash stays what it is instead of exec'ing.
            .args(["-c", &format!("{script}; exit $?")])
            .uid(uid)
            .stdin(Stdio::null())
            .spawn()
            .expect("the guest has bash");
        let status = child.wait().expect("a child can be waited for");
        let outsider = Self {
            pid: child.id(),
            uid,
        };
        (outsider, status.success())
    }

    /// What a record says of it as the sender of a signal.
    #[must_use]
    pub fn as_sender(&self) -> Value {
        json!({"kind": "process", "pid": self.pid, "comm": "bash", "uid": self.uid, "in_run": false})
    }
}
