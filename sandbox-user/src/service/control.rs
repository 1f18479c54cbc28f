//! The socket of a run, through which root's processes give it orders, and by which it is known to be
//! looked after.
//!
//! It is the supervisor's own, so that it works whatever becomes of the service meanwhile.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, socket},
};

use super::{files, protocol::to_line};
use crate::{
    spec::RunId,
    supervise::{Control, Controlled},
    sys::own_dir,
};

/// Where they are: root's alone.
pub(super) const DIRECTORY: &str = "/run/sandbox/control";
/// Where the service listens to those of its attendants that have lost their line to it.
pub(super) const SERVICE: &str = "/run/sandbox/control/service";
/// How the name of a note ends that a run has not begun.
const GIVEN_BACK: &str = ".given-back";
/// How long a supervisor may take to answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

fn path(run_id: RunId) -> PathBuf {
    Path::new(DIRECTORY).join(run_id.to_string())
}

/// Makes a run's.
///
/// # Errors
/// Where it cannot be made.
pub(super) fn bind(run_id: RunId) -> io::Result<UnixListener> {
    make_directory()?;
    UnixListener::bind(path(run_id))
}

/// Makes the service's, in the place of that of one before.
///
/// # Errors
/// As [`bind`].
pub(super) fn bind_service() -> io::Result<UnixListener> {
    make_directory()?;
    match fs::remove_file(SERVICE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => UnixListener::bind(SERVICE),
    }
}

fn make_directory() -> io::Result<()> {
    own_dir::own_around(Path::new(DIRECTORY))?;
    own_dir::own(Path::new(DIRECTORY), 0o700)
}

/// Connects to a socket; `None` where nobody listens there.
///
/// # Errors
/// EMFILE and the like.
pub(super) fn connected(path: impl AsRef<Path>) -> io::Result<Option<UnixStream>> {
    match UnixStream::connect(path) {
        Ok(socket) => Ok(Some(socket)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Removes a run's, where it is still there.
pub(super) fn remove(run_id: RunId) {
    // It is gone with the boot at the latest.
    let _ = fs::remove_file(path(run_id));
}

/// Notes that a run has not begun and will not, since the service has gone: its client asks for another. To be done
/// while its socket is there, so that no service takes the run for lost.
///
/// # Errors
/// Where that cannot be noted.
pub(super) fn give_back(run_id: RunId) -> io::Result<()> {
    fs::write(given_back(run_id), [])
}

/// Whether that was noted.
pub(super) fn was_given_back(run_id: RunId) -> bool {
    given_back(run_id).exists()
}

/// Removes that note.
pub(super) fn forget_given_back(run_id: RunId) {
    // It is gone with the boot at the latest.
    let _ = fs::remove_file(given_back(run_id));
}

/// The runs of which that is noted.
///
/// # Errors
/// Where the notes cannot be listed.
pub(super) fn all_given_back() -> io::Result<Vec<RunId>> {
    runs_with(GIVEN_BACK)
}

fn runs_with(ending: &str) -> io::Result<Vec<RunId>> {
    match files::runs_with(Path::new(DIRECTORY), ending) {
        // No run has had a socket in this boot.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        runs => runs,
    }
}

fn given_back(run_id: RunId) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{run_id}{GIVEN_BACK}"))
}

/// Removes those of supervisors that were killed, but for runs that somebody is known to attend to.
///
/// # Errors
/// Where they cannot be listed.
pub(super) fn remove_dead(is_attended_to: impl Fn(RunId) -> bool) -> io::Result<()> {
    let sockets = runs_with("")?.into_iter();
    for run_id in sockets.filter(|run_id| !is_attended_to(*run_id)) {
        // Looking is what removes one.
        is_attended(run_id);
    }
    Ok(())
}

/// Whether a run's supervisor is there. What one has left behind that was killed is removed.
pub(super) fn is_attended(run_id: RunId) -> bool {
    match connect_at_once(&path(run_id)) {
        Ok(()) => true,
        Err(Errno::ECONNREFUSED) => {
            remove(run_id);
            false
        }
        // EAGAIN: one that does not accept has enough who wait.
        Err(errno) => errno != Errno::ENOENT,
    }
}

fn connect_at_once(path: &Path) -> nix::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

/// Who has connected to a run's socket and has something to say. Who only looked whether somebody is there
/// ([`is_attended`]) has gone by then, or goes.
///
/// # Errors
/// EMFILE and the like.
pub(super) fn callers(listener: &UnixListener) -> io::Result<Vec<UnixStream>> {
    listener.set_nonblocking(true)?;
    let mut callers = Vec::new();
    loop {
        match listener.accept() {
            Ok((caller, _)) => {
                caller.set_read_timeout(Some(ANSWERED_WITHIN))?;
                let said = recv(caller.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK);
                if said.is_ok_and(|length| length > 0) {
                    callers.push(caller);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(callers),
            Err(error) => return Err(error),
        }
    }
}

/// Gives a run an order; `None` where it has ended, or is ending.
///
/// # Errors
/// Where it does not answer.
pub(super) fn order(run_id: RunId, order: &Control) -> io::Result<Option<Controlled>> {
    let Some(mut socket) = connected(path(run_id))? else {
        return Ok(None);
    };
    socket.set_read_timeout(Some(ANSWERED_WITHIN))?;
    socket.write_all(&to_line(order)?)?;
    let mut line = String::new();
    match BufReader::new(socket).read_line(&mut line) {
        Ok(1..) => Ok(Some(serde_json::from_str(&line)?)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_looks_whether_somebody_is_there_says_nothing() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("control");
        let listener = UnixListener::bind(&path).expect("bound");
        assert_eq!(callers(&listener).expect("listens").len(), 0);
        connect_at_once(&path).expect("somebody is there");
        assert_eq!(callers(&listener).expect("listens").len(), 0);
        let mut asker = UnixStream::connect(&path).expect("connected");
        asker.write_all(b"{").expect("said");
        connect_at_once(&path).expect("somebody is there");
        let asking = callers(&listener).expect("listens");
        assert_eq!(asking.len(), 1);
        let mut said = [0];
        let mut asking = &asking[0];
        io::Read::read_exact(&mut asking, &mut said).expect("it is still to be read");
        assert_eq!(&said, b"{");
    }
}
