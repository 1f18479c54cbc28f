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
            RecordDestination::File(path) => {
                with_file_identity(caller, || match Resolved::of(path)? {
                    Resolved::Descriptor(fd) => Ok(Self {
                        file: crate::sys::fd::duplicate(fd)?.into(),
                        target: Target::Stream {
                            name: path.display().to_string(),
                        },
                        announcer: None,
                    }),
                    Resolved::Stream => open_stream(path),
                    Resolved::File(path) => stage(&path, run_id, caller),
                })
                .map_err(|source| RecordError::Unwritable {
                    path: path.clone(),
                    uid: caller.uid,
                    source,
                })
            }
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
            Target::Staged { path, .. } => {
                let to = path.display().to_string();
                self.rewrite(record).map_err(|source| RecordError::Lost {
                    to,
                    kept: None,
                    source,
                })
            }
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
                    .map_err(|source| RecordError::Lost {
                        to: name,
                        kept: None,
                        source,
                    })
            }
            Target::Staged {
                path,
                staged,
                caller,
            } => {
                let lost = |kept| {
                    let to = path.display().to_string();
                    move |source| RecordError::Lost { to, kept, source }
                };
                self.rewrite(record).map_err(lost(Some(staged.clone())))?;
                with_file_identity(&caller, || fs::rename(&staged, &path))
                    .map_err(lost(Some(staged.clone())))?;
                with_file_identity(&caller, || File::open(directory_of(&path))?.sync_all())
                    .map_err(lost(Some(path.clone())))
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

    /// Over what is there, which takes no space that it has not got yet; the rest is cut off last.
    fn rewrite(&mut self, record: &RunRecord) -> io::Result<()> {
        let text = to_json(record);
        self.file.rewind()?;
        self.file.write_all(&text)?;
        let length = self.file.stream_position()?;
        self.file.set_len(length)?;
        self.file.sync_all()
    }
}

fn to_json(record: &RunRecord) -> Vec<u8> {
    // A record is made of strings, numbers and maps with string keys, which all serialise.
    let mut text = serde_json::to_vec_pretty(record).unwrap_or_default();
    text.push(b'\n');
    text
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
enum Resolved {
    /// A descriptor of this process, by /dev/stdout, /dev/fd or /proc: it is open, whatever it is.
    Descriptor(i32),
    /// No regular file: to be written in place.
    Stream,
    /// A file, or where one is to be: at the end of all links, which stay.
    File(PathBuf),
}

impl Resolved {
    /// Follows links as open(2) with O_CREAT does: also one that leads to nothing yet.
    fn of(path: &Path) -> io::Result<Self> {
        /// As many as the kernel follows (MAXSYMLINKS, include/linux/namei.h).
        const LINKS: usize = 40;
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            let Some(name) = path.file_name().map(ToOwned::to_owned) else {
                return Err(io::Error::from_raw_os_error(libc::EISDIR));
            };
            let directory = fs::canonicalize(directory_of(&path))?;
            path = directory.join(&name);
            let link = match fs::symlink_metadata(&path) {
                Ok(found) => found.file_type().is_symlink(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(error),
            };
            if let Some(owner) = descriptors_of(&directory) {
                let own = owner == std::process::id().to_string();
                return match name.to_str().and_then(|name| name.parse().ok()) {
                    Some(fd) if own => Ok(Self::Descriptor(fd)),
                    Some(_) | None => Ok(Self::Stream),
                };
            }
            // Where the kernel does not follow a link (fs.protected_symlinks), nor do we.
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => Some(metadata),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            if !link {
                return Ok(match metadata {
                    Some(metadata) if is_stream(&metadata) => Self::Stream,
                    Some(_) | None => Self::File(path),
                });
            }
            path = directory.join(fs::read_link(&path)?);
        }
        Err(io::Error::from_raw_os_error(libc::ELOOP))
    }
}

/// Whose descriptors this directory lists: `/proc/PID/fd`, or a thread's.
fn descriptors_of(directory: &Path) -> Option<&str> {
    let inside = directory.strip_prefix("/proc").ok()?.to_str()?;
    let inside = inside.strip_suffix("/fd")?;
    Some(inside.split_once('/').map_or(inside, |(owner, _)| owner))
}

fn is_stream(metadata: &fs::Metadata) -> bool {
    let kind = metadata.file_type();
    kind.is_fifo() || kind.is_char_device() || kind.is_block_device() || kind.is_socket()
}

/// Whether rename(2) will replace what has the name now, if anything: found out before the start.
fn check_replaceable(path: &Path, caller: &FileIdentity) -> io::Result<()> {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
    let target = match statx(
        rustix::fs::CWD,
        path,
        AtFlags::SYMLINK_NOFOLLOW,
        StatxFlags::BASIC_STATS,
    ) {
        Ok(target) => target,
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let fixed = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
    if target.stx_attributes.intersects(fixed) {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    if target.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // Sticky: only the file's owner, the directory's, and root (fs/namei.c, __check_sticky).
    let directory = fs::metadata(directory_of(path))?;
    let sticky = directory.mode() & libc::S_ISVTX != 0;
    if sticky && ![0, target.stx_uid, directory.uid()].contains(&caller.uid) {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(())
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
    check_replaceable(path, caller)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_to_the_file_that_they_lead_to() {
        let temp = tempfile::tempdir().expect("temp dir");
        let root = fs::canonicalize(temp.path()).expect("it is there");
        let link = |to: &str, name: &str| {
            std::os::unix::fs::symlink(to, root.join(name)).expect("symlink");
        };
        fs::create_dir(root.join("results")).expect("mkdir");
        fs::write(root.join("results/old.json"), "old").expect("write");
        link("results", "latest");
        link("latest/old.json", "record");
        link("record", "again");
        link("results/new.json", "dangling");
        link("loop", "loop");
        link("/proc/self/fd/1", "one");
        let of = |name: &str| Resolved::of(&root.join(name));
        let file = |name: &str| Resolved::File(root.join(name));
        assert_eq!(of("again").expect("a file"), file("results/old.json"));
        assert_eq!(of("dangling").expect("a place"), file("results/new.json"));
        assert_eq!(of("plain").expect("a place"), file("plain"));
        assert!(of("loop").is_err() && of("none/record").is_err());
        let dev = |path: &str| Resolved::of(Path::new(path)).expect("it is there");
        assert_eq!(dev("/dev/null"), Resolved::Stream);
        assert_eq!(dev("/dev/fd/1"), Resolved::Descriptor(1));
        assert_eq!(of("one").expect("stdout"), Resolved::Descriptor(1));
    }

    #[test]
    fn a_record_under_its_name_is_told_from_a_draft() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("record.json");
        let caller = FileIdentity {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            groups: Vec::new(),
        };
        let file = stage(&path, Uuid::from_u128(1), &caller).expect("staged");
        assert!(!file.is_published());
        let Target::Staged { staged, .. } = &file.target else {
            panic!("a file is staged: {file:?}");
        };
        fs::write(&path, "of another run").expect("write");
        assert!(!file.is_published());
        fs::rename(staged, &path).expect("renamed");
        assert!(file.is_published());
        fs::write(temp.path().join("next"), "of the next run").expect("write");
        fs::rename(temp.path().join("next"), &path).expect("renamed");
        assert!(!file.is_published());
    }
}
