//! What systemd is told and gives, where it started this process (sd_notify(3), sd_listen_fds(3),
//! sd_watchdog_enabled(3)). Without it nothing is done here.

use std::{io, os::unix::net::UnixListener, path::Path};

use sd_notify::NotifyState;
use tokio::time::sleep;

use crate::{say::say, sys::fd};

/// Where units are that an administrator or a package has put there (systemd.unit(5)).
const UNITS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// What root starts the service by: systemd where this program's unit is there.
pub fn how_to_start() -> &'static str {
    command(&UNITS.map(Path::new))
}

fn command(units: &[&Path]) -> &'static str {
    let is_packaged = |units: &&Path| units.join("sandbox.socket").exists();
    if units.iter().any(is_packaged) {
        "systemctl enable --now sandbox.socket"
    } else {
        "sandbox serve"
    }
}

/// Tells that all is ready.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells that the end has begun.
pub(super) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        say(format_args!("systemd cannot be told how it goes: {error}"));
    }
}

/// The socket that systemd listens on for this process; `None` where there is none.
///
/// # Errors
/// Where what it passes is something else.
pub(super) fn socket() -> io::Result<Option<UnixListener>> {
    let mut passed = sd_notify::listen_fds()?;
    let Some(number) = passed.next() else {
        return Ok(None);
    };
    if passed.len() > 0 {
        return Err(io::Error::other("systemd passes more than one socket"));
    }
    let socket = UnixListener::from(fd::take(number)?);
    socket.set_nonblocking(true)?;
    Ok(Some(socket))
}

/// Tells again and again that this thread goes on, where that is watched.
pub(super) async fn keep_the_watchdog_quiet() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    loop {
        tell(&[NotifyState::Watchdog]);
        // As sd_watchdog_enabled(3) advises.
        sleep(limit / 2).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_started_by_its_unit_where_that_is_installed() {
        let (empty, units) = (tempfile::tempdir(), tempfile::tempdir());
        let (empty, units) = (empty.expect("a folder"), units.expect("a folder"));
        let both = [empty.path(), units.path()];
        assert_eq!(command(&both), "sandbox serve");
        std::fs::write(units.path().join("sandbox.socket"), "").expect("written");
        assert_eq!(command(&both), "systemctl enable --now sandbox.socket");
    }
}
