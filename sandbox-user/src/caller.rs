//! What `sandbox` was called with, besides its arguments: identity, environment, ignored signals.
//!
//! A supervisor that the service started stands in for a client of its: what counts then is the
//! client's, and nothing of the service's reaches the analysis.

use std::{
    ffi::{OsStr, OsString},
    sync::OnceLock,
};

use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};

use crate::{
    identity::IdentityError,
    procfs::{self, status_field},
};

/// Who called, as the kernel has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// User id: only 0 can become somebody else.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// A client that this process stands in for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Who it is.
    pub caller: Caller,
    /// Its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Signals that it had ignored.
    pub ignored_signals: Vec<i32>,
}

static CLIENT: OnceLock<Client> = OnceLock::new();

/// Stands in for a client from now on. To be called once, before anybody asks.
pub fn stand_in_for(client: Client) {
    // A second one would not be served.
    let _ = CLIENT.set(client);
}

impl Caller {
    /// The client, or else this process.
    ///
    /// # Errors
    /// Where getgroups(2) fails.
    pub fn current() -> Result<Self, IdentityError> {
        if let Some(client) = CLIENT.get() {
            return Ok(client.caller.clone());
        }
        let uid = Uid::current();
        let groups = nix::unistd::getgroups().map_err(|errno| IdentityError::Lookup {
            user: uid.to_string(),
            reason: format!("getgroups: {errno}"),
        })?;
        Ok(Self {
            uid: uid.as_raw(),
            gid: Gid::current().as_raw(),
            groups: groups.into_iter().map(Gid::as_raw).collect(),
        })
    }
}

/// Whose uid this process has, or its client.
pub fn uid() -> u32 {
    CLIENT
        .get()
        .map_or_else(|| Uid::current().as_raw(), |client| client.caller.uid)
}

/// The caller's environment.
pub fn environment() -> Vec<(OsString, OsString)> {
    match CLIENT.get() {
        Some(client) => client.environment.clone(),
        None => std::env::vars_os().collect(),
    }
}

/// A variable of it, where it is text.
pub fn variable(name: &str) -> Option<String> {
    match CLIENT.get() {
        Some(client) => {
            let found = client.environment.iter().rev();
            let mut found = found.filter(|(known, _)| known == OsStr::new(name));
            found.next()?.1.clone().into_string().ok()
        }
        None => std::env::var(name).ok(),
    }
}

/// The umask of this process, which is the caller's; 077 where that cannot be read.
pub fn umask() -> u32 {
    procfs::text("/proc/self/status")
        .ok()
        .and_then(|status| umask_in(&status))
        .unwrap_or(0o077)
}

/// That of a process, from the text of its /proc/PID/status.
pub fn umask_in(status: &str) -> Option<u32> {
    u32::from_str_radix(status_field(status, "Umask")?, 8).ok()
}

/// Signals that whoever called had ignored (nohup's SIGHUP), of those that a shell leaves ignored for a
/// reason; SIGPIPE is ignored by every Rust program and is not one of them.
pub fn ignored_signals() -> Vec<i32> {
    match CLIENT.get() {
        Some(client) => client.ignored_signals.clone(),
        None => procfs::text("/proc/self/status")
            .map(|status| ignored_in(&status))
            .unwrap_or_default(),
    }
}

/// Those of a process, from the text of its /proc/PID/status.
pub fn ignored_in(status: &str) -> Vec<i32> {
    const SIGPIPE: i32 = 13;
    let mask = status_field(status, "SigIgn")
        .and_then(|mask| u64::from_str_radix(mask, 16).ok())
        .unwrap_or_default();
    (1..=64)
        .filter(|signal| mask >> (signal - 1) & 1 == 1 && *signal != SIGPIPE)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_told_and_sigpipe_is_not_one() {
        assert_eq!(ignored_in("Name:\tx\nSigIgn:\t0000000000001001\n"), [1]);
        assert_eq!(ignored_in("Name:\tx\n"), [0_i32; 0]);
    }
}
