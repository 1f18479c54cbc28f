//! Documents of settings (an analysis's metadata, the host's configuration), and how they are read:
//! strictly, every error with its file, line and key.
//!
//! Here is what their formats have in common: keys, values, places. Numbers stay text, so that they go
//! through the same exact parsers as those on the command line.

mod error;
mod fields;
pub(crate) mod toml;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::libc;

pub use error::{DocumentError, Kind, Place, Problem};
pub(crate) use fields::{Fault, Field, Seen, like, normal, read, text_of, wrong_kind};

/// The largest document that is read, bytes.
pub const MAX_DOCUMENT_BYTES: u64 = 1 << 20;

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
    pub(crate) fn at(text: &str, offset: usize) -> Self {
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
pub(crate) struct Entry {
    pub(crate) key: String,
    /// The byte of the text at which the key begins. Line and column are only found out for an
    /// error, since that takes a pass over the text.
    pub(crate) offset: usize,
    pub(crate) value: Value,
}

/// A value in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// The byte of the text at which it begins.
    pub(crate) offset: usize,
    pub(crate) value: Value,
}

/// A value, as far as metadata can use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    /// A number as it was written; in base 10 where that was another one.
    Number(String),
    Boolean(bool),
    Null,
    Table(Vec<Entry>),
    /// Of what is in it only TOML's is read.
    List(Vec<Item>),
    Date,
    /// Of a type that only its YAML tag names.
    Tagged,
}

impl Value {
    /// Its kind, for messages.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Number(_) => "a number",
            Self::Boolean(_) => "true or false (quote it where it is meant as text)",
            Self::Null => "null (leave the key out, or write `none` to lift a limit)",
            Self::Table(_) => "a table",
            Self::List(_) => "a list",
            Self::Date => "a date (quote it where it is meant as text)",
            Self::Tagged => "a value with a tag of its own (leave the tag out)",
        }
    }
}

/// A document that is not of its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) spot: Option<Spot>,
    pub(crate) message: String,
}

impl SyntaxError {
    pub(crate) fn new(spot: Option<Spot>, message: impl fmt::Display) -> Self {
        Self {
            spot,
            message: message.to_string(),
        }
    }
}

/// The formats that a document can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 8259.
    Json,
    /// YAML 1.2, with merge keys.
    Yaml,
    /// TOML 1.
    Toml,
}

impl Format {
    /// The format that a file's extension stands for, in either case.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "JSON",
            Self::Yaml => "YAML",
            Self::Toml => "TOML",
        })
    }
}

/// Opens a document for reading: without blocking, so that a pipe nobody writes to is an error and not
/// a wait.
///
/// # Errors
/// [`DocumentError`] where it cannot be opened, or is no regular file.
pub(crate) fn open(path: &Path, kind: Kind) -> Result<File, DocumentError> {
    let unread = |source| DocumentError::read(path, kind, source);
    let not_a_file = |found| DocumentError::NotAFile {
        place: Place::whole(path),
        kind,
        found,
    };
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    let file: File = match opened {
        // What open(2) says of a socket.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            return Err(not_a_file("a socket"));
        }
        opened => opened.map_err(unread)?,
    };
    let found = file.metadata().map_err(unread)?.file_type();
    match () {
        () if found.is_file() => Ok(file),
        () if found.is_dir() => Err(not_a_file("a directory")),
        () if found.is_fifo() => Err(not_a_file("a named pipe")),
        () => Err(not_a_file("a device")),
    }
}

/// The text of an open document of at most [`MAX_DOCUMENT_BYTES`].
///
/// # Errors
/// [`DocumentError`] where it cannot be read, is larger, or is no text.
pub(crate) fn text(file: File, path: &Path, kind: Kind) -> Result<String, DocumentError> {
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| DocumentError::read(path, kind, source))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_DOCUMENT_BYTES) {
        return Err(DocumentError::TooLarge {
            place: Place::whole(path),
            kind,
        });
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let good = String::from_utf8_lossy(good);
        DocumentError::NotText {
            place: Place::at(path, Spot::at(&good, good.len())),
            kind,
        }
    })
}
