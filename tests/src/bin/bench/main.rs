//! `bench`: `sandbox` and what people use instead, measured side by side in one guest.
//!
//! For `cargo xtask bench`, in a guest that has those others. Each suite prints a line or more, `result` and a
//! JSON document, which the other side keeps and makes a table of.

mod benchexec;
mod bundle;
mod emptying;
mod hyperfine;
mod launch;
mod life;
mod loss;
mod overshoot;
mod rows;
mod teardown;
mod tracers;
mod watch;

use clap::{Parser, ValueEnum};
use sandbox_tests::{Package, wait};
use serde_json::Value;

/// How long the guest may keep us waiting.
const PATIENCE_S: u64 = 120;

/// Measure `sandbox` beside what people use instead.
#[derive(Debug, Parser)]
struct Arguments {
    /// What is measured.
    #[arg(long)]
    suite: Suite,
    /// How often all of it is measured: the spread is that of the rounds.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Suite {
    /// A command that does nothing, from start to end.
    Launch,
    /// What is killed, from its deadline to its end.
    Kill,
    /// Processes that fork, execute and exit, and who looks on.
    Watch,
    /// A fork bomb, and who does not look on.
    Loss,
}

fn main() {
    let Arguments { suite, rounds } = Arguments::parse();
    wait::be_patient(PATIENCE_S);
    let results: Vec<Value> = match suite {
        Suite::Launch => vec![launch::measure(rounds)],
        Suite::Kill => {
            let _package = Package::install();
            [overshoot::measure(rounds), teardown::measure(rounds)].concat()
        }
        Suite::Watch => watch::measure(rounds),
        Suite::Loss => {
            let _package = Package::install();
            loss::measure(rounds)
        }
    };
    for result in results {
        println!("result {result}");
    }
}
