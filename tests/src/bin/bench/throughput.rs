//! How many short analyses are done in a second, so many at a time.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::bundle;
use crate::rows::Rows;

/// How many are under way at a time.
const WIDTHS: [usize; 4] = [1, 4, 16, 64];
/// How many are done in all, at each width.
const RUNS: usize = 64;
/// Who does them: its name, and its words for the run of this number, `{}`.
const CONTENDERS: [(&str, &str); 4] = [
    (
        "sandbox run, by the service",
        "sandbox run --notes never --memory 16MiB -- /usr/bin/true",
    ),
    (
        "crun",
        "crun --cgroup-manager=cgroupfs run --bundle /tmp/bundle bench-{}",
    ),
    (
        "systemd-run --scope",
        "systemd-run --quiet --scope -p MemoryMax=16M -p MemorySwapMax=0 -p CPUQuota=100% -p TasksMax=100 \
         -- /usr/bin/true",
    ),
    (
        "systemd-run --wait",
        "systemd-run --quiet --wait --pipe -p MemoryMax=16M -p MemorySwapMax=0 -p CPUQuota=100% -p TasksMax=100 \
         -- /usr/bin/true",
    ),
];

/// Measures all so often, a result for each width; `sandbox` is what the others are compared with.
pub(crate) fn measure(rounds: usize) -> Vec<Value> {
    bundle::make();
    let mut results =
        WIDTHS.map(|width| Rows::new(format!("throughput-{width}"), "runs per second"));
    // The first one of each has what the others find.
    for (_, command) in CONTENDERS {
        let _unmeasured = per_second(command, 1, 1);
    }
    for _ in 0..rounds {
        for (width, rows) in WIDTHS.into_iter().zip(&mut results) {
            for (name, command) in CONTENDERS {
                rows.push(name, per_second(command, width, RUNS));
            }
        }
    }
    let results = results.into_iter();
    results.map(|rows| rows.result([])).collect()
}

/// Has so many done, so many at a time.
fn per_second(command: &str, width: usize, runs: usize) -> f64 {
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..width {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= runs {
                        return;
                    }
                    do_one(&command.replace("{}", &number.to_string()));
                }
            });
        }
    });
    runs as f64 / began.elapsed().as_secs_f64()
}

fn do_one(command: &str) {
    let mut words = command.split_whitespace();
    let program = words.next().expect("a contender has words");
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output();
    let output = output.expect("the guest has it");
    assert!(output.status.success(), "{command}: {output:?}");
}
