//! The files of a run, and that none of them is two things at once.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::run::UsageError;
use crate::spec::Destination;
use crate::supervise::record_path::Resolved;

/// The files that a run reads and writes on `sandbox`'s behalf, absolute.
pub(super) struct Files {
    pub(super) metadata: Option<PathBuf>,
    pub(super) stdout: Option<PathBuf>,
    pub(super) stderr: Option<PathBuf>,
    pub(super) record: Option<Destination>,
    pub(super) events: Option<Destination>,
}

impl Files {
    /// That none of them overwrites another, by whatever name. Both outputs may share one; devices may be
    /// shared.
    ///
    /// # Errors
    /// Names the two options.
    pub(super) fn check_apart(&self) -> Result<(), UsageError> {
        let (record, events) = (file(self.record.as_ref()), file(self.events.as_ref()));
        let (metadata, stdout, stderr) = (
            self.metadata.as_ref(),
            self.stdout.as_ref(),
            self.stderr.as_ref(),
        );
        for (first, left, second, right) in [
            ("--record", record, "--metadata", metadata),
            ("--record", record, "--stdout", stdout),
            ("--record", record, "--stderr", stderr),
            ("--events", events, "--metadata", metadata),
            ("--events", events, "--stdout", stdout),
            ("--events", events, "--stderr", stderr),
            ("--events", events, "--record", record),
            ("--stdout", stdout, "--metadata", metadata),
            ("--stderr", stderr, "--metadata", metadata),
        ] {
            if let (Some(left), Some(right)) = (left, right)
                && is_one_file(left, right)
            {
                return Err(UsageError::SameFile {
                    first,
                    second,
                    path: left.clone(),
                });
            }
        }
        let descriptor = |destination: &Option<Destination>| match destination {
            Some(Destination::Stdout) => Some(1),
            Some(Destination::Fd(fd)) => Some(*fd),
            Some(Destination::File(path)) => match Resolved::of(path) {
                Ok(Resolved::Descriptor(fd)) => Some(fd),
                Ok(Resolved::Stream | Resolved::File(_)) | Err(_) => None,
            },
            None => None,
        };
        match descriptor(&self.record) {
            Some(fd) if Some(fd) == descriptor(&self.events) => Err(UsageError::SameDescriptor),
            Some(_) | None => Ok(()),
        }
    }
}

fn file(destination: Option<&Destination>) -> Option<&PathBuf> {
    match destination? {
        Destination::File(path) => Some(path),
        Destination::Fd(_) | Destination::Stdout => None,
    }
}

/// Whether two paths lead to one file, by whatever name.
fn is_one_file(left: &Path, right: &Path) -> bool {
    match (Resolved::of(left), Resolved::of(right)) {
        (Ok(Resolved::File(left)), Ok(Resolved::File(right))) => {
            let inode = |path: &Path| {
                let metadata = std::fs::metadata(path).ok()?;
                Some((metadata.dev(), metadata.ino()))
            };
            left == right || inode(&left).is_some_and(|one| inode(&right) == Some(one))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn refusal(files: &Files) -> Option<String> {
        files.check_apart().err().map(|error| error.to_string())
    }

    #[test]
    fn one_file_by_two_names_is_refused() {
        let temp = tempfile::tempdir().expect("temp dir");
        let at = |name: &str| temp.path().join(name);
        std::fs::write(at("a.json"), "{}").expect("write");
        std::fs::create_dir(at("d")).expect("mkdir");
        symlink(at("a.json"), at("link")).expect("symlink");
        symlink(at("new"), at("dangling")).expect("symlink");
        std::fs::hard_link(at("a.json"), at("hard")).expect("link");
        let outputs = |record: &str, events: &str| Files {
            metadata: Some(at("a.json")),
            stdout: None,
            stderr: None,
            record: Some(Destination::File(at(record))),
            events: Some(Destination::File(at(events))),
        };
        assert_eq!(refusal(&outputs("r", "e")), None);
        for (record, events, named) in [
            ("r", "d/../r", "--events and --record"),
            ("new", "dangling", "--events and --record"),
            ("r", "link", "--events and --metadata"),
            ("hard", "e", "--record and --metadata"),
        ] {
            let said = refusal(&outputs(record, events)).expect("refused");
            assert!(said.starts_with(named), "{record} {events}: {said}");
        }
    }

    #[test]
    fn one_descriptor_by_two_names_is_refused_and_a_device_is_not() {
        let outputs = |record, events| Files {
            metadata: None,
            stdout: None,
            stderr: None,
            record: Some(record),
            events: Some(events),
        };
        let file = |path: &str| Destination::File(path.into());
        let said = refusal(&outputs(file("/dev/stdout"), Destination::Stdout));
        assert!(said.expect("refused").contains("the same descriptor"));
        let said = refusal(&outputs(Destination::Fd(5), file("/dev/fd/5")));
        assert!(said.expect("refused").contains("the same descriptor"));
        let null = || file("/dev/null");
        assert_eq!(refusal(&outputs(null(), null())), None);
    }
}
