//! The Debian package: the program, its units, its manual and the shells' completions.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{cargo_tool, command, workspace};

/// The newest for Rust below 1.96.
const CARGO_DEB: &str = "3.8.0";
/// The profile of what users install.
pub(crate) const PROFILE: &str = "release";

/// Make the Debian package, and say where it is.
#[derive(clap::Args, Debug)]
pub(crate) struct Package {}

impl Package {
    /// Does the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        println!("{}", build(PROFILE)?.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// Makes the package from a build of this profile; gives its path.
pub(crate) fn build(profile: &str) -> Result<PathBuf> {
    eprintln!("making the package (the first time takes some minutes)");
    let cargo_deb = cargo_tool::ensure("cargo-deb", CARGO_DEB)?;
    let of_crate = ["--profile", profile, "--package", "sandbox-user"];
    command::run(
        workspace::cargo()
            .args(["build", "--quiet", "--bin", "sandbox"])
            .args(of_crate),
    )?;
    let generated = workspace::target().join(profile).join("package");
    workspace::remove_dir(&generated)?;
    command::run(
        workspace::cargo()
            .args(["run", "--quiet", "--example", "manual"])
            .args(of_crate)
            .arg("--")
            .arg(&generated),
    )?;
    let folder = workspace::target().join("package").join(profile);
    workspace::remove_dir(&folder)?;
    workspace::make_dir(&folder)?;
    let mut package = Command::new(cargo_deb);
    package
        .current_dir(workspace::root())
        .args(["--no-build", "--quiet"])
        .args(of_crate)
        .arg("--output")
        .arg(&folder);
    if profile != PROFILE {
        // Guests are slow at unpacking, and nobody debugs there.
        package.arg("--strip");
    }
    command::quiet(&mut package)?;
    let mut made = std::fs::read_dir(&folder)
        .with_context(|| format!("could not read {}", folder.display()))?;
    let package = made.next().context("cargo-deb made no package")??;
    Ok(package.path())
}
