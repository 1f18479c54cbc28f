//! The arguments of the verbs that tell of runs and act on them.

use clap::{ArgGroup, Args};
use jiff::Timestamp;

use super::values as argument;
use crate::{policy::TimeoutChange, record::Reason, store::Filter};

/// Which runs are meant.
#[derive(Clone, Debug, Args)]
struct SelectArgs {
    /// A run's id, or an analysis's
    #[arg(value_name = "ID", value_parser = argument::text(argument::id))]
    id: Option<String>,

    /// Those of this user, by name or number
    #[arg(long, value_name = "USER", value_parser = argument::text(argument::user))]
    user: Option<String>,

    /// Those with this label
    #[arg(long, value_name = "NAME=VALUE", value_parser = argument::text(argument::label))]
    label: Option<(String, String)>,

    /// Those asked for since then: a day or a time such as 2026-11-26T18:00Z (UTC), or so long ago,
    /// such as 2h or 7d
    #[arg(long, value_name = "WHEN", value_parser = argument::text(argument::since), allow_hyphen_values = true)]
    since: Option<Timestamp>,
}

impl SelectArgs {
    fn filter(&self) -> Filter {
        Filter {
            id: self.id.clone(),
            user: self.user.clone(),
            label: self.label.clone(),
            since: self.since,
            ..Filter::default()
        }
    }
}

/// Options of `list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    select: SelectArgs,

    /// Those that ended for this reason, as the record has it, such as memory
    #[arg(long, value_name = "REASON", value_parser = argument::text(argument::reason))]
    reason: Option<Reason>,

    /// Those that ended otherwise than by themselves with 0
    #[arg(long)]
    failed: bool,

    /// Those that have not ended
    #[arg(long, conflicts_with_all = ["reason", "failed"])]
    running: bool,

    /// At most so many, the latest
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50,
        allow_hyphen_values = true
    )]
    pub most: u32,

    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

impl ListArgs {
    /// Which runs are meant.
    pub fn filter(&self) -> Filter {
        Filter {
            reason: self.reason,
            failed: self.failed,
            unfinished: self.running,
            ..self.select.filter()
        }
    }
}

/// Options of `show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// The run's id, or that of an analysis, whose latest run is meant
    #[arg(value_name = "ID", value_parser = argument::text(argument::id))]
    pub id: String,

    /// Print its record, JSON, instead of text; where there is none yet, how it was asked for and how it is just now
    #[arg(long)]
    pub json: bool,
}

/// Options of `wait`.
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// The run's id, or that of an analysis, whose latest run is meant
    #[arg(value_name = "ID", value_parser = argument::text(argument::id))]
    pub id: String,
}

/// Options of `logs` and `events`.
#[derive(Clone, Debug, Args)]
pub struct ReadArgs {
    /// The run's id, or that of an analysis, whose latest run is meant
    #[arg(value_name = "ID", value_parser = argument::text(argument::id))]
    pub id: String,

    /// Go on until it has ended
    #[arg(long)]
    pub follow: bool,
}

/// Options of `kill`.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("which").args(["id", "user", "label", "since"]).required(true).multiple(true)))]
pub struct KillArgs {
    #[command(flatten)]
    select: SelectArgs,

    /// Why, for their completion notes
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

impl KillArgs {
    /// Which runs are meant.
    pub fn filter(&self) -> Filter {
        self.select.filter()
    }
}

/// Options of `freeze` and `thaw`.
#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("which").args(["id", "user", "label", "since"]).required(true).multiple(true)))]
pub struct MeantArgs {
    #[command(flatten)]
    select: SelectArgs,
}

impl MeantArgs {
    /// Which runs are meant.
    pub fn filter(&self) -> Filter {
        self.select.filter()
    }
}

/// Options of `update`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The host's ceilings hold as for `sandbox run`, but for what root says. A deadline that would have \
                  passed is refused. The warning before it (`--warn` of `sandbox run`) moves with it. The record \
                  lists each change."
)]
pub struct UpdateArgs {
    /// The run's id, or that of an analysis, of which all runs that go on are meant
    #[arg(value_name = "ID", value_parser = argument::text(argument::id))]
    id: String,

    /// So much more than it has (+1h), so much less (-10m), or so much in all from its start (2h);
    /// `none` lifts it
    #[arg(long, value_name = "TIME", required = true, allow_hyphen_values = true,
          value_parser = argument::text(argument::timeout_change))]
    pub timeout: TimeoutChange,
}

impl UpdateArgs {
    /// Which runs are meant.
    pub fn filter(&self) -> Filter {
        Filter::of(self.id.as_str())
    }
}
