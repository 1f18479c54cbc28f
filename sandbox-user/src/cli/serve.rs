//! The arguments of `sandbox serve`.

use clap::Args;

/// Options of `serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Read the host's configuration, say what it comes to, and serve nobody
    #[arg(long)]
    pub check_config: bool,
}
