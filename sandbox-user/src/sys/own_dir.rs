//! A directory that only this user writes to: below /run, where others may have been first.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

/// Makes the directory that a file of root's is in where everybody may look for it (/run/sandbox).
///
/// # Errors
/// As [`own`].
pub fn own_around(file: &Path) -> io::Result<()> {
    own(file.parent().unwrap_or(Path::new("/")), 0o755)
}

/// Makes it, with this mode whatever the caller's umask.
///
/// # Errors
/// Where it cannot be made, or is somebody else's.
pub fn own(directory: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let found = fs::symlink_metadata(directory)?;
    let own = nix::unistd::geteuid().as_raw();
    if found.is_dir() && found.uid() == 0 && own != 0 {
        return Err(io::Error::other(format!(
            "{} is root's: use sudo",
            directory.display()
        )));
    }
    if !found.is_dir() || found.uid() != own {
        return Err(io::Error::other(format!(
            "{} is somebody else's: remove that",
            directory.display()
        )));
    }
    if found.mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(mode))
}
