//! The service's process: it prepares what it needs, listens, and sees to what runs have left.

use std::{
    fs::{self, File, OpenOptions},
    io,
    net::SocketAddr,
    os::unix::{
        fs::{OpenOptionsExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use tokio::{
    net::{TcpListener, UnixListener},
    task::{LocalSet, spawn_local},
};

use super::{
    EVENTS, SOCKET, SPOOL, control,
    in_force::InForce,
    manager,
    metrics::{self, Metrics},
    reception::{receive, receive_attendants},
    records::Records,
    state::Service,
    trail::Trail,
};
use crate::{
    audit::AuditError,
    cgroup::Mount,
    config::{self, ConfigError},
    events::kept,
    host::remove_pins,
    say::{mention, say},
    store::{self, Opened, Store, StoreError},
    supervise::{self, Meaning, Signals, block_signals, recover},
    sys::{child, own_dir},
    trace::Unused,
};

/// Held by the one service of a host.
const LOCK: &str = "/run/sandbox/service.lock";
/// How often it is looked whether records have come of runs that nobody here waits for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long runs that wait may take to come: twice as long as they look for a service at most.
const GATHERED_WITHIN: Duration = Duration::from_secs(1);
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
    /// Somebody listens in its place.
    #[error(
        "somebody else listens on {SOCKET}, such as systemd (sandbox.socket): `systemctl start sandbox` starts the service there"
    )]
    Activated,
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Where metrics are to be served.
    #[error(
        "serving metrics at {address}: {source}; `metrics` in {} says where",
        config::PATH
    )]
    Metrics {
        /// There.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
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
    let passed =
        manager::socket().map_err(ServeError::system("taking the socket that systemd passes"))?;
    let in_force = InForce::read()?;
    block_signals().map_err(ServeError::system("blocking signals"))?;
    child::leave_ends_to_the_kernel();
    let runtime = supervise::runtime().map_err(ServeError::system("starting the event loop"))?;
    LocalSet::new().block_on(&runtime, async {
        let metrics_at = in_force.config.service.metrics;
        let metrics = Rc::new(Metrics::new());
        let service = Rc::new(begin(in_force, &metrics)?);
        let listener = match passed {
            Some(passed) => UnixListener::from_std(passed),
            None if UnixStream::connect(socket).is_ok() => return Err(ServeError::Activated),
            None => listen(socket),
        }
        .map_err(ServeError::system("listening on /run/sandbox/sandbox.sock"))?;
        let attendants = control::bind_service()
            .and_then(|listener| {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener)
            })
            .map_err(ServeError::system(
                "listening on /run/sandbox/control/service",
            ))?;
        if let Some(address) = metrics_at {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|source| ServeError::Metrics { address, source })?;
            spawn_local(metrics::http::serve(listener, metrics));
        }
        let signals = Signals::open().map_err(ServeError::system("opening a signalfd"))?;
        mention(format_args!("listening on {SOCKET}"));
        manager::ready();
        spawn_local(manager::keep_the_watchdog_quiet());
        spawn_local(keep_looking(Rc::clone(&service)));
        spawn_local(gather(Rc::clone(&service)));
        spawn_local(receive_attendants(attendants, Rc::clone(&service)));
        spawn_local(receive(listener, Rc::clone(&service)));
        until_ended(&signals, &service)
            .await
            .map_err(ServeError::system("reading a signalfd"))?;
        manager::stopping("runs go on by themselves");
        Ok(())
    })
}

/// Goes on until a signal asks for the end; SIGHUP asks for the configuration to be read anew.
async fn until_ended(signals: &Signals, service: &Service) -> io::Result<()> {
    loop {
        let received = signals.next().await?;
        match received.meaning {
            Meaning::Cancel if received.signal == Signal::SIGHUP as i32 => service.reload(),
            Meaning::Cancel => return Ok(()),
            Meaning::PassOn => {}
        }
    }
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

/// Opens the store and the audit log, and brings them up to date with what happened while no service was there.
fn begin(in_force: InForce, metrics: &Rc<Metrics>) -> Result<Service, ServeError> {
    let Opened { store, aside } = Store::open(Path::new(store::DIRECTORY))?;
    if let Some(aside) = aside {
        say(format_args!(
            "the store was damaged, and is kept as {}; a new one is used",
            aside.display()
        ));
    }
    let spool = Path::new(SPOOL);
    own_dir::own(spool, 0o700).map_err(ServeError::system("making /var/lib/sandbox/spool"))?;
    recover_lost();
    let trail = Rc::new(Trail::open(Path::new(store::DIRECTORY))?);
    let records = Records::new(store, spool, Rc::clone(&trail), Rc::clone(metrics));
    Service::new(records, in_force, trail, Rc::clone(metrics))
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

/// Gives those that wait for their turn since a service before this one the time to come: who is next is who has
/// waited longest, and not who comes first.
async fn gather(service: Rc<Service>) {
    tokio::time::sleep(GATHERED_WITHIN).await;
    service.has_gathered();
}

/// Sees to runs for which nobody here waits.
async fn keep_looking(service: Rc<Service>) {
    aside(compress_left).await;
    aside(remove_stale_pins).await;
    let mut recovered = Instant::now();
    loop {
        let was_met = tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => false,
            () = service.lost.notified() => true,
        };
        service.take_in();
        if was_met || recovered.elapsed() > RECOVER_EVERY {
            // It may wait for processes to die.
            aside(recover_lost).await;
            aside(compress_left).await;
            aside(remove_stale_pins).await;
            service.look_after();
            recovered = Instant::now();
        }
    }
}

/// Does something that takes its time while others are served.
async fn aside(deed: fn()) {
    if let Err(error) = tokio::task::spawn_blocking(deed).await {
        say(error);
    }
}

fn compress_left() {
    for problem in kept::compress_left(Path::new(EVENTS)) {
        say(format_args!("an event stream is not compressed: {problem}"));
    }
}

/// Those of versions before this one, once their last run is over.
fn remove_stale_pins() {
    // What cannot be judged `sandbox check --clean` tells of, and not a line here every half minute.
    let removed = remove_pins(Unused::OfOtherBuilds).unwrap_or_default();
    for path in removed.0 {
        mention(format_args!("removed {path}"));
    }
}

fn recover_lost() {
    match Mount::find() {
        Ok(mount) => recover(&mount).say(),
        Err(error) => say(error),
    }
}
