//! The arguments of the verbs that tell of runs.

use clap::Args;

use super::values as argument;
use crate::spec::RunId;

/// Options of `list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// At most so many, the latest
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub most: u32,

    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// Options of `show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// The run's id
    #[arg(value_name = "RUN", value_parser = argument::text(argument::run_id))]
    pub run: RunId,

    /// Print its record, JSON, instead of text
    #[arg(long)]
    pub json: bool,
}
