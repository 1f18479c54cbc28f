//! The `id` and the `sandbox` table, once a document is read: names, units, ranges, duplicates.
//!
//! One list says which keys there are and what each sets, aliases included; a key that is not on it
//! is an error. `-` and `_` are the same in a key (`cpu-time`, `cpu_time`).

use std::collections::BTreeMap;
use std::path::Path;

use super::document::{Entry, ID, SANDBOX, Spot, Value};
use super::{Metadata, Problem};
use crate::limits::Source;
use crate::policy::values::{self, ValueError};
use crate::policy::{ActionOverrides, Layer, LimitOverrides, Setting};
use crate::spec::{MAX_LABELS, ThreadEnv, check_id, check_label};
use crate::units::{self, UnitError};

/// A problem with a key, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) spot: Spot,
    pub(super) key: String,
    pub(super) problem: Box<Problem>,
}

/// What the document says, given its top-level `id` and `sandbox`.
pub(super) fn interpret(entries: &[Entry], path: &Path) -> Result<Metadata, Fault> {
    let mut metadata = Metadata {
        path: path.to_owned(),
        id: None,
        layer: Layer {
            source: Source::Metadata,
            limits: LimitOverrides::default(),
            actions: ActionOverrides::default(),
        },
        labels: BTreeMap::new(),
        thread_env: None,
    };
    let mut seen = Seen::default();
    for entry in entries {
        let fault = |problem| Fault {
            spot: entry.spot,
            key: entry.key.clone(),
            problem: Box::new(problem),
        };
        seen.once(&entry.key, entry).map_err(fault)?;
        match (entry.key.as_str(), &entry.value) {
            (ID, Value::Null) => {}
            (ID, value) => metadata.id = Some(id(value).map_err(fault)?),
            (SANDBOX, Value::Table(table)) => sandbox(&mut metadata, table)?,
            (_, value) => return Err(fault(wrong_kind("a table", value))),
        }
    }
    Ok(metadata)
}

/// What a key sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Memory,
    Swap,
    Cpus,
    Pids,
    Timeout,
    CpuTime,
    Grace,
    Warn,
    OnPidsLimit,
    Oom,
    Labels,
    ThreadEnv,
}

/// How a key's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
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
    ("memory", Target::Memory, Form::Plain),
    (
        "memory_limit_mb",
        Target::Memory,
        Form::Bytes(1 << 20, "MiB"),
    ),
    (
        "mem_mb",
        Target::Memory,
        Form::Bytes(1_000_000, "MB (1,000,000 bytes)"),
    ),
    ("mem_mib", Target::Memory, Form::Bytes(1 << 20, "MiB")),
    ("swap", Target::Swap, Form::Plain),
    ("cpus", Target::Cpus, Form::Plain),
    ("cpu_quota", Target::Cpus, Form::Percent),
    ("threads", Target::Cpus, Form::Plain),
    ("pids", Target::Pids, Form::Plain),
    ("pids_limit", Target::Pids, Form::Plain),
    ("timeout", Target::Timeout, Form::Plain),
    (
        "timeout_seconds",
        Target::Timeout,
        Form::Seconds(1, "seconds"),
    ),
    ("time", Target::Timeout, Form::TimeWithUnits),
    ("runtime", Target::Timeout, Form::Seconds(60, "minutes")),
    ("cpu-time", Target::CpuTime, Form::Plain),
    ("grace", Target::Grace, Form::Plain),
    ("warn", Target::Warn, Form::Plain),
    ("on-pids-limit", Target::OnPidsLimit, Form::Plain),
    ("oom", Target::Oom, Form::Plain),
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

/// Names already met, and where.
#[derive(Default)]
struct Seen<K: Ord + Clone = String>(BTreeMap<K, (String, usize)>);

impl Seen<String> {
    fn once(&mut self, key: &str, entry: &Entry) -> Result<(), Problem> {
        self.claim(&key.to_owned(), entry)
    }
}

impl<K: Ord + Clone> Seen<K> {
    /// Notes that `entry` sets `key`; an error where another one did already.
    fn claim(&mut self, key: &K, entry: &Entry) -> Result<(), Problem> {
        match self.0.get(key) {
            Some((name, first_line)) if *name == entry.key => Err(Problem::Duplicate {
                first_line: *first_line,
            }),
            Some((name, first_line)) => Err(Problem::TwoNames {
                other: name.clone(),
                first_line: *first_line,
            }),
            None => {
                self.0
                    .insert(key.clone(), (entry.key.clone(), entry.spot.line));
                Ok(())
            }
        }
    }
}

