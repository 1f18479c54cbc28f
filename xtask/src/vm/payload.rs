//! What a guest gets from this checkout: a small read-only disk mounted at `/payload`.
//!
//! Cloud kernels have no 9p, and a disk image is written in well under a second. It holds the
//! binaries under test, the guest's own scripts and units, and the command to run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::image;
use crate::workspace;

/// The guest's own files, by their place under `/payload/guest`.
const GUEST_FILES: &[(&str, u32, &str)] = &[
    ("bare-init", 0o755, include_str!("../../guest/bare-init")),
    ("session", 0o755, include_str!("../../guest/session")),
    ("run-tests", 0o755, include_str!("../../guest/run-tests")),
    (
        "run/systemd/system/sandbox-guest.target",
        0o644,
        include_str!("../../guest/run/systemd/system/sandbox-guest.target"),
    ),
    (
        "run/systemd/system/sandbox-payload.service",
        0o644,
        include_str!("../../guest/run/systemd/system/sandbox-payload.service"),
    ),
    (
        "run/systemd/journald.conf.d/guest.conf",
        0o644,
        include_str!("../../guest/run/systemd/journald.conf.d/guest.conf"),
    ),
];

/// What the guest does once it is up.
#[derive(Debug)]
pub(crate) enum Task<'a> {
    /// A line of shell.
    Command(&'a str),
    /// A shell on the console.
    Shell,
}

/// A payload in the making: a folder that becomes a disk image.
#[derive(Debug)]
pub(crate) struct Payload {
    folder: PathBuf,
    size_bytes: u64,
}

impl Payload {
    /// Starts a payload in `folder`.
    pub(crate) fn new(folder: PathBuf) -> Result<Self> {
        workspace::remove_dir(&folder)?;
        let mut payload = Self {
            folder,
            size_bytes: 0,
        };
        for (name, mode, contents) in GUEST_FILES {
            payload.text(&format!("guest/{name}"), contents, *mode)?;
        }
        for folder in ["bin", "tests", "files"] {
            workspace::make_dir(&payload.folder.join(folder))?;
        }
        Ok(payload)
    }

    /// Starts one with these programs on the PATH.
    pub(crate) fn with_programs<'a>(
        folder: PathBuf,
        programs: impl IntoIterator<Item = &'a (String, PathBuf)>,
    ) -> Result<Self> {
        let mut payload = Self::new(folder)?;
        for (name, path) in programs {
            payload.file(&format!("bin/{name}"), path)?;
        }
        Ok(payload)
    }

    /// Adds a copy of a file of this machine.
    pub(crate) fn file(&mut self, place: &str, from: &Path) -> Result<()> {
        if from.is_dir() {
            bail!("{} is a folder: name the files in it", from.display());
        }
        let to = self.place(place)?;
        let size = fs::copy(from, &to)
            .with_context(|| format!("could not copy {} into the payload", from.display()))?;
        self.size_bytes += size;
        Ok(())
    }

    /// Adds a text file.
    pub(crate) fn text(&mut self, place: &str, contents: &str, mode: u32) -> Result<()> {
        let to = self.place(place)?;
        fs::write(&to, contents).with_context(|| format!("could not write {}", to.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(mode))
            .with_context(|| format!("could not change the mode of {}", to.display()))?;
        self.size_bytes += contents.len() as u64;
        Ok(())
    }

    /// Makes the disk image that has `task` to do.
    pub(crate) fn image(&mut self, task: &Task<'_>, image: &Path) -> Result<()> {
        match task {
            Task::Command(command) => {
                self.text(
                    "guest/command",
                    &format!("#!/bin/bash\ncd /payload/files\n{command}\n"),
                    0o755,
                )?;
            }
            Task::Shell => self.text("guest/interactive", "", 0o644)?,
        }
        // Inodes, bitmaps and rounding take some room besides the contents.
        let size = (self.size_bytes + self.size_bytes / 8 + (16 << 20)).next_multiple_of(1 << 20);
        image::make_ext4(&self.folder, image, size)
    }

    fn place(&self, place: &str) -> Result<PathBuf> {
        let path = self.folder.join(place);
        if let Some(parent) = path.parent() {
            workspace::make_dir(parent)?;
        }
        Ok(path)
    }
}
