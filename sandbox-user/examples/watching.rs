//! Measures what watching costs processes that fork, execute and exit: for `cargo xtask bench --suite watch`.
//!
//! A loop of such processes, in each round with nothing loaded, with the programs loaded and its cgroup not watched,
//! and watched, with somebody reading the ring. It needs root and BTF, and no cgroup of its own: it watches the one
//! that it is in, which may be the root, and what else is in there. In a mount namespace with a bpffs of its own it
//! meets no other set of programs. The result is a line on stdout, `result` and a JSON document.

use std::{
    error::Error,
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use clap::Parser;
use sandbox::trace::{Ring, Tracer};
use serde_json::json;

/// How large the ring is, bytes.
const RING_BYTES: u32 = 1 << 20;
/// Between two looks at the ring.
const READ_EVERY: Duration = Duration::from_millis(10);

/// What watching costs.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often all three are measured.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// How many processes each time.
    #[arg(long, default_value_t = 1000)]
    processes: usize,
    /// The id of the cgroup that this process is in: its directory's inode number; 1 is the root.
    #[arg(long, default_value_t = 1)]
    cgroup: u64,
}

/// Seconds that the loop took.
#[derive(Default)]
struct Measured {
    nothing_loaded: Vec<f64>,
    unwatched: Vec<f64>,
    watched: Vec<f64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut measured = Measured::default();
    for _ in 0..arguments.rounds {
        measured
            .nothing_loaded
            .push(spawn_all(arguments.processes)?);
        let mut tracer = Tracer::open()?;
        measured.unwatched.push(spawn_all(arguments.processes)?);
        let ring = tracer.watch(arguments.cgroup, RING_BYTES)?;
        let (seconds, _) = with_reader(ring, || spawn_all(arguments.processes));
        measured.watched.push(seconds?);
        unload(tracer, arguments.cgroup)?;
    }
    let mut tracer = Tracer::open()?;
    let ring = tracer.watch(arguments.cgroup, RING_BYTES)?;
    let counting = enable_stats(Stats::RunTime)?;
    let before = Runs::of(&tracer)?;
    let (seconds, read) = with_reader(ring, || spawn_all(arguments.processes));
    seconds?;
    let after = Runs::of(&tracer)?;
    drop(counting);
    let facts = tracer.facts(arguments.cgroup)?.unwrap_or_default();
    let mode = tracer.mode();
    unload(tracer, arguments.cgroup)?;
    let runs = after.count - before.count;
    let result = json!({

        "rows": [
            {"name": "nothing loaded", "rounds": measured.nothing_loaded},
            {"name": "loaded, this cgroup not watched", "rounds": measured.unwatched},
            {"name": "watched", "rounds": measured.watched},
        ],
        "mode": mode,
        "program_runs": runs,
        "ns_per_program_run": (after.time_ns - before.time_ns) as f64 / runs as f64,
        "program_ns_per_process": (after.time_ns - before.time_ns) as f64 / arguments.processes as f64,
        "events_read": read,
        "events_dropped": facts.dropped,
    });
    println!("result {result}");
    Ok(())
}

/// Starts and waits for so many processes, one after another; how long that took, seconds.
fn spawn_all(processes: usize) -> Result<f64, std::io::Error> {
    let start = Instant::now();
    for _ in 0..processes {
        let status = Command::new("/bin/true").status()?;
        if !status.success() {
            return Err(std::io::Error::other(format!("/bin/true: {status}")));
        }
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Does something while the ring is read; how many events that gave.
fn with_reader<T>(mut ring: Ring, work: impl FnOnce() -> T) -> (T, u64) {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read = 0;
            while !is_done.load(Ordering::Relaxed) {
                while ring.drain(1000, |_| read += 1) {}
                thread::sleep(READ_EVERY);
            }
            read
        });
        let done = work();
        is_done.store(true, Ordering::Relaxed);
        (done, reader.join().unwrap_or_default())
    })
}

fn unload(mut tracer: Tracer, cgroup: u64) -> Result<(), Box<dyn Error>> {
    tracer.forget(cgroup)?;
    let dir = tracer.dir().clone();
    drop(tracer);
    dir.remove()?;
    Ok(())
}

/// How often all programs of a set have run, and for how long.
struct Runs {
    count: u64,
    time_ns: u64,
}

impl Runs {
    fn of(tracer: &Tracer) -> Result<Self, Box<dyn Error>> {
        let names = tracer.programs();
        let mut runs = Self {
            count: 0,
            time_ns: 0,
        };
        for program in loaded_programs() {
            let program = program?;
            // The kernel keeps 15 bytes of a name.
            let is_ours = program.name_as_str().is_some_and(|name| {
                !name.is_empty() && names.iter().any(|ours| ours.starts_with(name))
            });
            if !is_ours {
                continue;
            }
            let fd = program.fd()?;
            let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
            let text = fs::read_to_string(path)?;
            let number = |field: &str| -> Option<u64> {
                let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
                rest.trim().parse().ok()
            };
            runs.count += number("run_cnt:").ok_or("no run_cnt in fdinfo")?;
            runs.time_ns += number("run_time_ns:").ok_or("no run_time_ns in fdinfo")?;
        }
        Ok(runs)
    }
}
