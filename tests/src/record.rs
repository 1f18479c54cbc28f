//! The record that `sandbox run` wrote, read as its users read it: as JSON.
//!
//! Not through the library's own types: a field that was renamed by mistake must turn a test red.

use std::fmt;

use serde_json::Value;

/// A record.
#[derive(Clone, PartialEq, Eq)]
pub struct Record(Value);

impl Record {
    /// Reads a record.
    ///
    /// # Panics
    ///
    /// Where `text` is not one JSON document.
    #[must_use]
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        match serde_json::from_str(text) {
            Ok(value) => Self(value),
            Err(error) => panic!("the record is not JSON ({error}):\n{text}"),
        }
    }

    /// What is at a JSON pointer such as `/termination/reason`.
    ///
    /// # Panics
    ///
    /// Where the record has no such field: absent is `null`, never missing.
    #[must_use]
    #[track_caller]
    pub fn at(&self, pointer: &str) -> &Value {
        match self.0.pointer(pointer) {
            Some(value) => value,
            None => panic!("the record has no {pointer}:\n{self}"),
        }
    }

    /// The string at a JSON pointer.
    #[must_use]
    #[track_caller]
    pub fn text(&self, pointer: &str) -> &str {
        match self.at(pointer).as_str() {
            Some(text) => text,
            None => panic!("{pointer} is not a string:\n{self}"),
        }
    }

    /// The number at a JSON pointer.
    #[must_use]
    #[track_caller]
    pub fn number(&self, pointer: &str) -> i64 {
        match self.at(pointer).as_i64() {
            Some(number) => number,
            None => panic!("{pointer} is not a whole number:\n{self}"),
        }
    }

    /// The array at a JSON pointer.
    #[must_use]
    #[track_caller]
    pub fn list(&self, pointer: &str) -> &[Value] {
        match self.at(pointer).as_array() {
            Some(list) => list,
            None => panic!("{pointer} is not an array:\n{self}"),
        }
    }

    /// Why the run ended.
    #[must_use]
    #[track_caller]
    pub fn reason(&self) -> &str {
        self.text("/termination/reason")
    }

    /// How sure the record is of that.
    #[must_use]
    #[track_caller]
    pub fn confidence(&self) -> &str {
        self.text("/termination/confidence")
    }

    /// The fatal signals that members of the run met.
    #[must_use]
    #[track_caller]
    pub fn kills(&self) -> &[Value] {
        self.list("/kills")
    }

    /// The sentence for people.
    #[must_use]
    #[track_caller]
    pub fn notes(&self) -> &str {
        self.text("/completion_notes")
    }
}

impl fmt::Display for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#}", self.0)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_by_json_pointer() {
        let record = Record::parse(
            r#"{"termination": {"reason": "memory"}, "kills": [{"signal": 9}], "exit": {"code": null}}"#,
        );
        assert_eq!(record.reason(), "memory");
        assert_eq!(record.number("/kills/0/signal"), 9);
        assert!(record.at("/exit/code").is_null());
    }

    #[test]
    #[should_panic(expected = "the record has no /exit/signal")]
    fn a_missing_field_fails_the_test_and_shows_the_record() {
        assert!(
            Record::parse(r#"{"exit": {}}"#)
                .at("/exit/signal")
                .is_null()
        );
    }
}
