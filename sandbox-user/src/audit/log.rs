//! The log's file and its one writer.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use nix::libc;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use sha2::{Digest as _, Sha256};

use super::{
    AuditError, Event, Excerpt, FILE, Hash, Head,
    chain::{AppendError, Chain, next_seq},
    tail::Tail,
};
use crate::sys::{aside, own_dir};

/// The log, open to be added to. No other process adds to it meanwhile (flock(2)).
#[derive(Debug)]
pub struct AuditLog {
    chain: Chain<File>,
    path: PathBuf,
}

/// What opening it came to.
#[derive(Debug)]
pub struct Opened {
    /// It.
    pub log: AuditLog,
    /// Where a line is kept that a crash had torn. The log's last entry tells of it.
    pub torn: Option<PathBuf>,
    /// Where a log is kept that was damaged. The first entry of this one tells of it.
    pub damaged: Option<PathBuf>,
}

impl AuditLog {
    /// Opens the log in a directory, both made where they are not there, and goes on behind its last entry.
    ///
    /// The beginning of an entry without a newline is what a writer left that was killed, or lost its power, in the middle of
    /// a write. Nobody was told that it is in the log. It is put into `audit.torn-SEQ` beside the log, made to
    /// last there, and only then cut off; the entry that takes its number, SEQ, says so. Each step can be
    /// done again, so that a crash in between loses nothing.
    ///
    /// A log that ends in anything else is none that a writer left. It is put aside under a name of its own, and
    /// another is begun, whose first entry says so.
    ///
    /// # Errors
    /// Where it cannot be opened, is not this user's alone, or is held by another writer.
    pub fn open(directory: &Path) -> Result<Opened, AuditError> {
        let path = directory.join(FILE);
        let failed = |source| AuditError::file(&path, source);
        own_dir::own(directory, 0o700).map_err(failed)?;
        let (file, tail) = loop {
            let file = open_own(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(AuditError::Held { path }),
                Err(errno) => return Err(failed(errno.into())),
            }
            if let Some(tail) = Tail::of(&file).map_err(failed)? {
                break (file, tail);
            }
            aside::put_aside(&path).map_err(failed)?;
        };
        // It may have been made, and another put aside, just now.
        sync_directory(directory).map_err(failed)?;
        let name = format!("audit.torn-{}", next_seq(tail.head));
        let kept = directory.join(&name);
        let failed_aside = |source| AuditError::file(&kept, source);
        if tail.whole_bytes < tail.bytes {
            keep(&file, tail.whole_bytes, &kept).map_err(failed_aside)?;
            file.set_len(tail.whole_bytes)
                .and_then(|()| file.sync_data())
                .map_err(failed)?;
        }
        let torn = torn_in(&kept, &name).map_err(failed_aside)?;
        let damaged = match tail.head {
            None => damaged_in(directory).map_err(failed)?,
            Some(_) => None,
        };
        let mut log = Self {
            chain: Chain::behind(file, tail.head),
            path,
        };
        for event in damaged.iter().map(|(_, event)| event).chain(&torn) {
            log.append(event)?;
        }
        Ok(Opened {
            log,
            torn: torn.map(|_| kept),
            damaged: damaged.map(|(aside, _)| aside),
        })
    }

    /// Adds an entry, durably. This waits for the disk.
    ///
    /// # Errors
    /// [`AuditError::Write`] where it is not in the log, [`AuditError::Sync`] where it is but might not last. The
    /// log can be added to after either.
    pub fn append(&mut self, event: &Event) -> Result<Head, AuditError> {
        let path = || self.path.clone();
        match self.chain.append(event, Timestamp::now()) {
            Ok(head) => Ok(head),
            Err(AppendError::Write(source)) => Err(AuditError::Write {
                path: path(),
                source,
            }),
            Err(AppendError::Sync(source)) => Err(AuditError::Sync {
                path: path(),
                source,
            }),
        }
    }

    /// Whether the file is still there under its name: somebody may have removed it, or put another in its place.
    pub fn is_in_place(&self) -> bool {
        let identity = |found: fs::Metadata| (found.dev(), found.ino());
        let own = self.chain.sink().metadata().map(identity);
        let there = fs::symlink_metadata(&self.path).map(identity);
        matches!((own, there), (Ok(own), Ok(there)) if own == there)
    }

    /// Goes on in the file that there is now under its name, or in a new one, whose next entry tells of that. What was
    /// in this one is kept; says where.
    ///
    /// # Errors
    /// As [`Self::open`]; where it cannot be kept.
    pub fn begin_anew(&mut self) -> Result<PathBuf, AuditError> {
        let failed = |source| AuditError::file(&self.path, source);
        let kept = aside::names(&self.path)
            .find(|name| !name.exists())
            .ok_or_else(|| failed(io::ErrorKind::AlreadyExists.into()))?;
        keep(self.chain.sink(), 0, &kept).map_err(failed)?;
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let Opened { log, damaged, .. } = Self::open(directory)?;
        *self = log;
        if damaged.as_ref() != Some(&kept) {
            let event = damaged_as(&kept).map_err(|source| AuditError::file(&kept, source))?;
            self.append(&event)?;
        }
        Ok(kept)
    }

    /// Its last entry; `None` where it is empty.
    pub fn head(&self) -> Option<Head> {
        self.chain.head()
    }
}

fn open_own(path: &Path) -> Result<File, AuditError> {
    let failed = |source| AuditError::file(path, source);
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    let is_own = found.is_file()
        && found.uid() == nix::unistd::geteuid().as_raw()
        && found.mode() & 0o077 == 0;
    if is_own {
        Ok(file)
    } else {
        Err(AuditError::NotOwn {
            path: path.to_owned(),
        })
    }
}

/// Copies what is behind `from` bytes to the end of the file where it is kept, durably.
fn keep(file: &File, from: u64, kept: &Path) -> io::Result<()> {
    let mut file = file;
    file.seek(SeekFrom::Start(from))?;
    let mut copy = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(kept)?;
    io::copy(&mut file, &mut copy)?;
    copy.sync_all()?;
    sync_directory(kept.parent().unwrap_or(Path::new("/")))
}

/// What is to be told of a torn line that is kept; `None` where none is.
fn torn_in(kept: &Path, name: &str) -> io::Result<Option<Event>> {
    let (bytes, sha256) = match fingerprint(kept) {
        Ok(fingerprint) => fingerprint,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(Event::Torn {
        bytes,
        sha256,
        kept_in: Excerpt::from(name),
    }))
}

/// The latest log that was put aside, and what is to be told of it; `None` where none is.
fn damaged_in(directory: &Path) -> io::Result<Option<(PathBuf, Event)>> {
    let mut latest = None;
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_aside = name
            .strip_prefix(FILE)
            .is_some_and(|rest| rest.starts_with(aside::SUFFIX));
        if is_aside {
            latest = latest.max(Some(name));
        }
    }
    let Some(name) = latest else {
        return Ok(None);
    };
    let aside = directory.join(&name);
    let event = damaged_as(&aside)?;
    Ok(Some((aside, event)))
}

/// What is to be told of a log that is kept there.
fn damaged_as(kept: &Path) -> io::Result<Event> {
    let (bytes, sha256) = fingerprint(kept)?;
    let name = kept.file_name().unwrap_or_default().to_string_lossy();
    Ok(Event::Damaged {
        bytes,
        sha256,
        kept_in: Excerpt::from(&*name),
    })
}

/// A file's length and hash.
fn fingerprint(path: &Path) -> io::Result<(u64, Hash)> {
    let mut hasher = Sha256::new();
    let bytes = io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok((bytes, Hash::from(hasher)))
}

pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
