//! The keys of the `sandbox` table: what each sets, under which names, and which it may not have.
//!
//! One list, aliases of other tools included; a key that is not on it is an error that says what was
//! probably meant. `-` and `_` are the same in a key (`cpu-time`, `cpu_time`).

use crate::document::{Field, Problem, like, normal};

/// What a key sets and how its value is written.
///
/// # Errors
/// The [`Problem`] with a key that is not on the list.
pub(super) fn find(key: &str) -> Result<(Target, Form), Problem> {
    let spelled = normal(key);
    KEYS.iter()
        .find(|(name, ..)| normal(name) == spelled)
        .map(|(_, target, form)| (*target, *form))
        .ok_or_else(|| unknown(&spelled))
}

/// What a key sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Field(Field),
    Labels,
    ThreadEnv,
}

/// How a key's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As on the command line.
    Plain,
    /// A plain number of this many bytes each.
    Bytes(u64, &'static str),
    /// A plain number of this many seconds each.
    Seconds(u64, &'static str),
    /// `150%`.
    Percent,
    /// A time whose numbers all have units.
    TimeWithUnits,
}

/// Every key, as it is normally spelled. The README's table says the same.
const KEYS: &[(&str, Target, Form)] = &[
    ("memory", Target::Field(Field::Memory), Form::Plain),
    (
        "memory_limit_mb",
        Target::Field(Field::Memory),
        Form::Bytes(1 << 20, "MiB"),
    ),
    (
        "mem_mb",
        Target::Field(Field::Memory),
        Form::Bytes(1_000_000, "MB (1,000,000 bytes)"),
    ),
    (
        "mem_mib",
        Target::Field(Field::Memory),
        Form::Bytes(1 << 20, "MiB"),
    ),
    ("swap", Target::Field(Field::Swap), Form::Plain),
    ("cpus", Target::Field(Field::Cpus), Form::Plain),
    ("cpu_quota", Target::Field(Field::Cpus), Form::Percent),
    ("threads", Target::Field(Field::Cpus), Form::Plain),
    ("pids", Target::Field(Field::Pids), Form::Plain),
    ("pids_limit", Target::Field(Field::Pids), Form::Plain),
    ("timeout", Target::Field(Field::Timeout), Form::Plain),
    (
        "timeout_seconds",
        Target::Field(Field::Timeout),
        Form::Seconds(1, "seconds"),
    ),
    ("time", Target::Field(Field::Timeout), Form::TimeWithUnits),
    (
        "runtime",
        Target::Field(Field::Timeout),
        Form::Seconds(60, "minutes"),
    ),
    ("cpu-time", Target::Field(Field::CpuTime), Form::Plain),
    ("grace", Target::Field(Field::Grace), Form::Plain),
    ("warn", Target::Field(Field::Warn), Form::Plain),
    (
        "on-pids-limit",
        Target::Field(Field::OnPidsLimit),
        Form::Plain,
    ),
    ("oom", Target::Field(Field::Oom), Form::Plain),
    ("labels", Target::Labels, Form::Plain),
    ("thread-env", Target::ThreadEnv, Form::Plain),
];

/// Flags that metadata may not set, and why.
const FORBIDDEN: &[(&[&str], &str)] = &[
    (
        &["user", "group", "uid", "gid", "run-as"],
        "whoever starts the analysis says who it runs as, with `--user`",
    ),
    (
        &["env", "environment", "clear-env"],
        "whoever starts the analysis gives it its environment, with `--env`",
    ),
    (
        &[
            "chdir", "cwd", "workdir", "stdout", "stderr", "record", "events", "metadata", "path",
        ],
        "whoever starts the analysis says which files are used",
    ),
    (
        &["on-complete", "hook", "hooks", "command"],
        "whoever starts the analysis says what is executed",
    ),
    (
        &["id"],
        "`id` stands at the document's top level, outside `sandbox`",
    ),
    (
        &["attempt", "retry-of"],
        "this differs from run to run and is given with `--attempt` and `--retry-of`",
    ),
    (
        &["notes", "timings", "sample", "detach", "standalone"],
        "this is for whoever starts the analysis to say, on the command line",
    ),
];

/// Names that other tools have for ours, too unlike them to be found by their spelling.
const SYNONYMS: &[(&str, &str)] = &[
    ("mem", "memory"),
    ("ram", "memory"),
    ("memory-limit", "memory"),
    ("memory-mb", "memory_limit_mb"),
    ("cores", "cpus"),
    ("cpu", "cpus"),
    ("walltime", "timeout"),
    ("wall-time", "timeout"),
    ("time-limit", "timeout"),
    ("cputime", "cpu-time"),
    ("max-pids", "pids"),
    ("tasks", "pids"),
];

/// Why a key is not taken, and what could have been meant.
fn unknown(spelled: &str) -> Problem {
    if let Some((_, why)) = FORBIDDEN.iter().find(|(names, _)| names.contains(&spelled)) {
        return Problem::Forbidden(why);
    }
    let lower = spelled.to_ascii_lowercase();
    if let Some((_, meant)) = SYNONYMS.iter().find(|(name, _)| *name == lower) {
        return Problem::DidYouMean(meant);
    }
    let unknown = || {
        let keys = "memory, swap, cpus, pids, timeout, cpu-time, grace, warn, on-pids-limit, oom, labels and thread-env";
        Problem::Unknown(keys.to_owned())
    };
    like(KEYS.iter().map(|(name, ..)| *name), &lower).map_or_else(unknown, Problem::DidYouMean)
}
