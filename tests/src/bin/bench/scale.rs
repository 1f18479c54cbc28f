//! What a launch and an event cost while so many leaves are watched.

use sandbox_tests::{Programs, Scene};
use serde_json::Value;

use crate::hyperfine::median_ms;
use crate::launch::{by_service, fork_and_exec, standalone};
use crate::rows::Rows;

/// How many leaves are watched beside those that are measured; nobody runs in them.
const LEAVES: [usize; 4] = [1, 100, 1000, 4000];
/// Processes that are started in a run, one after another: their births, executions and ends are events.
const PROCESSES: usize = 200;

/// Measures all so often at each number of leaves, of which one is what the others are compared with.
pub(crate) fn measure(rounds: usize) -> Vec<Value> {
    let scene = Scene::new();
    let mut bare = Rows::new("scale-fork-and-exec", "ms");
    let mut launch = Rows::new("scale-launch", "ms");
    let mut service = Rows::new("scale-launch-service", "ms");
    let mut event = Rows::new("scale-event", "ns");
    // The first one loads the programs.
    let _first = scene.bash("sandbox run -- true").expect(0);
    for leaves in LEAVES {
        let watched = format!("leaves --folder /sys/fs/cgroup/leaves --count {leaves}");
        let _done = scene.bash(&watched).expect(0);
        let row = format!("{leaves} leaves");
        for _ in 0..rounds {
            bare.push(&row, median_ms(&fork_and_exec()));
            launch.push(&row, median_ms(&standalone()));
            service.push(&row, median_ms(&by_service()));
            event.push(&row, ns_per_event(&scene));
        }
    }
    [bare, launch, service, event]
        .map(|rows| rows.result([]))
        .into()
}

/// What the programs take for each of their runs.
fn ns_per_event(scene: &Scene) -> f64 {
    Programs::count();
    // Something that is counted.
    let _any = scene.bash("/bin/true").expect(0);
    let before = Programs::read();
    let _done = scene
        .bash(&format!(
            "sandbox run -- bash -c 'for i in {{1..{PROCESSES}}}; do /bin/true; done'"
        ))
        .expect(0);
    let after = Programs::read();
    Programs::count_no_more();
    (after.run_time_ns - before.run_time_ns) as f64 / (after.runs - before.runs) as f64
}
