//! `--on-complete`: a command that gets the record once the run is over, whoever wrote it.
//!
//! It runs as whoever called, outside of every leaf and without limits, under /bin/sh. What it prints
//! goes to stderr, since stdout is the analysis's; how it ends changes nothing about the run.

use std::{
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, ExitStatus, Stdio},
};

use nix::{libc, unistd::User};
use tokio::io::Interest;

use super::signals::{Meaning, Signals};
use crate::{
    record::RunRecord,
    say::say,
    sys::{child, creds::FileIdentity, pidfd, readiness},
};

/// A command for the end.
#[derive(Debug)]
pub(super) struct OnComplete<'a> {
    /// What the shell is given.
    pub(super) command: &'a str,
    /// Whom it runs as.
    pub(super) caller: &'a FileIdentity,
}

impl OnComplete<'_> {
    /// Runs it to its end; what goes wrong is said, and nothing more comes of it. A signal that means
    /// the end ends it too.
    pub(super) async fn run(&self, record: &RunRecord, signals: Option<&Signals>) {
        match self.try_run(record, signals).await {
            Ok(status) if status.success() => {}
            Ok(status) => say(format_args!(
                "--on-complete: {} ended with {status}",
                self.command
            )),
            Err(error) => say(format_args!(
                "--on-complete: {} could not be run: {error}",
                self.command
            )),
        }
    }

    async fn try_run(
        &self,
        record: &RunRecord,
        signals: Option<&Signals>,
    ) -> io::Result<ExitStatus> {
        let mut child = self.spawn()?;
        let pidfd = pidfd::open(i32::try_from(child.id()).map_err(io::Error::other)?)?;
        let stdin = child.stdin.take();
        let text = serde_json::to_vec(record)?;
        // In a thread of its own, since the command may take its time; that it does not read it all is
        // its own affair.
        let writer = std::thread::spawn(move || {
            stdin.map(|mut stdin| stdin.write_all(&text).and_then(|()| stdin.write_all(b"\n")))
        });
        let status = wait(&mut child, &pidfd, signals).await;
        // Nobody reads any more.
        let _ = writer.join();
        status
    }

    fn spawn(&self) -> io::Result<Child> {
        let mut command = std::process::Command::new("/bin/sh");
        command
            .args(["-c", self.command])
            .stdin(Stdio::piped())
            .stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
        child::unblock_signals(&mut command);
        let own = nix::unistd::geteuid();
        if self.caller.uid != own.as_raw() {
            // Their own groups only: std empties the list of supplementary ones.
            command.gid(self.caller.gid).uid(self.caller.uid);
            if let Ok(Some(user)) = User::from_uid(self.caller.uid.into()) {
                command
                    .env("HOME", user.dir)
                    .env("USER", &user.name)
                    .env("LOGNAME", &user.name);
            }
        }
        command.spawn()
    }
}

/// Waits for its end, and passes on what asks for one.
async fn wait(
    child: &mut Child,
    pidfd: &OwnedFd,
    signals: Option<&Signals>,
) -> io::Result<ExitStatus> {
    let ended = readiness::watch(pidfd, Interest::READABLE)?;
    loop {
        let received = async {
            match signals {
                Some(signals) => signals.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = ended.readable() => {
                ready?.retain_ready();
                return child.wait();
            }
            received = received => {
                let received = received?;
                if received.meaning == Meaning::Cancel {
                    // It may have ended just now.
                    let _ = pidfd::send_signal(pidfd.as_fd(), libc::SIGTERM);
                }
            }
        }
    }
}
