//! Why a document was not accepted: which file, where in it, which key, what is wrong.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::{Fault, Format, Spot, SyntaxError};
use crate::policy::values::ValueError;
use crate::spec::{MAX_LABELS, NameError};
use crate::units::{Printable, Quoted};

/// Where in which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Line and column, where they are known.
    pub spot: Option<Spot>,
}

impl Place {
    /// The whole file.
    pub(crate) fn whole(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            spot: None,
        }
    }

    /// A place in it.
    pub(crate) fn at(path: &Path, spot: Spot) -> Self {
        Self {
            path: path.to_owned(),
            spot: Some(spot),
        }
    }
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
pub enum DocumentError {
    /// It could not be opened or read.
    #[error("{place}: cannot read the {kind}: {source}")]
    Read {
        /// The file.
        place: Place,
        /// What it is to be.
        kind: Kind,
        /// The system's reason.
        source: io::Error,
    },
    /// It is a directory, a pipe …
    #[error("{place}: the {kind} must be a regular file, this is {found}")]
    NotAFile {
        /// The path.
        place: Place,
        /// What it is to be.
        kind: Kind,
        /// What it is.
        found: &'static str,
    },
    /// It is larger than [`MAX_DOCUMENT_BYTES`].
    #[error("{place}: the {kind} is larger than 1 MiB, the most that is read")]
    TooLarge {
        /// The file.
        place: Place,
        /// What it is to be.
        kind: Kind,
    },
    /// It is not UTF-8.
    #[error("{place}: the {kind} is not UTF-8 text")]
    NotText {
        /// Where it ceases to be.
        place: Place,
        /// What it is to be.
        kind: Kind,
    },
    /// It is not of its format.
    #[error("{place}: not valid {format}: {}", Printable(.message))]
    Syntax {
        /// Where.
        place: Place,
        /// The format that it is to have.
        format: Format,
        /// The parser's reason.
        message: String,
    },
    /// A key or its value is not right.
    #[error("{place}: {}: {problem}", Quoted(.key))]
    Key {
        /// Where.
        place: Place,
        /// The key, with the tables around it: `sandbox.memory`.
        key: String,
        /// What is wrong.
        problem: Box<Problem>,
    },
}

impl DocumentError {
    /// Where it is.
    pub const fn place(&self) -> &Place {
        match self {
            Self::Read { place, .. }
            | Self::NotAFile { place, .. }
            | Self::TooLarge { place, .. }
            | Self::NotText { place, .. }
            | Self::Syntax { place, .. }
            | Self::Key { place, .. } => place,
        }
    }

    /// A document at `path` that cannot be read.
    pub(crate) fn read(path: &Path, kind: Kind, source: io::Error) -> Self {
        Self::Read {
            place: Place::whole(path),
            kind,
            source,
        }
    }

    /// A document at `path` that is not of its format.
    pub(crate) fn syntax(error: SyntaxError, format: Format, path: &Path) -> Self {
        Self::Syntax {
            place: Place {
                path: path.to_owned(),
                spot: error.spot,
            },
            format,
            message: error.message,
        }
    }

    /// A key of the document `text` at `path` that is not right.
    pub(crate) fn key(fault: Fault, text: &str, path: &Path) -> Self {
        Self::Key {
            place: Place::at(path, Spot::at(text, fault.offset)),
            key: fault.key,
            problem: fault.problem,
        }
    }
}

/// What a document is, in errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An analysis's metadata.
    Metadata,
    /// The host's configuration.
    Configuration,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metadata => "metadata",
            Self::Configuration => "configuration",
        })
    }
}

/// What is wrong with a key or its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No such key, but one that is like it.
    #[error("unknown key; did you mean `{0}`?")]
    DidYouMean(&'static str),
    /// No such key.
    #[error("unknown key; there are {0}")]
    Unknown(String),
    /// A key that must be there is not.
    #[error("`{0}` is missing in it")]
    Lacking(&'static str),
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
