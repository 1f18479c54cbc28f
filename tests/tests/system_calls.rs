//! How many system calls a run takes, beside what `tests/budgets.toml` allows.

use std::collections::BTreeMap;

use sandbox_tests::{Guest, Scene};

/// What committed budgets say.
const BUDGETS: &str = include_str!("../budgets.toml");
/// By how much a count may differ from the budget, percent: how often an event loop turns differs with the load.
const TOLERANCE: u64 = 10;
/// What may be saved before the budget has to follow, percent; kernels differ in what there is to be read.
const SLACK: u64 = 30;

#[test]
fn a_run_takes_no_more_of_them_than_its_budget() {
    let _guest = Guest::enter();
    let scene = Scene::new();
    // The first one loads the programs.
    let _first = scene.bash("sandbox run --user ana -- true").expect(0);
    let _run = scene
        .bash("strace -f -qq -o trace sandbox run --notes never --user ana -- true")
        .expect(0);
    let mut calls = BTreeMap::<String, u64>::new();
    for name in scene.read("trace").lines().filter_map(call) {
        *calls.entry(name.to_owned()).or_default() += 1;
    }
    let found: u64 = calls.values().sum();
    let budgets: toml::Table = BUDGETS.parse().expect("TOML");
    let budget = budgets["system-calls"]["standalone"].as_integer();
    let budget = u64::try_from(budget.expect("a number")).expect("a count");
    let kept = budget * (100 - SLACK) / 100..=budget * (100 + TOLERANCE) / 100;
    println!("{found} system calls, of {budget}: {calls:?}");
    assert!(kept.contains(&found), "{found} of {budget}: {calls:?}");
}

/// The call that a line of strace's begins; `None` for its second half, a signal and the end of a process.
fn call(line: &str) -> Option<&str> {
    let (_pid, rest) = line.split_once(' ')?;
    let (name, _) = rest.trim_start().split_once('(')?;
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then_some(name)
}
