//! The service's process: it prepares what it needs, listens, and sees to what runs have left.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use tokio::{net::UnixListener, task::LocalSet};

use super::{SOCKET, SPOOL, STORE, desk::Desks, reception::receive, records::Records};
use crate::{
    cgroup::Hierarchy,
    say::say,
    store::{Opened, Store, StoreError},
    supervise::{self, recover},
    sys::{child, own_dir},
};

/// Held by the one service of a host.
const LOCK: &str = "/run/sandbox/service.lock";
/// How often it is looked whether records have come of runs that nobody here waits for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked for runs that nobody looks after any more.
const RECOVER_EVERY: Duration = Duration::from_secs(30);

/// Why the service cannot work, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It starts others' processes and makes cgroups.
    #[error("`sandbox serve` needs root")]
    NotRoot,
    /// There is one.
    #[error("another `sandbox serve` is running on this host (it holds {LOCK}): stop that first")]
    Running,
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or the socket.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl ServeError {
    fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// Is the service, until it is ended: runs that go on then are no worse for it.
///
/// # Errors
/// Where it cannot begin; what goes wrong later is the matter of the one whom it concerns.
pub fn serve() -> Result<(), ServeError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(ServeError::NotRoot);
    }
    let socket = Path::new(SOCKET);
    own_dir::own_around(socket).map_err(ServeError::system(
        "making the directory of its socket, /run/sandbox",
    ))?;
    let _lock = only_one()?;
    let records = open_records()?;
    let runtime = supervise::runtime().map_err(ServeError::system("starting the event loop"))?;
    let listener = runtime
        .block_on(async { listen(socket) })
        .map_err(ServeError::system("listening on /run/sandbox/sandbox.sock"))?;
    say(format_args!("listening on {SOCKET}"));
    child::leave_ends_to_the_kernel();
    let desks = Desks::new(records);
    LocalSet::new().block_on(&runtime, async {
        tokio::task::spawn_local(keep_looking(desks.clone()));
        receive(listener, desks).await;
    });
    Ok(())
}

fn only_one() -> Result<File, ServeError> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(LOCK)
        .map_err(ServeError::system(
            "opening its lock, /run/sandbox/service.lock",
        ))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(ServeError::Running),
        Err(errno) => Err(ServeError::system("taking its lock")(errno.into())),
    }
}

/// Opens the store and brings it up to date with what happened while no service was there.
fn open_records() -> Result<Records, ServeError> {
    let Opened { store, aside } = Store::open(Path::new(STORE))?;
    if let Some(aside) = aside {
        say(format_args!(
            "the store was damaged, and is kept as {}; a new one is used",
            aside.display()
        ));
    }
    let spool = Path::new(SPOOL);
    own_dir::own(spool, 0o700).map_err(ServeError::system("making /var/lib/sandbox/spool"))?;
    recover_lost();
    let records = Records::new(store, spool);
    records.look_after(|_| false);
    Ok(records)
}

/// Puts the socket in its place, open to everybody: who may do what is told by who connects.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    let draft = socket.with_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&draft)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o666))?;
    fs::rename(&draft, socket)?;
    Ok(listener)
}

/// Sees to runs for which nobody here waits.
async fn keep_looking(desks: Desks) {
    let mut recovered = Instant::now();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        desks.records().take_in_all();
        if recovered.elapsed() > RECOVER_EVERY {
            // It may wait for processes to die.
            if let Err(error) = tokio::task::spawn_blocking(recover_lost).await {
                say(error);
            }
            desks.look_after();
            recovered = Instant::now();
        }
    }
}

fn recover_lost() {
    match Hierarchy::survey().and_then(Hierarchy::into_mount) {
        Ok(mount) => recover(&mount).say(),
        Err(error) => say(error),
    }
}
