//! What JSON, YAML and TOML have in common, as far as metadata needs it: keys, values, places.
//!
//! Numbers stay text, so that they go through the same exact parsers as those on the command line.

use std::fmt;

/// A place in a text, both counted from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Spot {
    /// The place of a byte of `text`; its end where `offset` is beyond it.
    pub(super) fn at(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// The byte of the text at which the key begins. Line and column are only found out for an
    /// error, since that takes a pass over the text.
    pub(super) offset: usize,
    pub(super) value: Value,
}

/// A value, as far as metadata can use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    /// A number as it was written; in base 10 where that was another one.
    Number(String),
    Boolean(bool),
    Null,
    Table(Vec<Entry>),
    List,
    Date,
}

impl Value {
    /// Its kind, for messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Number(_) => "a number",
            Self::Boolean(_) => "true or false (quote it where it is meant as text)",
            Self::Null => "null (leave the key out, or write `none` to lift a limit)",
            Self::Table(_) => "a table",
            Self::List => "a list",
            Self::Date => "a date (quote it where it is meant as text)",
        }
    }
}

/// The keys that are read at the top level.
pub(super) const ID: &str = "id";
pub(super) const SANDBOX: &str = "sandbox";

/// How deep tables are read: the document, `sandbox`, `labels`. Below that, a table is only told
/// to be one, so that no document can nest deeper than the stack.
pub(super) const MAX_TABLE_DEPTH: usize = 3;

/// A document that is not of its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) spot: Option<Spot>,
    pub(super) message: String,
}

impl SyntaxError {
    pub(super) fn new(spot: Option<Spot>, message: impl fmt::Display) -> Self {
        Self {
            spot,
            message: message.to_string(),
        }
    }
}
