//! What the person at the terminal and CI get to see: a line per test, a table, one last line.
//!
//! The last line is an interface (`N passed, N failed`, alone), and it counts everything: so a
//! stage that broke down before its tests counts as one failure and never as none.

use std::process::ExitCode;
use std::time::Duration;

/// The result of one stage: this machine, or one guest.
#[derive(Debug)]
pub(crate) struct Row {
    /// Which stage.
    pub(crate) label: String,
    /// Tests that passed.
    pub(crate) passed: usize,
    /// Those that did not.
    pub(crate) failed: Vec<Failure>,
    /// How long it took.
    pub(crate) time: Duration,
    /// How many guests did not report in and were booted again; this machine has none.
    pub(crate) retries: Option<u32>,
}

impl Row {
    /// Whether it ran any test.
    pub(crate) fn ran(&self) -> bool {
        self.passed > 0 || !self.failed.is_empty()
    }

    /// A stage that ended before its tests could.
    pub(crate) fn broken(label: String, error: &anyhow::Error) -> Self {
        let failure = Failure {
            name: format!("{error:#}"),
            output: String::new(),
        };
        Self {
            label,
            passed: 0,
            failed: vec![failure],
            time: Duration::ZERO,
            retries: Some(0),
        }
    }
}

/// A test that failed, or a stage that broke down.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The test, or what broke.
    pub(crate) name: String,
    /// What it printed; empty where that stands elsewhere.
    pub(crate) output: String,
}

impl Failure {
    /// Characters of its output that are shown once more at the end.
    const SHOWN: usize = 2000;

    /// The end of its output, where a test says what is wrong, each line indented.
    fn excerpt(&self) -> String {
        let skipped = self.output.chars().count().saturating_sub(Self::SHOWN);
        let end: String = self.output.chars().skip(skipped).collect();
        let dots = if skipped > 0 { "…" } else { "" };
        indented(&format!("{dots}{end}"))
    }
}

/// A text as it stands below the line of its test.
pub(crate) fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// All results.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a stage.
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Whether nothing was tested.
    pub(crate) fn is_empty(&self) -> bool {
        !self.rows.iter().any(Row::ran)
    }

    /// Prints the table and the last line, and decides the exit status.
    pub(crate) fn finish(&self) -> ExitCode {
        print!("{}", self.text());
        if self
            .rows
            .iter()
            .all(|row| row.failed.is_empty() && row.passed > 0)
        {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            for failure in &row.failed {
                text.push_str(&format!("FAILED  {:<14} {}\n", row.label, failure.name));
                text.push_str(&failure.excerpt());
            }
            if !row.ran() {
                text.push_str(&format!("FAILED  {:<14} no test ran\n", row.label));
            }
        }
        text.push_str(&format!(
            "\n{:<14} {:>7} {:>7} {:>8} {:>8}\n",
            "where", "passed", "failed", "time", "retries"
        ));
        for row in &self.rows {
            let retries = row
                .retries
                .map_or_else(|| "-".to_owned(), |retries| retries.to_string());
            let time = format!("{} s", row.time.as_secs());
            text.push_str(&format!(
                "{:<14} {:>7} {:>7} {time:>8} {retries:>8}\n",
                row.label,
                row.passed,
                row.failed.len()
            ));
        }
        let passed: usize = self.rows.iter().map(|row| row.passed).sum();
        let failed: usize = self.rows.iter().map(|row| row.failed.len()).sum();
        text.push_str(&format!("\n{passed} passed, {failed} failed\n"));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(label: &str, passed: usize, failed: &[&str]) -> Row {
        let failed = failed.iter().map(|name| Failure {
            name: (*name).to_owned(),
            output: format!("{}\nthe end\n", "é".repeat(Failure::SHOWN)),
        });
        Row {
            label: label.to_owned(),
            passed,
            failed: failed.collect(),
            time: Duration::from_secs(7),
            retries: Some(1),
        }
    }

    #[test]
    fn the_last_line_sums_up_all_stages() {
        let report = Report {
            rows: vec![row("host", 3, &[]), row("6.1 bare", 2, &["guest::boots"])],
        };
        let text = report.text();
        assert_eq!(text.lines().last(), Some("5 passed, 1 failed"), "{text}");
        assert!(
            text.contains("FAILED  6.1 bare       guest::boots\n    …é"),
            "{text}"
        );
        assert!(text.contains("é\n    the end\n\nwhere"), "{text}");
        assert_eq!(report.finish(), ExitCode::FAILURE);
    }

    #[test]
    fn a_guest_that_ran_no_test_is_a_failure() {
        let report = Report {
            rows: vec![row("host", 3, &[]), row("7 bare", 0, &[])],
        };
        assert!(report.text().contains("7 bare         no test ran"));
        assert_eq!(report.finish(), ExitCode::FAILURE);
    }

    #[test]
    fn all_passed_is_a_success() {
        assert_eq!(
            Report {
                rows: vec![row("host", 3, &[])]
            }
            .finish(),
            ExitCode::SUCCESS
        );
    }
}
