//! `faults`: makes each system call of the engine fail once, in a guest, and says what came of it.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use sandbox_tests::Guest;
use sandbox_tests::faults::{Scenario, Share, Sweep};

/// Makes each system call that `sandbox` makes for a run fail once.
#[derive(Debug, Parser)]
struct Arguments {
    /// The run that they are of; all four without it.
    #[arg(long)]
    scenario: Option<Which>,
    /// The first fault to try, of those that there are.
    #[arg(long, default_value_t = 0)]
    first: usize,
    /// Try every so many-th from there.
    #[arg(long, default_value_t = 1)]
    of: usize,
    /// Only those whose description has this in it.
    #[arg(long, default_value = "")]
    only: String,
    /// List them, and try none.
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    Completes,
    Overruns,
    LeavesOver,
    Cold,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let _guest = Guest::enter();
    let scenarios = match arguments.scenario {
        None => vec![
            Scenario::Completes,
            Scenario::Overruns,
            Scenario::LeavesOver,
            Scenario::Cold,
        ],
        Some(Which::Completes) => vec![Scenario::Completes],
        Some(Which::Overruns) => vec![Scenario::Overruns],
        Some(Which::LeavesOver) => vec![Scenario::LeavesOver],
        Some(Which::Cold) => vec![Scenario::Cold],
    };
    let mut status = ExitCode::SUCCESS;
    for scenario in scenarios {
        let share = Share {
            first: arguments.first,
            of: arguments.of,
        };
        let sweep = Sweep::of(scenario)
            .share(share)
            .only(|taken| taken.to_string().contains(&arguments.only));
        println!("{scenario:?}: {} faults", sweep.len());
        if arguments.list {
            for taken in sweep.steps() {
                println!("{taken}");
            }
            continue;
        }
        let tally = sweep.run(|line| println!("{line}"));
        println!(
            "{scenario:?}: {} faults injected, {} not reached, {} wrong",
            tally.injected,
            tally.not_reached,
            tally.wrong.len()
        );
        for unfit in &tally.unfit {
            println!("left alone: {unfit}");
        }
        if !tally.wrong.is_empty() {
            println!("\n{}", tally.wrong.join("\n\n"));
            status = ExitCode::FAILURE;
        }
    }
    status
}
