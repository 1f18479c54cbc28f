//! The `id` and the `sandbox` table, once a document is read: kinds, units, ranges, duplicates.
//!
//! Every value goes through the parser that the command line uses, so that a limit means the same
//! wherever it is written; an alias brings its own unit.

use std::collections::BTreeMap;
use std::path::Path;

use super::keys::{self, Form, Target};
use super::{ID, Metadata, SANDBOX};
use crate::document::{Entry, Fault, Problem, Seen, Value, read, text_of, wrong_kind};
use crate::limits::Source;
use crate::policy::values::{self, ValueError};
use crate::policy::{Layer, Setting};
use crate::spec::{MAX_LABELS, ThreadEnv, check_id, check_label};
use crate::units::{self, UnitError};

/// What the document says, given its top-level `id` and `sandbox`.
pub(super) fn interpret(entries: &[Entry], text: &str, path: &Path) -> Result<Metadata, Fault> {
    let mut metadata = Metadata {
        path: path.to_owned(),
        id: None,
        layer: Layer::silent(Source::Metadata),
        labels: BTreeMap::new(),
        thread_env: None,
    };
    let mut seen = Seen::new(text);
    for entry in entries {
        let fault = |problem| Fault {
            offset: entry.offset,
            key: entry.key.clone(),
            problem: Box::new(problem),
        };
        seen.claim(entry.key.as_str(), entry).map_err(fault)?;
        match (entry.key.as_str(), &entry.value) {
            (ID, Value::Null) => {}
            (ID, value) => metadata.id = Some(id(value).map_err(fault)?),
            (SANDBOX, Value::Table(table)) => sandbox(&mut metadata, table, text)?,
            (_, value) => return Err(fault(wrong_kind("a table", value))),
        }
    }
    Ok(metadata)
}

fn sandbox(metadata: &mut Metadata, table: &[Entry], text: &str) -> Result<(), Fault> {
    let mut seen = Seen::new(text);
    for entry in table {
        let fault = |problem| Fault {
            offset: entry.offset,
            key: format!("{SANDBOX}.{}", entry.key),
            problem: Box::new(problem),
        };
        let (target, form) = keys::find(&entry.key).map_err(fault)?;
        seen.claim(target, entry).map_err(fault)?;
        if target == Target::Labels {
            metadata.labels = labels(entry, text)?;
        } else {
            set(metadata, target, form, &entry.value).map_err(fault)?;
        }
    }
    Ok(())
}

fn set(metadata: &mut Metadata, target: Target, form: Form, value: &Value) -> Result<(), Problem> {
    let limits = &mut metadata.layer.limits;
    match (target, form) {
        (Target::Field(field), Form::Plain) => field.set(&mut metadata.layer, value)?,
        (Target::Field(_), Form::Bytes(bytes_per_unit, unit)) => {
            limits.memory_bytes = Some(fixed_unit(value, unit, "memory", |text| {
                values::check_memory(units::parse_bytes_in(text, bytes_per_unit)?)
            })?);
        }
        (Target::Field(_), Form::Percent) => {
            limits.cpus = Some(read(value, "a percentage such as \"150%\"", |text| {
                Ok(Setting::Value(values::check_cpus(units::parse_percent(
                    text,
                )?)?))
            })?);
        }
        (Target::Field(_), Form::Seconds(seconds_per_unit, unit)) => {
            limits.walltime = Some(fixed_unit(value, unit, "timeout", |text| {
                values::check_budget(units::parse_time_in(text, seconds_per_unit)?)
            })?);
        }
        (Target::Field(_), Form::TimeWithUnits) => {
            let expected = "a time with its unit, such as \"2 h\"";
            limits.walltime = Some(read(value, expected, |text| {
                Ok(Setting::Value(values::check_budget(
                    units::parse_time_with_units(text)?,
                )?))
            })?);
        }
        (Target::ThreadEnv, _) => {
            metadata.thread_env = Some(match value {
                Value::Boolean(true) => ThreadEnv::Set,
                Value::Boolean(false) => ThreadEnv::Leave,
                Value::Text(_)
                | Value::Number(_)
                | Value::Null
                | Value::Table(_)
                | Value::List(_)
                | Value::Date
                | Value::Tagged => return Err(wrong_kind("true or false", value)),
            });
        }
        // Has places of its own inside, and so is read by `labels`.
        (Target::Labels, _) => {}
    }
    Ok(())
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

fn id(value: &Value) -> Result<String, Problem> {
    let id = name(value, "text or a whole number")?;
    check_id(&id)?;
    Ok(id)
}

/// Text, or a whole number in its only decimal spelling: any other number is told to be quoted, so
/// that it is not called one thing here and another by the next reader.
fn name(value: &Value, expected: &'static str) -> Result<String, Problem> {
    let text = text_of(value, expected)?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit());
    if matches!(value, Value::Number(_)) && !is_whole {
        let found = "a fraction or a number in another base (quote it where it is meant as text)";
        return Err(Problem::WrongKind { expected, found });
    }
    Ok(text.to_owned())
}

fn labels(labels: &Entry, text: &str) -> Result<BTreeMap<String, String>, Fault> {
    let here = |problem| Fault {
        offset: labels.offset,
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
    let mut seen = Seen::new(text);
    let mut content = BTreeMap::new();
    for entry in table {
        let fault = |problem| Fault {
            offset: entry.offset,
            key: format!("{SANDBOX}.{}.{}", labels.key, entry.key),
            problem: Box::new(problem),
        };
        seen.claim(entry.key.as_str(), entry).map_err(fault)?;
        let value = name(&entry.value, "text or a whole number").map_err(fault)?;
        check_label(&entry.key, &value).map_err(|error| fault(error.into()))?;
        content.insert(entry.key.clone(), value);
    }
    Ok(content)
}
