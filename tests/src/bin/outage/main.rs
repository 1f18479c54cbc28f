//! `outage`: the host's service on a disk of its own, until the power is cut.
//!
//! Each run that its client was told the end of is printed, for somebody outside of the guest to keep. After the next
//! boot all of them have to be in the store, with their records.

mod store;

use std::fs;
use std::io::{self, Write};
use std::panic;
use std::path::PathBuf;
use std::process::{self, Command, ExitCode};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use clap::Parser;
use sandbox_tests::{Sandbox, Service, wait};

use store::Store;

/// The disk, behind that of the root and that of the payload.
const DISK: &str = "/dev/vdc";
/// How many runs go on at a time.
const JOBS: usize = 4;
/// What they do, each with its own ending.
const ACTS: [&[&str]; 6] = [
    &["exit", "0"],
    &["exit", "7"],
    &["kill-self", "KILL"],
    &["eat", "40MiB"],
    &["children", "30"],
    &["sleep", "0.3"],
];

/// Runs on a disk of their own, until the power is cut.
#[derive(Debug, Parser)]
struct Arguments {
    /// The runs whose ends were told before: a line each, `RUN REASON`.
    #[arg(long)]
    told: PathBuf,
    /// Cut the power so many milliseconds after runs have begun; never, where it is left out.
    #[arg(long)]
    cut_after: Option<u64>,
    /// Count them from the beginning, before the service is there.
    #[arg(long, requires = "cut_after")]
    early: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    wait::be_patient(120);
    let cut_after = arguments.cut_after.map(Duration::from_millis);
    if let Some(life) = cut_after.filter(|_| arguments.early) {
        thread::spawn(move || cut_power(life));
    }
    mount_disk();
    let _service = Service::on_kept_store();
    let told = fs::read_to_string(&arguments.told).expect("somebody keeps them");
    let mut problems = Store::read().problems(&told);
    problems.extend(audit_problem());
    for problem in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        return ExitCode::FAILURE;
    }
    println!("looked at {} runs", told.lines().count());
    if let Some(life) = cut_after {
        // Loads the programs, which takes long.
        let _first = Sandbox::new().victim(["exit", "0"]);
        thread::spawn(move || cut_power(life));
        play();
    }
    ExitCode::SUCCESS
}

/// Resets the machine after a while, with nothing synced and nothing unmounted
/// (Documentation/admin-guide/sysrq.rst).
fn cut_power(life: Duration) {
    wait::within(life, || None::<()>);
    fs::write("/proc/sysrq-trigger", "b").expect("root may");
}

/// Has the store on a disk that outlives this guest.
fn mount_disk() {
    fs::create_dir_all(Service::STORE).expect("root may make it");
    let mounted = Command::new("mount")
        .args([DISK, Service::STORE])
        .status()
        .expect("the guest has mount");
    assert!(mounted.success(), "mount: {mounted}");
}

/// What is wrong with the audit log.
fn audit_problem() -> Option<String> {
    let verify = Command::new("sandbox")
        .args(["audit", "verify"])
        .output()
        .expect("`sandbox` is in the guest");
    (!verify.status.success()).then(|| format!("sandbox audit verify: {verify:?}"))
}

/// Plays runs, and tells of each that has ended.
fn play() -> ! {
    // One of several threads that panics would not be missed.
    panic::set_hook(Box::new(|info| {
        println!("a run is not as it has to be: {info}");
        process::exit(1);
    }));
    let out = Mutex::new(());
    thread::scope(|scope| {
        for job in 0..JOBS {
            let out = &out;
            scope.spawn(move || {
                for act in ACTS.iter().cycle().skip(job) {
                    let options = ["--memory", "16MiB", "--pids", "8", "--timeout", "60s"];
                    let record = Sandbox::new().options(options).victim(*act).record();
                    let line = format!("told {} {}\n", record.text("/run_id"), record.reason());
                    let _one_at_a_time = out.lock().expect("nobody panics");
                    let mut stdout = io::stdout();
                    let told = stdout.write_all(line.as_bytes());
                    told.and_then(|()| stdout.flush())
                        .expect("somebody listens");
                }
            });
        }
    });
    unreachable!("the runs go round for ever")
}
