//! The root images of guests: a small Debian with Python, numpy and systemd, and one that has besides what
//! `cargo xtask bench` compares `sandbox` with.
//!
//! Made once and never written to: each guest works on a throwaway snapshot. What is ours (init,
//! units, the binaries under test) comes on the payload disk instead, so that editing those never
//! means making the image again. The stamp holds the recipe: another recipe, another image.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::debian::{Archive, host};
use crate::{command, workspace};

/// Packages of every image besides Debian's essential ones.
const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "dbus",
    // A user manager per user: one of the ways out of a leaf that tests try.
    "dbus-user-session",
    "libpam-systemd",
    // It kills runs where the host's memory is under pressure.
    "systemd-oomd",
    "python3",
    "python3-numpy",
    "procps",
    "psmisc",
    "sudo",
    "strace",
    "util-linux",
    // A service that analyses run beside, and what measures it.
    "nginx-light",
    "wrk",
    // For promtool, which knows what a monitoring system takes.
    "prometheus",
];

/// More packages of [`Image::Bench`].
const BENCH_PACKAGES: &[&str] = &[
    "hyperfine",
    "bubblewrap",
    "crun",
    // For BenchExec, which comes from PyPI.
    "python3-pystemd",
    "python3-yaml",
    // For what is built.
    "gcc",
    "libc6-dev",
    "make",
    // What else tells of processes as they start and end.
    "bpftrace",
    "libbpf-tools",
];

/// A root image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Image {
    /// Of all guests but those of benchmarks.
    Usual,
    /// Of benchmarks.
    Bench,
}

/// Left out of every package: guests have no reader, and no use for what is large beside promtool.
const EXCLUDED: &[&str] = &[
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/bin/prometheus",
    "/usr/share/prometheus/*",
    "/usr/share/javascript/*",
    "/usr/share/nodejs/*",
];

/// Run on the host with the new root as `$1`.
const CUSTOMISE: &str = r#"set -eu
chroot "$1" useradd --create-home --uid 1000 --shell /bin/bash ana
chroot "$1" useradd --create-home --uid 1001 --shell /bin/bash bob
cat >"$1/etc/sudoers.d/guest" <<'END'
Defaults secure_path="/payload/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ana ALL=(ALL) NOPASSWD: ALL
END
chmod 440 "$1/etc/sudoers.d/guest"
echo guest >"$1/etc/hostname"
printf '127.0.0.1 localhost guest\n' >"$1/etc/hosts"
# An identity of its own keeps systemd from treating each boot as the first.
echo 5a9d0b0c6f0e4c0fb1d2a7c4e3f2a1b0 >"$1/etc/machine-id"
mkdir -p "$1/payload"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer \
    e2scrub_all.timer e2scrub_reap.service systemd-tmpfiles-clean.timer getty@tty1.service \
    serial-getty@ttyS0.service getty.target systemd-modules-load.service systemd-binfmt.service \
    proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount nginx.service \
    prometheus.service; do
    ln -sf /dev/null "$1/etc/systemd/system/$unit"
done
rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/log/*
"#;

/// The root image where it was made before by the present recipe.
impl Image {
    /// It, where it was made before by the present recipe.
    pub(crate) fn made(self) -> Option<PathBuf> {
        let stamp = workspace::read(&self.stamp()).ok()?;
        (stamp == self.recipe() && self.path().exists()).then(|| self.path())
    }

    /// Makes it.
    pub(crate) fn make(self, archive: &Archive) -> Result<PathBuf> {
        eprintln!("making {self}");
        let path = self.path();
        let root = workspace::temporary_beside(&path);
        let hook = workspace::target().join("vm/root-hook");
        let mut mmdebstrap = archive.mmdebstrap("minbase", &self.packages(), &root)?;
        workspace::write(&hook, format!("#!/bin/sh\n{CUSTOMISE}"))?;
        command::quiet(std::process::Command::new("chmod").arg("+x").arg(&hook))?;
        for excluded in EXCLUDED {
            mmdebstrap.arg(format!("--dpkgopt=path-exclude={excluded}"));
        }
        mmdebstrap.arg(format!("--customize-hook={}", hook.display()));
        command::quiet(&mut mmdebstrap)?;

        let image = workspace::temporary_beside(&path);
        make_ext4(&root, &image, self.size_bytes())?;
        workspace::rename(&image, &path)?;
        workspace::write(&self.stamp(), self.recipe())?;
        workspace::remove_dir(&root)?;
        Ok(path)
    }

    fn packages(self) -> Vec<&'static str> {
        match self {
            Self::Usual => PACKAGES.to_vec(),
            Self::Bench => [PACKAGES, BENCH_PACKAGES].concat(),
        }
    }

    /// With room for what tests write; the file is sparse.
    fn size_bytes(self) -> u64 {
        match self {
            Self::Usual => 1 << 30,
            Self::Bench => 2 << 30,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Usual => "root",
            Self::Bench => "bench",
        }
    }

    fn path(self) -> PathBuf {
        workspace::target().join(format!("vm/{}.ext4", self.name()))
    }

    fn stamp(self) -> PathBuf {
        workspace::target().join(format!("vm/{}.recipe", self.name()))
    }

    fn recipe(self) -> String {
        format!(
            "{}\n{}\n{CUSTOMISE}{}\n",
            self.packages().join(" "),
            EXCLUDED.join(" "),
            self.size_bytes()
        )
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Usual => {
                "the guests' root image (Debian trixie with python3-numpy and systemd)"
            }
            Self::Bench => {
                "the root image of benchmarks (the guests' own, and what `sandbox` is compared with)"
            }
        })
    }
}

/// Makes the file `image` an ext4 file system with all that is in `folder`.
pub(crate) fn make_ext4(folder: &Path, image: &Path, size_bytes: u64) -> Result<()> {
    let file =
        File::create(image).with_context(|| format!("could not make {}", image.display()))?;
    file.set_len(size_bytes)
        .with_context(|| format!("could not size {}", image.display()))?;
    let mut mke2fs = host::program("mke2fs");
    mke2fs.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-m",
        "0",
        "-E",
        "root_owner=0:0",
        "-d",
    ]);
    command::quiet(mke2fs.arg(folder).arg(image))
}
