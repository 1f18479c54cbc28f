//! The initramfs of a guest: busybox, the kernel's disk drivers and our own `init`.
//!
//! Written here byte by byte in the kernel's `newc` cpio format: four kinds of entry and no
//! generator to install, and the result is the same wherever it is made.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::kernel::Kernel;
use crate::debian::Archive;
use crate::workspace;

const INIT: &str = include_str!("../../guest/initramfs-init");

/// Busybox for the initramfs, where it was fetched before.
pub(crate) fn busybox() -> Option<PathBuf> {
    Some(workspace::target().join("vm/busybox")).filter(|path| path.exists())
}

/// Fetches a busybox that needs no libraries.
pub(crate) fn fetch_busybox(archive: &Archive) -> Result<PathBuf> {
    let target = workspace::target().join("vm/busybox");
    let unpacked = workspace::temporary_beside(&target);
    workspace::remove_dir(&unpacked)?;
    let versions = archive.versions("busybox-static")?;
    let newest = versions
        .first()
        .context("the Debian archive has no busybox-static")?;
    archive.unpack(&format!("busybox-static={newest}"), &unpacked)?;
    let found = ["usr/bin/busybox", "bin/busybox"]
        .iter()
        .map(|place| unpacked.join(place))
        .find(|path| path.exists());
    workspace::rename(
        &found.context("the package busybox-static holds no busybox")?,
        &target,
    )?;
    workspace::remove_dir(&unpacked)?;
    Ok(target)
}

/// Writes the initramfs for `kernel` to `path`.
pub(crate) fn write(kernel: &Kernel, busybox: &Path, path: &Path) -> Result<()> {
    let mut cpio = Cpio::default();
    for folder in ["bin", "dev", "proc", "sys", "root", "modules"] {
        cpio.folder(folder)?;
    }
    cpio.console()?;
    cpio.program("bin/busybox", &bytes(busybox)?)?;
    cpio.link("bin/sh", "busybox")?;
    cpio.program("init", INIT.as_bytes())?;
    for module in kernel.modules()? {
        let name = module
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        cpio.program(&format!("modules/{name}"), &bytes(&module)?)?;
    }
    workspace::write(path, cpio.finish()?)
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("could not read {}", path.display()))
}

/// A cpio archive in the `newc` format (the kernel's Documentation/driver-api/early-userspace).
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    fn folder(&mut self, name: &str) -> Result<()> {
        self.entry(name, 0o040_755, (0, 0), &[])
    }

    fn program(&mut self, name: &str, contents: &[u8]) -> Result<()> {
        self.entry(name, 0o100_755, (0, 0), contents)
    }

    fn link(&mut self, name: &str, target: &str) -> Result<()> {
        self.entry(name, 0o120_777, (0, 0), target.as_bytes())
    }

    /// Without this node the initramfs's PID 1 has no stdin, stdout and stderr.
    fn console(&mut self) -> Result<()> {
        self.entry("dev/console", 0o020_600, (5, 1), &[])
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) -> Result<()> {
        let size = u32::try_from(contents.len())
            .with_context(|| format!("{name} is too large for a cpio archive"))?;
        let name_size =
            u32::try_from(name.len() + 1).with_context(|| format!("{name} is too long a name"))?;
        self.entries += 1;
        let (major, minor) = device;
        // inode, mode, uid, gid, links, mtime, size, device of the file, the device it is, name, check
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            major,
            minor,
            name_size,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(contents);
        self.align();
        Ok(())
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_begin_at_multiples_of_four_and_name_what_they_hold() {
        let mut cpio = Cpio::default();
        cpio.program("init", b"12345").expect("a small file fits");
        let bytes = cpio.finish().expect("the trailer fits");
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[54..62], b"00000005", "the size of the contents");
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(&bytes[116..121], b"12345");
        assert_eq!(&bytes[124..130], b"070701", "the trailer's header");
    }
}
