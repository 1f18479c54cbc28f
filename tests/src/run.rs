//! Running `sandbox run` in a test, and talking to it while it runs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::output::Output;
use crate::record::Record;
use crate::sound::assert_sound;
use crate::wait;

/// The user that analyses run as unless a test says otherwise (uid 1000 in every guest).
const USER: &str = "ana";

/// The path of the program that misbehaves on request.
#[must_use]
pub fn victim() -> PathBuf {
    from_environment("VICTIM", "victim")
}

/// Whether a process has ended, be it waited for or not.
#[must_use]
pub fn has_ended(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

/// Has all that `victim` is executed from in the page cache, charged to no leaf: one that has hardly room for
/// it would read it in again and again, and never run out of memory.
pub fn cache_victim() {
    let libraries = "/lib/x86_64-linux-gnu";
    let libraries = ["libc.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"]
        .map(|name| Path::new(libraries).join(name));
    for file in libraries.into_iter().chain([victim()]) {
        // What is not there is not executed.
        drop(fs::read(file));
    }
}

/// A `sandbox run` in the making.
#[derive(Debug)]
pub struct Sandbox {
    command: Command,
    user: Option<String>,
    options: Vec<OsString>,
}

impl Sandbox {
    /// Starts with the options that every test needs: a record, and a user.
    #[must_use]
    pub fn new() -> Self {
        let command = Command::new(from_environment("SANDBOX", "sandbox"));
        Self {
            command,
            user: Some(USER.to_owned()),
            options: Vec::new(),
        }
    }

    /// Adds options of `sandbox run`, such as `["--memory", "64MiB"]`.
    #[must_use]
    pub fn options(mut self, options: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.options
            .extend(options.into_iter().map(|option| option.as_ref().to_owned()));
        self
    }

    /// Runs the analysis as `user` instead.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// Gives no `--user`.
    #[must_use]
    pub fn without_user(mut self) -> Self {
        self.user = None;
        self
    }

    /// Sets a variable in the environment of `sandbox` itself.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts `sandbox` itself under an RLIMIT_CPU, in seconds.
    #[must_use]
    pub fn rlimit_cpu(mut self, soft: u64, hard: u64) -> Self {
        let mut limited = Command::new("prlimit");
        limited
            .arg(format!("--cpu={soft}:{hard}"))
            .arg(self.command.get_program());
        self.command = limited;
        self
    }

    /// Runs `victim` with these arguments to its end.
    #[must_use]
    #[track_caller]
    pub fn victim(self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome {
        self.start_victim(arguments).finish()
    }

    /// Runs a command to its end.
    #[must_use]
    #[track_caller]
    pub fn command(self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome {
        self.start(words).finish()
    }

    /// Starts `victim` with these arguments.
    #[must_use]
    #[track_caller]
    pub fn start_victim(self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Running {
        let mut words = vec![victim().into_os_string()];
        words.extend(
            arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned()),
        );
        self.start(words)
    }

    /// Starts a command.
    #[must_use]
    #[track_caller]
    pub fn start(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Running {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("sandbox-test-{}-{count}", std::process::id()));
        fs::create_dir_all(&folder).expect("a test can make a folder for its record");
        let record = folder.join("record.json");
        self.command
            .arg("run")
            .args(&self.options)
            .arg("--record")
            .arg(&record);
        if let Some(user) = &self.user {
            self.command.args(["--user", user]);
        }
        self.command.arg("--").args(words);
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("`sandbox` can be started");
        let stdout = Output::follow(child.stdout.take().expect("its stdout is a pipe"));
        let stderr = Output::follow(child.stderr.take().expect("its stderr is a pipe"));
        Running {
            child,
            stdout,
            stderr,
            folder,
            record,
        }
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

/// A `sandbox run` that was started. Dropped, it is killed: a test that fails midway leaves no run.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Output,
    stderr: Output,
    folder: PathBuf,
    record: PathBuf,
}

impl Running {
    /// The pid of its guardian.
    #[must_use]
    #[track_caller]
    pub fn guardian(&self) -> i32 {
        wait::for_some("the guardian", || self.guardian_by_now())
    }

    /// The pid of its guardian, where it has one by now.
    #[must_use]
    pub fn guardian_by_now(&self) -> Option<i32> {
        let supervisor = self.supervisor();
        let mut guardians = guardians().into_iter();
        guardians.find(|guardian| parent_of(*guardian) == Some(supervisor))
    }

    /// The pid of its supervisor: that of `sandbox` itself, or where the service does the run that of the process
    /// which has taken its place, its stdout included. The service's is known once it has a guardian.
    #[must_use]
    pub fn supervisor(&self) -> i32 {
        let stdout = |pid: i32| fs::read_link(format!("/proc/{pid}/fd/1")).ok();
        let ours = stdout(self.pid());
        let mut parents = guardians().into_iter().filter_map(parent_of);
        parents
            .find(|parent| ours.is_some() && stdout(*parent) == ours)
            .unwrap_or_else(|| self.pid())
    }

    /// Whom its supervisor hears from where we signal `sandbox`: us, or `sandbox` as a client that passes it on.
    #[must_use]
    pub fn asker(&self) -> i32 {
        if self.supervisor() == self.pid() {
            std::process::id().cast_signed()
        } else {
            self.pid()
        }
    }

    /// Kills `sandbox` and its guardian, which is stopped before it can see its supervisor go.
    #[track_caller]
    pub fn lose_everybody(&self) {
        self.lose_with_guardian(self.guardian());
    }

    /// The same, where the guardian is known.
    #[track_caller]
    pub fn lose_with_guardian(&self, guardian: i32) {
        for (pid, signal) in [
            (guardian, Signal::SIGSTOP),
            (self.pid(), Signal::SIGKILL),
            (guardian, Signal::SIGKILL),
        ] {
            kill(Pid::from_raw(pid), signal).expect("it is there");
        }
        for pid in [guardian, self.pid()] {
            wait::until("it to end", || has_ended(pid));
        }
    }

    /// The pid of `sandbox` itself.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid is a positive i32")
    }

    /// The folder that the record goes to.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Sends a signal to `sandbox` itself.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("`sandbox` is still there to be signalled");
    }

    /// The pid of the main process, from its birth in its leaf on; `None` before.
    #[must_use]
    pub fn main(&self) -> Option<i32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.supervisor())).ok()?;
        let children: Vec<i32> = tasks
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|text| {
                let pids = text.split_whitespace().map(str::parse);
                pids.collect::<Result<Vec<i32>, _>>().unwrap_or_default()
            })
            .collect();
        children.into_iter().find(|child| {
            fs::read_to_string(format!("/proc/{child}/cgroup"))
                .is_ok_and(|cgroup| cgroup.starts_with("0::/sandbox/runs/"))
        })
    }

    /// Whether `sandbox` has ended.
    ///
    /// # Panics
    ///
    /// Where that cannot be asked.
    pub fn is_over(&mut self) -> bool {
        let ended = self.child.try_wait().expect("a child can be waited for");
        ended.is_some()
    }

    /// Waits until the analysis has printed a line that begins with `start`; gives the rest of it.
    ///
    /// # Panics
    ///
    /// Where it does not come; at once where `sandbox` has ended and all that was printed has come.
    #[must_use]
    #[track_caller]
    pub fn line(&self, start: &str) -> String {
        let what = format!("a line that begins with {start:?}");
        wait::for_some(&what, || {
            let all_came = self.stdout.is_over();
            let said = self.said(start);
            assert!(
                said.is_some() || !all_came,
                "the run ended without {what}; stderr:\n{}\n{}",
                self.stderr.so_far(),
                fs::read_to_string(&self.record).unwrap_or_default()
            );
            said
        })
    }

    /// The rest of the first line so far that begins with `start`.
    #[must_use]
    pub fn said(&self, start: &str) -> Option<String> {
        let text = self.stdout.so_far();
        let complete = &text[..text.rfind('\n')?];
        complete
            .lines()
            .find_map(|line| line.strip_prefix(start))
            .map(|rest| rest.trim().to_owned())
    }

    /// Waits until standard error has this text.
    #[track_caller]
    pub fn until_told(&self, text: &str) {
        wait::until(&format!("{text:?} on stderr"), || {
            self.stderr.so_far().contains(text)
        });
    }

    /// Waits until the victim says that it is where its subcommand leads to; gives its pid.
    #[must_use]
    #[track_caller]
    pub fn ready(&self) -> i32 {
        let pid = self.line("ready ");
        pid.parse()
            .unwrap_or_else(|_| panic!("the victim reported {pid:?} as its pid"))
    }

    /// The folder of the cgroup that holds the process `pid`.
    #[must_use]
    #[track_caller]
    pub fn cgroup_of(&self, pid: i32) -> PathBuf {
        let path = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        match text.lines().find_map(|line| line.strip_prefix("0::/")) {
            Some(cgroup) => Path::new("/sys/fs/cgroup").join(cgroup),
            None => panic!("{path} names no cgroup v2: {text}"),
        }
    }

    /// Waits for `sandbox` to end and collects what it left. A record is not demanded here: see
    /// [`Outcome::record`].
    #[must_use]
    #[track_caller]
    pub fn finish(mut self) -> Outcome {
        let status = self.child.wait().expect("a child can be waited for");
        let outcome = Outcome {
            status,
            stdout: self.stdout.rest(),
            stderr: self.stderr.rest(),
            record: fs::read_to_string(&self.record).ok(),
        };
        // What the test reports on has been read.
        drop(fs::remove_dir_all(&self.folder));
        outcome
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) && self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

