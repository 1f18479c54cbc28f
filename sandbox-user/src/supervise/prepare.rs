//! What has to be in place before an analysis is started, each step with its own error.
//!
//! First what can be refused without having made anything (rights, identity, paths), then the
//! guardian, the place in the cgroup tree, the leaf with its limits, the watch.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use super::{events_file::EventsError, record_error::RecordError, record_file::RecordFile};
use crate::{
    caller::{self, Caller},
    cgroup::CgroupError,
    identity::{self, Choice, Identity, IdentityError, SystemAccounts},
    procfs,
    say::say,
    service,
    spawn::WorkingDirectory,
    spec::{DEFAULT_RING_BYTES, EnvironmentBase, Output, RunAs, RunSpec},
    stdio::{OutputError, Outputs, open_outputs},
    sys::creds::{FileIdentity, with_file_identity},
    trace::{Ring, TraceError, Tracer},
    units::format_bytes,
};

/// Why `sandbox` could not do its part; exit status 125.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Cgroups and eBPF are root's.
    #[error(
        "`sandbox run` needs root, to make cgroups and to load eBPF programs; run it with sudo, or have root start the service, `{}`: the analysis itself runs as you",
        service::how_to_start()
    )]
    NotRoot,
    /// Nobody to run as.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The record has nowhere to go.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An output has nowhere to go.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The events have nowhere to go.
    #[error(transparent)]
    Events(#[from] EventsError),
    /// No leaf, or no limits.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The kernel side failed where it had worked before.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A system call of the engine's own failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl RunError {
    /// A system call that failed while doing `what`.
    pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// Does something on files with the rights of whoever called: under sudo those of the user who did,
/// so that nothing is read for them that they may not read.
///
/// # Errors
/// Where those rights cannot be taken.
pub fn with_callers_rights<T: Send>(deed: impl FnOnce() -> T + Send) -> Result<T, RunError> {
    let caller = Caller::current()?;
    with_file_identity(&recorder(&caller), || Ok(deed()))
        .map_err(RunError::system("taking the caller's rights"))
}

/// Opens the record, first of all: whatever fails from here on is to be found in it.
///
/// # Errors
/// Where it cannot be written to; nothing is left behind then.
pub(super) fn open_record(
    spec: &RunSpec,
    recorder: &FileIdentity,
) -> Result<Option<RecordFile>, RecordError> {
    spec.record
        .as_ref()
        .map(|destination| RecordFile::open(destination, spec.run_id, recorder))
        .transpose()
}

/// Checks rights, settles who the analysis runs as, and opens its outputs.
///
/// # Errors
/// What is wrong with the request on this host; nothing is left behind.
pub(super) fn identify(spec: &RunSpec, caller: &Caller) -> Result<(Identity, Outputs), RunError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(RunError::NotRoot);
    }
    let asked = match &spec.run_as {
        RunAs::Caller => None,
        RunAs::User(name) => Some(name.clone()),
    };
    let choice = identity::choose(&identity::Facts::gather(asked, None))?;
    let identity = identity::resolve(&choice, caller, &SystemAccounts)?;
    let outputs = open_outputs(path_of(&spec.stdout), path_of(&spec.stderr), &identity)?;
    Ok((identity, outputs))
}

/// With whose rights the record is written: the user's who called sudo, else the caller's own.
pub(super) fn recorder(caller: &Caller) -> FileIdentity {
    let own = FileIdentity {
        uid: caller.uid,
        gid: caller.gid,
        groups: caller.groups.clone(),
    };
    match identity::choose(&identity::Facts::gather(None, None)) {
        Ok(choice @ Choice::Sudo { .. }) => identity::resolve(&choice, caller, &SystemAccounts)
            .map_or(own, |sudoer| (&sudoer).into()),
        Ok(Choice::Caller { .. } | Choice::Named { .. }) | Err(_) => own,
    }
}

fn path_of(output: &Output) -> Option<&Path> {
    match output {
        Output::File(path) => Some(path),
        Output::Inherit | Output::Stderr => None,
    }
}

/// The three standard descriptors of the analysis.
pub(super) struct Stdio {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Duplicates what the analysis gets, close-on-exec here.
///
/// # Errors
/// EBADF where `sandbox` itself was started without one of them.
pub(super) fn stdio(spec: &RunSpec, outputs: &Outputs) -> io::Result<Stdio> {
    let own = |file: &Option<File>| file.as_ref().map(|file| file.as_fd().try_clone_to_owned());
    let stderr =
        own(&outputs.stderr).unwrap_or_else(|| io::stderr().as_fd().try_clone_to_owned())?;
    let stdout = match (own(&outputs.stdout), &spec.stdout) {
        (Some(file), _) => file?,
        (None, Output::Stderr) => stderr.try_clone()?,
        (None, Output::Inherit | Output::File(_)) => io::stdout().as_fd().try_clone_to_owned()?,
    };
    Ok(Stdio {
        stdin: io::stdin().as_fd().try_clone_to_owned()?,
        stdout,
        stderr,
    })
}

/// The whole environment of the analysis.
pub(super) fn environment(spec: &RunSpec, identity: &Identity) -> Vec<(OsString, OsString)> {
    let changes = &spec.environment;
    let mut env: Vec<(OsString, OsString)> = match changes.base {
        EnvironmentBase::Inherited => caller::environment(),
        EnvironmentBase::Empty => Vec::new(),
    };
    let explicit: Vec<OsString> = changes.set.keys().cloned().collect();
    identity.apply_to_env(&mut env, &explicit);
    env.retain(|(name, _)| !changes.set.contains_key(name));
    env.extend(
        changes
            .set
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    for (name, value) in spec.thread_variables() {
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.into(), value.into()));
        }
    }
    env
}

/// Where the analysis starts: where `sandbox` stands, unless `--chdir` said otherwise.
pub(super) fn working_directory(spec: &RunSpec) -> WorkingDirectory {
    match std::env::current_dir() {
        Ok(current) if current == spec.cwd => WorkingDirectory::Inherited,
        Ok(_) | Err(_) => WorkingDirectory::Path(spec.cwd.clone()),
    }
}

/// `oom_kill` of /proc/vmstat: OOM kills of the whole host since boot.
pub(super) fn host_oom_kills() -> Option<u64> {
    procfs::text("/proc/vmstat")
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?
        .trim()
        .parse()
        .ok()
}

/// Begins to watch a leaf. Where there is no memory for a ring larger than usual it gets a usual one: a
/// ring carries detail, and without any there would be no facts either.
pub(super) fn watch(
    tracer: &mut Tracer,
    leaf_id: u64,
    ring_bytes: u32,
) -> Result<Ring, TraceError> {
    match tracer.watch(leaf_id, ring_bytes) {
        Err(error) if ring_bytes > DEFAULT_RING_BYTES => {
            let usual = format_bytes(DEFAULT_RING_BYTES.into());
            say(format_args!("{error}: going on with a ring of {usual}"));
            tracer.watch(leaf_id, DEFAULT_RING_BYTES)
        }
        watched => watched,
    }
}
