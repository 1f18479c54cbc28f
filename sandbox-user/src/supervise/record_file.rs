//! Where the record goes: opened before anything starts, written once the run is over.
//!
//! A regular file appears whole or not at all ([`Staged`]). Files are made with the caller's rights, which under sudo are those of
//! the user who called it, so that `--record` is no way to write where that user may not.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    guardian::Announcer,
    record_error::RecordError,
    record_path::Resolved,
    staged::{Exposure, FileId, Staged},
};
use crate::{
    outlet,
    record::RunRecord,
    spec::Destination,
    sys::{
        creds::{FileIdentity, with_file_identity},
        fd::{inherited, open_at_once},
    },
};

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
    /// A file that is to appear under a name.
    Staged(Staged),
    /// A descriptor, or what is no regular file: written in place, once.
    Stream {
        /// For messages.
        name: String,
    },
}

/// A file that is open, for whoever comes once it is not any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptFile {
    staged: Staged,
    /// Which file it is, so that nobody's forgery is taken for it; `None` where that cannot be told.
    id: Option<FileId>,
}

/// How far a record came before its writer was gone.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing is known to be written.
    Nothing,
    /// A draft, under the name that is not the one asked for.
    Drafted(Box<RunRecord>),
    /// All of it, under the name that was asked for.
    Published(Box<RunRecord>),
    /// Whole, in part or not at all: it went to a stream.
    Unseen,
}

/// Whether a writer has said that it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Announced {
    /// It has.
    Yes,
    /// Not yet.
    #[default]
    No,
}

impl RecordFile {
    /// Opens a destination with the rights of `caller`.
    ///
    /// # Errors
    /// Where it cannot be written to; nothing is left behind then.
    pub(super) fn open(
        destination: &Destination,
        run_id: Uuid,
        caller: &FileIdentity,
    ) -> Result<Self, RecordError> {
        let stream = |file: File| Self {
            file,
            target: Target::Stream {
                name: destination.to_string(),
            },
            announcer: None,
        };
        let descriptor = |fd, opened: io::Result<OwnedFd>| match opened {
            Ok(opened) => Ok(stream(opened.into())),
            Err(source) => Err(RecordError::Descriptor { fd, source }),
        };
        match destination {
            Destination::Stdout => descriptor(1, io::stdout().as_fd().try_clone_to_owned()),
            Destination::Fd(fd) => descriptor(*fd, inherited(*fd)),
            Destination::File(path) => with_file_identity(caller, || match Resolved::of(path)? {
                Resolved::Descriptor(fd) => Ok(stream(inherited(fd)?.into())),
                Resolved::Stream => open_at_once(OpenOptions::new().write(true), path).map(stream),
                Resolved::File(path) => {
                    let (file, staged) = Staged::open(&path, run_id, caller)?;
                    Ok(Self::of(file, Target::Staged(staged)))
                }
            })
            .map_err(|source| RecordError::Unwritable {
                path: path.clone(),
                uid: caller.uid,
                source,
            }),
        }
    }

    /// What it takes to go on with it once nobody has it open any more; `None` for streams, which go with
    /// whoever had them open.
    ///
    /// # Errors
    /// Where it cannot be looked at.
    pub(super) fn kept(&self) -> io::Result<Option<KeptFile>> {
        let Target::Staged(staged) = &self.target else {
            return Ok(None);
        };
        Ok(Some(KeptFile {
            staged: staged.clone(),
            id: FileId::of(&self.file.metadata()?),
        }))
    }

    /// Opens the file of a run that both its processes are gone from: what they wrote, where they did, else a
    /// new file. Where it goes was settled before the analysis could have a say in it.
    ///
    /// # Errors
    /// Where it cannot be written to.
    pub(super) fn open_again(kept: KeptFile) -> Result<Self, RecordError> {
        let KeptFile { staged, id } = kept;
        match staged.open_again(id.as_ref()) {
            Ok((file, staged)) => Ok(Self::of(file, Target::Staged(staged))),
            Err(source) => Err(RecordError::Unwritable {
                path: staged.path().to_owned(),
                uid: staged.uid(),
                source,
            }),
        }
    }

