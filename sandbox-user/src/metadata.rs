//! What an analysis's own metadata document says about its sandbox.
//!
//! The document belongs to somebody else's pipeline: only its top-level `id` and its `sandbox`
//! table are read, everything else is left alone, whatever it holds. The table is read strictly,
//! since a limit that was mistyped and therefore not applied would be found out much too late: an
//! error names file, line and key, and nothing is started. The format follows from the file's
//! extension; it is never guessed.

mod json;
mod keys;
pub mod place;
mod table;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::document::{self, DocumentError, Format, Kind, Place, toml};
use crate::policy::Layer;
use crate::spec::ThreadEnv;
use crate::units::Printable;

/// The keys that are read at the top level.
const ID: &str = "id";
const SANDBOX: &str = "sandbox";

/// How deep tables are read: the document, `sandbox`, `labels`. Below that, a table is only told
/// to be one, so that no document can nest deeper than the stack.
const MAX_TABLE_DEPTH: usize = 3;

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

/// Why a document was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// Its extension stands for no format.
    #[error(
        "{place}: the metadata's format follows from its extension, which must be .json, .yaml, .yml or .toml (nothing was started)"
    )]
    UnknownFormat {
        /// The file.
        place: Place,
    },
    /// It is where the host's configuration does not have it.
    #[error(
        "{place}: this file is {}, and by `service.metadata-paths` of its configuration the host takes metadata {} (nothing was started)",
        Printable(&.resolved.to_string_lossy()), from_where(.allowed)
    )]
    NotAllowed {
        /// The file, as it was named.
        place: Place,
        /// Where it is, all links resolved.
        resolved: PathBuf,
        /// Where it may be.
        allowed: Vec<PathBuf>,
    },
    /// It cannot be read, or something in it is not right.
    #[error("{0} (nothing was started)")]
    Document(#[from] DocumentError),
}

impl Metadata {
    /// Reads the document at `path`, which has to be below one of the directories `allowed`; `None` = it may
    /// be anywhere.
    ///
    /// # Errors
    /// [`MetadataError`] where it cannot be read or is not accepted.
    pub fn read(path: &Path, allowed: Option<&[PathBuf]>) -> Result<Self, MetadataError> {
        let file = document::open(path, Kind::Metadata)?;
        if let Some(allowed) = allowed {
            let resolved = place::of_open(&file)
                .map_err(|source| DocumentError::read(path, Kind::Metadata, source))?;
            if !place::is_allowed(&resolved, allowed) {
                return Err(MetadataError::NotAllowed {
                    place: Place::whole(path),
                    resolved,
                    allowed: allowed.to_owned(),
                });
            }
        }
        let Some(format) = Format::of(path) else {
            return Err(MetadataError::UnknownFormat {
                place: Place::whole(path),
            });
        };
        Self::parse(&document::text(file, path, Kind::Metadata)?, format, path)
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
            Format::Toml => toml::entries(text, MAX_TABLE_DEPTH - 1).map(|mut entries| {
                entries.retain(|entry| [ID, SANDBOX].contains(&entry.key.as_str()));
                entries
            }),
        };
        let entries = entries.map_err(|error| DocumentError::syntax(error, format, path))?;
        let metadata = table::interpret(&entries, text, path);
        Ok(metadata.map_err(|fault| DocumentError::key(fault, text, path))?)
    }
}

/// Where metadata may be, and what to do about it.
fn from_where(allowed: &[PathBuf]) -> String {
    if allowed.is_empty() {
        return "from nowhere: give limits on the command line".to_owned();
    }
    let shown = allowed
        .iter()
        .map(|path| Printable(&path.to_string_lossy()).to_string());
    let shown = shown.collect::<Vec<_>>().join(" or ");
    format!("from below {shown} only: put it there, or give limits on the command line")
}

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
