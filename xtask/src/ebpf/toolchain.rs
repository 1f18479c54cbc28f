//! What building eBPF programs takes besides the pinned compiler, brought where it is missing.
//!
//! bpf-linker of the version that works with the compiler's own LLVM, under `target/tools`; and the
//! sources of `core`, from rustup or, where that reaches nothing, from Debian's package of the very
//! same release.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::debian::{Archive, host};
use crate::{cargo_tool, command, workspace};

/// From 0.11 on, bpf-linker wants an LLVM of the system's.
pub(crate) const LINKER_VERSION: &str = "0.10.3";

/// A toolchain that is complete.
#[derive(Debug)]
pub(crate) struct Toolchain {
    linker_folder: PathBuf,
}

impl Toolchain {
    /// Finds what is there and brings the rest.
    pub(crate) fn ensure() -> Result<Self> {
        let _lock = workspace::lock("ebpf-toolchain")?;
        ensure_core_sources()?;
        let linker = cargo_tool::ensure("bpf-linker", LINKER_VERSION)?;
        Ok(Self {
            linker_folder: linker.parent().map(Path::to_path_buf).unwrap_or_default(),
        })
    }

    /// Sets up a cargo for building the programs.
    pub(crate) fn set_up(&self, cargo: &mut Command) -> Result<()> {
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let folders =
            std::iter::once(self.linker_folder.clone()).chain(std::env::split_paths(&inherited));
        let path =
            std::env::join_paths(folders).context("a folder on the PATH cannot be part of one")?;
        // The pinned compiler is a stable one; building `core` is not stable.
        cargo.env("PATH", path).env("RUSTC_BOOTSTRAP", "1");
        Ok(())
    }
}

fn ensure_core_sources() -> Result<()> {
    let rustc = || Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let sysroot = command::text(
        rustc()
            .args(["--print", "sysroot"])
            .current_dir(workspace::root()),
    )?;
    let parent = Path::new(sysroot.trim()).join("lib/rustlib/src/rust");
    let library = parent.join("library");
    let is_there =
        || library.join("core/src/lib.rs").exists() && library.join("Cargo.lock").exists();
    if is_there() {
        return Ok(());
    }
    eprintln!("fetching the sources of Rust's core library");
    let mut rustup = Command::new("timeout");
    rustup
        .args(["120", "rustup", "component", "add", "rust-src"])
        .current_dir(workspace::root());
    let from_rustup = command::quiet(&mut rustup);
    if is_there() {
        return Ok(());
    }
    from_debian(&parent, &library).with_context(|| {
        let reason = from_rustup.err().map_or_else(|| "it added nothing".to_owned(), |error| first_line(&error));
        format!(
            "the sources of Rust's core library are missing from {}: `rustup component add rust-src` did not bring \
             them ({reason}), and neither did Debian's package rust-src",
            parent.display()
        )
    })
}

/// Takes them from Debian's package of the same release.
fn from_debian(parent: &Path, library: &Path) -> Result<()> {
    let release = release_of_compiler()?;
    let archive = Archive::open()?;
    let versions = archive.versions("rust-src")?;
    let Some(version) = versions
        .iter()
        .find(|version| version.starts_with(&format!("{release}+")))
    else {
        bail!(
            "the Debian archive has rust-src in the versions {versions:?}, none of them {release}"
        );
    };
    let unpacked = workspace::target().join("tools/rust-src");
    workspace::remove_dir(&unpacked)?;
    archive.unpack(&format!("rust-src={version}"), &unpacked)?;
    let found = unpacked.join(format!("usr/src/rustc-{release}/library"));
    if !found.is_dir() {
        bail!(
            "Debian's package rust-src {version} has no {}",
            found.display()
        );
    }
    // Beside its place first: an interrupted copy must not look like a whole one.
    workspace::make_dir(parent)?;
    let copy = workspace::temporary_beside(library);
    command::quiet(
        host::program("cp")
            .args(["--recursive", "--dereference"])
            .arg(&found)
            .arg(&copy),
    )?;
    workspace::remove_dir(library)?;
    workspace::rename(&copy, library)?;
    workspace::remove_dir(&unpacked)
}

/// Such as `1.95.0`.
fn release_of_compiler() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = command::text(
        Command::new(rustc)
            .args(["--version", "--verbose"])
            .current_dir(workspace::root()),
    )?;
    let release = text.lines().find_map(|line| line.strip_prefix("release: "));
    release
        .map(str::to_owned)
        .context("`rustc --version --verbose` names no release")
}

fn first_line(error: &anyhow::Error) -> String {
    error
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}
