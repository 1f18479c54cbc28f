//! Where the record goes: opened before anything starts, written once the run is over.
//!
//! A regular file appears whole or not at all: the record is written beside it under another name,
//! made durable and renamed. Files are made with the caller's rights, which under sudo are those of
//! the user who called it, so that `--record` is no way to write where that user may not.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::libc;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::guardian::Announcer;
use crate::{
    record::RunRecord,
    spec::RecordDestination,
    sys::creds::{FileIdentity, with_file_identity},
};

/// Why the record cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Its file cannot be made.
    #[error(
        "the record cannot be written to {}: {source}; name a path in a directory where uid {uid} may create files",
        path.display()
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
    #[error("the record could not be written to {to}: {source}")]
    Lost {
        /// Where it should have gone.
        to: String,
        /// Why: no space, a closed pipe …
        source: io::Error,
    },
}

/// An open destination.
#[derive(Debug)]
pub(super) struct RecordFile {
    file: File,
    target: Target,
    announcer: Option<Announcer>,
}

/// What the open file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    /// A file that is to appear under `path`.
    Staged {
        /// The name that was asked for.
        #[serde(with = "crate::spec::os_path")]
        path: PathBuf,
        /// The name that it is written under.
        #[serde(with = "crate::spec::os_path")]
        staged: PathBuf,
        /// With whose rights.
        caller: FileIdentity,
    },
    /// A descriptor, or what is no regular file: written in place, once.
    Stream {
        /// For messages.
        name: String,
    },
}

/// How far a record came before its writer was gone.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing is known to be written.
    Nothing,
    /// A draft, under the name that is not the one asked for.
    Drafted(Box<RunRecord>),
    /// All of it, under the name that was asked for.
    Published,
}

impl RecordFile {
    /// Opens a destination with the rights of `caller`.
    ///
    /// # Errors
    /// Where it cannot be written to; nothing is left behind then.
    pub(super) fn open(
        destination: &RecordDestination,
        run_id: Uuid,
        caller: &FileIdentity,
    ) -> Result<Self, RecordError> {
        let descriptor = |fd, opened: io::Result<File>| match opened {
            Ok(file) => Ok(Self {
                file,
                target: Target::Stream {
                    name: if fd == 1 {
                        "stdout".to_owned()
                    } else {
                        format!("fd:{fd}")
                    },
                },
                announcer: None,
            }),
            Err(source) => Err(RecordError::Descriptor { fd, source }),
        };
        match destination {
            RecordDestination::Stdout => {
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                descriptor(1, stdout.map(File::from))
            }
            RecordDestination::Fd(fd) => {
                descriptor(*fd, crate::sys::fd::duplicate(*fd).map(File::from))
            }
            RecordDestination::File(path) => with_file_identity(caller, || {
                if leads_to_a_stream(path) {
                    open_stream(path)
                } else {
                    stage(path, run_id, caller)
                }
            })
            .map_err(|source| RecordError::Unwritable {
                path: path.clone(),
                uid: caller.uid,
                source,
            }),
        }
    }

    /// The same destination, for a guardian that inherits the open file.
    pub(super) const fn inherited(file: File, target: Target) -> Self {
        Self {
            file,
            target,
            announcer: None,
        }
    }

    /// Whom to tell before a stream is written.
    pub(super) fn announce_to(&mut self, announcer: Announcer) {
        self.announcer = Some(announcer);
    }

    /// What a guardian needs to go on with it.
    ///
    /// # Errors
    /// EMFILE and the like.
    pub(super) fn share(&self) -> io::Result<(File, Target)> {
        Ok((self.file.try_clone()?, self.target.clone()))
    }

    /// Keeps a first version durably where the final one will be, so that what is known survives
    /// the removal of the leaf. Streams are written once, at the end.
    ///
    /// # Errors
    /// Where it cannot be written: no space …
    pub(super) fn draft(&mut self, record: &RunRecord) -> Result<(), RecordError> {
        match &self.target {
            Target::Staged { .. } => self.rewrite(record),
            Target::Stream { .. } => Ok(()),
        }
    }

