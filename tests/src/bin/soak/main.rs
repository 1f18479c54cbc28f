//! `soak`: a random mix of all endings, some at a time, each with a cause that is known beforehand.
//!
//! Every other test asks for one ending in a quiet guest. Here they happen beside each other, at
//! random moments and with random parameters, among decoys; and each record is held against what the
//! one who made the run end knows. Everything about a run follows from the seed and its index, so
//! that it can be had again, chance in the kernel's scheduling apart.

mod above;
mod company;
mod executed;
mod heard;
mod kind;
mod limits;
mod outside;
mod own;
mod pool;
mod racing;
mod random;
mod runner;
mod stage;
mod sureness;
mod tally;
mod truth;
mod unusual;

use std::process::ExitCode;

use clap::Parser;
use sandbox_tests::{Guest, wait};

/// A random mix of all endings, each with a cause that is known beforehand.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// What all chance follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The index of the first run.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How many runs.
    #[arg(long, default_value_t = 60)]
    runs: u64,
    /// How many at a time.
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// The run of this index and no other.
    #[arg(long, conflicts_with_all = ["first", "runs"])]
    only: Option<u64>,
    /// Runs of this kind and no other.
    #[arg(long)]
    kind: Option<String>,
    /// Say how each run was ruled on.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let _guest = Guest::enter();
    heard::listen();
    // After an OOM of the whole guest every program is read from an emulated disk again.
    wait::be_patient(300);
    let tally = {
        let _pids = pool::FewPids::set();
        let _copies = executed::Copies::make();
        pool::run(&arguments)
    };
    print!("{tally}");
    if tally.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
