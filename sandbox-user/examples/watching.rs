//! Measures what watching costs processes that fork, execute and exit: for `cargo xtask bench --suite watch`.
//!
//! A loop of such processes, in each round with nothing loaded, with the programs loaded and its cgroup not watched,
//! and watched, with somebody reading the ring. It needs root and BTF, and no cgroup of its own: it watches the one
//! that it is in, which may be the root, and what else is in there. In a mount namespace with a bpffs of its own it
//! meets no other set of programs. The result is a line on stdout, `result` and a JSON document.

use std::{
    error::Error,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::sys::{Stats, enable_stats};
use clap::Parser;
use sandbox::trace::{Ring, Tracer};
use serde_json::{Map, Value, json};

/// How large the ring is, bytes.
const RING_BYTES: u32 = 1 << 20;
/// Between two looks at the ring.
const READ_EVERY: Duration = Duration::from_millis(10);

/// Where the programs' runs cannot be read.
const UNCOUNTED: &str = "the kernel does not tell how often the programs have run";

/// What watching costs.
#[derive(Debug, Parser)]
struct Arguments {
    /// What the measurement is called.
    #[arg(long, default_value = "watch")]
    name: String,
    /// How often all three are measured.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// How many processes each time.
    #[arg(long, default_value_t = 1000)]
    processes: usize,
    /// The id of the cgroup that this process is in: its directory's inode number; 1 is the root.
    #[arg(long, default_value_t = 1)]
    cgroup: u64,
    /// Only with nothing loaded.
    #[arg(long)]
    nothing_loaded: bool,
}

/// Milliseconds that the loop took.
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
        if arguments.nothing_loaded {
            continue;
        }
        let mut tracer = Tracer::open()?;
        measured.unwatched.push(spawn_all(arguments.processes)?);
        let ring = tracer.watch(arguments.cgroup, RING_BYTES)?;
        let (took, _) = with_reader(ring, || spawn_all(arguments.processes));
        measured.watched.push(took?);
        unload(tracer, arguments.cgroup)?;
    }
    let mut result = measured.result(&arguments.name);
    if !arguments.nothing_loaded {
        result.extend(count(&arguments)?);
    }
    println!("result {}", Value::Object(result));
    Ok(())
}

/// Counts the programs' runs in one more loop that is watched.
fn count(arguments: &Arguments) -> Result<Map<String, Value>, Box<dyn Error>> {
    let mut tracer = Tracer::open()?;
    let ring = tracer.watch(arguments.cgroup, RING_BYTES)?;
    let counting = enable_stats(Stats::RunTime)?;
    let (count_before, ns_before) = tracer.runs().ok_or(UNCOUNTED)?;
    let (took, read) = with_reader(ring, || spawn_all(arguments.processes));
    took?;
    let (count, ns) = tracer.runs().ok_or(UNCOUNTED)?;
    drop(counting);
    let facts = tracer.facts(arguments.cgroup)?.unwrap_or_default();
    let mode = tracer.mode();
    unload(tracer, arguments.cgroup)?;
    let (runs, ns) = (count - count_before, (ns - ns_before) as f64);
    Ok(fields([
        ("mode", json!(mode)),
        ("program_runs", json!(runs)),
        ("ns_per_program_run", json!(ns / runs as f64)),
        (
            "program_ns_per_process",
            json!(ns / arguments.processes as f64),
        ),
        ("events_read", json!(read)),
        ("events_dropped", json!(facts.dropped)),
    ]))
}

impl Measured {
    /// As a result has it: what was not measured is no row.
    fn result(self, name: &str) -> Map<String, Value> {
        let rows = [
            ("nothing loaded", self.nothing_loaded),
            ("loaded, this cgroup not watched", self.unwatched),
            ("watched", self.watched),
        ];
        let rows = rows.into_iter().filter(|(_, rounds)| !rounds.is_empty());
        let rows = rows.map(|(name, rounds)| json!({"name": name, "rounds": rounds}));
        fields([
            ("name", json!(name)),
            ("unit", json!("ms")),
            ("rows", rows.collect()),
        ])
    }
}

fn fields<const N: usize>(of: [(&str, Value); N]) -> Map<String, Value> {
    of.map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

/// Starts and waits for so many processes, one after another; how long that took, ms.
fn spawn_all(processes: usize) -> Result<f64, std::io::Error> {
    let start = Instant::now();
    for _ in 0..processes {
        let status = Command::new("/bin/true").status()?;
        if !status.success() {
            return Err(std::io::Error::other(format!("/bin/true: {status}")));
        }
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
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
