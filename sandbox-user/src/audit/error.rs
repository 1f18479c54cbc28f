//! What can go wrong with the audit log.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the log could not be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It, or its directory, cannot be opened or read.
    #[error("the audit log {}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is somebody else's.
    #[error("the audit log {} is root's: use sudo", path.display())]
    NotRoot {
        /// Which file.
        path: PathBuf,
    },
    /// There is none.
    #[error("there is no audit log {}: the service makes it when it starts, or with the next entry", path.display())]
    None {
        /// Which file.
        path: PathBuf,
    },
    /// Something else is in its place, or others may write to it.
    #[error(
        "the audit log {} is not a file that only this user may write to: see who made it so, and move it away",
        path.display()
    )]
    NotOwn {
        /// Which file.
        path: PathBuf,
    },
    /// Another process writes it.
    #[error("another process writes the audit log {} (it holds its flock): stop that first", path.display())]
    Held {
        /// Which file.
        path: PathBuf,
    },
    /// An entry is not in the log.
    #[error("nothing can be added to the audit log {}: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// An entry is in the log, but might not outlast a power cut.
    #[error("the audit log {} cannot be synced: {source}", path.display())]
    Sync {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl AuditError {
    /// The system could not open or read this file.
    pub(super) fn file(path: &Path, source: io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source,
        }
    }
}
