//! The arguments of `sandbox audit`.

use clap::{Args, Subcommand};

use super::values as argument;
use crate::audit::Head;

/// What is done with the audit log.
#[derive(Clone, Debug, Args)]
pub struct AuditArgs {
    /// What is to be done.
    #[command(subcommand)]
    pub command: AuditCommand,
}

/// The verbs of `audit`.
#[derive(Clone, Debug, Subcommand)]
pub enum AuditCommand {
    /// Find entries that were changed, taken out or moved
    Verify(AuditVerifyArgs),
}

/// Options of `audit verify`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Exit status: 0 when the log is whole, 1 when something is found, 125 when it cannot be read."
)]
pub struct AuditVerifyArgs {
    /// An entry that is known to be in the log, instead of those that the journal knows
    #[arg(long, value_name = "SEQ:HASH", value_parser = argument::text(str::parse::<Head>))]
    pub head: Option<Head>,

    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}
