//! How the service starts the supervisor of a client's run, and how that learns whom it stands in for.
//!
//! The supervisor gets the client's descriptors and working directory, and a letter (a memfd, so that
//! the environment is never on a disk) with all else. It has nothing of the service's: an empty
//! environment, no other descriptors, a session of its own.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use nix::sys::{
    signal::Signal,
    stat::{Mode, umask},
};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::{
    SPOOL,
    peer::{Manners, Peer},
    protocol::{Start, Text},
};
use crate::{
    caller::{self, Caller, Client},
    cli::RunArgs,
    spec::{Destination, RunId, RunSpec},
    supervise::meant_signals,
    sys::{child, fd, rlimits::CallersLimits},
};

/// The verb under which this program is a supervisor of the service's.
const VERB: &str = "supervise";

/// What a supervisor is told.
#[derive(Debug, Serialize, Deserialize)]
struct Letter {
    run_id: RunId,
    caller: Caller,
    manners: Manners,
    start: Start,
}

/// A run that this process is to supervise for a client.
#[derive(Debug)]
pub struct Charge {
    /// The arguments of `sandbox run`.
    pub arguments: Vec<std::ffi::OsString>,
    /// The client's resource limits.
    pub rlimits: CallersLimits,
    run_id: RunId,
}

/// What came with a request.
#[derive(Debug)]
pub(super) struct Descriptors {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) directory: OwnedFd,
}

/// Starts the supervisor of a run.
///
/// # Errors
/// Where the client has gone, or no process is to be had.
pub(super) fn launch(
    run_id: RunId,
    peer: &Peer,
    start: Start,
    descriptors: Descriptors,
) -> io::Result<Child> {
    let letter = Letter {
        run_id,
        caller: peer.caller.clone(),
        manners: peer.manners()?,
        start,
    };
    let mut file = File::from(memfd_create("sandbox-letter", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(&letter)?)?;
    file.rewind()?;
    // Through the descriptor, so that a directory which only the client may enter is no obstacle, nor one
    // that was moved.
    let directory = format!("/proc/self/fd/{}", descriptors.directory.as_raw_fd());
    let mut command = Command::new("/proc/self/exe");
    child::pass_nothing_on(&mut command, Some(file.as_raw_fd()));
    // So that none ends it before it listens.
    child::detach(&mut command, meant_signals().chain([Signal::SIGXFSZ]));
    command
        .arg0("sandbox")
        .arg(VERB)
        .arg(file.as_raw_fd().to_string())
        .env_clear()
        .current_dir(directory)
        .stdin(Stdio::from(descriptors.stdin))
        .stdout(Stdio::from(descriptors.stdout))
        .stderr(Stdio::from(descriptors.stderr))
        .spawn()
}

impl Charge {
    /// Reads the letter that the service left on this descriptor, and stands in for the client.
    ///
    /// # Errors
    /// Where it is not one.
    pub fn take(descriptor: i32) -> io::Result<Self> {
        // The service's may be root's of a login.
        child::leave_session_keyring();
        let mut text = String::new();
        File::from(fd::take(descriptor)?).read_to_string(&mut text)?;
        let Letter {
            run_id,
            caller,
            manners,
            start,
        } = serde_json::from_str(&text)?;
        umask(Mode::from_bits_truncate(manners.umask));
        let plain = |Text(text)| text;
        caller::stand_in_for(Client {
            caller,
            environment: start
                .environment
                .into_iter()
                .map(|(name, value)| (plain(name), plain(value)))
                .collect(),
            ignored_signals: manners.ignored_signals,
        });
        Ok(Self {
            arguments: start.arguments.into_iter().map(plain).collect(),
            rlimits: CallersLimits::of_client(&manners.rlimits),
            run_id,
        })
    }

    /// Makes the run that the arguments ask for the one that the service has stored.
    ///
    /// # Errors
    /// Where it names a descriptor that did not come along.
    pub fn settle(&self, spec: RunSpec) -> Result<RunSpec, String> {
        let strange = [&spec.record, &spec.events]
            .into_iter()
            .flatten()
            .find(|destination| matches!(destination, Destination::Fd(fd) if *fd > 2));
        match strange {
            Some(destination) => Err(format!(
                "{destination} is not open here, since the service does the run: use --standalone"
            )),
            None => Ok(RunSpec {
                run_id: self.run_id,
                spool: Some(PathBuf::from(SPOOL)),
                ..spec
            }),
        }
    }
}

/// The command of a run, for the store, where the arguments are right.
pub(super) fn command_of(start: &Start) -> Vec<String> {
    let arguments = start.arguments.iter().map(|Text(text)| text.clone());
    RunArgs::parse(arguments).map_or_else(|_| Vec::new(), |args| args.command())
}
