//! An event stream, read as its users read it: line by line, as JSON.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

/// The lines of a stream that was written to its end, with what holds for every stream checked.
#[derive(Clone)]
pub struct Events(Vec<Value>);

impl Events {
    /// Reads a whole stream.
    ///
    /// # Panics
    ///
    /// Where it does not keep to its schema: a first and a last line, lines without a gap in their
    /// numbers, and each of the kernel's events there or said to be missing, once.
    #[must_use]
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let events = Self::parse_part(text);
        let all = &events.0;
        let (Some(first), Some(last)) = (all.first(), all.last()) else {
            panic!("the stream is empty");
        };
        assert_eq!(first["type"], "start", "{events}");
        assert_eq!(first["schema"], "sandbox.events", "{events}");
        assert_eq!(first["version"], 1, "{events}");
        assert_eq!(last["type"], "end", "{events}");
        let numbers: Vec<u64> = all.iter().filter_map(|line| line["n"].as_u64()).collect();
        assert!(numbers.iter().copied().eq(1..=all.len() as u64), "{events}");

        let mut seen = BTreeSet::new();
        let mut missing = 0;
        for line in all {
            let date = line["at"].as_str().unwrap_or_default();
            assert!(
                date.contains('T') && date.ends_with('Z'),
                "{line} has no date"
            );
            assert!(line["mono_ns"].is_u64(), "{line} has no time");
            let range = match (line["seq"].as_u64(), line["type"].as_str()) {
                (Some(seq), _) => seq..=seq,
                (None, Some("dropped")) => {
                    missing += line["count"].as_u64().unwrap_or_default();
                    let end = |field: &str| line[field].as_u64();
                    end("from_seq").expect("a first")..=end("to_seq").expect("a last")
                }
                (None, _) => continue,
            };
            for seq in range {
                let is_later = seen.last().is_none_or(|last| *last < seq);
                assert!(is_later, "{seq} is there twice, or too late: {events}");
                seen.insert(seq);
            }
        }
        if let Some(counted) = last["events"].as_u64() {
            assert!(seen.iter().copied().eq(1..=counted), "{events}");
            assert_eq!(last["dropped"], missing, "{events}");
        }
        events
    }

    /// Reads what there is of a stream by now, up to its last whole line.
    ///
    /// # Panics
    ///
    /// Where a whole line is not JSON.
    #[must_use]
    #[track_caller]
    pub fn parse_part(text: &str) -> Self {
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let line = |line: &str| match serde_json::from_str(line) {
            Ok(line) => line,
            Err(error) => panic!("{line:?} is not JSON: {error}"),
        };
        Self(whole.lines().map(line).collect())
    }

    /// All lines.
    #[must_use]
    pub fn lines(&self) -> &[Value] {
        &self.0
    }

    /// The lines of one type.
    pub fn of(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |line| line["type"] == kind)
    }

    /// The only line of a type.
    ///
    /// # Panics
    ///
    /// Where there is none, or more.
    #[must_use]
    #[track_caller]
    pub fn only(&self, kind: &str) -> &Value {
        let mut found = self.of(kind);
        match (found.next(), found.next()) {
            (Some(line), None) => line,
            _ => panic!("there is not one line {kind}:\n{self}"),
        }
    }
}

impl fmt::Display for Events {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.0 {
            writeln!(formatter, "{line}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = r#"{"n":1,"seq":null,"at":"2026-03-01T12:00:00Z","mono_ns":1,"type":"start","schema":"sandbox.events","version":1}"#;

    fn stream(lines: &[&str]) -> String {
        let lines = [START].iter().chain(lines);
        lines.map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn a_stream_with_its_gaps_told_is_whole() {
        let events = Events::parse(&stream(&[
            r#"{"n":2,"seq":1,"at":"2026-03-01T12:00:00Z","mono_ns":2,"type":"birth"}"#,
            r#"{"n":3,"seq":null,"at":"2026-03-01T12:00:00Z","mono_ns":2,"type":"dropped","count":2,"from_seq":2,"to_seq":3}"#,
            r#"{"n":4,"seq":null,"at":"2026-03-01T12:00:00Z","mono_ns":3,"type":"end","events":3,"dropped":2}"#,
        ]));
        assert_eq!(events.of("birth").count(), 1);
    }

    #[test]
    #[should_panic(expected = "birth")]
    fn a_gap_that_is_not_told_fails_the_test() {
        let _events = Events::parse(&stream(&[
            r#"{"n":2,"seq":2,"at":"2026-03-01T12:00:00Z","mono_ns":2,"type":"birth"}"#,
            r#"{"n":3,"seq":null,"at":"2026-03-01T12:00:00Z","mono_ns":3,"type":"end","events":2,"dropped":0}"#,
        ]));
    }
}