    /// This destination, with nobody to be told before a stream is written.
    const fn of(file: File, target: Target) -> Self {
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

    /// The same destination once more, for a guardian to go on with.
    ///
    /// # Errors
    /// EMFILE and the like.
    pub(super) fn share(&self) -> io::Result<Self> {
        Ok(Self::of(self.file.try_clone()?, self.target.clone()))
    }

    /// Keeps a first version durably where the final one will be, so that what is known survives
    /// the removal of the leaf. Streams are written once, at the end.
    ///
    /// # Errors
    /// Where it cannot be written: no space …
    pub(super) fn draft(&mut self, record: &RunRecord) -> Result<(), RecordError> {
        let Target::Staged(staged) = &self.target else {
            return Ok(());
        };
        if staged.exposure() == Exposure::Named
            && let Some(announcer) = self.announcer.take()
        {
            announcer.announce();
        }
        staged
            .name(&mut self.file)
            .and_then(|()| rewrite(&mut self.file, record))
            .map_err(|source| RecordError::Lost {
                to: staged.path().display().to_string(),
                kept: None,
                source,
            })
    }

    /// How far another process came with it, which has or has not announced that it writes. What the
    /// analysis could have written before that is none of the record.
    pub(super) fn progress(&mut self, announced: Announced) -> Progress {
        let staged = match &self.target {
            Target::Stream { .. } if announced == Announced::Yes => return Progress::Unseen,
            Target::Stream { .. } => return Progress::Nothing,
            Target::Staged(staged) => staged,
        };
        if staged.exposure() == Exposure::Named && announced == Announced::No {
            return Progress::Nothing;
        }
        let is_published = staged.is_published(&self.file);
        match read_record(&mut self.file) {
            Some(record) if is_published => Progress::Published(Box::new(record)),
            Some(record) => Progress::Drafted(Box::new(record)),
            None => Progress::Nothing,
        }
    }

    /// Writes the record and gives it its name.
    ///
    /// # Errors
    /// Where it cannot be: no space, a closed pipe, or one that nobody reads; a draft stays under its other name then.
    pub(super) fn finish(mut self, record: &RunRecord) -> Result<(), RecordError> {
        match self.target.clone() {
            Target::Stream { name } => {
                let text = to_json(record);
                if let Some(announcer) = self.announcer.take() {
                    announcer.announce();
                }
                outlet::write_all(self.file, text).map_err(|source| RecordError::Lost {
                    to: name,
                    kept: None,
                    source,
                })
            }
            Target::Staged(staged) => {
                // Looked at once more: time has passed since the draft.
                let written = staged
                    .name(&mut self.file)
                    .and_then(|()| rewrite(&mut self.file, record))
                    .and_then(|()| staged.publish(&self.file));
                written.map_err(|source| RecordError::Lost {
                    to: staged.path().display().to_string(),
                    kept: staged.draft(&self.file),
                    source,
                })
            }
        }
    }

    /// Takes back what was made for a record that will not be written.
    pub(super) fn discard(self) {
        if let Target::Staged(staged) = &self.target {
            staged.discard(&self.file);
        }
    }
}

impl AsFd for RecordFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn read_record(file: &mut File) -> Option<RunRecord> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    // What a longer draft left behind the final text is none of it.
    let mut records = serde_json::Deserializer::from_str(&text).into_iter();
    records.next()?.ok()
}

/// Over what is there, which takes no space that it has not got yet; the rest is cut off last.
fn rewrite(file: &mut File, record: &RunRecord) -> io::Result<()> {
    let text = to_json(record);
    file.rewind()?;
    file.write_all(&text)?;
    let length = file.stream_position()?;
    file.set_len(length)?;
    file.sync_all()
}

fn to_json(record: &RunRecord) -> Vec<u8> {
    // A record is made of strings, numbers and maps with string keys, which all serialise.
    let mut text = serde_json::to_vec_pretty(record).unwrap_or_default();
    text.push(b'\n');
    text
}
