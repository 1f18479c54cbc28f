//! The cgroups above the leaves of a bare guest, and limits that a test sets on them for a while.

use std::fs;
use std::path::{Path, PathBuf};

/// What holds guardians and leaves.
pub const BASE: &str = "/sandbox";
/// What holds leaves only.
pub const RUNS: &str = "/sandbox/runs";

/// A limit of an enclosing cgroup. Dropped, it is what it was before.
#[derive(Debug)]
pub struct Enclosing {
    file: PathBuf,
    before: String,
}

impl Enclosing {
    /// Sets a limit such as `memory.max`; the cgroup is made where no run did that yet.
    #[must_use]
    #[track_caller]
    pub fn limit(cgroup: &str, file: &str, value: &str) -> Self {
        let mount = Path::new("/sys/fs/cgroup");
        fs::create_dir_all(mount.join(RUNS.trim_start_matches('/'))).expect("root makes cgroups");
        for parent in [mount.to_owned(), mount.join("sandbox")] {
            let control = parent.join("cgroup.subtree_control");
            fs::write(&control, "+cpu +io +memory +pids")
                .unwrap_or_else(|error| panic!("{}: {error}", control.display()));
        }
        let file = mount.join(cgroup.trim_start_matches('/')).join(file);
        let before =
            fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let limit = Self { file, before };
        limit.write(value);
        limit
    }

    #[track_caller]
    fn write(&self, value: &str) {
        fs::write(&self.file, value)
            .unwrap_or_else(|error| panic!("{}: {error}", self.file.display()));
    }
}

impl Drop for Enclosing {
    fn drop(&mut self) {
        self.write(self.before.trim());
    }
}