    /// How far another process came with it.
    pub(super) fn progress(&mut self) -> Progress {
        if self.is_published() {
            return Progress::Published;
        }
        match self.read_draft() {
            Some(record) => Progress::Drafted(Box::new(record)),
            None => Progress::Nothing,
        }
    }

    /// Whether the open file has the name that was asked for, and no other.
    fn is_published(&self) -> bool {
        let Target::Staged {
            path,
            staged,
            caller,
        } = &self.target
        else {
            return false;
        };
        let Ok(own) = self.file.metadata() else {
            return false;
        };
        with_file_identity(caller, || {
            let is_own = |found: fs::Metadata| (found.dev(), found.ino()) == (own.dev(), own.ino());
            let is_staged = fs::symlink_metadata(staged).is_ok_and(is_own);
            Ok(!is_staged && fs::symlink_metadata(path).is_ok_and(is_own))
        })
        .unwrap_or(false)
    }

    fn read_draft(&mut self) -> Option<RunRecord> {
        let Target::Staged { .. } = &self.target else {
            return None;
        };
        let mut text = String::new();
        self.file.rewind().ok()?;
        self.file.read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes the record and gives it its name.
    ///
    /// # Errors
    /// Where it cannot be: no space, a closed pipe; a draft stays under its other name then.
    pub(super) fn finish(mut self, record: &RunRecord) -> Result<(), RecordError> {
        match self.target.clone() {
            Target::Stream { name } => {
                let text = to_json(record);
                if let Some(announcer) = self.announcer.take() {
                    announcer.announce();
                }
                self.file
                    .write_all(&text)
                    .map_err(|source| RecordError::Lost { to: name, source })
            }
            Target::Staged {
                path,
                staged,
                caller,
            } => {
                self.rewrite(record)?;
                with_file_identity(&caller, || {
                    fs::rename(&staged, &path)?;
                    File::open(directory_of(&path))?.sync_all()
                })
                .map_err(|source| RecordError::Lost {
                    to: path.display().to_string(),
                    source,
                })
            }
        }
    }

    /// Takes back what was made for a record that will not be written.
    pub(super) fn discard(self) {
        if let Target::Staged { staged, caller, .. } = &self.target {
            // An empty file of that user's own is all that could be left.
            let _ = with_file_identity(caller, || fs::remove_file(staged));
        }
    }

    fn rewrite(&mut self, record: &RunRecord) -> Result<(), RecordError> {
        let text = to_json(record);
        let written = self
            .file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .and_then(|()| self.file.write_all(&text))
            .and_then(|()| self.file.sync_all());
        written.map_err(|source| RecordError::Lost {
            to: match &self.target {
                Target::Staged { path, .. } => path.display().to_string(),
                Target::Stream { name } => name.clone(),
            },
            source,
        })
    }
}

fn to_json(record: &RunRecord) -> Vec<u8> {
    // A record is made of strings, numbers and maps with string keys, which all serialise.
    let mut text = serde_json::to_vec_pretty(record).unwrap_or_default();
    text.push(b'\n');
    text
}

fn leads_to_a_stream(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| {
        let kind = metadata.file_type();
        kind.is_fifo() || kind.is_char_device() || kind.is_block_device() || kind.is_socket()
    })
}

fn open_stream(path: &Path) -> io::Result<RecordFile> {
    // A FIFO without a reader is ENXIO at once, instead of a wait without end.
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    nix::fcntl::fcntl(
        &file,
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()),
    )?;
    Ok(RecordFile {
        file,
        target: Target::Stream {
            name: path.display().to_string(),
        },
        announcer: None,
    })
}

fn stage(path: &Path, run_id: Uuid, caller: &FileIdentity) -> io::Result<RecordFile> {
    let name = match path.file_name() {
        Some(name) if !path.is_dir() => name,
        Some(_) | None => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
    };
    let mut staged_name = std::ffi::OsString::from(".");
    staged_name.push(name);
    staged_name.push(format!(".{run_id}"));
    let staged = path.with_file_name(staged_name);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(&staged)?;
    Ok(RecordFile {
        file,
        target: Target::Staged {
            path: path.to_owned(),
            staged,
            caller: caller.clone(),
        },
        announcer: None,
    })
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}
