//! Packages from the Debian archive, without touching the machine's own package system.
//!
//! Guests need kernels and a root image of several Debian releases, whatever release this machine
//! runs. So apt works here on a sources list and state of our own under `target/apt`, at the
//! mirror that the machine's own apt is set up with: nothing but that mirror has to be reachable.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::host;
use super::mirror::Mirrors;
use crate::{command, workspace};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A private view of the Debian archive.
pub(crate) struct Archive {
    folder: PathBuf,
    mirrors: Mirrors,
    /// Two tasks must not work on one state.
    _lock: File,
}

impl Archive {
    /// Opens the view and refreshes its package lists.
    pub(crate) fn open() -> Result<Self> {
        Self::open_on("apt", packages_of)
    }

    /// Opens a view of what Debian 13's packages are built from, and refreshes its lists.
    pub(crate) fn open_sources() -> Result<Self> {
        Self::open_on("apt-sources", |mirrors| {
            format!(
                "deb-src [signed-by={KEYRING}] {} trixie main\n",
                mirrors.archive
            )
        })
    }

    fn open_on(name: &str, sources: impl Fn(&Mirrors) -> String) -> Result<Self> {
        host::require_apt()?;
        let mirrors = Mirrors::of_this_machine()?;
        let lock = workspace::lock(name)?;
        let folder = workspace::target().join(name);
        for part in ["sources", "state/lists/partial", "cache/archives/partial"] {
            workspace::make_dir(&folder.join(part))?;
        }
        workspace::write(&folder.join("state/status"), "")?;
        let archive = Self {
            folder,
            mirrors,
            _lock: lock,
        };
        workspace::write(
            &archive.folder.join("sources/debian.list"),
            sources(&archive.mirrors),
        )?;
        eprintln!("refreshing package lists from {}", archive.mirrors.archive);
        command::quiet(archive.apt("apt-get").args(["update", "--error-on=any"]))?;
        Ok(archive)
    }

