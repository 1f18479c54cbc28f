//! From the kill of a leaf with many processes, which hold still, to its end.
//!
//! `kill-1`, `kill-100` and `kill-10000`, ms: until nobody is in the leaf, until it is removed, and until the client
//! has ended, by when the record is durable. A bare cgroup with the same limits is what `sandbox` is compared with:
//! from `cgroup.kill` to the end of its rmdir(2), tried until it is done. A run's time begins with the first signal
//! that the kernel generated (`kills[].at`); it is cancelled, by SIGTERM to its client. Its own account (`--timings`)
//! is beside that: the steps between the end of main and the record.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;
use std::process::{Command, Stdio};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use sandbox_tests::{Record, Sandbox, victim};
use serde_json::Value;

use crate::emptying::Emptying;
use crate::plain;
use crate::rows::Rows;

/// How many processes there are, and how often that is measured in a round.
const SIZES: [(usize, usize); 3] = [(1, 10), (100, 5), (10_000, 1)];
/// The limits of both, as `sandbox run` and as the kernel have them.
const MEMORY: (&str, &str) = ("4GiB", "4294967296");
const PIDS: &str = "12000";
const CPUS: (&str, &str) = ("1", "100000 100000");
/// The cgroup that is not `sandbox`'s.
const BARE: &str = "/sys/fs/cgroup/bench-bare";

/// Measures all so often.
pub(crate) fn measure(rounds: usize) -> Vec<Value> {
    let mut results = SIZES.map(|(size, _)| Rows::new(format!("kill-{size}"), "ms"));
    for _ in 0..rounds {
        for (rows, (size, times)) in results.iter_mut().zip(SIZES) {
            for _ in 0..times {
                bare(size, rows);
                supervised(size, rows);
            }
        }
    }
    results.map(|rows| rows.result([])).into()
}

/// Those of a plain cgroup.
fn bare(processes: usize, rows: &mut Rows) {
    let folder = Path::new(BARE);
    plain::make(folder, [MEMORY.1, PIDS, CPUS.1]);
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        &format!("echo $$ >{BARE}/cgroup.procs && exec \"$0\" \"$@\""),
    ]);
    let mut main = shell
        .arg(victim())
        .args(act(processes))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the guest has sh");
    let said = BufReader::new(main.stdout.take().expect("a pipe")).lines();
    let mut said = said.map_while(Result::ok);
    assert!(said.any(|line| line.starts_with("ready ")), "it has begun");
    let emptying = Emptying::of(folder);
    let killed = Timestamp::now();
    fs::write(folder.join("cgroup.kill"), "1").expect("root may kill");
    let (emptied, removed) = emptying.emptied();
    while let Err(error) = fs::remove_dir(folder) {
        let is_busy = error.kind() == ErrorKind::ResourceBusy;
        assert!(is_busy, "{BARE}: {error}");
        std::thread::yield_now();
    }
    let removed = removed.join().expect("it looks on");
    let _killed = main.wait().expect("it is a child of ours");
    rows.push("bare cgroup, removed", ms(killed, removed));
    rows.push("bare cgroup, empty", ms(killed, emptied));
}

/// Those of a run.
fn supervised(processes: usize, rows: &mut Rows) {
    let running = Sandbox::new()
        .options(["--memory", MEMORY.0, "--pids", PIDS, "--cpus", CPUS.0])
        .options(["--grace", "0", "--timings", "--notes", "never"])
        .start_victim(act(processes));
    let main = running.ready();
    let emptying = Emptying::of(&running.cgroup_of(main));
    running.signal(Signal::SIGTERM);
    let (emptied, removed) = emptying.emptied_and_removed();
    let client = Id::Pid(Pid::from_raw(running.pid()));
    // It stays to be waited for.
    waitid(client, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("it is a child of ours");
    let told = Timestamp::now();
    let record = running.finish().record();
    assert_eq!(record.reason(), "cancelled", "{record}");
    let killed = first_kill(&record);
    rows.push("sandbox, empty", ms(killed, emptied));
    rows.push("sandbox, removed", ms(killed, removed));
    rows.push("sandbox, recorded and told", ms(killed, told));
    let timings = record.at("/timings").as_object().expect("it was asked for");
    for step in ["empty", "read", "record", "events", "remove"] {
        let ns = timings[step].as_f64().expect("ns");
        rows.push(&format!("sandbox, the step `{step}`"), ns / 1e6);
    }
    let cleanup_ms = record.number("/cleanup/wall_ms") as f64;
    rows.push("sandbox, `cleanup.wall_ms`", cleanup_ms);
}

/// What a victim does to be so many processes.
fn act(processes: usize) -> [String; 2] {
    ["children".to_owned(), (processes - 1).to_string()]
}

fn first_kill(record: &Record) -> Timestamp {
    let dates = record.kills().iter().filter(|kill| kill["signal"] == 9);
    let dates = dates.filter_map(|kill| kill["at"].as_str()?.parse().ok());
    dates.min().expect("somebody was killed")
}

fn ms(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1e3
}
