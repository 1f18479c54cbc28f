//! Shell lines in a test: pipes, redirections, `sudo` and `ulimit`, as people type them.
//!
//! [`crate::Sandbox`] serves where the analysis matters; a [`Scene`] where its caller does. It is a
//! folder that everybody may write to, the working directory of the lines, and goes with its test.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::record::Record;

/// A folder to work in.
#[derive(Debug)]
pub struct Scene {
    folder: PathBuf,
}

impl Scene {
    /// Makes it.
    ///
    /// # Panics
    ///
    /// Where it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sandbox-scene-{}-{count}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a test can make a folder");
        fs::set_permissions(&folder, Permissions::from_mode(0o1777)).expect("and share it");
        Self { folder }
    }

    /// The path of a file in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file that everybody may read and execute.
    ///
    /// # Panics
    ///
    /// Where it cannot be written.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("the scene can be written to");
        fs::set_permissions(self.path(name), Permissions::from_mode(0o755)).expect("and shared");
    }

    /// The text of a file in it.
    ///
    /// # Panics
    ///
    /// Where it cannot be read.
    #[must_use]
    #[track_caller]
    pub fn read(&self, name: &str) -> String {
        match fs::read_to_string(self.path(name)) {
            Ok(text) => text,
            Err(error) => panic!("{name}: {error}"),
        }
    }

    /// The names of all files in it.
    ///
    /// # Panics
    ///
    /// Where it cannot be read.
    #[must_use]
    pub fn files(&self) -> BTreeSet<String> {
        fs::read_dir(&self.folder)
            .expect("the scene can be read")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// The record in `record.json`.
    #[must_use]
    #[track_caller]
    pub fn record(&self) -> Record {
        Record::parse(&self.read("record.json"))
    }

    /// Runs a line of shell to its end, as root.
    #[must_use]
    pub fn bash(&self, line: &str) -> Spoken {
        self.run("bash", &["-c", line])
    }

    /// Runs a line of shell to its end, as ana, who has no rights.
    #[must_use]
    pub fn ana(&self, line: &str) -> Spoken {
        self.write("line.sh", line);
        self.bash("exec runuser -u ana -- bash line.sh")
    }

    /// What the service tells root of the latest run of this id, or of the analysis of this id.
    #[must_use]
    #[track_caller]
    pub fn listed(&self, id: &str) -> Value {
        let runs = self.bash(&format!("sandbox list --json {id}")).expect(0);
        runs.json()[0].clone()
    }

    /// Has a line of shell done by a caller in a cgroup below `/limited`, which may have 64 MiB: in it where `within`
    /// is empty. Fails where that cannot be removed afterwards; the guardian of a short run, which has it forgotten,
    /// may be there a moment longer.
    #[must_use]
    pub fn limited_caller(&self, within: &str, line: &str) -> Spoken {
        self.write("limited.sh", line);
        self.bash(&format!(
            "cd /sys/fs/cgroup && echo +cpu +memory +pids >cgroup.subtree_control && mkdir -p limited/{within} && \
             echo 64M >limited/memory.max && cd - >/dev/null && \
             (echo $BASHPID >/sys/fs/cgroup/limited/{within}/cgroup.procs; exec bash limited.sh); \
             status=$?; cd /sys/fs/cgroup; \
             for again in {{1..200}}; do rmdir -p limited/{within} 2>/dev/null && break; sleep 0.05; done; \
             [ ! -e limited ] || exit 99; exit $status"
        ))
    }

    /// Runs a Python script to its end, as root.
    #[must_use]
    pub fn python(&self, script: &str) -> Spoken {
        self.write("scene.py", script);
        self.run("python3", &["scene.py"])
    }

    /// Has the guest be able to connect to itself.
    pub fn loopback_up(&self) {
        let said = self.python(
            "import fcntl, socket, struct\n\
             SIOCSIFFLAGS, IFF_UP = 0x8914, 1\n\
             fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, struct.pack('16sH14x', b'lo', IFF_UP))",
        );
        assert_eq!(said.code(), 0, "{said}");
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Spoken {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output();
        Spoken(output.expect("the guest has this program"))
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // It lies in a tmpfs of a guest that is thrown away.
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// What a line of shell said, and its status.
#[derive(Debug)]
pub struct Spoken(Output);

impl Spoken {
    /// The exit status.
    ///
    /// # Panics
    ///
    /// Where the shell died of a signal.
    #[must_use]
    #[track_caller]
    pub fn code(&self) -> i32 {
        match (self.0.status.code(), self.0.status.signal()) {
            (Some(code), _) => code,
            (None, signal) => panic!("the shell died of signal {signal:?}: {self}"),
        }
    }

    /// Standard output, without the newline at its end.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout)
            .trim_end()
            .to_owned()
    }

    /// Standard error.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// Standard output as JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.out()) {
            Ok(value) => value,
            Err(error) => panic!("stdout is not JSON ({error}): {self}"),
        }
    }

    /// Fails the test unless the status is this one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{self}");
        self
    }
}

impl std::fmt::Display for Spoken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{}\nstdout:\n{}\nstderr:\n{}",
            self.0.status,
            self.out(),
            self.err()
        )
    }
}
