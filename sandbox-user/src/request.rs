//! The run that a command line, its metadata and the host's configuration ask for together.

use crate::{
    cli::{RunArgs, UsageError},
    config::{self, ConfigError},
    metadata::MetadataError,
    say::say,
    spec::RunSpec,
    supervise::{self, RunError},
};

/// Why there is none. Exit status 125, and no record.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// What the host's configuration says cannot be told.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The caller's rights cannot be taken.
    #[error(transparent)]
    Rights(#[from] RunError),
    /// The metadata was not accepted.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// It contradicts itself, or asks for more than there is to be had.
    #[error(transparent)]
    Usage(#[from] UsageError),
}

/// What is asked for.
#[derive(Debug)]
pub struct Requested {
    /// The run.
    pub spec: RunSpec,
    /// How many runs of its user's the service is to do at once; `None` = no limit.
    pub most_of_user: Option<usize>,
}

/// Puts it together, and says what was lowered to the host's ceilings.
///
/// # Errors
/// [`RequestError`].
pub fn put_together(args: RunArgs) -> Result<Requested, RequestError> {
    let host = config::policy_of_host(args.user())?;
    let allowed = host.metadata_paths.as_deref();
    let metadata = supervise::with_callers_rights(|| args.metadata(allowed))??;
    let most_of_user = host.runs;
    let (spec, lowered) = RunSpec::from_args(args, metadata, host)?;
    lowered.iter().for_each(say);
    Ok(Requested { spec, most_of_user })
}
