//! One run, settled: everything that is decided before anything is started.
//!
//! Front doors (the command line, later the service) fill it; from here on nobody asks where a
//! value came from, except for limits, which keep their source. The guardian is told of the run as
//! JSON, so paths and arguments survive it even where they are no UTF-8; the environment is left
//! out of it, since it is never written anywhere.

mod asked;
mod names;
pub(crate) mod os_path;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits::{Limits, OnPidsLimit, OomScope};
use crate::policy::{Budget, LimitedCallers, Warn};
use crate::record::Reason;

pub use names::{MAX_LABELS, MAX_NAME_BYTES, NameError, check_id, check_label, check_user};

/// A run's own id: UUIDv7, so that ids sort by time.
pub type RunId = Uuid;

/// Everything that a run needs to be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The run's id, made for it.
    pub run_id: RunId,
    /// The analysis's id, as its owner calls it.
    pub analysis_id: Option<String>,
    /// Labels; the command line's over the metadata's.
    pub labels: BTreeMap<String, String>,
    /// Which attempt this is, from 1.
    pub attempt: Option<u32>,
    /// The run that this one repeats.
    pub retry_of: Option<RunId>,
    /// Program and arguments; never empty.
    pub command: Vec<OsString>,
    /// Where it runs, absolute.
    #[serde(with = "os_path")]
    pub cwd: PathBuf,
    /// As whom it runs.
    pub run_as: RunAs,
    /// Its limits.
    pub limits: Limits,
    /// What all runs of the host may have together.
    pub budget: Budget,
    /// Whether it may leave a limit that its caller is under.
    #[serde(default)]
    pub limited_callers: LimitedCallers,
    /// From SIGTERM at the deadline to cgroup.kill; zero = cgroup.kill at once.
    pub grace: Duration,
    /// A signal to the main process ahead of the deadline.
    pub warn: Option<Warn>,
    /// What a denied fork means.
    pub on_pids_limit: OnPidsLimit,
    /// Whom the OOM killer takes.
    pub oom: OomScope,
    /// What changes in the caller's environment; not part of the JSON.
    #[serde(skip)]
    pub environment: EnvironmentChanges,
    /// Whether thread pools are told the number of cores.
    pub thread_env: ThreadEnv,
    /// Where its stdout goes.
    pub stdout: Output,
    /// Where its stderr goes. Where both name the same file, it is to be opened once.
    pub stderr: Output,
    /// Where the record goes, if anywhere.
    pub record: Option<Destination>,
    /// Where a record is left for the service's store: a directory of root's.
    pub spool: Option<PathBuf>,
    /// Where the event stream goes, if anywhere.
    pub events: Option<Destination>,
    /// How often its use is looked at.
    pub sampling: Sampling,
    /// Bytes of the ring between the kernel and `sandbox`: a power of two, at least a page.
    pub ring_bytes: u32,
    /// When stderr gets the completion notes.
    pub notes: NotesPolicy,
    /// What the host's configuration has the shell run in the end, with the record on its stdin.
    #[serde(default)]
    pub host_on_complete: Option<String>,
    /// The same, as it was asked for; that comes after.
    pub on_complete: Option<String>,
    /// Whether the record says where the time went.
    pub timings: Timings,
}

impl RunSpec {
    /// What the host does with limited callers, where the caller is at hand: who has the service do a run was looked
    /// at when it was let in.
    pub fn limited_callers(&self) -> Option<LimitedCallers> {
        self.spool.is_none().then_some(self.limited_callers)
    }

    /// The variables that `--thread-env` stands for, to be set where they are unset; none where
    /// the option was not given or the cores are not limited.
    pub fn thread_variables(&self) -> Vec<(&'static str, String)> {
        match (self.thread_env, self.limits.cpus.value) {
            (ThreadEnv::Set, Some(cores)) => thread_env(cores).to_vec(),
            (ThreadEnv::Set, None) | (ThreadEnv::Leave, _) => Vec::new(),
        }
    }
}

/// As whom the analysis runs, as it was asked for; who that is, is found out at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunAs {
    /// The caller; under sudo the user who called it.
    #[default]
    Caller,
    /// `--user`: a name or a number.
    User(String),
}

/// What the analysis's environment begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EnvironmentBase {
    /// The caller's.
    #[default]
    Inherited,
    /// Nothing (`--clear-env`).
    Empty,
}

/// What changes in the caller's environment. Its Debug form shows names, never values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EnvironmentChanges {
    /// What it begins with.
    pub base: EnvironmentBase,
    /// What is set in it.
    pub set: BTreeMap<OsString, OsString>,
}

impl fmt::Debug for EnvironmentChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvironmentChanges")
            .field("base", &self.base)
            .field("set", &self.set.keys())
            .finish()
    }
}

/// Whether thread pools are told the number of cores (`--thread-env`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThreadEnv {
    /// Their variables are left alone.
    #[default]
    Leave,
    /// They are set where unset.
    Set,
}

/// Where an output of the analysis goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// Where `sandbox`'s own goes.
    #[default]
    Inherit,
    /// Where the analysis's stderr goes (stdout only, where `sandbox`'s stdout is for the record).
    Stderr,
    /// Into this file, absolute; made or emptied.
    File(#[serde(with = "os_path")] PathBuf),
}

