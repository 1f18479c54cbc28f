//! `cargo xtask test`: unit tests on this machine, the instructions that the engine takes, then everything in
//! `tests/` in guests.
//!
//! One command that tells whether the tree is good, and that cannot be fooled by what did not run:
//! each guest gets a list of tests, and a test on the list that does not report a pass has failed,
//! whether it failed, hung, took its kernel down or was never reached.

mod guests;
mod host;
mod instructions;
mod plan;
mod report;

use std::process::ExitCode;

use anyhow::{Result, bail};

use self::guests::Binaries;
use self::plan::Pass;
use self::report::{Report, Row};
use crate::vm::{Assets, Mode, Series, side_by_side};

/// It takes twice as long as the others where 500 runs end at once.
const SLOWEST_KERNEL: Series = Series::V6_12;

/// Unit tests on this machine, then the guest tests on every supported kernel.
#[derive(clap::Args, Debug)]
pub(crate) struct Test {
    /// Only guests with this kernel (repeatable).
    #[arg(long = "kernel", value_name = "SERIES")]
    kernels: Vec<Series>,
    /// Only guests of this kind, on each kernel asked for.
    #[arg(long, value_name = "MODE")]
    mode: Option<Mode>,
    /// Only tests whose `target::name` contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Only the guests, not the unit tests on this machine.
    #[arg(long)]
    guests_only: bool,
    /// Seconds that a test may take before it counts as hanging.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    test_limit: u64,
}

impl Test {
    /// Does the task.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let mut report = Report::default();
        if !self.guests_only {
            let filter = self.filter.as_deref();
            for row in [host::run(filter)?, instructions::run(filter)?] {
                if filter.is_none() || row.ran() {
                    report.add(row);
                }
            }
        }
        let mut passes = plan::passes(&self.kernels, self.mode);
        let mut binaries = Binaries::build()?;
        for pass in &mut passes {
            pass.choose(&binaries.list, self.filter.as_deref());
        }
        match self.filter {
            // A filter may leave a guest without work; without one, that is a mistake in the plan.
            Some(_) => passes.retain(|pass| !pass.tests.is_empty()),
            None => {
                if let Some(idle) = passes.iter().find(|pass| pass.tests.is_empty()) {
                    bail!("no test is meant for the guest {}", idle.label());
                }
            }
        }
        if passes.iter().any(Pass::wants_the_package) {
            binaries.add_package()?;
        }
        let kernels: Vec<Series> = Series::ALL
            .into_iter()
            .filter(|kernel| passes.iter().any(|pass| pass.series == *kernel))
            .collect();
        if !kernels.is_empty() {
            let assets = Assets::prepare(&kernels)?;
            for row in run_all(passes, &binaries, &assets, self.test_limit) {
                report.add(row);
            }
        }
        if report.is_empty() {
            bail!(
                "no test matches the filter {:?}",
                self.filter.unwrap_or_default()
            );
        }
        Ok(report.finish())
    }
}

/// Runs the passes, some at a time, and gives their rows in the order of the passes.
fn run_all(passes: Vec<Pass>, binaries: &Binaries, assets: &Assets, test_limit: u64) -> Vec<Row> {
    // Whoever takes longest starts first, so that no guest is left alone at the end.
    let mut queue: Vec<(usize, Pass)> = passes.into_iter().enumerate().collect();
    queue.sort_by_key(|(_, pass)| (pass.tests.len(), pass.series == SLOWEST_KERNEL));
    let mut rows = side_by_side(queue.into_iter().rev(), |(order, pass)| {
        let row = guests::run(&pass, binaries, assets, test_limit).unwrap_or_else(|error| {
            println!("FAILED  {:<14} {error:#}", pass.label());
            Row::broken(pass.label(), &error)
        });
        (order, row)
    });
    rows.sort_by_key(|(order, _)| *order);
    rows.into_iter().map(|(_, row)| row).collect()
}
