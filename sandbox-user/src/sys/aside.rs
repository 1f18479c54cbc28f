//! A file that is damaged, put aside so that another can be begun in its place.

use std::{
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

/// What follows a file's name then, before the time of it in seconds.
pub const SUFFIX: &str = ".damaged-";

/// Names for a file beside it, the one to be tried first leading.
pub fn names(path: &Path) -> impl Iterator<Item = PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let first = format!("{name}{SUFFIX}{}", Timestamp::now().as_second());
    let path = path.to_owned();
    (0_u64..).map(move |others| {
        path.with_file_name(match others {
            0 => first.clone(),
            others => format!("{first}-{others}"),
        })
    })
}

/// Gives a file one of them that nothing has; says which.
///
/// # Errors
/// Where it cannot be renamed.
pub fn put_aside(path: &Path) -> io::Result<PathBuf> {
    for aside in names(path) {
        match renameat_with(CWD, path, CWD, &aside, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(aside),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
