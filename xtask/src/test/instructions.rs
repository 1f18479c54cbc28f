//! How many instructions the engine takes for what it does often, beside what `tests/budgets.toml` allows.
//!
//! Counted by callgrind, and so no timed test: it comes out the same on a machine that has much else to do. What is
//! counted are functions of `sandbox-user/src/hot_paths.rs`, as its tests call them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::report::{Failure, Row};
use crate::debian::host;
use crate::vm::executables;
use crate::{command, workspace};

/// Where the functions are.
const MODULE: &str = "hot_paths";
/// By how much a count may differ from the budget, of the whole: libraries differ between machines.
const TOLERANCE: f64 = 0.1;
/// What may be saved before the budget has to follow.
const SLACK: f64 = 0.2;

/// Counts those of the functions whose `instructions::name` contains `filter`.
pub(crate) fn run(filter: Option<&str>) -> Result<Row> {
    let start = Instant::now();
    let mut budgets = budgets()?;
    budgets.retain(|function, _| {
        filter.is_none_or(|filter| format!("instructions::{function}").contains(filter))
    });
    let mut row = Row {
        label: "instructions".to_owned(),
        passed: 0,
        failed: Vec::new(),
        time: start.elapsed(),
        retries: None,
    };
    if budgets.is_empty() {
        return Ok(row);
    }
    host::require_for_counting()?;
    let program = unit_tests()?;
    for (function, budget) in budgets {
        let found = count(&program, &function)?;
        let name = format!("{function}: {found} of {budget}");
        if is_kept(found, budget) {
            row.passed += 1;
            println!("ok      {:<14} {name}", row.label);
        } else {
            println!("FAILED  {:<14} {name}", row.label);
            row.failed.push(Failure {
                name,
                output:
                    "tests/budgets.toml says how many it may take: less of them, or another budget"
                        .to_owned(),
            });
        }
    }
    row.time = start.elapsed();
    Ok(row)
}

fn is_kept(found: u64, budget: u64) -> bool {
    let share = found as f64 / budget as f64;
    (1.0 - SLACK..=1.0 + TOLERANCE).contains(&share)
}

fn budgets() -> Result<BTreeMap<String, u64>> {
    let path = workspace::root().join("tests/budgets.toml");
    let table: toml::Table = workspace::read(&path)?
        .parse()
        .with_context(|| format!("{} is not TOML", path.display()))?;
    let budgets = table.get("instructions").cloned();
    let budgets = budgets.with_context(|| format!("{} has no [instructions]", path.display()))?;
    budgets
        .try_into()
        .with_context(|| format!("[instructions] in {} holds no counts", path.display()))
}

/// The program that holds the engine's unit tests.
fn unit_tests() -> Result<std::path::PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--no-run", "--package", "sandbox-user", "--lib"]);
    let built = executables(&mut cargo)?;
    let found = built.into_iter().next();
    Ok(found
        .context("cargo made no unit tests of sandbox-user")?
        .path)
}

/// The instructions of this function and all that it calls.
fn count(program: &Path, function: &str) -> Result<u64> {
    let mut valgrind = host::program("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--collect-atstart=no", "--log-fd=1"])
        .arg(format!("--toggle-collect=sandbox::{MODULE}::{function}*"))
        .arg(program)
        .args(["--test-threads=1", "--exact"])
        .arg(format!("{MODULE}::counts::{function}"));
    let text = command::text(&mut valgrind)?;
    let counted = text
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok());
    match counted {
        Some(0) | None => bail!("callgrind has counted nothing of {MODULE}::{function}:\n{text}"),
        Some(count) => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_budget_is_too_much_and_much_less_a_budget_that_guards_nothing() {
        assert!(is_kept(1000, 1000));
        assert!(is_kept(1100, 1000));
        assert!(!is_kept(1101, 1000));
        assert!(is_kept(800, 1000));
        assert!(!is_kept(799, 1000));
    }

    #[test]
    fn the_committed_budgets_can_be_read() {
        assert!(budgets().expect("budgets").len() >= 3);
    }
}
