//! The metadata readers: any text is metadata or an error, whatever is taken as a limit is one that
//! the kernel can hold, and an error is a line that can be printed.

use std::path::Path;

use sandbox::document::Format;
use sandbox::metadata::{Metadata, MetadataError};
use sandbox::spec::{MAX_LABELS, check_id, check_label};

use crate::checks::{kept, said};

/// Checks a document, which each of the three readers gets to see.
///
/// # Panics
/// Where a reader panics, takes what it must not take, or words an error badly.
pub fn metadata(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for (format, name) in [
        (Format::Json, "a.json"),
        (Format::Yaml, "a.yaml"),
        (Format::Toml, "a.toml"),
    ] {
        match Metadata::parse(text, format, Path::new(name)) {
            Ok(metadata) => accepted(&metadata),
            Err(error) => refused(&error, name, text),
        }
    }
}

fn accepted(metadata: &Metadata) {
    kept(&metadata.layer);
    if let Some(id) = &metadata.id {
        assert_eq!(check_id(id), Ok(()));
    }
    assert!(metadata.labels.len() <= MAX_LABELS);
    for (name, value) in &metadata.labels {
        assert_eq!(check_label(name, value), Ok(()));
    }
}

fn refused(error: &MetadataError, name: &str, text: &str) {
    let shown = error.to_string();
    assert!(shown.ends_with("(nothing was started)"), "{shown}");
    let place = match error {
        MetadataError::UnknownFormat { place } | MetadataError::NotAllowed { place, .. } => place,
        MetadataError::Document(error) => error.place(),
    };
    said(&shown, place, name, text);
}
