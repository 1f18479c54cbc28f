//! A file that appears under its name whole or not at all, whatever the analysis does meanwhile.
//!
//! The analysis runs as the user whose file it is, and often in its directory: what has a name there
//! it may remove, replace and rename. So the open file has no name at first (O_TMPFILE, open(2)) and
//! gets one only once the leaf is empty. Where the file system knows no such files (NFS, FAT) it has
//! one from the start, and that it is still its own is looked at before it counts.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::SystemTime,
};

use nix::libc;
use rustix::{
    fs::{AtFlags, CWD, StatxAttributes, StatxFlags, linkat, statx},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record_path::directory_of;
use crate::sys::creds::{FileIdentity, with_file_identity};

/// The names of a staged file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Staged {
    /// The one that was asked for.
    #[serde(with = "crate::spec::os_path")]
    path: PathBuf,
    /// The one beside it, until it is whole.
    #[serde(with = "crate::spec::os_path")]
    draft: PathBuf,
    /// With whose rights.
    caller: FileIdentity,
    /// Whether the analysis could write to it.
    exposure: Exposure,
}

/// Whether the analysis, which runs as the file's owner, may have had the file in its hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Exposure {
    /// It had no name while the analysis ran.
    Unnamed,
    /// It had one: what is in it counts only once the supervisor has said that it writes.
    Named,
}

/// What tells a file from any other that there ever was: an inode's number comes back once its file is gone,
/// but not with the same time of birth, which nobody can set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
    born: SystemTime,
}

impl FileId {
    /// The file's; `None` where its file system notes no births.
    pub(super) fn of(metadata: &Metadata) -> Option<Self> {
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            born: metadata.created().ok()?,
        })
    }
}

impl Staged {
    /// Opens a file that is to appear under `path`; to be called with the rights of `caller`.
    ///
    /// # Errors
    /// Where it cannot be made there, or could not replace what has that name.
    pub(super) fn open(
        path: &Path,
        run_id: Uuid,
        caller: &FileIdentity,
    ) -> io::Result<(File, Self)> {
        if path.file_name().is_none() || path.is_dir() {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        }
        check_replaceable(path, caller)?;
        let mut staged = Self {
            path: path.to_owned(),
            // Whatever the record's name is, this one is not too long.
            draft: path.with_file_name(format!(".sandbox-{run_id}")),
            caller: caller.clone(),
            exposure: Exposure::Unnamed,
        };
        let file = staged.open_new()?;
        Ok((file, staged))
    }

