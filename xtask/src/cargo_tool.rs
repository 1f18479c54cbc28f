//! Cargo tools that tasks need, each of a pinned version, under `target/tools`.
//!
//! They are built from source by the cargo that runs us: nothing is taken from the machine, and
//! nothing is left on it that `cargo clean` does not remove.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::{command, workspace};

/// Finds the tool `name` of just this version, or installs it; gives its path.
///
/// Its `--version` must end with the version.
pub(crate) fn ensure(name: &str, version: &str) -> Result<PathBuf> {
    let _lock = workspace::lock(&format!("tool-{name}"))?;
    let tools = workspace::target().join("tools");
    let program = tools.join("bin").join(name);
    if version_of(&program).as_deref() != Some(version) {
        eprintln!("installing {name} {version} under {}", tools.display());
        let build = tools.join(format!("build-{name}"));
        let mut cargo = workspace::cargo();
        cargo.args(["install", name, "--version", version]);
        cargo.args(["--locked", "--force", "--quiet", "--root"]);
        cargo.arg(&tools).env("CARGO_TARGET_DIR", &build);
        for inherited in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
            cargo.env_remove(inherited);
        }
        command::run(&mut cargo)?;
        workspace::remove_dir(&build)?;
    }
    Ok(program)
}

fn version_of(program: &Path) -> Option<String> {
    let text = command::text(Command::new(program).arg("--version")).ok()?;
    text.split_whitespace().last().map(str::to_owned)
}
