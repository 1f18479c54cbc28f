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
mod hosted;
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
use sandbox_tests::{Guest, Service, wait};

use crate::hosted::Plagued;

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
    /// Have the host's service do the runs, and kill that again and again.
    #[arg(long)]
    service: bool,
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
    let service = arguments.service.then(Service::activated);
    pool::load_programs();
    let plagued = service.map(|service| Plagued::begin(service, arguments.seed));
    let tally = {
        let _pids = pool::FewPids::set();
        let _copies = executed::Copies::make();
        pool::run(&arguments)
    };
    print!("{tally}");
    let is_whole = plagued.is_none_or(Plagued::end);
    match (is_whole, tally.is_clean()) {
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::FAILURE,
        (false, _) => ExitCode::from(3),
    }
}
