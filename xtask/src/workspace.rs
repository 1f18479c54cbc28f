//! Where things are: the checkout, its target folder, the cargo that runs us.
//!
//! Everything that tasks fetch or make lies under `target/`, so that `cargo clean` really cleans
//! and nothing on the machine outside the checkout is relied on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.parent().map_or_else(|| own.clone(), Path::to_path_buf)
}

/// The folder that cargo builds into, and that tasks cache in.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that started this task, run in the root of the checkout.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Makes `path` and its parents.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .with_context(|| format!("could not make the folder {}", path.display()))
}

/// Writes a whole file or nothing: what is interrupted leaves no half of it under its name.
pub(crate) fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    let temporary = temporary_beside(path);
    fs::write(&temporary, contents)
        .with_context(|| format!("could not write {}", temporary.display()))?;
    rename(&temporary, path)
}

/// Moves `from` to `to`, replacing a file there.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)
        .with_context(|| format!("could not rename {} to {}", from.display(), to.display()))
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))
}

/// Removes a folder and all that is in it, where it exists.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("could not remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A name beside `path` that nobody else uses.
pub(crate) fn temporary_beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}.{count}", std::process::id()))
}

/// Holds the lock `name` under the target folder until the returned file is dropped, so that two
/// tasks started at once do not prepare the same thing over each other.
pub(crate) fn lock(name: &str) -> Result<File> {
    let path = target().join(format!("{name}.lock"));
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    let file = File::create(&path).with_context(|| format!("could not open {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("waiting for another task that holds {}", path.display());
        file.lock()
            .with_context(|| format!("could not lock {}", path.display()))?;
    }
    Ok(file)
}
