//! The emulator of all guests: the QEMU of Debian 13, whatever release this machine runs.
//!
//! Debian 12's QEMU 7.2 takes some three times as long for the same guest as Debian 13's 10.0, which
//! runs here by its own libraries and its own dynamic linker, beside those of the machine.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::debian::Archive;
use crate::{command, workspace};

/// Where Debian for amd64 has shared libraries, and the dynamic linker.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// QEMU, unpacked.
#[derive(Clone, Debug)]
pub(crate) struct Emulator {
    root: PathBuf,
}

impl Emulator {
    fn here() -> Self {
        Self {
            root: workspace::target().join("vm/qemu"),
        }
    }

    /// QEMU where it was unpacked before.
    pub(crate) fn unpacked() -> Option<Self> {
        Some(Self::here()).filter(|emulator| emulator.root.exists())
    }

    /// Fetches and unpacks QEMU.
    pub(crate) fn unpack(archive: &Archive) -> Result<Self> {
        eprintln!("fetching qemu-system-x86");
        let emulator = Self::here();
        let folder = workspace::temporary_beside(&emulator.root);
        command::quiet(&mut archive.mmdebstrap("extract", &["qemu-system-x86"], &folder)?)?;
        workspace::rename(&folder, &emulator.root)?;
        Ok(emulator)
    }

    /// The words that start it: a program and its first arguments.
    pub(crate) fn words(&self) -> Vec<String> {
        let libraries = self.path(LIBRARIES);
        [
            self.path(&format!("{LIBRARIES}/ld-linux-x86-64.so.2")),
            "--library-path".to_owned(),
            libraries,
            self.path("usr/bin/qemu-system-x86_64"),
            "-L".to_owned(),
            self.path("usr/share/qemu"),
            "-L".to_owned(),
            self.path("usr/share/seabios"),
        ]
        .into()
    }

    fn path(&self, below: &str) -> String {
        self.root.join(Path::new(below)).display().to_string()
    }
}
