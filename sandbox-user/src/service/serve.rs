//! The service's process: it prepares what it needs, listens, and sees to what runs have left.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use tokio::{net::UnixListener, sync::Semaphore, task::LocalSet};

use super::{SOCKET, SPOOL, STORE, connection::attend, records::Records};
use crate::{
    cgroup::Hierarchy,
    say::say,
    store::{Opened, Store, StoreError},
    supervise::{self, recover},
    sys::own_dir,
};

/// Held by the one service of a host.
const LOCK: &str = "/run/sandbox/service.lock";
/// How often it is looked whether records have come of runs that nobody here waits for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Connections at a time; further ones wait.
const CONNECTIONS: usize = 8192;
/// Of these, one user's at most, root apart: further ones are closed.
const CONNECTIONS_OF_A_USER: usize = 2048;

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
    let records = Rc::new(open_records()?);
    let runtime = supervise::runtime().map_err(ServeError::system("starting the event loop"))?;
    let listener = runtime
        .block_on(async { listen(socket) })
        .map_err(ServeError::system("listening on /run/sandbox/sandbox.sock"))?;
    say(format_args!("listening on {SOCKET}"));
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        tokio::task::spawn_local(keep_looking(Rc::clone(&records)));
        accept(listener, records).await
    })
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
    if let Ok(mount) = Hierarchy::survey().and_then(Hierarchy::into_mount) {
        recover(&mount).say();
    }
    let records = Records::new(store, spool);
    records.catch_up();
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

async fn accept(listener: UnixListener, records: Rc<Records>) -> Result<(), ServeError> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let users = Users::default();
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((socket, _)) => {
                let uid = socket.peer_cred().map(|peer| peer.uid());
                let Some(visit) = uid.ok().and_then(|uid| users.admit(uid)) else {
                    continue;
                };
                let records = Rc::clone(&records);
                tokio::task::spawn_local(async move {
                    attend(socket, &records).await;
                    drop((place, visit));
                });
            }
            // EMFILE and the like: it goes on once others have gone.
            Err(error) => {
                say(format_args!("a connection could not be accepted: {error}"));
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

/// How many connections each user has.
#[derive(Clone, Debug, Default)]
struct Users(Rc<RefCell<HashMap<u32, usize>>>);

/// One connection. Dropped, it counts no more.
#[derive(Debug)]
struct Visit(Users, u32);

impl Users {
    /// Counts one more; `None` where that user has enough.
    fn admit(&self, uid: u32) -> Option<Visit> {
        let mut counts = self.0.borrow_mut();
        let count = counts.entry(uid).or_insert(0);
        if uid != 0 && *count >= CONNECTIONS_OF_A_USER {
            return None;
        }
        *count += 1;
        Some(Visit(self.clone(), uid))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Self(Users(counts), uid) = self;
        let mut counts = counts.borrow_mut();
        if let Some(count) = counts.get_mut(uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(uid);
            }
        }
    }
}

async fn keep_looking(records: Rc<Records>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        records.take_in_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_all_connections() {
        let users = Users::default();
        let visits: Vec<Visit> = (0..CONNECTIONS_OF_A_USER)
            .map(|_| users.admit(1000).expect("there is room"))
            .collect();
        assert!(users.admit(1000).is_none());
        assert!(users.admit(1001).is_some() && users.admit(0).is_some());
        drop(visits);
        assert!(users.admit(1000).is_some());
        assert!(users.0.borrow().is_empty(), "nobody is there any more");
    }
}