/// The size of the ring, where nobody says otherwise: some 3,000 events.
pub const DEFAULT_RING_BYTES: u32 = 512 << 10;

/// How often a run's use is looked at for the event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// So often; the first times sooner.
    Every(Duration),
    /// The stream has no samples.
    Off,
}

impl Default for Sampling {
    fn default() -> Self {
        Self::Every(Duration::from_secs(1))
    }
}

/// Where the record goes, or the events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// Into this file, absolute.
    File(#[serde(with = "os_path")] PathBuf),
    /// To this descriptor, 2 or above, which the caller left open.
    Fd(i32),
    /// To `sandbox`'s stdout.
    Stdout,
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Fd(fd) => write!(formatter, "fd:{fd}"),
            Self::Stdout => formatter.write_str("stdout"),
        }
    }
}

/// When stderr gets the completion notes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotesPolicy {
    /// However it ended.
    Always,
    /// Unless the reason is `completed`.
    #[default]
    Failure,
    /// Not at all.
    Never,
}

impl NotesPolicy {
    /// Whether a run that ended for this reason has its notes on stderr.
    pub fn wants(self, reason: Reason) -> bool {
        match self {
            Self::Always => true,
            Self::Failure => reason != Reason::Completed,
            Self::Never => false,
        }
    }
}

/// Whether the record says where the time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timings {
    /// It does not.
    #[default]
    Omit,
    /// It does.
    Include,
}

/// The variables by which thread pools learn how many threads to start: the cores, rounded up, at
/// least 1. BLAS and OpenMP otherwise start one per core of the host, and run into `pids.max`.
pub fn thread_env(cores: f64) -> [(&'static str, String); 5] {
    let threads = format!("{:.0}", cores.ceil().max(1.0));
    [
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "PYTHON_CPU_COUNT",
    ]
    .map(|name| (name, threads.clone()))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;
    use crate::limits::{Limit, Source};

    /// One in which nothing is as by default.
    pub(crate) fn spec() -> RunSpec {
        RunSpec {
            run_id: Uuid::now_v7(),
            analysis_id: Some("a-17".to_owned()),
            labels: BTreeMap::from([("exp".to_owned(), "chr20".to_owned())]),
            attempt: Some(2),
            retry_of: Some(Uuid::now_v7()),
            command: vec!["cat".into(), OsString::from_vec(b"caf\xe9".to_vec())],
            cwd: PathBuf::from(OsString::from_vec(b"/data/\xff".to_vec())),
            run_as: RunAs::User("alice".to_owned()),
            limits: Limits::default(),
            budget: Budget::default(),
            limited_callers: LimitedCallers::Allow,
            grace: Duration::from_secs(5),
            warn: Some(Warn {
                signal: 10,
                before: Duration::from_secs(120),
            }),
            on_pids_limit: OnPidsLimit::Deny,
            oom: OomScope::Process,
            environment: EnvironmentChanges::default(),
            thread_env: ThreadEnv::Set,
            stdout: Output::Stderr,
            stderr: Output::File(PathBuf::from(OsString::from_vec(b"/tmp/\xfe".to_vec()))),
            record: Some(Destination::File("/tmp/record.json".into())),
            spool: Some("/var/lib/sandbox/spool".into()),
            events: Some(Destination::Fd(3)),
            sampling: Sampling::Every(Duration::from_millis(100)),
            ring_bytes: DEFAULT_RING_BYTES,
            notes: NotesPolicy::Always,
            host_on_complete: None,
            on_complete: None,
            timings: Timings::Include,
        }
    }

    #[test]
    fn a_spec_survives_json_with_arguments_and_paths_that_are_no_utf_8() {
        let spec = spec();
        let json = serde_json::to_string(&spec).expect("a spec serialises");
        let back: RunSpec = serde_json::from_str(&json).expect("and comes back");
        assert_eq!(back, spec);
    }

    #[test]
    fn the_environment_shows_in_neither_json_nor_debug() {
        let mut spec = spec();
        spec.environment
            .set
            .insert("TOKEN".into(), "hunter2".into());
        let json = serde_json::to_string(&spec).expect("a spec serialises");
        assert!(!json.contains("TOKEN") && !json.contains("hunter2"));
        assert!(!format!("{spec:?}").contains("hunter2"));
    }

    #[test]
    fn thread_pools_get_the_cores_rounded_up() {
        for (cores, threads) in [(0.001, "1"), (1.0, "1"), (1.5, "2"), (8.0, "8")] {
            assert!(
                thread_env(cores).iter().all(|(_, value)| value == threads),
                "{cores}"
            );
        }
        assert_eq!(thread_env(2.0)[4], ("PYTHON_CPU_COUNT", "2".to_owned()));
    }

    #[test]
    fn thread_pools_are_left_alone_where_cores_are_not_limited() {
        let mut spec = spec();
        assert_eq!(spec.thread_variables().len(), 5);
        spec.limits.cpus = Limit::new(None, Source::CommandLine);
        assert!(spec.thread_variables().is_empty());
    }
}