/// How a `sandbox run` ended.
#[derive(Debug)]
pub struct Outcome {
    /// The wait status of `sandbox` itself.
    pub status: ExitStatus,
    /// What its standard output got, the analysis's included.
    pub stdout: String,
    /// What its standard error got, the notes included.
    pub stderr: String,
    record: Option<String>,
}

impl Outcome {
    /// The exit status of `sandbox` itself.
    ///
    /// # Panics
    ///
    /// Where `sandbox` died of a signal.
    #[must_use]
    #[track_caller]
    pub fn code(&self) -> i32 {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => code,
            (None, signal) => panic!(
                "`sandbox` itself died of signal {signal:?}:\n{}",
                self.stderr
            ),
        }
    }

    /// Whether a record was written.
    #[must_use]
    pub fn has_record(&self) -> bool {
        self.record.is_some()
    }

    /// The record, with what holds for every record checked.
    ///
    /// # Panics
    ///
    /// Where none was written.
    #[must_use]
    #[track_caller]
    pub fn record(&self) -> Record {
        match &self.record {
            Some(text) => {
                let record = Record::parse(text);
                assert_sound(&record);
                record
            }
            None => panic!(
                "`sandbox run` wrote no record ({}):\n{}",
                self.status, self.stderr
            ),
        }
    }
}

/// The guardians of all runs.
#[must_use]
pub fn guardians() -> Vec<i32> {
    let is_one = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| stat.contains("(sandbox-guard) ") && !stat.contains(") Z "))
    };
    let entries = fs::read_dir("/proc").expect("proc is mounted").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_one).collect()
}

/// The parent of a process, where that is there.
#[must_use]
pub fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name in brackets: state, parent.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

fn from_environment(variable: &str, name: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| PathBuf::from(name), PathBuf::from)
}
