//! What else tells of processes as they start and end: bpftrace, and libbpf-tools' execsnoop and exitsnoop.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox_tests::{Programs, Scene, wait};

/// Prints a line for each fork, exec and exit, with who it is and when.
const SCRIPT: &str = r#"
tracepoint:sched:sched_process_fork { printf("fork %d %s %d %llu\n", tid, comm, args.child_pid, nsecs); }
tracepoint:sched:sched_process_exec { printf("exec %d %s %llu\n", tid, comm, nsecs); }
tracepoint:sched:sched_process_exit { printf("exit %d %s %llu\n", tid, comm, nsecs); }
"#;

/// One of them, as Debian has it, with the room for events that it has by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// bpftrace, with a script of ours: forks, execs and exits.
    Bpftrace,
    /// execsnoop of libbpf-tools.
    Execsnoop,
    /// exitsnoop of libbpf-tools, of threads too.
    Exitsnoop,
}

impl Tool {
    /// Its name, as a row has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bpftrace => "bpftrace",
            Self::Execsnoop => "libbpf-tools' execsnoop",
            Self::Exitsnoop => "libbpf-tools' exitsnoop",
        }
    }

    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Bpftrace => &["bpftrace", "-e", SCRIPT],
            Self::Execsnoop => &["execsnoop-libbpf"],
            Self::Exitsnoop => &["exitsnoop-libbpf", "--threaded"],
        }
    }

    /// The lines that its output has, by their beginning and another word, once this process has started `true` and
    /// that was told in all ways.
    fn told(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Bpftrace => &[
                ("fork ", " bench "),
                ("exec ", " true "),
                ("exit ", " true "),
            ],
            Self::Execsnoop | Self::Exitsnoop => &[("true ", "")],
        }
    }
}

/// One that looks on. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Tracing {
    tool: Tool,
    child: Child,
    scene: Scene,
}

impl Tracing {
    /// Starts it, and comes back once it tells of processes.
    ///
    /// # Errors
    ///
    /// What it said, where it ended instead.
    pub(crate) fn start(tool: Tool) -> Result<Self, String> {
        let scene = Scene::new();
        let file = |name| File::create(scene.path(name)).expect("it is ours");
        let [program, arguments @ ..] = tool.words() else {
            unreachable!("each has a name")
        };
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file("said"))
            .stderr(file("complained"))
            .spawn()
            .expect("the guest has it");
        let mut tracing = Self { tool, child, scene };
        if tracing.has_told_since(0) {
            Ok(tracing)
        } else {
            let complaint = tracing.scene.read("complained");
            let last = complaint.trim().lines().last().unwrap_or_default();
            Err(format!("it ended: {last}"))
        }
    }

    /// What the kernel counted of its programs.
    pub(crate) fn programs(&self) -> Programs {
        Programs::held_by(self.child.id())
    }

    /// Has it stand still.
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let stat = PathBuf::from(format!("/proc/{}/stat", self.child.id()));
        wait::until("it to stop", || {
            fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "))
        });
    }

    /// Has it go on, read all that there is, and end: all that it said, errors included.
    pub(crate) fn finish(mut self) -> String {
        let before = self.scene.read("said").len();
        self.signal(Signal::SIGCONT);
        assert!(self.has_told_since(before), "{:?} ended", self.tool);
        self.signal(Signal::SIGINT);
        let _status = self.child.wait().expect("it is a child of ours");
        self.scene.read("said") + &self.scene.read("complained")
    }

    /// Starts processes until its output after so many bytes tells of one, since some hold lines back until there
    /// are many; whether it came to that.
    fn has_told_since(&mut self, bytes: usize) -> bool {
        wait::for_some(self.tool.name(), || {
            let status = Command::new("/usr/bin/true").status();
            assert!(status.is_ok_and(|status| status.success()), "/usr/bin/true");
            let said = self.scene.read("said");
            let new = said.get(bytes..).unwrap_or_default();
            let is_told = |(start, word): &(&str, &str)| {
                let is_it = |line: &str| line.starts_with(start) && line.contains(word);
                new.lines().any(is_it)
            };
            let ended = self.child.try_wait().expect("it is a child of ours");
            if self.tool.told().iter().all(is_told) {
                Some(true)
            } else {
                ended.map(|_| false)
            }
        })
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("it is a child of ours");
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