    fn open_new(&mut self) -> io::Result<File> {
        let unnamed = options()
            .custom_flags(libc::O_TMPFILE)
            .open(directory_of(&self.path));
        match unnamed {
            // EISDIR: a kernel or file system that takes it for a plain open of a directory.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
                self.exposure = Exposure::Named;
                self.create()
            }
            opened => opened,
        }
    }

    /// Opens the file that this one was, under its draft's name or its own; where it has none of them, a new one
    /// in its place.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn open_again(&self, id: Option<&FileId>) -> io::Result<(File, Self)> {
        let mut staged = self.clone();
        let file = with_file_identity(&self.caller, || {
            for name in [&staged.draft, &staged.path] {
                let named = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                    .open(name);
                if let (Ok(file), Some(id)) = (named, id)
                    && FileId::of(&file.metadata()?).as_ref() == Some(id)
                {
                    return Ok(file);
                }
            }
            check_replaceable(&staged.path, &staged.caller)?;
            // Of the draft's name nothing but the draft is worth keeping; mostly there is none.
            let _ = fs::remove_file(&staged.draft);
            staged.open_new()
        })?;
        Ok((file, staged))
    }

    /// With whose rights it is written.
    pub(super) const fn uid(&self) -> u32 {
        self.caller.uid
    }

    /// Whether the analysis could write to it.
    pub(super) const fn exposure(&self) -> Exposure {
        self.exposure
    }

    /// The name that was asked for.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The draft's name, where it is this file's.
    pub(super) fn draft(&self, file: &File) -> Option<PathBuf> {
        leads_to(&self.draft, file).then(|| self.draft.clone())
    }

    /// Gives the file its draft's name, durably. Where it had one that somebody took away, a new
    /// file takes its place.
    ///
    /// # Errors
    /// Where something else has that name, or the directory is gone.
    pub(super) fn name(&self, file: &mut File) -> io::Result<()> {
        with_file_identity(&self.caller, || {
            if leads_to(&self.draft, file) {
                return Ok(());
            }
            let open = format!("/proc/self/fd/{}", file.as_raw_fd());
            match linkat(CWD, open, CWD, &self.draft, AtFlags::SYMLINK_FOLLOW) {
                Ok(()) => {}
                // It has been unlinked: only one that never had a name can be given one.
                Err(Errno::NOENT) => *file = self.create()?,
                Err(errno) => return Err(errno.into()),
            }
            self.sync_directory()
        })
    }

    /// Gives it the name that was asked for, in place of what has it, durably.
    ///
    /// # Errors
    /// Where the draft's name is not its own any more, or renaming fails.
    pub(super) fn publish(&self, file: &File) -> io::Result<()> {
        with_file_identity(&self.caller, || {
            if !leads_to(&self.draft, file) {
                return Err(io::Error::other("its draft was removed or replaced"));
            }
            fs::rename(&self.draft, &self.path)?;
            self.sync_directory()
        })
    }

    /// Whether the file has the name that was asked for, and no other.
    pub(super) fn is_published(&self, file: &File) -> bool {
        with_file_identity(&self.caller, || {
            Ok(!leads_to(&self.draft, file) && leads_to(&self.path, file))
        })
        .unwrap_or(false)
    }

    /// Takes back the draft's name.
    pub(super) fn discard(&self, file: &File) {
        // An empty file of that user's own is all that could be left.
        let _ = with_file_identity(&self.caller, || match leads_to(&self.draft, file) {
            true => fs::remove_file(&self.draft),
            false => Ok(()),
        });
    }

    fn create(&self) -> io::Result<File> {
        options().create_new(true).open(&self.draft)
    }

    fn sync_directory(&self) -> io::Result<()> {
        match File::open(directory_of(&self.path)) {
            Ok(directory) => directory.sync_all(),
            // One may write in a directory that one may not read.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o666);
    options
}

/// Whether a name is this file's own, and no link to it.
fn leads_to(name: &Path, file: &File) -> bool {
    let own = file.metadata().map(|own| (own.dev(), own.ino())).ok();
    let found = fs::symlink_metadata(name).map(|found| (found.dev(), found.ino()));
    own.is_some() && found.ok() == own
}

/// Whether rename(2) will replace what has the name now, if anything: found out before the start.
fn check_replaceable(path: &Path, caller: &FileIdentity) -> io::Result<()> {
    let target = match statx(
        CWD,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> FileIdentity {
        FileIdentity {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            groups: Vec::new(),
        }
    }

    fn open(path: &Path) -> (File, Staged) {
        Staged::open(path, Uuid::from_u128(1), &caller()).expect("staged")
    }

    #[test]
    fn a_file_has_no_name_before_it_is_drafted_and_one_name_afterwards() {
        let temp = tempfile::tempdir().expect("temp dir");
        let count = || fs::read_dir(temp.path()).expect("it is there").count();
        let path = temp.path().join("record.json");
        let (mut file, staged) = open(&path);
        assert_eq!(count(), 0);
        assert_eq!(staged.draft(&file), None);
        staged.name(&mut file).expect("named");
        assert!(staged.draft(&file).is_some() && !staged.is_published(&file));
        staged.publish(&file).expect("published");
        assert!(staged.is_published(&file));
        assert_eq!(count(), 1);

        fs::write(temp.path().join("next"), "of the next run").expect("write");
        fs::rename(temp.path().join("next"), &path).expect("renamed");
        assert!(!staged.is_published(&file));
    }

    #[test]
    fn what_somebody_put_in_its_place_is_never_published() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("record.json");
        let (mut file, staged) = open(&path);
        staged.name(&mut file).expect("named");
        fs::remove_file(&staged.draft).expect("removed");
        fs::write(&staged.draft, "forged").expect("write");
        assert!(staged.publish(&file).is_err());
        assert!(!path.exists());
        assert_eq!(staged.draft(&file), None);
        staged.discard(&file);
        assert!(staged.draft.exists(), "it is somebody else's");
    }

    #[test]
    fn a_named_file_that_was_removed_is_made_anew() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("record.json");
        let (_, staged) = open(&path);
        // As where the file system knows no files without a name.
        let mut file = staged.create().expect("made");
        fs::remove_file(&staged.draft).expect("removed");
        staged.name(&mut file).expect("made anew");
        staged.publish(&file).expect("published");
        assert!(path.exists());
    }
    #[test]
    fn a_file_is_found_again_by_either_of_its_names_and_a_forgery_is_not() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("record.json");
        let (mut file, staged) = open(&path);
        let id = FileId::of(&file.metadata().expect("it is open"));
        assert!(id.is_some(), "this file system notes births");
        let found = |staged: &Staged| {
            let (again, _) = staged.open_again(id.as_ref()).expect("opened");
            FileId::of(&again.metadata().expect("it is open")) == id
        };
        assert!(!found(&staged), "it has no name yet");
        staged.name(&mut file).expect("named");
        assert!(found(&staged));
        staged.publish(&file).expect("published");
        assert!(found(&staged));

        fs::remove_file(&path).expect("removed");
        fs::write(&path, "forged").expect("write");
        fs::write(&staged.draft, "forged").expect("write");
        assert!(!found(&staged));
        assert!(!staged.draft.exists(), "its place is needed");
    }
}
