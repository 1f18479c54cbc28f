//! Ids and labels: names that people choose, and that stand in records, lists and terminal output.
//!
//! They are refused rather than escaped where they could confuse any of these, since whoever
//! chooses the name can choose another.

use crate::units::is_unprintable;

/// Longest id, label key or label value, bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// Most labels of one run.
pub const MAX_LABELS: usize = 64;

/// Why a text cannot be an id or a label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing.
    #[error("{what} cannot be empty")]
    Empty {
        /// `an id`, `a label's name` …
        what: &'static str,
    },
    /// Longer than [`MAX_NAME_BYTES`].
    #[error("{what} can have at most {MAX_NAME_BYTES} bytes, this one has {bytes}")]
    TooLong {
        /// `an id`, `a label's name` …
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A control or bidirectional character.
    #[error(
        "{what} cannot contain control or invisible characters (U+{code:04X} at character {position})"
    )]
    Unprintable {
        /// `an id`, `a label's name` …
        what: &'static str,
        /// The character.
        code: u32,
        /// Where, from 1.
        position: usize,
    },
    /// `=` in a label's name.
    #[error("a label's name cannot contain `=`, which ends it in `--label NAME=VALUE`")]
    EqualsSign,
}

/// Passes an analysis id.
///
/// # Errors
/// [`NameError`] where it is empty, too long or not printable.
pub fn check_id(id: &str) -> Result<(), NameError> {
    check("an id", id)
}

/// Passes a label; its value may be empty, its name may not.
///
/// # Errors
/// [`NameError`] where either is too long or not printable, or the name holds `=`.
pub fn check_label(name: &str, value: &str) -> Result<(), NameError> {
    check("a label's name", name)?;
    if name.contains('=') {
        return Err(NameError::EqualsSign);
    }
    if value.is_empty() {
        Ok(())
    } else {
        check("a label's value", value)
    }
}

/// Passes a user as asked for, by name or number; whether there is such a one is found out later.
///
/// # Errors
/// [`NameError`] where it is empty, too long or not printable.
pub fn check_user(user: &str) -> Result<(), NameError> {
    check("a user", user)
}

fn check(what: &'static str, name: &str) -> Result<(), NameError> {
    if name.trim().is_empty() {
        return Err(NameError::Empty { what });
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong {
            what,
            bytes: name.len(),
        });
    }
    match name
        .chars()
        .enumerate()
        .find(|(_, character)| is_unprintable(*character))
    {
        Some((index, character)) => Err(NameError::Unprintable {
            what,
            code: u32::from(character),
            position: index + 1,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass_in_any_script() {
        for id in [
            "a-17",
            "chr20 / run 3",
            "анализ",
            "解析",
            &"x".repeat(MAX_NAME_BYTES),
        ] {
            assert_eq!(check_id(id), Ok(()));
        }
        assert_eq!(check_label("exp", ""), Ok(()));
        assert_eq!(check_label("exp", "a=b"), Ok(()));
    }

    #[test]
    fn names_that_would_confuse_a_reader_are_refused() {
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        let lines: Vec<String> = [
            "",
            " ",
            long.as_str(),
            "a\nb",
            "a\u{1b}[31m",
            "ab\u{202e}c",
            "a\u{0}",
        ]
        .iter()
        .map(|id| check_id(id).expect_err("refused").to_string())
        .chain(
            [
                check_label("a=b", "c"),
                check_label("", "c"),
                check_label("a", "b\tc"),
            ]
            .into_iter()
            .map(|result| result.expect_err("refused").to_string()),
        )
        .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
