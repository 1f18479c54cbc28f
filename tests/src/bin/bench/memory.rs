//! What memory the service takes, each run, and the maps of the kernel side.

use std::thread;

use sandbox_tests::{Maps, Scene, guardians, parent_of, pss_kib, wait};
use serde_json::Value;

use crate::rows::Rows;

/// How many runs go on, none of which does anything.
const RUNS: [usize; 3] = [1, 100, 1000];
/// How many are started at a time.
const WIDTH: usize = 4;

/// Measures it at each number of runs; with one is what the others are compared with.
pub(crate) fn measure() -> Vec<Value> {
    let mut service = Rows::new("memory-service", "MiB");
    let mut run = Rows::new("memory-run", "MiB");
    let mut maps = Rows::new("memory-maps", "MiB");
    // It loads the programs.
    let _first = Scene::new().bash("sandbox run -- true").expect(0);
    let mut going_on = 0;
    for runs in RUNS {
        start(runs - going_on);
        going_on = runs;
        wait::until("all to go on", || {
            let asleep = Scene::new().bash("pgrep --count --full '^sleep 98765'");
            asleep.out().trim() == runs.to_string()
        });
        let row = format!("{runs} runs");
        service.push(&row, pss_mib(service_pid()));
        let both: f64 = guardians()
            .into_iter()
            .flat_map(|guardian| [Some(guardian), parent_of(guardian)])
            .flatten()
            .map(pss_mib)
            .sum();
        run.push(&row, both / runs as f64);
        let bytes: u64 = Maps::read().bytes.values().sum();
        maps.push(&row, bytes as f64 / f64::from(1 << 20));
    }
    vec![service.result([]), run.result([]), maps.result([])]
}

fn pss_mib(pid: i32) -> f64 {
    pss_kib(pid) as f64 / 1024.0
}

/// Has so many more go on.
fn start(runs: usize) {
    thread::scope(|scope| {
        for worker in 0..WIDTH {
            scope.spawn(move || {
                for _ in (worker..runs).step_by(WIDTH) {
                    // The run's directory outlives the scene.
                    let _id = Scene::new()
                        .bash("cd / && sandbox run --detach --memory 4MiB -- sleep 98765")
                        .expect(0);
                }
            });
        }
    });
}

fn service_pid() -> i32 {
    let said = Scene::new()
        .bash("systemctl show --property MainPID --value sandbox")
        .expect(0);
    said.out().trim().parse().expect("the service goes on")
}
