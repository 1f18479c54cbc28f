//! A system call of the engine fails, whichever: the analysis is confined or was not started, nothing
//! is left running, and there is a record, or an error that says why there is none.
//!
//! All of them take hours (`cargo xtask vm run --kernel 6.12 --time-limit 36000 -- faults`); here each
//! kernel takes some. What matters most is taken on each: the steps that confine, and those that kill.

use sandbox_tests::Guest;
use sandbox_tests::faults::{Role, Scenario, Share, Sweep, Taken};

/// Runs a sweep, and fails the test where one of its runs went wrong, or where too few of its faults
/// took place.
#[track_caller]
fn holds(sweep: Sweep) {
    let faults = sweep.len();
    assert!(faults > 0, "a sweep of nothing");
    let tally = sweep.run(|_| {});
    assert!(tally.wrong.is_empty(), "{}", tally.wrong.join("\n\n"));
    // How often an event loop turns, and so which step is which, differs with the machine's load.
    assert!(
        tally.injected * 3 >= faults,
        "of {faults} faults only {} took place",
        tally.injected
    );
}

/// Every so many-th fault, another one on each kernel.
fn share(guest: &Guest, of: usize) -> Share {
    let (major, minor) = guest.version();
    let first = usize::try_from(major * 31 + minor).unwrap_or_default() % of;
    Share { first, of }
}

#[test]
fn a_step_that_fails_before_the_analysis_is_executed_leaves_it_confined_or_not_started() {
    let guest = Guest::enter();
    holds(Sweep::of(Scenario::Completes).share(share(&guest, 151)));
}

#[test]
fn a_mount_or_a_right_that_cannot_be_changed_keeps_the_analysis_from_starting() {
    let _guest = Guest::enter();
    let confines = [
        "mount",
        "unshare",
        "umount2",
        "setresuid",
        "setresgid",
        "setgroups",
        "capset",
    ];
    holds(Sweep::of(Scenario::Completes).only(|taken| {
        taken.step.role == Role::Child
            && taken
                .step
                .call
                .name()
                .is_some_and(|name| confines.contains(&name))
    }));
}

#[test]
fn a_program_that_cannot_be_loaded_attached_or_pinned_leaves_the_analysis_confined_or_not_started()
{
    let guest = Guest::enter();
    let loads = |taken: &Taken| {
        taken.step.role == Role::Supervisor && taken.step.call.name() == Some("bpf")
    };
    let sweep = Sweep::of(Scenario::Cold).only(loads);
    holds(sweep.share(share(&guest, 29)));
}

#[test]
fn an_analysis_that_has_to_be_ended_is_ended_whatever_fails() {
    let guest = Guest::enter();
    holds(Sweep::of(Scenario::Overruns).share(share(&guest, 83)));
}

#[test]
fn what_an_analysis_leaves_behind_is_killed_whatever_fails() {
    let _guest = Guest::enter();
    let ends = |taken: &Taken| {
        ["cgroup.kill", "cgroup.procs"]
            .iter()
            .any(|name| taken.subject.contains(name))
            || taken.step.call.name() == Some("unlinkat")
    };
    holds(Sweep::of(Scenario::LeavesOver).only(ends));
}
