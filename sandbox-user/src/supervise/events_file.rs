//! Where the stream goes: opened with the rights of whoever called, as the record is.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsFd as _,
    path::PathBuf,
};

use super::record_path::{Resolved, remedy};
use crate::{
    spec::Destination,
    sys::{
        creds::{FileIdentity, with_file_identity},
        fd::{inherited, open_at_once, open_to_append},
    },
};

/// The stream has nowhere to go. Exit status 125.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// Its file cannot be opened.
    #[error(
        "the events cannot be written to {}: {source}; {}",
        path.display(),
        remedy(source, || format!("name a file that uid {uid} may write"))
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
        "the events cannot be written to fd:{fd}: {source}; open it, as in `sandbox run --events fd:{fd} … {fd}>events.jsonl`"
    )]
    Descriptor {
        /// N.
        fd: i32,
        /// Why.
        source: io::Error,
    },
}

/// Opens it. A file is made, or emptied: unlike the record it is there to be read at once.
///
/// # Errors
/// Where it cannot be written to.
pub(super) fn open(destination: &Destination, caller: &FileIdentity) -> Result<File, EventsError> {
    let descriptor = |fd| inherited(fd).map(File::from);
    match destination {
        Destination::Stdout => io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map(File::from)
            .map_err(|source| EventsError::Descriptor { fd: 1, source }),
        Destination::Fd(fd) => {
            descriptor(*fd).map_err(|source| EventsError::Descriptor { fd: *fd, source })
        }
        Destination::File(path) => with_file_identity(caller, || match Resolved::of(path)? {
            Resolved::Descriptor(fd) => descriptor(fd),
            Resolved::Stream => open_at_once(OpenOptions::new().write(true), path),
            Resolved::File(path) => open_to_append(&path),
        })
        .map_err(|source| EventsError::Unwritable {
            path: path.clone(),
            uid: caller.uid,
            source,
        }),
    }
}
