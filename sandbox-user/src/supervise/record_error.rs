//! Why a record cannot be written, and what to do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::record_path::remedy;

/// Why the record cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Its file cannot be made.
    #[error(
        "the record cannot be written to {}: {source}; {}",
        path.display(),
        remedy(source, || format!("name a path in a directory where uid {uid} may create files"))
    )]
    Unwritable {
        /// The path that was asked for.
        path: PathBuf,
        /// Whose rights were not enough.
        uid: u32,
        /// Why.
        source: io::Error,
    },
    /// `fd:N` is not open.
    #[error(
        "the record cannot be written to fd:{fd}: {source}; open it, as in `sandbox run --record fd:{fd} … {fd}>record.json`"
    )]
    Descriptor {
        /// N.
        fd: i32,
        /// Why.
        source: io::Error,
    },
    /// Writing failed at the end.
    #[error("the record could not be written to {to}: {source}{}", kept_in(kept.as_deref()))]
    Lost {
        /// Where it should have gone.
        to: String,
        /// The file that has it all the same.
        kept: Option<PathBuf>,
        /// Why: no space, a closed pipe …
        source: io::Error,
    },
}

fn kept_in(path: Option<&Path>) -> String {
    path.map(|path| format!("; it is in {}", path.display()))
        .unwrap_or_default()
}
