//! The kernels that guests run: one stock Debian cloud kernel per supported series.
//!
//! A series is fetched once and then stays as it is until `cargo xtask vm clean`, so that a test
//! that turns red did so by our change, not by a new kernel. What counts as fetched is decided by
//! the stamp, written last.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::debian::{Archive, host};
use crate::{command, workspace};

/// The flavour of the guests' kernels, in package names.
const FLAVOUR: &str = "-cloud-amd64";

/// Modules that a guest needs before it has a root file system, in the order of loading. A kernel
/// that has one of them built in ships no such file, which is as good.
const MODULES: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
];

/// A kernel series that `sandbox` supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Series {
    /// Debian 12's.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's.
    #[value(name = "6.12")]
    V6_12,
    /// The last long-term series in Debian 13's backports.
    #[value(name = "6.18")]
    V6_18,
    /// The newest in Debian 13's backports.
    #[value(name = "7")]
    V7,
}

impl Series {
    /// All of them, oldest first.
    pub(crate) const ALL: [Self; 4] = [Self::V6_1, Self::V6_12, Self::V6_18, Self::V7];

    fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V6_18 => "6.18",
            Self::V7 => "7",
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A kernel ready to boot.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    folder: PathBuf,
}

impl Kernel {
    fn of(series: Series) -> Self {
        Self {
            folder: workspace::target().join("vm/kernels").join(series.name()),
        }
    }

    /// The kernel of `series` where it was fetched before.
    pub(crate) fn fetched(series: Series) -> Option<Self> {
        Some(Self::of(series)).filter(|kernel| kernel.stamp().exists())
    }

    /// Fetches the newest kernel of `series` that the archive has.
    pub(crate) fn fetch(series: Series, archive: &Archive) -> Result<Self> {
        let kernel = Self::of(series);
        let candidates = candidates(series, &archive.names("linux-")?);
        // An archive may list a version just before it drops it: so more than one is tried.
        let mut failure = None;
        for release in candidates.iter().take(3) {
            match kernel.fill(release, archive) {
                Ok(()) => return Ok(kernel),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => bail!("the Debian archive has no {series} cloud kernel for amd64"),
        }
    }

    /// The kernel image.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The modules to load at boot, in order.
    pub(crate) fn modules(&self) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join("modules");
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("could not list {}", folder.display()))?;
        let mut modules: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .collect();
        modules.sort();
        Ok(modules)
    }

    /// What `uname -r` says in a guest that runs it.
    pub(crate) fn release(&self) -> Result<String> {
        Ok(workspace::read(&self.stamp())?.trim().to_owned())
    }

    fn stamp(&self) -> PathBuf {
        self.folder.join("release")
    }

    fn fill(&self, package: &Package, archive: &Archive) -> Result<()> {
        let unpacked = workspace::temporary_beside(&self.folder);
        workspace::remove_dir(&unpacked)?;
        archive.unpack(&package.name, &unpacked)?;
        let release = &package.release;
        if package.split {
            archive.unpack(&format!("linux-modules-{release}"), &unpacked)?;
        }
        let made = workspace::temporary_beside(&self.folder);
        workspace::make_dir(&made.join("modules"))?;
        let image = [
            format!("boot/vmlinuz-{release}"),
            format!("usr/lib/modules/{release}/vmlinuz"),
        ]
        .iter()
        .map(|place| unpacked.join(place))
        .find(|path| path.exists())
        .with_context(|| format!("the package {} holds no kernel image", package.name))?;
        workspace::rename(&image, &made.join("vmlinuz"))?;
        for (order, module) in MODULES.iter().enumerate() {
            let found = ["usr/lib/modules", "lib/modules"]
                .iter()
                .find_map(|place| find_module(&unpacked.join(place).join(release), module));
            if let Some(found) = found {
                copy_module(
                    &found,
                    &made.join(format!("modules/{order:02}-{module}.ko")),
                )?;
            }
        }
        workspace::write(&made.join("release"), format!("{release}\n"))?;
        workspace::remove_dir(&self.folder)?;
        workspace::rename(&made, &self.folder)?;
        workspace::remove_dir(&unpacked)
    }
}

