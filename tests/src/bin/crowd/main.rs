//! `crowd`: hundreds of runs at once by the host's service, each with an ending of its own, and what they take.

use clap::Parser;
use sandbox_tests::{
    Crowd, Guest, Maps, Programs, Sandbox, Scene, Service, guardians, parent_of, pss_kib, wait,
};

/// How long one of so many may keep us waiting: the others need the processor too.
const PATIENCE_S: u64 = 900;

/// Many runs at once.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many.
    #[arg(long, default_value_t = 1000)]
    runs: usize,
}

fn main() {
    let Arguments { runs } = Arguments::parse();
    let _guest = Guest::enter();
    wait::be_patient(PATIENCE_S);
    Programs::count();
    let service = Service::start();
    // Loads the programs.
    let _first = Sandbox::new()
        .victim(["exit", "0"])
        .ended(0, "completed", "none");
    let idle = pss_kib(service.pid().cast_signed());
    let before = Programs::read();

    let crowd = Crowd::start(runs);
    let guardians = guardians();
    assert_eq!(guardians.len(), runs, "one a run");
    let supervisors: Vec<i32> = guardians.iter().filter_map(|pid| parent_of(*pid)).collect();
    let each = |pids: &[i32]| pids.iter().copied().map(pss_kib).sum::<u64>() / runs as u64;
    println!("{runs} runs go on");
    println!(
        "the service: {} KiB, with no run {idle} KiB",
        pss_kib(service.pid().cast_signed())
    );
    println!(
        "for each run: its supervisor {} KiB, its guardian {} KiB",
        each(&supervisors),
        each(&guardians)
    );
    let maps: u64 = Maps::read().bytes.values().sum();
    println!("all maps but the rings: {} KiB", maps / 1024);

    crowd.end();
    let after = Programs::read();
    let events = after.runs - before.runs;
    println!(
        "{events} events, {} ns each",
        (after.run_time_ns - before.run_time_ns) / events
    );
    let count = "select count(*), count(record), sum(reason = 'runner_lost') from runs where state = 'ended'";
    let query = format!(
        "import sqlite3; print(*sqlite3.connect('{}/runs.sqlite').execute(\"{count}\").fetchone())",
        Service::STORE
    );
    let stored = Scene::new().python(&query).expect(0);
    assert_eq!(stored.out(), format!("{0} {0} 0", runs + 1), "{stored}");
    println!("every verdict is its own run's, and all of them are in the store");
}