fn sandbox(metadata: &mut Metadata, table: &[Entry]) -> Result<(), Fault> {
    let mut seen = Seen(BTreeMap::new());
    for entry in table {
        let fault = |problem| Fault {
            spot: entry.spot,
            key: format!("{SANDBOX}.{}", entry.key),
            problem: Box::new(problem),
        };
        let spelled = normal(&entry.key);
        let Some((_, target, form)) = KEYS.iter().find(|(name, ..)| normal(name) == spelled) else {
            return Err(fault(unknown_key(&spelled)));
        };
        seen.claim(target, entry).map_err(fault)?;
        if *target == Target::Labels {
            metadata.labels = labels(entry)?;
        } else {
            set(metadata, *target, *form, &entry.value).map_err(fault)?;
        }
    }
    Ok(())
}

fn set(metadata: &mut Metadata, target: Target, form: Form, value: &Value) -> Result<(), Problem> {
    let Layer {
        limits, actions, ..
    } = &mut metadata.layer;
    match target {
        Target::Memory => limits.memory_bytes = Some(memory(form, value)?),
        Target::Swap => limits.swap_bytes = Some(read(value, A_SIZE, values::swap)?),
        Target::Cpus => limits.cpus = Some(cpus(form, value)?),
        Target::Pids => limits.pids = Some(read(value, "a whole number", values::pids)?),
        Target::Timeout => limits.walltime = Some(timeout(form, value)?),
        Target::CpuTime => limits.cputime = Some(read(value, A_TIME, values::budget)?),
        Target::Grace => actions.grace = Some(read(value, A_TIME, values::grace)?),
        Target::Warn => {
            actions.warn = Some(read(value, "text such as \"USR1@2m\"", values::warn)?);
        }
        Target::OnPidsLimit => {
            let expected = "\"kill\" or \"deny\"";
            actions.on_pids_limit = Some(read(value, expected, values::on_pids_limit)?);
        }
        Target::Oom => {
            actions.oom = Some(read(value, "\"whole\" or \"process\"", values::oom)?);
        }
        Target::ThreadEnv => {
            metadata.thread_env = Some(match value {
                Value::Boolean(true) => ThreadEnv::Set,
                Value::Boolean(false) => ThreadEnv::Leave,
                Value::Text(_)
                | Value::Number(_)
                | Value::Null
                | Value::Table(_)
                | Value::List
                | Value::Date => return Err(wrong_kind("true or false", value)),
            });
        }
        // Has places of its own inside, and so is read by `labels`.
        Target::Labels => {}
    }
    Ok(())
}

const A_SIZE: &str = "a size such as \"4GiB\"";
const A_TIME: &str = "a time such as \"1h30m\"";

fn memory(form: Form, value: &Value) -> Result<Setting<u64>, Problem> {
    let Form::Bytes(bytes_per_unit, unit) = form else {
        return read(value, A_SIZE, values::memory);
    };
    fixed_unit(value, unit, "memory", |text| {
        values::check_memory(units::parse_bytes_in(text, bytes_per_unit)?)
    })
}

fn cpus(form: Form, value: &Value) -> Result<Setting<f64>, Problem> {
    if form != Form::Percent {
        return read(value, "a number of cores", values::cpus);
    }
    read(value, "a percentage such as \"150%\"", |text| {
        Ok(Setting::Value(values::check_cpus(units::parse_percent(
            text,
        )?)?))
    })
}

fn timeout(form: Form, value: &Value) -> Result<Setting<std::time::Duration>, Problem> {
    match form {
        Form::Seconds(seconds_per_unit, unit) => fixed_unit(value, unit, "timeout", |text| {
            values::check_budget(units::parse_time_in(text, seconds_per_unit)?)
        }),
        Form::TimeWithUnits => read(value, "a time with its unit, such as \"2 h\"", |text| {
            Ok(Setting::Value(values::check_budget(
                units::parse_time_with_units(text)?,
            )?))
        }),
        Form::Plain | Form::Bytes(..) | Form::Percent => read(value, A_TIME, values::budget),
    }
}

