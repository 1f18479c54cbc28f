//! The files that make up the repository: what is tracked, or new and not ignored.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{command, workspace};

/// Their paths from the root of the checkout, sorted; one that was deleted does not count.
pub(crate) fn of_the_repository() -> Result<Vec<PathBuf>> {
    let root = workspace::root();
    let mut git = Command::new("git");
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--deduplicate",
    ])
    .current_dir(&root);
    let listed = command::text(&mut git).context("the list of files comes from git")?;
    let mut paths: Vec<PathBuf> = listed.split_terminator('\0').map(PathBuf::from).collect();
    paths.retain(|path| root.join(path).is_file());
    paths.sort();
    Ok(paths)
}
