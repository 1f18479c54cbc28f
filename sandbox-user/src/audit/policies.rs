//! The texts of the configurations that runs were held to, by the hashes under which entries name them: a hash alone
//! tells nobody a year later what was allowed.
//!
//! They are beside the log, a file each, whose name says what has to be in it. Only root brings about new ones;
//! their number is bounded all the same.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::SystemTime,
};

use nix::libc;

use super::{AuditError, Hash, log::sync_directory};
use crate::sys::own_dir;

/// Their directory's name.
pub(super) const DIRECTORY: &str = "policies";
/// So many are kept, of 1 MiB at most each: of more, those go that have not come into force for longest.
const MOST: usize = 1000;

/// Keeps one that comes into force, durably. It is in the directory of the log.
///
/// # Errors
/// Where it cannot be written.
pub fn keep_policy(log_directory: &Path, text: &str) -> Result<(), AuditError> {
    let directory = log_directory.join(DIRECTORY);
    keep(&directory, text, MOST).map_err(|source| AuditError::file(&directory, source))
}

fn keep(directory: &Path, text: &str, most: usize) -> io::Result<()> {
    own_dir::own(directory, 0o700)?;
    let path = directory.join(format!("{}.toml", Hash::of(text.as_bytes())));
    let is_kept = fs::read(&path).is_ok_and(|kept| kept == text.as_bytes());
    if is_kept {
        return File::open(&path)?.set_modified(SystemTime::now());
    }
    let draft = directory.join("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, &path)?;
    remove_all_but(directory, most)?;
    sync_directory(directory)
}

/// Removes those that have not come into force for longest.
fn remove_all_but(directory: &Path, most: usize) -> io::Result<()> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        kept.push((entry.metadata()?.modified()?, entry.path()));
    }
    kept.sort();
    let further = kept.len().saturating_sub(most);
    kept.iter()
        .take(further)
        .try_for_each(|(_, path)| fs::remove_file(path))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_policy_is_found_by_its_hash_and_those_longest_out_of_force_go() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = |text: &str| {
            let name = format!("{}.toml", Hash::of(text.as_bytes()));
            temp.path().join(name)
        };
        let age = |text: &str, days: u64| {
            let then = SystemTime::now() - Duration::from_secs(days * 86_400);
            let file = File::open(path(text)).expect("it is kept");
            file.set_modified(then).expect("ours");
        };
        for (text, days) in [("a = 1\n", 30), ("b = 1\n", 20), ("", 10)] {
            keep(temp.path(), text, 3).expect("kept");
            assert_eq!(fs::read_to_string(path(text)).expect("kept"), text);
            age(text, days);
        }
        // It comes into force once more, and is the latest then.
        keep(temp.path(), "a = 1\n", 3).expect("kept");
        keep(temp.path(), "c = 1\n", 3).expect("kept");
        let is_kept = ["a = 1\n", "b = 1\n", "", "c = 1\n"].map(|text| path(text).exists());
        assert_eq!(is_kept, [true, false, true, true]);
        // One that was changed since is written anew.
        fs::write(path("c = 1\n"), "c = 2\n").expect("ours");
        keep(temp.path(), "c = 1\n", 3).expect("kept");
        let text = fs::read_to_string(path("c = 1\n")).expect("kept");
        assert_eq!(text, "c = 1\n");
    }
}