/// Reads a value that is text or a number.
fn read<T>(
    value: &Value,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Result<T, ValueError>,
) -> Result<T, Problem> {
    let text = text_of(value, expected)?;
    parse(text).map_err(|error| Problem::Value {
        text: text.to_owned(),
        error,
    })
}

/// Reads the value of an alias whose unit is fixed.
fn fixed_unit<T>(
    value: &Value,
    unit: &'static str,
    instead: &'static str,
    parse: impl FnOnce(&str) -> Result<T, ValueError>,
) -> Result<Setting<T>, Problem> {
    let text = text_of(value, "a number")?;
    match parse(text) {
        Ok(value) => Ok(Setting::Value(value)),
        Err(ValueError::Unit(UnitError::UnknownUnit { .. } | UnitError::NotANumber { .. })) => {
            Err(Problem::FixedUnit {
                text: text.to_owned(),
                unit,
                instead,
            })
        }
        Err(error) => Err(Problem::Value {
            text: text.to_owned(),
            error,
        }),
    }
}

fn text_of<'a>(value: &'a Value, expected: &'static str) -> Result<&'a str, Problem> {
    match value {
        Value::Text(text) | Value::Number(text) => Ok(text),
        Value::Boolean(_) | Value::Null | Value::Table(_) | Value::List | Value::Date => {
            Err(wrong_kind(expected, value))
        }
    }
}

fn id(value: &Value) -> Result<String, Problem> {
    let id = name(value, "text or a whole number")?;
    check_id(&id)?;
    Ok(id)
}

/// Text, or a whole number in its only decimal spelling: any other number is told to be quoted, so
/// that it is not called one thing here and another by the next reader.
fn name(value: &Value, expected: &'static str) -> Result<String, Problem> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Number(number) => {
            let digits = number.strip_prefix('-').unwrap_or(number);
            if digits.bytes().all(|byte| byte.is_ascii_digit()) {
                Ok(number.clone())
            } else {
                let found =
                    "a fraction or a number in another base (quote it where it is meant as text)";
                Err(Problem::WrongKind { expected, found })
            }
        }
        Value::Boolean(_) | Value::Null | Value::Table(_) | Value::List | Value::Date => {
            Err(wrong_kind(expected, value))
        }
    }
}

fn labels(labels: &Entry) -> Result<BTreeMap<String, String>, Fault> {
    let here = |problem| Fault {
        spot: labels.spot,
        key: format!("{SANDBOX}.{}", labels.key),
        problem: Box::new(problem),
    };
    let Value::Table(table) = &labels.value else {
        return Err(here(wrong_kind(
            "a table of names and values",
            &labels.value,
        )));
    };
    if table.len() > MAX_LABELS {
        return Err(here(Problem::TooManyLabels(table.len())));
    }
    let mut seen = Seen::default();
    let mut content = BTreeMap::new();
    for entry in table {
        let fault = |problem| Fault {
            spot: entry.spot,
            key: format!("{SANDBOX}.{}.{}", labels.key, entry.key),
            problem: Box::new(problem),
        };
        seen.once(&entry.key, entry).map_err(fault)?;
        let value = name(&entry.value, "text or a whole number").map_err(fault)?;
        check_label(&entry.key, &value).map_err(|error| fault(error.into()))?;
        content.insert(entry.key.clone(), value);
    }
    Ok(content)
}

fn wrong_kind(expected: &'static str, value: &Value) -> Problem {
    Problem::WrongKind {
        expected,
        found: value.kind(),
    }
}

fn normal(key: &str) -> String {
    key.replace('_', "-")
}

/// Why a key is not taken, and what could have been meant.
fn unknown_key(spelled: &str) -> Problem {
    if let Some((_, why)) = FORBIDDEN.iter().find(|(names, _)| names.contains(&spelled)) {
        return Problem::Forbidden(why);
    }
    let lower = spelled.to_ascii_lowercase();
    if let Some((_, meant)) = SYNONYMS.iter().find(|(name, _)| *name == lower) {
        return Problem::DidYouMean(meant);
    }
    KEYS.iter()
        .map(|(name, ..)| (strsim::jaro_winkler(&normal(name), &lower), *name))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map_or(Problem::Unknown, |(_, name)| Problem::DidYouMean(name))
}
