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

/// Gives a file a name beside it that nothing has; says which.
///
/// # Errors
/// Where it cannot be renamed.
pub fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let now = Timestamp::now().as_second();
    let mut others = 0;
    loop {
        let number = match others {
            0 => String::new(),
            others => format!("-{others}"),
        };
        let aside = path.with_file_name(format!("{name}{SUFFIX}{now}{number}"));
        match renameat_with(CWD, path, CWD, &aside, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(aside),
            Err(Errno::EXIST) => others += 1,
            Err(errno) => return Err(errno.into()),
        }
    }
}
