//! How the service starts the process that attends to a client.

use std::{
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;

use crate::{supervise::meant_signals, sys::child};

/// The verb under which this program attends to a client.
const VERB: &str = "attend";

/// Starts one, with the client's connection, the line to the service and the text of the configuration in
/// force. It has nothing else of the service's: an empty environment, a session of its own.
///
/// # Errors
/// Where no process is to be had.
pub(super) fn attendant(client: &OwnedFd, office: &OwnedFd, config: &OwnedFd) -> io::Result<()> {
    let kept = [client, office, config].map(OwnedFd::as_raw_fd);
    // What it was started from, whatever has been installed meanwhile.
    let mut command = Command::new("/proc/self/exe");
    child::pass_nothing_on(&mut command, kept.to_vec());
    // So that none ends it before it listens.
    child::detach(&mut command, meant_signals().chain([Signal::SIGXFSZ]));
    command
        .arg0("sandbox")
        .arg(VERB)
        .args(kept.map(|fd| fd.to_string()))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        // The kernel sees to its end: the service ignores SIGCHLD.
        .map(drop)
}
