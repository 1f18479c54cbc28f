//! The unit tests, on this machine.
//!
//! `tests/` itself is left out but for the unit tests of its harness: its integration tests need a
//! guest and say so when they are run anywhere else.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use super::report::{Failure, Row};
use crate::{vm, workspace};

/// Runs them, with cargo's and the tests' own output on the terminal.
pub(crate) fn run(filter: Option<&str>) -> Result<Row> {
    let start = Instant::now();
    let mut row = Row {
        label: "host".to_owned(),
        passed: 0,
        failed: Vec::new(),
        time: start.elapsed(),
        retries: None,
    };
    for selection in [
        &["--workspace", "--exclude", "sandbox-tests"][..],
        &["--package", "sandbox-tests", "--lib", "--bins"],
    ] {
        let mut cargo = workspace::cargo();
        cargo
            .args(["test", "--no-fail-fast", "--profile", vm::PROFILE])
            .args(selection)
            .arg("--")
            .arg("--format=pretty");
        cargo.args(filter);
        follow(&mut cargo, &mut row)?;
    }
    row.time = start.elapsed();
    Ok(row)
}

fn follow(cargo: &mut Command, row: &mut Row) -> Result<()> {
    let mut child = cargo
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("could not start cargo")?;
    let failed_before = row.failed.len();
    let stdout = child
        .stdout
        .take()
        .context("cargo has no standard output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("could not read cargo's output")?;
        match parse(&line) {
            Line::Passed(name) => {
                row.passed += 1;
                println!("ok      {:<14} {name}", row.label);
            }
            Line::Failed(name) => {
                println!("FAILED  {:<14} {name}", row.label);
                row.failed.push(Failure {
                    name: name.to_owned(),
                    output: String::new(),
                });
            }
            Line::Noise => {}
            Line::Other => println!("{line}"),
        }
    }
    let status = child.wait().context("could not wait for cargo")?;
    if !status.success() && row.failed.len() == failed_before {
        row.failed.push(Failure {
            name: format!("`{}` broke down: {status}", crate::command::line(cargo)),
            output: String::new(),
        });
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Passed(&'a str),
    Failed(&'a str),
    Noise,
    Other,
}

fn parse(line: &str) -> Line<'_> {
    let result = line
        .strip_prefix("test ")
        .and_then(|rest| rest.rsplit_once(" ... "));
    match result {
        Some((name, "ok")) => Line::Passed(name),
        Some((name, "FAILED")) => Line::Failed(name),
        Some((_, rest)) if rest.starts_with("ignored") => Line::Noise,
        // A test with `should_panic` or a doc test has more words before the result.
        Some(_) => Line::Other,
        None if line.is_empty()
            || line.starts_with("running ")
            || line.starts_with("test result: ok") =>
        {
            Line::Noise
        }
        None => Line::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtests_lines_are_understood() {
        assert_eq!(
            parse("test limits::tests::a_size ... ok"),
            Line::Passed("limits::tests::a_size")
        );
        assert_eq!(
            parse("test it_panics - should panic ... FAILED"),
            Line::Failed("it_panics - should panic")
        );
        assert_eq!(parse("test result: ok. 3 passed; 0 failed"), Line::Noise);
        assert_eq!(parse("running 3 tests"), Line::Noise);
        assert_eq!(parse("---- limits::tests::a_size stdout ----"), Line::Other);
    }
}
