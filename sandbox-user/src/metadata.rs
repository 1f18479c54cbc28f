//! What an analysis's own metadata document says about its sandbox.
//!
//! The document belongs to somebody else's pipeline: only its top-level `id` and its `sandbox`
//! table are read, everything else is left alone, whatever it holds. The table is read strictly,
//! since a limit that was mistyped and therefore not applied would be found out much too late: an
//! error names file, line and key, and nothing is started. The format follows from the file's
//! extension; it is never guessed.

mod document;
mod json;
mod keys;
mod table;
mod toml;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use crate::policy::Layer;
use crate::policy::values::ValueError;
use crate::spec::{MAX_LABELS, NameError, ThreadEnv};
use crate::units::{Printable, Quoted};

pub use document::Spot;

/// The largest document that is read, bytes.
pub const MAX_DOCUMENT_BYTES: u64 = 1 << 20;

/// What the document says.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// The file.
    pub path: PathBuf,
    /// The analysis's id.
    pub id: Option<String>,
    /// Limits and actions.
    pub layer: Layer,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether thread pools are told the number of cores; `None` = not said.
    pub thread_env: Option<ThreadEnv>,
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

/// Where in which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Line and column, where they are known.
    pub spot: Option<Spot>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Printable(&self.path.to_string_lossy()))?;
        match self.spot {
            Some(Spot { line, column }) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}

/// Why a document was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// It could not be opened or read.
    #[error("{place}: cannot read the metadata: {source} (nothing was started)")]
    Read {
        /// The file.
        place: Place,
        /// The system's reason.
        source: io::Error,
    },
    /// It is a directory, a pipe …
    #[error("{place}: the metadata must be a regular file, this is {kind} (nothing was started)")]
    NotAFile {
        /// The path.
        place: Place,
        /// What it is.
        kind: &'static str,
    },
    /// It is larger than [`MAX_DOCUMENT_BYTES`].
    #[error(
        "{place}: the metadata is larger than 1 MiB, the most that is read (nothing was started)"
    )]
    TooLarge {
        /// The file.
        place: Place,
    },
    /// Its extension stands for no format.
    #[error(
        "{place}: the metadata's format follows from its extension, which must be .json, .yaml, .yml or .toml (nothing was started)"
    )]
    UnknownFormat {
        /// The file.
        place: Place,
    },
    /// It is not UTF-8.
    #[error("{place}: the metadata is not UTF-8 text (nothing was started)")]
    NotText {
        /// Where it ceases to be.
        place: Place,
    },
    /// It is not of its format.
    #[error("{place}: not valid {format}: {} (nothing was started)", Printable(.message))]
    Syntax {
        /// Where.
        place: Place,
        /// The format that its extension stands for.
        format: Format,
        /// The parser's reason.
        message: String,
    },
    /// A key or its value is not right.
    #[error("{place}: {}: {problem} (nothing was started)", Quoted(.key))]
    Key {
        /// Where.
        place: Place,
        /// The key, with the tables around it: `sandbox.memory`.
        key: String,
        /// What is wrong.
        problem: Box<Problem>,
    },
}

/// What is wrong with a key or its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No such key, but one that is like it.
    #[error("unknown key; did you mean `{0}`?")]
    DidYouMean(&'static str),
    /// No such key.
    #[error(
        "unknown key; there are memory, swap, cpus, pids, timeout, cpu-time, grace, warn, on-pids-limit, oom, labels and thread-env"
    )]
    Unknown,
    /// A key that metadata may not set.
    #[error("metadata cannot set this: {0}")]
    Forbidden(&'static str),
    /// The key stands there twice.
    #[error("it was already given in line {first_line}")]
    Duplicate {
        /// The first one's line.
        first_line: usize,
    },
    /// Two names for one thing.
    #[error("it sets the same as `{}` in line {first_line}: keep one of them", Quoted(.other))]
    TwoNames {
        /// The first name.
        other: String,
        /// Its line.
        first_line: usize,
    },
    /// The value is of the wrong kind.
    #[error("it must be {expected}, not {found}")]
    WrongKind {
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// The value cannot be used.
    #[error("`{}`: {error}", Quoted(.text))]
    Value {
        /// The value as it stands there.
        text: String,
        /// What is wrong with it.
        error: ValueError,
    },
    /// An alias of a fixed unit, given with one.
    #[error("`{}`: it is a plain number of {unit}; write `{instead}` for a value with a unit", Quoted(.text))]
    FixedUnit {
        /// The value as it stands there.
        text: String,
        /// The alias's unit.
        unit: &'static str,
        /// The key that takes units.
        instead: &'static str,
    },
    /// An id or a label that would confuse a reader.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Too many labels.
    #[error("{0} labels are too many, at most {MAX_LABELS}")]
    TooManyLabels(usize),
}

impl Metadata {
    /// Reads the document at `path`.
    ///
    /// # Errors
    /// [`MetadataError`] where it cannot be read or is not accepted.
    pub fn read(path: &Path) -> Result<Self, MetadataError> {
        let place = || Place {
            path: path.to_owned(),
            spot: None,
        };
        let format =
            Format::of(path).ok_or_else(|| MetadataError::UnknownFormat { place: place() });
        let bytes = read_regular(path)?;
        let format = format?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let spot = Some(Spot::at(&good, good.len()));
            MetadataError::NotText {
                place: Place {
                    path: path.to_owned(),
                    spot,
                },
            }
        })?;
        Self::parse(text, format, path)
    }

    /// Reads a document that is at hand; `path` is what errors call it.
    ///
    /// # Errors
    /// [`MetadataError`] where it is not accepted.
    pub fn parse(text: &str, format: Format, path: &Path) -> Result<Self, MetadataError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let entries = match format {
            Format::Json => json::entries(text),
            Format::Yaml => yaml::entries(text),
            Format::Toml => toml::entries(text),
        };
        let entries = entries.map_err(|error| MetadataError::Syntax {
            place: Place {
                path: path.to_owned(),
                spot: error.spot,
            },
            format,
            message: error.message,
        })?;
        table::interpret(&entries, text, path).map_err(|fault| MetadataError::Key {
            place: Place {
                path: path.to_owned(),
                spot: Some(Spot::at(text, fault.offset)),
            },
            key: fault.key,
            problem: fault.problem,
        })
    }
}

/// The content of a regular file of at most [`MAX_DOCUMENT_BYTES`]. It is opened without blocking,
/// so that a pipe nobody writes to is an error and not a wait.
fn read_regular(path: &Path) -> Result<Vec<u8>, MetadataError> {
    let place = || Place {
        path: path.to_owned(),
        spot: None,
    };
    let read_error = |source| MetadataError::Read {
        place: place(),
        source,
    };
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    let file: File = match opened {
        // What open(2) says of a socket.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            return Err(MetadataError::NotAFile {
                place: place(),
                kind: "a socket",
            });
        }
        opened => opened.map_err(read_error)?,
    };
    let kind = file.metadata().map_err(read_error)?.file_type();
    if !kind.is_file() {
        let kind = match () {
            () if kind.is_dir() => "a directory",
            () if kind.is_fifo() => "a named pipe",
            () => "a device",
        };
        return Err(MetadataError::NotAFile {
            place: place(),
            kind,
        });
    }
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(read_error)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_DOCUMENT_BYTES) {
        Ok(bytes)
    } else {
        Err(MetadataError::TooLarge { place: place() })
    }
}

#[cfg(test)]
mod tests;
