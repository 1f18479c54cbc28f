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
mod memory;
mod overshoot;
mod plain;
mod real;
mod rows;
mod scale;
mod teardown;
mod throughput;
mod tracers;
mod watch;

use clap::{Parser, ValueEnum};
use sandbox_tests::{Package, wait};
use serde_json::Value;

/// How long the guest may keep us waiting.
const PATIENCE_S: u64 = 600;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// A command that does nothing, from start to end.
    Launch,
    /// What is killed, from its deadline to its end.
    Kill,
    /// Processes that fork, execute and exit, and who looks on.
    Watch,
    /// A fork bomb, and who does not look on.
    Loss,
    /// How many of those are done in a second.
    Throughput,
    /// What a launch and an event cost while many leaves are watched.
    Scale,
    /// What memory many runs take.
    Memory,
    /// A build and a pipeline.
    Real,
}

fn main() {
    let Arguments { suite, rounds } = Arguments::parse();
    wait::be_patient(PATIENCE_S);
    // What watches in its own right needs none.
    let _package = (suite != Suite::Watch).then(Package::install);
    let results: Vec<Value> = match suite {
        Suite::Launch => vec![launch::measure(rounds)],
        Suite::Kill => [overshoot::measure(rounds), teardown::measure(rounds)].concat(),
        Suite::Watch => watch::measure(rounds),
        Suite::Loss => loss::measure(rounds),
        Suite::Throughput => throughput::measure(rounds),
        Suite::Scale => scale::measure(rounds),
        Suite::Memory => memory::measure(),
        Suite::Real => real::measure(rounds),
    };
    for result in results {
        println!("result {result}");
    }
}
