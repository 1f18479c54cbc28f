//! `cargo xtask ebpf`: the committed eBPF object, and the proof that it is what the sources give.
//!
//! The object is committed so that a plain stable build of `sandbox` needs no bpf-linker and no
//! sources of `core`. That is only as good as the check behind it: the hash says that nobody forgot
//! to rebuild, and a rebuild at another path, byte for byte the same, that nothing else got in.

mod sources;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use self::toolchain::Toolchain;
use crate::{command, files, workspace};

/// The target of eBPF programs, in the byte order of every host that we support.
const TARGET: &str = "bpfel-unknown-none";
/// The cargo profile of the object.
const PROFILE: &str = "ebpf";
/// How the object is built; part of what its hash covers.
const ARGUMENTS: &[&str] = &[
    "build",
    "--package=sandbox-ebpf",
    "--bin=sandbox-ebpf",
    "--features=programs",
    "--target=bpfel-unknown-none",
    "--profile=ebpf",
    "-Zbuild-std=core",
    "--locked",
];

/// Builds the object, or checks the committed one.
#[derive(clap::Args, Debug)]
pub(crate) struct Ebpf {
    /// Change nothing; fail unless the committed object is what the sources give, byte for byte.
    #[arg(long)]
    check: bool,
}

impl Ebpf {
    /// Does the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let root = workspace::root();
        let object = root.join("sandbox-ebpf/prebuilt/sandbox.bpf.o");
        let recorded = root.join("sandbox-ebpf/prebuilt/sources.sha256");
        if self.check {
            check(&root, &object, &recorded)?;
        } else {
            let toolchain = Toolchain::ensure()?;
            let built = build(&toolchain, &root, &workspace::target().join("ebpf"))?;
            workspace::write(&object, &built)?;
            workspace::write(&recorded, format!("{}\n", sources::hash(&root)?))?;
            println!("{}: {} bytes", relative(&object, &root), built.len());
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn check(root: &Path, object: &Path, recorded: &Path) -> Result<()> {
    let shown = relative(recorded, root);
    let expected = workspace::read(recorded).with_context(|| {
        format!("{shown} goes with the committed object: run `cargo xtask ebpf` and commit both")
    })?;
    if expected.trim() != sources::hash(root)? {
        bail!(
            "the eBPF sources, or what they are built with, changed after the object was built (another hash than in \
             {shown}): run `cargo xtask ebpf` and commit what it writes"
        );
    }
    let committed =
        fs::read(object).with_context(|| format!("could not read {}", object.display()))?;
    forbid_paths(&committed, root)?;

    let toolchain = Toolchain::ensure()?;
    let checkout = workspace::target().join("ebpf-check/another/checkout/path");
    workspace::remove_dir(&checkout)?;
    for file in files::of_the_repository()? {
        let to = checkout.join(&file);
        workspace::make_dir(to.parent().unwrap_or(&checkout))?;
        fs::copy(root.join(&file), &to)
            .with_context(|| format!("could not copy {}", file.display()))?;
    }
    let rebuilt = build(
        &toolchain,
        &checkout,
        &workspace::target().join("ebpf-check/target"),
    )?;
    workspace::remove_dir(&checkout)?;
    if rebuilt != committed {
        let kept = workspace::target().join("ebpf-check/sandbox.bpf.o");
        workspace::write(&kept, &rebuilt)?;
        bail!(
            "{} is not what the sources give: a rebuild, kept as {}, has {} bytes and differs at byte {}. \
             Run `cargo xtask ebpf` and commit what it writes; if that changes nothing, the build depends on \
             its path",
            relative(object, root),
            kept.display(),
            rebuilt.len(),
            rebuilt
                .iter()
                .zip(&committed)
                .take_while(|(left, right)| left == right)
                .count()
        );
    }
    println!(
        "{}: what the sources give, byte for byte ({} bytes)",
        relative(object, root),
        committed.len()
    );
    Ok(())
}

/// Builds the object of the checkout at `root`.
fn build(toolchain: &Toolchain, root: &Path, target: &Path) -> Result<Vec<u8>> {
    let mut cargo = workspace::cargo();
    toolchain.set_up(&mut cargo)?;
    // Flags that the caller's environment adds for the host would end up in the object.
    for inherited in [
        "RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ] {
        cargo.env_remove(inherited);
    }
    // Given here, since cargo would also join the flags of every folder above a checkout.
    cargo.env(
        "CARGO_ENCODED_RUSTFLAGS",
        sources::rust_flags(root)?.join("\u{1f}"),
    );
    cargo
        .current_dir(root)
        .args(ARGUMENTS)
        .arg("--target-dir")
        .arg(target);
    command::run(&mut cargo).context("the eBPF programs did not build")?;
    let path = target.join(TARGET).join(PROFILE).join("sandbox-ebpf");
    let object = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
    forbid_paths(&object, root)?;
    Ok(object)
}

/// The object must not tell of the machine that built it: its bytes would depend on that machine.
fn forbid_paths(object: &[u8], root: &Path) -> Result<()> {
    let of_environment = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let folders = [
        Some(root.to_path_buf()),
        of_environment("HOME"),
        of_environment("CARGO_HOME"),
    ];
    let named = folders
        .into_iter()
        .flatten()
        .filter(|path| path.components().count() > 1);
    let mut forbidden: Vec<String> = named.map(|path| format!("{}/", path.display())).collect();
    forbidden.extend(["/registry/src/".to_owned(), "/rustlib/src/".to_owned()]);
    for text in forbidden {
        if object
            .windows(text.len())
            .any(|window| window == text.as_bytes())
        {
            bail!(
                "the eBPF object holds the path {text:?}: it must be built without debug information"
            );
        }
    }
    Ok(())
}

fn relative(path: &Path, root: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_with_a_path_of_its_machine_is_refused() {
        let root = Path::new("/some/checkout");
        assert!(forbid_paths(b"\x7fELF programs", root).is_ok());
        for bytes in [
            &b"\x7fELF /some/checkout/sandbox-ebpf/src/main.rs"[..],
            b"\x7fELF ~/x/registry/src/y",
        ] {
            let error = forbid_paths(bytes, root)
                .expect_err("a path is in it")
                .to_string();
            assert!(error.contains("holds the path"), "{error}");
        }
    }
}