/// A package with a kernel image.
#[derive(Debug, PartialEq, Eq)]
struct Package {
    name: String,
    release: String,
    /// Whether the modules are in a package of their own.
    split: bool,
}

/// The packages that hold a kernel of `series`, newest first.
fn candidates(series: Series, names: &[String]) -> Vec<Package> {
    let prefix = format!("{}.", series.name());
    let parse = |name: &String| {
        // `linux-binary-*` has the image alone; where it exists, `linux-image-*` is empty.
        let (release, split) = match name.strip_prefix("linux-binary-") {
            Some(release) => (release, true),
            None => (name.strip_prefix("linux-image-")?, false),
        };
        let wanted = release.starts_with(&prefix) && release.ends_with(FLAVOUR);
        let split = split && names.contains(&format!("linux-modules-{release}"));
        wanted.then(|| Package {
            name: name.clone(),
            release: release.to_owned(),
            split,
        })
    };
    let mut found: Vec<Package> = names.iter().filter_map(parse).collect();
    found.sort_by_key(|package| {
        (
            numbers(&package.release),
            package.name.starts_with("linux-binary-"),
        )
    });
    found.reverse();
    found
}

/// The numbers in a release name: `6.12.117+deb13` is newer than `6.12.99+deb13`.
fn numbers(release: &str) -> Vec<u64> {
    release
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn find_module(folder: &Path, module: &str) -> Option<PathBuf> {
    let names = [format!("{module}.ko"), format!("{module}.ko.xz")];
    let mut pending = vec![folder.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).ok()?.filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if names
                .iter()
                .any(|name| entry.file_name().to_str() == Some(name.as_str()))
            {
                return Some(path);
            }
        }
    }
    None
}

fn copy_module(from: &Path, to: &Path) -> Result<()> {
    if from.extension().is_some_and(|extension| extension == "xz") {
        command::quiet(
            host::program("xz")
                .args(["--decompress", "--force"])
                .arg(from),
        )?;
        return workspace::rename(&from.with_extension(""), to);
    }
    workspace::rename(from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(series: Series, names: &[&str]) -> Option<Package> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        candidates(series, &names).into_iter().next()
    }

    #[test]
    fn the_newest_kernel_of_a_series_is_compared_by_number() {
        let names = [
            "linux-image-6.12.99+deb13-cloud-amd64",
            "linux-image-6.12.117+deb13-cloud-amd64",
            "linux-image-6.12.117+deb13-cloud-amd64-dbg",
            "linux-image-6.12.117+deb13-cloud-amd64-unsigned",
            "linux-image-6.18.15+deb13-cloud-amd64",
            "linux-image-6.12.200+deb13-amd64",
        ];
        let found = newest(Series::V6_12, &names).map(|package| package.release);
        assert_eq!(found.as_deref(), Some("6.12.117+deb13-cloud-amd64"));
    }

    #[test]
    fn the_series_6_1_is_not_taken_for_6_18() {
        let names = [
            "linux-image-6.18.15+deb13-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
        ];
        let found = newest(Series::V6_1, &names).map(|package| package.release);
        assert_eq!(found.as_deref(), Some("6.1.0-56-cloud-amd64"));
    }

    #[test]
    fn an_image_in_a_package_of_its_own_brings_its_modules_package() {
        let names = [
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-modules-7.3.4+deb13-cloud-amd64",
        ];
        let found = newest(Series::V7, &names);
        let expected = Package {
            name: "linux-binary-7.3.4+deb13-cloud-amd64".to_owned(),
            release: "7.3.4+deb13-cloud-amd64".to_owned(),
            split: true,
        };
        assert_eq!(found, Some(expected));
    }
}
