//! What the machine must have for guests, fuzzing, benchmarks and counting instructions, and how it gets what is missing.
//!
//! As root on a Debian-like machine the missing packages are installed, once and with the names
//! shown. Anywhere else nothing is touched: the error lists what is missing and the command that
//! brings it, since a half-guessed installation is worse than none.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

/// A program (or file) and the Debian package that holds it.
struct Need {
    wanted: &'static str,
    package: &'static str,
}

/// What booting a guest takes.
const TO_BOOT: &[Need] = &[
    Need {
        wanted: "mke2fs",
        package: "e2fsprogs",
    },
    Need {
        wanted: "setpriv",
        package: "util-linux",
    },
];

/// What fetching QEMU and kernels and making the root image takes besides.
const TO_PREPARE: &[Need] = &[
    Need {
        wanted: "apt-get",
        package: "apt",
    },
    Need {
        wanted: "dpkg-deb",
        package: "dpkg",
    },
    Need {
        wanted: "xz",
        package: "xz-utils",
    },
    Need {
        wanted: "mmdebstrap",
        package: "mmdebstrap",
    },
    Need {
        wanted: "/usr/share/keyrings/debian-archive-keyring.gpg",
        package: "debian-archive-keyring",
    },
];

/// What building libFuzzer takes: it is C++.
const TO_FUZZ: &[Need] = &[Need {
    wanted: "c++",
    package: "g++",
}];

/// What fetching a package of PyPI's takes.
const TO_FETCH_WHEELS: &[Need] = &[Need {
    wanted: "pip3",
    package: "python3-pip",
}];

/// What counting instructions takes.
const TO_COUNT: &[Need] = &[Need {
    wanted: "valgrind",
    package: "valgrind",
}];

/// Makes sure that guests can be booted here.
pub(crate) fn require_for_boot() -> Result<()> {
    require(TO_BOOT, "boot guests")
}

/// Makes sure that QEMU, kernels and the root image can be fetched and made here.
pub(crate) fn require_for_preparation() -> Result<()> {
    require(
        TO_PREPARE,
        "fetch QEMU and kernels and make the guests' root image",
    )
}

/// Makes sure that fuzz targets can be built here.
pub(crate) fn require_for_fuzzing() -> Result<()> {
    require(TO_FUZZ, "build libFuzzer")
}

/// Makes sure that packages of PyPI's can be fetched here.
pub(crate) fn require_for_wheels() -> Result<()> {
    require(TO_FETCH_WHEELS, "fetch BenchExec from PyPI")
}

/// Makes sure that instructions can be counted here.
pub(crate) fn require_for_counting() -> Result<()> {
    require(TO_COUNT, "count the engine's instructions")
}

/// Makes sure that the Debian archive can be asked for packages here.
pub(crate) fn require_apt() -> Result<()> {
    require(&TO_PREPARE[..2], "fetch packages from the Debian archive")
}

/// Whether this task runs as root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn require(needs: &[Need], purpose: &str) -> Result<()> {
    let missing: Vec<&Need> = needs
        .iter()
        .filter(|need| find(need.wanted).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let debian_like = find("apt-get").is_some() && Path::new("/var/lib/dpkg/status").exists();
    if !(is_root() && debian_like) {
        let wanted: Vec<&str> = missing.iter().map(|need| need.wanted).collect();
        let remedy = if debian_like {
            format!(
                "run `sudo apt-get install {}`, or this task as root",
                packages.join(" ")
            )
        } else {
            format!(
                "this is not a Debian-like machine, so install it by hand (Debian's packages: {})",
                packages.join(", ")
            )
        };
        bail!(
            "to {purpose}, this machine lacks {}: {remedy}",
            wanted.join(", ")
        );
    }
    install(&packages)?;
    if let Some(need) = missing.iter().find(|need| find(need.wanted).is_none()) {
        bail!(
            "the package {} was installed, yet {} is still missing",
            need.package,
            need.wanted
        );
    }
    Ok(())
}

fn install(packages: &[&str]) -> Result<()> {
    eprintln!("installing {} with apt-get", packages.join(", "));
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command
            .args(["-o", "DPkg::Lock::Timeout=900", "-q"])
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let install = || {
        let mut command = apt_get();
        command
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages);
        command
    };
    // The package lists of a fresh machine are empty or stale: refresh them only when that shows.
    if command::quiet(&mut install()).is_err() {
        command::quiet(apt_get().arg("update"))?;
        command::quiet(&mut install())?;
    }
    Ok(())
}

/// Finds a program on the PATH (`/sbin` included, where mke2fs hides from users), or a file.
pub(crate) fn find(wanted: &str) -> Option<PathBuf> {
    if wanted.starts_with('/') {
        return Some(PathBuf::from(wanted)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|folder| folder.join(wanted))
        .find(|candidate| candidate.is_file())
}

/// A command for `program`, which a `require_…` of this module has found before.
pub(crate) fn program(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| PathBuf::from(program)))
}
