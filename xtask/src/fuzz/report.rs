//! What libFuzzer printed, in one line.

use std::fmt;

/// Lines of a crash's log that are worth showing: the panic and where it came from.
const LINES_SHOWN: usize = 60;

/// What a run of a target came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Inputs that were tried.
    pub(super) executions: u64,
    /// Edges of the program that some input took.
    pub(super) edges: u64,
    /// Edges that there are.
    pub(super) of_edges: u64,
    /// The input that broke it.
    pub(super) crash: Option<String>,
}

impl Outcome {
    /// Whether nothing broke.
    pub(super) const fn is_sound(&self) -> bool {
        self.crash.is_none()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            executions,
            edges,
            of_edges,
            crash,
        } = self;
        let crashes = u8::from(crash.is_some());
        write!(
            f,
            "{executions} executions, {edges} of {of_edges} edges covered, {crashes} crashes"
        )
    }
}

/// Reads a log.
pub(super) fn read(log: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for line in log.lines() {
        if let Some(path) = after(line, "Test unit written to ") {
            outcome.crash = Some(path.to_owned());
        } else if let Some(rest) = after(line, "INFO: Loaded 1 PC tables (") {
            outcome.of_edges = first_number(rest);
        } else if let Some(rest) = line.strip_prefix('#') {
            // `#59  REDUCE cov: 214 ft: 242 …`
            outcome.executions = outcome.executions.max(first_number(rest));
            if let Some(rest) = after(line, "cov: ") {
                outcome.edges = outcome.edges.max(first_number(rest));
            }
        } else if let Some(rest) = after(line, "stat::number_of_executed_units:") {
            outcome.executions = first_number(rest.trim_start());
        }
    }
    outcome
}

/// The end of a log.
pub(super) fn end(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(LINES_SHOWN);
    lines.get(from..).unwrap_or_default().join("\n")
}

fn after<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    line.split_once(mark).map(|(_, rest)| rest)
}

fn first_number(text: &str) -> u64 {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.get(..end)
        .unwrap_or_default()
        .parse()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "INFO: Loaded 1 PC tables (1631 PCs): 1631 [0x55,0x56),\n\
        INFO: seed corpus: files: 6 min: 80b max: 224b total: 856b rss: 32Mb\n\
        #7\tINITED cov: 192 ft: 201 corp: 6/856b exec/s: 0 rss: 36Mb\n\
        #1346159\tDONE   cov: 223 ft: 252 corp: 16/1b lim: 512 exec/s: 122378 rss: 467Mb\n\
        stat::number_of_executed_units: 1346159\n";

    #[test]
    fn a_sound_run_is_told_in_a_line() {
        let outcome = read(SOUND);
        assert!(outcome.is_sound());
        assert_eq!(
            outcome.to_string(),
            "1346159 executions, 223 of 1631 edges covered, 0 crashes"
        );
    }

    #[test]
    fn a_crash_names_its_input() {
        let log = "#7\tINITED cov: 192 ft: 201 corp: 6/856b exec/s: 0 rss: 36Mb\n\
            ==1== ERROR: libFuzzer: deadly signal\n\
            artifact_prefix='target/'; Test unit written to target/crash-0a\n";
        let outcome = read(log);
        assert_eq!(outcome.crash.as_deref(), Some("target/crash-0a"));
        assert_eq!(outcome.executions, 7);
        assert!(!outcome.is_sound());
    }

    #[test]
    fn the_end_of_a_log_is_what_stands_last() {
        let log: String = (0..100).map(|line| format!("{line}\n")).collect();
        assert!(end(&log).starts_with("40\n") && end(&log).ends_with("\n99"));
    }
}
