//! Where the path of a record, of events or of another file leads, before anything is opened there.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use nix::libc;

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// A descriptor of this process, by /dev/stdout, /dev/fd or /proc: it is open, whatever it is.
    Descriptor(i32),
    /// No regular file: to be written in place.
    Stream,
    /// A file, or where one is to be: at the end of all links, which stay.
    File(PathBuf),
}

impl Resolved {
    /// Follows links as open(2) with O_CREAT does: also one that leads to nothing yet.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        /// As many as the kernel follows (MAXSYMLINKS, include/linux/namei.h).
        const LINKS: usize = 40;
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            let Some(name) = path.file_name().map(ToOwned::to_owned) else {
                return Err(io::Error::from_raw_os_error(libc::EISDIR));
            };
            let directory = fs::canonicalize(directory_of(&path))?;
            path = directory.join(&name);
            let link = match fs::symlink_metadata(&path) {
                Ok(found) => found.file_type().is_symlink(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(error),
            };
            if let Some(owner) = descriptors_of(&directory) {
                let own = owner == std::process::id().to_string();
                return match name.to_str().and_then(|name| name.parse().ok()) {
                    Some(fd) if own => Ok(Self::Descriptor(fd)),
                    Some(_) | None => Ok(Self::Stream),
                };
            }
            // Where the kernel does not follow a link (fs.protected_symlinks), nor do we.
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => Some(metadata),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            if !link {
                return Ok(match metadata {
                    Some(metadata) if is_stream(&metadata) => Self::Stream,
                    Some(_) | None => Self::File(path),
                });
            }
            path = directory.join(fs::read_link(&path)?);
        }
        Err(io::Error::from_raw_os_error(libc::ELOOP))
    }
}

/// Whose descriptors this directory lists: `/proc/PID/fd`, or a thread's.
fn descriptors_of(directory: &Path) -> Option<&str> {
    let inside = directory.strip_prefix("/proc").ok()?.to_str()?;
    let inside = inside.strip_suffix("/fd")?;
    Some(inside.split_once('/').map_or(inside, |(owner, _)| owner))
}

fn is_stream(metadata: &fs::Metadata) -> bool {
    let kind = metadata.file_type();
    kind.is_fifo() || kind.is_char_device() || kind.is_block_device() || kind.is_socket()
}

/// What to do about a path that cannot be opened for writing.
pub(super) fn remedy(source: &io::Error, otherwise: impl FnOnce() -> String) -> String {
    match source.raw_os_error() {
        Some(libc::ENOENT) => "make its directory first".to_owned(),
        Some(libc::ENXIO) => "start its reader first".to_owned(),
        Some(libc::EISDIR) => "it is a directory: name a file in it".to_owned(),
        _ => otherwise(),
    }
}

/// The directory that a path is in.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_to_the_file_that_they_lead_to() {
        let temp = tempfile::tempdir().expect("temp dir");
        let root = fs::canonicalize(temp.path()).expect("it is there");
        let link = |to: &str, name: &str| {
            std::os::unix::fs::symlink(to, root.join(name)).expect("symlink");
        };
        fs::create_dir(root.join("results")).expect("mkdir");
        fs::write(root.join("results/old.json"), "old").expect("write");
        link("results", "latest");
        link("latest/old.json", "record");
        link("record", "again");
        link("results/new.json", "dangling");
        link("loop", "loop");
        link("/proc/self/fd/1", "one");
        let of = |name: &str| Resolved::of(&root.join(name));
        let file = |name: &str| Resolved::File(root.join(name));
        assert_eq!(of("again").expect("a file"), file("results/old.json"));
        assert_eq!(of("dangling").expect("a place"), file("results/new.json"));
        assert_eq!(of("plain").expect("a place"), file("plain"));
        assert!(of("loop").is_err() && of("none/record").is_err());
        let dev = |path: &str| Resolved::of(Path::new(path)).expect("it is there");
        assert_eq!(dev("/dev/null"), Resolved::Stream);
        assert_eq!(dev("/dev/fd/1"), Resolved::Descriptor(1));
        assert_eq!(of("one").expect("stdout"), Resolved::Descriptor(1));
    }
}
