//! Some dozens of runs of the soak, so that all its kinds and their truths stay true between long
//! ones. In four parts, so that each is well within what a test may take.

use std::process::Command;

use sandbox_tests::Guest;

/// A quarter of a round of the deck, and a few more: together they have each kind at least once.
const RUNS: u32 = 20;

/// As many as keep the guest busy while some of them wait.
const JOBS: &str = "6";

#[track_caller]
fn are_told_as_they_were(part: u32) {
    // The soak enters the guest itself, and sees what is left over; this is for where there is none.
    let guest = Guest::enter();
    let first = (part * RUNS).to_string();
    let runs = RUNS.to_string();
    let soak = Command::new("soak")
        .args(["--seed", "2026", "--first", &first, "--runs", &runs])
        .args(["--jobs", JOBS])
        .status()
        .expect("`soak` lies beside `sandbox`");
    assert!(soak.success(), "on {}: {soak}", guest.kernel);
}

#[test]
fn runs_of_the_first_quarter_are_told_as_they_were() {
    are_told_as_they_were(0);
}

#[test]
fn runs_of_the_second_quarter_are_told_as_they_were() {
    are_told_as_they_were(1);
}

#[test]
fn runs_of_the_third_quarter_are_told_as_they_were() {
    are_told_as_they_were(2);
}

#[test]
fn runs_of_the_last_quarter_are_told_as_they_were() {
    are_told_as_they_were(3);
}
