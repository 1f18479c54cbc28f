//! The files behind `--stdout` and `--stderr`, opened with the analysis's own rights.
//!
//! `sandbox` runs as root and the analysis's user chooses the path (or what a symlink there points to), so
//! opening it as root would let that user truncate any file. A short-lived thread takes that user's
//! file-system identity and opens it; permission checks, symlink protection and ownership are then
//! the same as for the user's own shell redirection, umask included.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::identity::Identity;
use crate::sys::creds::with_file_identity;

/// An output file that could not be had. Exit status 125.
#[derive(Debug, Error)]
#[error("could not open {} for writing as {user}: {source}; name a file that this user may write", path.display())]
pub struct OutputError {
    /// The path that was asked for.
    pub path: PathBuf,
    /// Name or uid of the analysis's user.
    pub user: String,
    /// Why.
    pub source: io::Error,
}

/// Opened output files; `None` where none was asked for.
#[derive(Debug, Default)]
pub struct Outputs {
    /// `--stdout`.
    pub stdout: Option<File>,
    /// `--stderr`.
    pub stderr: Option<File>,
}

/// Opens the files as `identity`: created (0666 less the umask) or truncated. One file named for both is
/// opened once, so that the two streams follow each other as with `2>&1`.
///
/// # Errors
/// Where one of them cannot be opened for writing by that user.
pub fn open_outputs(
    stdout: Option<&Path>,
    stderr: Option<&Path>,
    identity: &Identity,
) -> Result<Outputs, OutputError> {
    let stdout_file = stdout.map(|path| open(path, identity)).transpose()?;
    let stderr_file = match (stderr, stdout, &stdout_file) {
        (Some(path), Some(first), Some(file)) => {
            let shared = path == first || same_file(path, file);
            let opened = if shared {
                failing(path, identity, file.try_clone())
            } else {
                open(path, identity)
            };
            Some(opened?)
        }
        (Some(path), _, _) => Some(open(path, identity)?),
        (None, _, _) => None,
    };
    Ok(Outputs {
        stdout: stdout_file,
        stderr: stderr_file,
    })
}

/// Whether `path` leads to the file already open.
fn same_file(path: &Path, file: &File) -> bool {
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(a), Ok(b)) => a.is_file() && (a.dev(), a.ino()) == (b.dev(), b.ino()),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

fn open(path: &Path, identity: &Identity) -> Result<File, OutputError> {
    let open = || {
        crate::sys::fd::open_at_once(
            OpenOptions::new().write(true).create(true).truncate(true),
            path,
        )
    };
    let opened = with_file_identity(&identity.into(), open);
    failing(path, identity, opened)
}

fn failing(
    path: &Path,
    identity: &Identity,
    result: io::Result<File>,
) -> Result<File, OutputError> {
    result.map_err(|source| OutputError {
        path: path.to_owned(),
        user: identity
            .name
            .clone()
            .unwrap_or_else(|| identity.uid.to_string()),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::identity::Change;

    /// A directory of its own, removed when the test ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> io::Result<Self> {
            let path =
                std::env::temp_dir().join(format!("sandbox-stdio-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path)?;
            Ok(Self(path))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn me() -> Identity {
        Identity {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            groups: Vec::new(),
            name: None,
            home: None,
            change: Change::Same,
        }
    }

    #[test]
    fn one_file_for_both_streams_is_opened_once() -> Result<(), Box<dyn std::error::Error>> {
        let scratch = Scratch::new("both")?;
        let (out, link) = (scratch.0.join("out"), scratch.0.join("link"));
        symlink("out", &link)?;
        for stderr in [&out, &link] {
            let outputs = open_outputs(Some(&out), Some(stderr), &me())?;
            let (Some(mut first), Some(mut second)) = (outputs.stdout, outputs.stderr) else {
                return Err("not both opened".into());
            };
            first.write_all(b"one ")?;
            second.write_all(b"two")?;
            assert_eq!(std::fs::read_to_string(&out)?, "one two");
        }
        Ok(())
    }

    #[test]
    fn an_existing_file_is_truncated_and_a_missing_directory_named() -> io::Result<()> {
        let scratch = Scratch::new("trunc")?;
        let out = scratch.0.join("out");
        std::fs::write(&out, "old")?;
        open_outputs(Some(&out), None, &me()).map_err(io::Error::other)?;
        assert_eq!(std::fs::read(&out)?, b"");
        let missing = scratch.0.join("no/such/file");
        let message = open_outputs(None, Some(&missing), &me())
            .map(drop)
            .map_err(|error| error.to_string());
        assert!(message.is_err_and(|text| text.contains("no/such/file")));
        Ok(())
    }

    #[test]
    fn root_does_not_lend_its_rights_to_the_analysis() -> io::Result<()> {
        if !nix::unistd::geteuid().is_root() {
            // Without root nobody else's rights can be taken, and none are lent.
            return Ok(());
        }
        let scratch = Scratch::new("rights")?;
        std::fs::set_permissions(&scratch.0, std::fs::Permissions::from_mode(0o777))?;
        let nobody = Identity {
            uid: 65534,
            gid: 65534,
            groups: vec![65534],
            change: Change::Changed,
            ..me()
        };
        let secret = scratch.0.join("secret");
        std::fs::write(&secret, "of root")?;
        let link = scratch.0.join("link");
        symlink(&secret, &link)?;
        for path in [&secret, &link] {
            let refused = open_outputs(Some(path), None, &nobody).map(drop);
            assert!(
                refused.is_err_and(|error| error.source.kind() == io::ErrorKind::PermissionDenied)
            );
        }
        assert_eq!(std::fs::read(&secret)?, b"of root");

        let own = scratch.0.join("own");
        open_outputs(Some(&own), None, &nobody).map_err(io::Error::other)?;
        assert_eq!(std::fs::metadata(&own)?.uid(), 65534);
        // The thread's identity stayed in the thread.
        std::fs::write(&secret, "still of root")
    }
}
