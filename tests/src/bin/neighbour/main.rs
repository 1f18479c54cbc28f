//! `neighbour`: nginx serving beside analyses that misbehave, measured by wrk before and meanwhile, with `sandbox`
//! and, for contrast, without it.
//!
//! All in one run of one guest with systemd, so that what is compared met the same machine. `sandbox` is installed as
//! its package does it; nginx is a service.

mod attack;
mod load;
mod server;
mod service;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use attack::{Attack, Confinement};
use load::Load;
use server::Server;
use service::{Asked, Asking};

/// nginx beside analyses that misbehave.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long wrk measures at a time, seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Have the attack in `sandbox` go on, and be measured, until so many short runs have ended in it.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    short_runs: u64,
    /// Leave the contrast out: the same attack with nothing to hold it.
    #[arg(long)]
    only_confined: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let time = Duration::from_secs(arguments.seconds);
    // Where nothing holds the attack everything takes its time.
    sandbox_tests::wait::be_patient(120);
    let server = Server::start();
    let package = sandbox_tests::Package::install();
    let quiet = Phase::measure("quiet", &server, time);
    quiet.print(&quiet);
    let attack = Attack::begin(Confinement::Sandbox);
    let mut is_served = true;
    let came_to = loop {
        let confined = Phase::measure("attack, in sandbox", &server, time);
        confined.print(&quiet);
        is_served &= confined.is_served();
        let so_far = attack.so_far();
        println!(
            "    runs that have ended since it began: {}, {} of them short ones; that could not be run: {}",
            so_far.ended, so_far.short, so_far.refused
        );
        if so_far.short >= arguments.short_runs || !is_served || so_far.refused > 0 {
            break attack.end();
        }
    };
    let held = is_served && came_to.refused == 0;
    drop(package);
    if !arguments.only_confined {
        let attack = Attack::begin(Confinement::None);
        let contrast = Phase::measure("attack, without", &server, time);
        attack.end();
        contrast.print(&quiet);
    }
    if held {
        ExitCode::SUCCESS
    } else {
        println!(
            "FAILED: somebody was not answered while the attack was confined, or an analysis could not be run"
        );
        ExitCode::FAILURE
    }
}

/// What was measured at a time.
struct Phase {
    name: &'static str,
    load: Load,
    asked: Asked,
}

impl Phase {
    fn measure(name: &'static str, server: &Server, time: Duration) -> Self {
        let asking = Asking::begin();
        let load = Load::measure(server.url(), time);
        Self {
            name,
            load,
            asked: asking.end(),
        }
    }

    /// Whether all who asked were answered.
    const fn is_served(&self) -> bool {
        let Self { load, asked, .. } = self;
        load.requests > 0 && load.failed == 0 && asked.times > 0 && asked.failed == 0
    }

    fn print(&self, quiet: &Self) {
        let Self { name, load, asked } = self;
        println!(
            "{name}: {} requests, {} failed, p50 {:.1} ms, p99 {:.1} ms ({:.2} of quiet)",
            load.requests,
            load.failed,
            load.p50_ms,
            load.p99_ms,
            load.p99_ms / quiet.load.p99_ms,
        );
        // Without the service there is nobody to be asked.
        if asked.times > 0 {
            println!(
                "    sandbox list: {} times, {} failed, slowest {:.0} ms ({:.2} of quiet)",
                asked.times,
                asked.failed,
                asked.slowest_ms,
                asked.slowest_ms / quiet.asked.slowest_ms,
            );
        }
    }
}
