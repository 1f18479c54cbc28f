//! How long a command lives beyond its wall-clock limit of a second, and `sandbox`'s own account of that.
//!
//! `kill-overshoot` and `kill-overshoot-p99`: from the exec to the end of the process ([`crate::life`]) less the
//! limit, ms, with no grace and SIGKILL for all; of so many commands a round the median, and what 99 % of them do not
//! exceed (of as few as here: the worst). timeout(1) and systemd count from before the exec, and may end it sooner.
//! `kill-deadline`: the first `kills[].at` of the record less `started_at` and the limit, ms: when the kernel
//! generated the signal.

use std::path::Path;
use std::process::{Command, Stdio};

use jiff::Timestamp;
use sandbox_tests::{Record, Sandbox, Scene};
use serde_json::Value;

use crate::benchexec;
use crate::life::{self, Life};
use crate::rows::{Rows, percentile};

/// How many commands each has in a round.
const COMMANDS: usize = 20;
/// The limit, ms.
const LIMIT_MS: f64 = 1000.0;

/// Who ends a command after a second.
#[derive(Debug)]
enum Limiter {
    /// `sandbox run`, with these options besides.
    Sandbox(&'static [&'static str]),
    /// Something else: its words before the command's.
    Other(Vec<String>),
}

/// Measures all so often.
pub(crate) fn measure(rounds: usize) -> Vec<Value> {
    let scene = Scene::new();
    let limiters = limiters();
    let mut medians = Rows::new("kill-overshoot", "ms");
    let mut worst = Rows::new("kill-overshoot-p99", "ms");
    let mut deadlines = Rows::new("kill-deadline", "ms");
    let path = scene.path("life");
    let mut start_ups = Vec::new();
    for _ in 0..rounds {
        let mut start_up: Vec<f64> = (0..COMMANDS).map(|_| start_up_ms(&path)).collect();
        let median = percentile(&start_up, 50);
        start_ups.append(&mut start_up);
        for (name, limiter) in &limiters {
            let mut late = Vec::new();
            let mut signalled = Vec::new();
            for _ in 0..COMMANDS {
                let (lived_ms, record) = limiter.run(&path);
                late.push(lived_ms + median - LIMIT_MS);
                signalled.extend(record.map(|record| signal_after_deadline_ms(&record)));
            }
            medians.push(name, percentile(&late, 50));
            worst.push(name, percentile(&late, 99));
            if !signalled.is_empty() {
                deadlines.push(&format!("{name}: median"), percentile(&signalled, 50));
                deadlines.push(&format!("{name}: p99"), percentile(&signalled, 99));
            }
        }
    }
    let start_up = ("start_up_us".to_owned(), percentile(&start_ups, 50) * 1e3);
    vec![
        medians.result([start_up.clone()]),
        worst.result([start_up]),
        deadlines.result([]),
    ]
}

fn limiters() -> Vec<(&'static str, Limiter)> {
    let words = |line: &str| Limiter::Other(line.split(' ').map(ToOwned::to_owned).collect());
    let runexec = benchexec::RUNEXEC;
    vec![
        ("sandbox run, by the service", Limiter::Sandbox(&[])),
        (
            "sandbox run --standalone",
            Limiter::Sandbox(&["--standalone"]),
        ),
        ("timeout", words("timeout --signal=KILL 1")),
        (
            "systemd-run, RuntimeMaxSec=",
            words("systemd-run --quiet --wait --pipe -p RuntimeMaxSec=1s -p KillSignal=SIGKILL --"),
        ),
        (
            "runexec (BenchExec), in a scope of systemd's",
            words(&format!(
                "{runexec} --walltimelimit 1 --no-container --output /dev/null --"
            )),
        ),
    ]
}

impl Limiter {
    /// Has it run a command that would go on for ever: for how long that lived since its first word, ms, and the
    /// record, where there is one.
    fn run(&self, path: &Path) -> (f64, Option<Record>) {
        let mut life = Life::at(path);
        let command = life.command();
        match self {
            Self::Sandbox(options) => {
                let usual = ["--timeout", "1s", "--grace", "0", "--notes", "never"];
                let sandbox = Sandbox::new().options(usual).options(*options);
                let running = sandbox.start(command);
                let lived_ms = lived_ms(&mut life);
                (lived_ms, Some(running.finish().record()))
            }
            Self::Other(words) => {
                let mut other = Command::new(&words[0]);
                other.args(&words[1..]).args(command);
                other
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null());
                let mut child = other.spawn().expect("the guest has it");
                let lived_ms = lived_ms(&mut life);
                // Each has its own way of saying that it was too late.
                let _status = child.wait().expect("it is a child of ours");
                (lived_ms, None)
            }
        }
    }
}

fn lived_ms(life: &mut Life) -> f64 {
    let begun = life.begun();
    life.ended().duration_since(begun).as_secs_f64() * 1e3
}

fn start_up_ms(path: &Path) -> f64 {
    life::start_up(path).as_secs_f64() * 1e3
}

/// From the deadline to the first signal, ms.
fn signal_after_deadline_ms(record: &Record) -> f64 {
    let date = |pointer: &str| -> Timestamp { record.text(pointer).parse().expect("a date") };
    let since_start = date("/kills/0/at").duration_since(date("/started_at"));
    since_start.as_secs_f64() * 1e3 - LIMIT_MS
}
