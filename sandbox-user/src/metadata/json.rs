//! JSON documents.
//!
//! Values are taken as raw slices of the text: what is not ours is skipped without recursion or
//! conversion, what is ours keeps its place and its spelling.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{ID, MAX_TABLE_DEPTH, SANDBOX};
use crate::document::{Entry, Spot, SyntaxError, Value};

/// The top-level `id` and `sandbox`, each as often as it stands there.
pub(super) fn entries(text: &str) -> Result<Vec<Entry>, SyntaxError> {
    let pairs: Pairs<'_> = serde_json::from_str(text).map_err(|error| {
        let spot = spot_of(text, &error);
        let message = error.to_string();
        let position = format!(" at line {} column {}", error.line(), error.column());
        SyntaxError::new(
            Some(spot),
            message.strip_suffix(&position).unwrap_or(&message),
        )
    })?;
    let ours = |key: &str| [ID, SANDBOX].contains(&key);
    read_entries(text, &pairs, MAX_TABLE_DEPTH - 1, ours)
}

/// The pairs of an object, in order, duplicates included.
struct Pairs<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

fn read_entries(
    text: &str,
    pairs: &Pairs<'_>,
    depth: usize,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Entry>, SyntaxError> {
    let mut entries = Vec::new();
    for (raw_key, raw_value) in &pairs.0 {
        let offset = offset(text, raw_key.get());
        let key = string(text, raw_key);
        if key.as_ref().is_ok_and(|key| wanted(key)) || depth < MAX_TABLE_DEPTH - 1 {
            entries.push(Entry {
                key: key?,
                offset,
                value: value(text, raw_value, depth)?,
            });
        }
    }
    Ok(entries)
}

fn value(text: &str, raw: &RawValue, depth: usize) -> Result<Value, SyntaxError> {
    Ok(match raw.get().as_bytes().first() {
        Some(b'"') => Value::Text(string(text, raw)?),
        Some(b'{') if depth == 0 => Value::Table(Vec::new()),
        Some(b'{') => {
            let pairs: Pairs<'_> = serde_json::from_str(raw.get())
                .map_err(|error| SyntaxError::new(Some(spot(text, raw)), error))?;
            Value::Table(read_entries(text, &pairs, depth - 1, |_| true)?)
        }
        // None that is read here is a list.
        Some(b'[') => Value::List(Vec::new()),
        Some(b't') => Value::Boolean(true),
        Some(b'f') => Value::Boolean(false),
        Some(b'n') | None => Value::Null,
        Some(_) => Value::Number(raw.get().to_owned()),
    })
}

fn string(text: &str, raw: &RawValue) -> Result<String, SyntaxError> {
    serde_json::from_str(raw.get()).map_err(|_| {
        let message = "a string holds an escape that stands for no character";
        SyntaxError::new(Some(spot(text, raw)), message)
    })
}

/// Where an error is. serde_json counts the bytes of a line, a person its characters.
fn spot_of(text: &str, error: &serde_json::Error) -> Spot {
    let line = text.split('\n').nth(error.line().saturating_sub(1));
    let before = line.unwrap_or_default().bytes().take(error.column());
    let continuing = before.filter(|byte| byte & 0xc0 == 0x80).count();
    Spot {
        line: error.line(),
        column: error.column().saturating_sub(continuing).max(1),
    }
}

fn spot(text: &str, raw: &RawValue) -> Spot {
    Spot::at(text, offset(text, raw.get()))
}

/// Where `slice`, a part of `text`, begins in it.
fn offset(text: &str, slice: &str) -> usize {
    slice.as_ptr().addr().saturating_sub(text.as_ptr().addr())
}
