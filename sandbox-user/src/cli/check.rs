//! The arguments of `sandbox check`.

use clap::Args;

/// Options of `check`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit status: 0 when `sandbox run` will work on this host, 125 otherwise.")]
pub struct CheckArgs {
    /// Remove pinned eBPF programs that no run uses
    #[arg(long)]
    clean: bool,

    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

impl CheckArgs {
    /// Whether leftovers are removed.
    pub const fn cleaning(&self) -> Cleaning {
        if self.clean {
            Cleaning::Remove
        } else {
            Cleaning::Keep
        }
    }

    /// How the findings are printed.
    pub const fn output(&self) -> CheckOutput {
        if self.json {
            CheckOutput::Json
        } else {
            CheckOutput::Text
        }
    }
}

/// What `check` does with what nothing uses (`--clean`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaning {
    /// It is left.
    Keep,
    /// It is removed.
    Remove,
}

/// How `check` prints (`--json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutput {
    /// For people.
    Text,
    /// For programs.
    Json,
}