    /// The names of all packages that begin with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = command::text(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The versions of `package` that the archive has, newest first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = command::text(self.apt("apt-cache").args(["madison", package]))?;
        Ok(table
            .lines()
            .filter_map(|line| line.split('|').nth(1))
            .map(|version| version.trim().to_owned())
            .collect())
    }

    /// Downloads `package` (or `package=version`) and unpacks it into `folder`.
    pub(crate) fn unpack(&self, package: &str, folder: &Path) -> Result<()> {
        let downloads = self.folder.join(format!("download-{}", std::process::id()));
        workspace::remove_dir(&downloads)?;
        workspace::make_dir(&downloads)?;
        eprintln!("fetching {package}");
        command::quiet(
            self.apt("apt-get")
                .args(["download", package])
                .current_dir(&downloads),
        )?;
        let mut found = fs::read_dir(&downloads)
            .with_context(|| format!("could not list {}", downloads.display()))?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"));
        let Some(deb) = found.next() else {
            bail!(
                "apt-get downloaded {package}, yet no .deb is in {}",
                downloads.display()
            );
        };
        workspace::make_dir(folder)?;
        command::quiet(
            host::program("dpkg-deb")
                .arg("--extract")
                .arg(&deb)
                .arg(folder),
        )?;
        workspace::remove_dir(&downloads)
    }

    /// Downloads what its authors have released of a source package, as it was archived: `PACKAGE_VERSION.orig.tar.*`.
    /// Of a view that [`Self::open_sources`] gave.
    pub(crate) fn released_source(&self, package: &str) -> Result<PathBuf> {
        let downloads = self.folder.join(package);
        workspace::remove_dir(&downloads)?;
        workspace::make_dir(&downloads)?;
        eprintln!("fetching the source of {package}");
        let source = [
            "source",
            "--download-only",
            "--tar-only",
            "--only-source",
            package,
        ];
        command::quiet(self.apt("apt-get").args(source).current_dir(&downloads))?;
        let files = fs::read_dir(&downloads)
            .with_context(|| format!("could not list {}", downloads.display()))?;
        let mut paths = files.filter_map(|file| Some(file.ok()?.path()));
        let is_released = |path: &PathBuf| {
            path.to_string_lossy().contains(".orig.tar.")
                && path.extension().is_some_and(|extension| extension != "asc")
        };
        paths.find(is_released).with_context(|| {
            format!(
                "apt-get downloaded the source of {package}, yet no .orig.tar is in {}",
                downloads.display()
            )
        })
    }

    /// An `mmdebstrap` that puts `packages` of Debian 13, and what they depend on, into the new folder
    /// `root`; more options may be added.
    ///
    /// # Errors
    ///
    /// Who is not root cannot.
    pub(crate) fn mmdebstrap(
        &self,
        variant: &str,
        packages: &[&str],
        root: &Path,
    ) -> Result<Command> {
        if !host::is_root() {
            bail!(
                "unpacking Debian's packages into {} needs root: run this task once with sudo",
                root.display()
            );
        }
        workspace::remove_dir(root)?;
        if let Some(parent) = root.parent() {
            // mmdebstrap makes no more than the last one.
            workspace::make_dir(parent)?;
        }
        let sources = self.folder.join("trixie.list");
        workspace::write(&sources, self.trixie_sources())?;
        let mut mmdebstrap = host::program("mmdebstrap");
        mmdebstrap
            .args(["--mode=root", "--architectures=amd64"])
            .arg(format!("--variant={variant}"))
            .arg(format!("--include={}", packages.join(",")))
            .arg("--aptopt=APT::Install-Recommends \"false\"");
        for setting in download_settings()? {
            mmdebstrap.arg(format!("--aptopt={}", setting.trim_end_matches(';')));
        }
        mmdebstrap.arg("trixie").arg(root).arg(&sources);
        Ok(mmdebstrap)
    }

    fn trixie_sources(&self) -> String {
        let mut lines = format!(
            "deb [signed-by={KEYRING}] {} trixie main\n",
            self.mirrors.archive
        );
        if let Some(security) = &self.mirrors.security {
            lines.push_str(&format!(
                "deb [signed-by={KEYRING}] {security} trixie-security main\n"
            ));
        }
        lines
    }

    /// An apt tool that sees our sources and state instead of the machine's. The machine's other
    /// settings stay, for a proxy may be among them.
    fn apt(&self, tool: &str) -> Command {
        let folder = self.folder.display();
        let mut command = host::program(tool);
        for option in [
            "Dir::Etc::sourcelist=/dev/null".to_owned(),
            format!("Dir::Etc::sourceparts={folder}/sources"),
            format!("Dir::State={folder}/state"),
            format!("Dir::State::status={folder}/state/status"),
            format!("Dir::Cache={folder}/cache"),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures=amd64".to_owned(),
            // Without this, root's apt drops to a user that may not enter the checkout.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.arg("-q");
        command
    }
}

/// Packages of all releases that guests are made of.
fn packages_of(mirrors: &Mirrors) -> String {
    let mut lines = String::new();
    for suite in ["bookworm", "trixie", "trixie-backports"] {
        lines.push_str(&format!(
            "deb [signed-by={KEYRING}] {} {suite} main\n",
            mirrors.archive
        ));
    }
    if let Some(security) = &mirrors.security {
        for suite in ["bookworm-security", "trixie-security"] {
            lines.push_str(&format!(
                "deb [signed-by={KEYRING}] {security} {suite} main\n"
            ));
        }
    }
    lines
}

/// The machine's own download settings (proxies and the like), as apt options.
fn download_settings() -> Result<Vec<String>> {
    let dump = command::text(host::program("apt-config").args(["dump", "Acquire"]))?;
    let of_transport = |line: &&str| line.starts_with("Acquire::http") && !line.ends_with(" \"\";");
    Ok(dump
        .lines()
        .filter(of_transport)
        .map(str::to_owned)
        .collect())
}
