//! What the readers of documents have in common: keys that are set once, values of the right kind.

use std::collections::BTreeMap;

use super::{Entry, Problem, Spot, Value};
use crate::policy::Layer;
use crate::policy::values::{self, ValueError};

/// A limit or an action, under the name that it has wherever it is written: its flag's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
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
}

const A_SIZE: &str = "a size such as \"4GiB\"";
const A_TIME: &str = "a time such as \"1h30m\"";

impl Field {
    /// Sets it to a value that is written as on the command line.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub(crate) fn set(self, layer: &mut Layer, value: &Value) -> Result<(), Problem> {
        let Layer {
            limits, actions, ..
        } = layer;
        match self {
            Self::Memory => limits.memory_bytes = Some(read(value, A_SIZE, values::memory)?),
            Self::Swap => limits.swap_bytes = Some(read(value, A_SIZE, values::swap)?),
            Self::Cpus => limits.cpus = Some(read(value, "a number of cores", values::cpus)?),
            Self::Pids => limits.pids = Some(read(value, "a whole number", values::pids)?),
            Self::Timeout => limits.walltime = Some(read(value, A_TIME, values::budget)?),
            Self::CpuTime => limits.cputime = Some(read(value, A_TIME, values::budget)?),
            Self::Grace => actions.grace = Some(read(value, A_TIME, values::grace)?),
            Self::Warn => {
                actions.warn = Some(read(value, "text such as \"USR1@2m\"", values::warn)?);
            }
            Self::OnPidsLimit => {
                let expected = "\"kill\" or \"deny\"";
                actions.on_pids_limit = Some(read(value, expected, values::on_pids_limit)?);
            }
            Self::Oom => {
                actions.oom = Some(read(value, "\"whole\" or \"process\"", values::oom)?);
            }
        }
        Ok(())
    }
}

/// A key as it is compared: `-` and `_` are the same in one (`cpu-time`, `cpu_time`).
pub(crate) fn normal(key: &str) -> String {
    key.replace('_', "-")
}

/// The name that a mistyped key was probably meant to be.
pub(crate) fn like(
    names: impl Iterator<Item = &'static str>,
    mistyped: &str,
) -> Option<&'static str> {
    names
        .map(|name| (strsim::jaro_winkler(&normal(name), mistyped), name))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, name)| name)
}

/// A problem with a key, and the byte at which that begins.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) offset: usize,
    pub(crate) key: String,
    pub(crate) problem: Box<Problem>,
}

/// Things already set, each with the entry that did.
pub(crate) struct Seen<'a, K> {
    text: &'a str,
    entries: BTreeMap<K, &'a Entry>,
}

impl<'a, K: Ord> Seen<'a, K> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self {
            text,
            entries: BTreeMap::new(),
        }
    }

    /// Notes that `entry` sets `thing`; an error where another one did already.
    pub(crate) fn claim(&mut self, thing: K, entry: &'a Entry) -> Result<(), Problem> {
        let Some(first) = self.entries.insert(thing, entry) else {
            return Ok(());
        };
        let first_line = Spot::at(self.text, first.offset).line;
        Err(if first.key == entry.key {
            Problem::Duplicate { first_line }
        } else {
            Problem::TwoNames {
                other: first.key.clone(),
                first_line,
            }
        })
    }
}

/// Reads a value that is text or a number.
pub(crate) fn read<T>(
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

pub(crate) fn text_of<'a>(value: &'a Value, expected: &'static str) -> Result<&'a str, Problem> {
    match value {
        Value::Text(text) | Value::Number(text) => Ok(text),
        Value::Boolean(_)
        | Value::Null
        | Value::Table(_)
        | Value::List(_)
        | Value::Date
        | Value::Tagged => Err(wrong_kind(expected, value)),
    }
}

pub(crate) fn wrong_kind(expected: &'static str, value: &Value) -> Problem {
    Problem::WrongKind {
        expected,
        found: value.kind(),
    }
}
