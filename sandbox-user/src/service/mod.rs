//! The host service: one privileged process that starts everybody's runs and keeps what became of
//! them.
//!
//! [`serve`] is the service, [`client`] what `sandbox run` and the other verbs are to it, [`protocol`]
//! what the two say. Each run has a supervisor process of its own, started by the service with what
//! its client passed ([`launch`]): it is the same program that runs an analysis without a service, so
//! that nothing that becomes of the service ends a run, or goes into its verdict. What a run leaves for
//! the store waits in a spool, whether the service is up or not.

pub mod client;
mod connection;
pub mod launch;
mod peer;
mod print;
pub mod protocol;
mod records;
mod serve;

use crate::cli::{ListArgs, ShowArgs};

pub use client::ClientError;
pub use serve::serve;

/// Where the service listens.
pub const SOCKET: &str = "/run/sandbox/sandbox.sock";
/// Where its store is.
const STORE: &str = "/var/lib/sandbox";
/// Where records wait for the store.
const SPOOL: &str = "/var/lib/sandbox/spool";

/// `sandbox list`: what is to be printed.
///
/// # Errors
/// Where the service cannot be asked.
pub fn list(args: &ListArgs) -> Result<String, ClientError> {
    let runs = client::list(args.most)?;
    Ok(match args.json {
        true => serde_json::to_string_pretty(&runs).unwrap_or_default() + "\n",
        false => print::table(&runs),
    })
}

/// `sandbox show`: what is to be printed.
///
/// # Errors
/// As [`list`]; where it has no such run, or with `--json` no record of it yet.
pub fn show(args: &ShowArgs) -> Result<String, ClientError> {
    let (run, record) = client::show(args.run)?;
    match record {
        _ if !args.json => Ok(print::details(&run)),
        Some(record) => Ok(format!("{record}\n")),
        None => Err(ClientError::Refused(format!(
            "run {} has no record yet",
            args.run
        ))),
    }
}
