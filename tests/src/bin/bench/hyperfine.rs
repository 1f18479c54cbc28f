//! hyperfine(1), which starts commands and takes the time.

use std::fs;
use std::process::Command;

use serde_json::Value;

/// Where it leaves what it measured.
const EXPORT: &str = "/tmp/hyperfine.json";

/// A command to be measured.
#[derive(Debug)]
pub(crate) struct Contender {
    /// What it is called in the table.
    pub(crate) name: &'static str,
    /// Its words, with no shell around them.
    pub(crate) command: String,
    /// What is done before each start, unmeasured; by a shell.
    pub(crate) before: Option<&'static str>,
    /// What is done in the end, unmeasured; by a shell.
    pub(crate) after: Option<&'static str>,
    /// How often it is started in a round.
    pub(crate) starts: u32,
}

/// The median time of its starts, ms.
pub(crate) fn median_ms(contender: &Contender) -> f64 {
    let mut hyperfine = Command::new("hyperfine");
    hyperfine.args([
        "--shell=none",
        "--style=none",
        "--warmup=2",
        "--export-json",
        EXPORT,
    ]);
    hyperfine.args(["--runs", &contender.starts.to_string()]);
    for (when, done) in [
        ("--prepare", contender.before),
        ("--cleanup", contender.after),
    ] {
        if let Some(done) = done {
            hyperfine.args([when, &format!("sh -c '{done}'")]);
        }
    }
    let output = hyperfine.arg(&contender.command).output();
    let output = output.expect("the guest has hyperfine");
    if !output.status.success() {
        // hyperfine hides what the command said.
        let again = Command::new("sh").args(["-c", &contender.command]).output();
        panic!("{}: {output:?}\nby itself: {again:?}", contender.name);
    }
    let text = fs::read_to_string(EXPORT).expect("hyperfine exports");
    let found: Value = serde_json::from_str(&text).expect("as JSON");
    let median = found["results"][0]["median"].as_f64();
    median.unwrap_or_else(|| panic!("no median: {text}")) * 1e3
}
