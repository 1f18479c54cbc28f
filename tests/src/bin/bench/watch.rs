//! Processes that fork, execute and exit, one after another: with nothing loaded, with `sandbox`'s programs loaded
//! and with their cgroup watched; and with nothing of ours, but with others looking on.
//!
//! `watch`: how long the loop takes, ms, always in `sandbox-user/examples/watching.rs`. `watch-programs`: how long the
//! eBPF programs ran in it, by the kernel's own count in a loop of its own, ns a process. bpftrace prints each fork,
//! exec and exit to a file; libbpf-tools has no tool for forks: its execsnoop and exitsnoop run together.

use std::process::Command;

use sandbox_tests::Programs;
use serde_json::Value;

use crate::rows::Rows;
use crate::tracers::{Tool, Tracing};

/// How many processes each time.
const PROCESSES: u32 = 300;

/// Who looks on, instead of `sandbox`.
const OTHERS: [(&str, &[Tool]); 2] = [
    ("bpftrace", &[Tool::Bpftrace]),
    (
        "libbpf-tools (execsnoop and exitsnoop)",
        &[Tool::Execsnoop, Tool::Exitsnoop],
    ),
];

/// Measures all so often.
pub(crate) fn measure(rounds: usize) -> Vec<Value> {
    let mut loops = Rows::new("watch", "ms");
    let mut programs = Rows::new("watch-programs", "ns");
    let mut besides = Vec::new();
    for _ in 0..rounds {
        let ours = watching(&[]);
        for row in ours["rows"].as_array().expect("rows") {
            let name = row["name"].as_str().expect("a name");
            loops.push(name, row["rounds"][0].as_f64().expect("ms"));
        }
        let number = |name: &str| ours[name].as_f64().expect("a number");
        programs.push("watched", number("program_ns_per_process"));
        besides = [
            "program_runs",
            "ns_per_program_run",
            "events_read",
            "events_dropped",
        ]
        .map(|name| (name.to_owned(), number(name)))
        .into();
        for (name, tools) in OTHERS {
            let tracings: Result<Vec<_>, _> =
                tools.iter().map(|tool| Tracing::start(*tool)).collect();
            match tracings {
                Ok(tracings) => {
                    loops.push(name, loop_ms());
                    let (runs, ns) = counted(&tracings);
                    programs.push(name, ns as f64 / f64::from(PROCESSES));
                    besides.push((format!("program_runs ({name})"), runs as f64));
                    besides.push((
                        format!("ns_per_program_run ({name})"),
                        ns as f64 / runs as f64,
                    ));
                }
                Err(why) => {
                    loops.unmeasured(name, &why);
                    programs.unmeasured(name, &why);
                }
            }
        }
    }
    vec![loops.result([]), programs.result(besides)]
}

/// How often the programs of all of them ran in such a loop, and how long that took, ns.
fn counted(tracings: &[Tracing]) -> (u64, u64) {
    let sum = || {
        let all = tracings.iter().map(Tracing::programs);
        all.fold((0, 0), |(runs, ns), programs| {
            (runs + programs.runs, ns + programs.run_time_ns)
        })
    };
    Programs::count();
    let before = sum();
    let _ms = loop_ms();
    let after = sum();
    Programs::count_no_more();
    (after.0 - before.0, after.1 - before.1)
}

/// How long the loop takes with nothing of ours loaded, ms.
fn loop_ms() -> f64 {
    let result = watching(&["--nothing-loaded"]);
    result["rows"][0]["rounds"][0].as_f64().expect("ms")
}

/// What that program says of one round.
fn watching(options: &[&str]) -> Value {
    let mut watching = Command::new("watching");
    watching.args(["--rounds", "1", "--processes", &PROCESSES.to_string()]);
    let output = watching.args(options).output();
    let output = output.expect("it is in the payload");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    let result = said.strip_prefix("result ").expect("a result");
    serde_json::from_str(result).expect("JSON")
}
