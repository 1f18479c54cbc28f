//! Analyses that misbehave, over and over: one that eats memory, a fork bomb, spinners, one that writes to the disk,
//! and beside them short ones, each a run of its own, as many as there can be.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use sandbox_tests::{victim, wait};

/// What holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confinement {
    /// `sandbox run`, by the host's service.
    Sandbox,
    /// Nothing: they are in the cgroup of the service that they run beside, as if that had started them.
    None,
}

/// Only to end them by: it has no controllers.
const CGROUP: &str = "/sys/fs/cgroup/system.slice/api.service/attack";

/// What is run under these options, as a script of the shell's.
type Analysis = (&'static [&'static str], &'static str);

/// Together with the short ones they are within the budget of a small guest.
const ANALYSES: [Analysis; 4] = [
    (&["--memory", "256MiB"], "exec \"$VICTIM\" devour"),
    (
        &[
            "--memory",
            "128MiB",
            "--pids",
            "50",
            "--on-pids-limit",
            "deny",
            "--timeout",
            "3s",
        ],
        "exec \"$VICTIM\" fork-bomb",
    ),
    (
        &["--memory", "128MiB", "--timeout", "5s"],
        "exec \"$VICTIM\" spin-group 4",
    ),
    (
        &["--memory", "128MiB", "--timeout", "5s"],
        "cd /var/tmp; while :; do dd if=/dev/zero of=attack bs=1M count=32 conv=fsync 2>/dev/null; done",
    ),
];

/// A short one.
const SHORT: Analysis = (&["--memory", "32MiB"], "exit 0");
/// So many of those go on at a time, each followed by another.
const SHORT_AT_A_TIME: usize = 4;

/// What has become of its runs.
#[derive(Debug, Default)]
struct Counts {
    /// Runs that have ended, however.
    ended: AtomicU64,
    /// Short ones of those that have exited with 0.
    short: AtomicU64,
    /// Runs that could not be done.
    refused: AtomicU64,
}

/// The same, once it is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CameTo {
    /// Runs that have ended, however.
    pub(crate) ended: u64,
    /// Short ones of those that have exited with 0.
    pub(crate) short: u64,
    /// Runs that could not be done.
    pub(crate) refused: u64,
}

impl Counts {
    fn so_far(&self) -> CameTo {
        CameTo {
            ended: self.ended.load(Ordering::Relaxed),
            short: self.short.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    fn count(&self, analysis: Analysis, status: Option<i32>) {
        let is_done = status == Some(0) && analysis == SHORT;
        let counts = match status {
            // `sandbox` itself failed.
            Some(125) => [Some(&self.refused), None],
            Some(_) | None => [Some(&self.ended), is_done.then_some(&self.short)],
        };
        for count in counts.into_iter().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An attack that goes on.
pub(crate) struct Attack {
    goes_on: Arc<AtomicBool>,
    confinement: Confinement,
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
    /// Open already, since nothing may be to be had later.
    kill: Option<File>,
}

impl Attack {
    /// Begins it, and waits until the first has been run to its end: from then on it is there.
    pub(crate) fn begin(confinement: Confinement) -> Self {
        let kill = (confinement == Confinement::None).then(|| {
            fs::create_dir_all(CGROUP).expect("root makes cgroups");
            let file = File::options()
                .write(true)
                .open(Path::new(CGROUP).join("cgroup.kill"));
            file.expect("it is there")
        });
        let goes_on = Arc::new(AtomicBool::new(true));
        let counts = Arc::<Counts>::default();
        let threads = ANALYSES
            .into_iter()
            .chain([SHORT; SHORT_AT_A_TIME])
            .map(|analysis| {
                let (goes_on, counts) = (Arc::clone(&goes_on), Arc::clone(&counts));
                thread::spawn(move || {
                    while goes_on.load(Ordering::Relaxed) {
                        counts.count(analysis, run(confinement, analysis));
                    }
                })
            })
            .collect();
        wait::until("an analysis to end", || {
            let CameTo { ended, refused, .. } = counts.so_far();
            ended + refused > 0
        });
        Self {
            goes_on,
            confinement,
            counts,
            threads,
            kill,
        }
    }

    /// What has become of its runs so far.
    pub(crate) fn so_far(&self) -> CameTo {
        self.counts.so_far()
    }

    /// Ends it; gives what has become of its runs until then.
    pub(crate) fn end(mut self) -> CameTo {
        self.goes_on.store(false, Ordering::Relaxed);
        let came_to = self.so_far();
        match self.confinement {
            Confinement::Sandbox => {
                let _ = Command::new("sandbox")
                    .args(["kill", "--user", "ana"])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status();
            }
            Confinement::None => {}
        }
        wait::until("the attack to end", || {
            if let Some(kill) = &mut self.kill {
                kill.write_all(b"1").expect("root kills");
            }
            self.threads.iter().all(JoinHandle::is_finished)
        });
        self.threads
            .into_iter()
            .for_each(|thread| thread.join().expect("it does not panic"));
        if self.kill.is_some() {
            wait::until("the cgroup to be empty", || fs::remove_dir(CGROUP).is_ok());
        }
        let _ = fs::remove_file("/var/tmp/attack");
        came_to
    }
}

/// Runs one to its end; gives its exit status.
fn run(confinement: Confinement, (options, script): Analysis) -> Option<i32> {
    let mut command = match confinement {
        Confinement::Sandbox => {
            let mut command = Command::new("sandbox");
            command
                .args(["run", "--user", "ana", "--notes", "never", "--grace", "0"])
                .args(options)
                .args(["--", "sh", "-c", script]);
            command
        }
        Confinement::None => {
            // It is in there before it can have children.
            let enter = format!(
                "echo $$ >{CGROUP}/cgroup.procs && exec timeout 5 runuser -u ana -- sh -c \"$0\""
            );
            let mut command = Command::new("sh");
            command.args(["-c", &enter, script]);
            command
        }
    };
    command
        .env("VICTIM", victim())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    match command.spawn() {
        Ok(mut child) => child.wait().ok()?.code(),
        // Where nothing is held, there may be nothing left to start it with.
        Err(_) => None,
    }
}
