//! The command line: what can be typed, what `--help` says of it, and the exit status of a mistake.
//!
//! Only what the tool really does is offered. Parsing ends in values that are in range (see
//! `policy::values`); [`RunArgs`] become a [`crate::spec::RunSpec`]. A usage error is 125 like any
//! other failure of `sandbox` itself, so that it cannot be taken for the analysis's own status.

mod audit;
mod check;
mod files;
mod run;
mod runs;
mod serve;
mod values;

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};

use crate::units::{Printable, is_unprintable};

pub use audit::{AuditArgs, AuditCommand, AuditVerifyArgs};
pub use check::{CheckArgs, CheckOutput, Cleaning};
pub use run::{RunArgs, UsageError};
pub use runs::{KillArgs, ListArgs, MeantArgs, ReadArgs, ShowArgs, UpdateArgs, WaitArgs};
pub use serve::ServeArgs;

/// Exit status where `sandbox` itself failed, usage errors included.
pub const EXIT_FAILURE: u8 = 125;

/// Runs each analysis in a cgroup of its own, under hard limits, and says what ended it
#[derive(Clone, Debug, Parser)]
#[command(name = "sandbox", bin_name = "sandbox", version, max_term_width = 100)]
pub struct Cli {
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run an analysis under limits, and say what ended it
    Run(Box<RunArgs>),
    /// Say what this host offers, what is missing and how to mend it
    Check(CheckArgs),
    /// Tell of the runs that the service did: one's own, root of everybody's
    List(ListArgs),
    /// Tell of one of them
    Show(ShowArgs),
    /// Wait until one of them has ended, and exit as `sandbox run` would
    Wait(WaitArgs),
    /// Print what a detached one has printed
    Logs(ReadArgs),
    /// Print what happened in one of them, its event stream, JSON lines
    Events(ReadArgs),
    /// End some that go on
    Kill(KillArgs),
    /// Hold some still that go on; their time runs all the same
    #[command(
        after_help = "A frozen run keeps its memory, and its wall clock limit goes on: at its deadline it is thawed \
                      and ended as if it had run, and the record says so. It can be killed, and ends, as any other."
    )]
    Freeze(MeantArgs),
    /// Let some go on that are held still
    Thaw(MeantArgs),
    /// Give one that goes on more time, or less
    Update(UpdateArgs),
    /// Be the host's service, which does everybody's runs and keeps what became of them
    Serve(ServeArgs),
    /// Look after the service's audit log: who asked for what, and how it ended
    Audit(AuditArgs),
    /// Hold the host's runs, and cancel them when this ends; started by systemd, not by people.
    #[command(hide = true)]
    Hold,
    /// Attend to a client of the service; started by that, not by people.
    #[command(hide = true)]
    Attend {
        /// Where its connection is
        client: i32,
        /// Where the service is
        office: i32,
        /// Where the configuration in force is
        config: i32,
    },
    /// Watch over a foreground run from outside its leaf; started by `run`, not by people.
    #[command(hide = true)]
    Guardian,
}

impl Cli {
    /// Reads a command line, program name first.
    ///
    /// # Errors
    /// clap's error, which also stands for `--help` and `--version`: print it and exit with
    /// [`exit_status`].
    pub fn parse_arguments(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments).map_err(escaped)
    }
}

/// What to exit with after an error of [`Cli::parse_arguments`]: 0 for help and version, else
/// [`EXIT_FAILURE`].
pub fn exit_status(error: &clap::Error) -> u8 {
    if error.use_stderr() { EXIT_FAILURE } else { 0 }
}

/// The same error, with what was typed made fit for a terminal: clap shows it as it is.
fn escaped(mut error: clap::Error) -> clap::Error {
    let unprintable: Vec<(ContextKind, String)> = error
        .context()
        .filter_map(|(kind, value)| {
            let ContextValue::String(text) = value else {
                return None;
            };
            text.contains(is_unprintable)
                .then(|| (kind, Printable(text).to_string()))
        })
        .collect();
    for (kind, text) in unprintable {
        error.insert(kind, ContextValue::String(text));
        // Hints repeat it.
        error.remove(ContextKind::Suggested);
    }
    error
}

#[cfg(test)]
mod tests;
