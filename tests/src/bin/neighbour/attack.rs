//! Analyses that misbehave, over and over: one that eats memory, a fork bomb, spinners, one that writes to the disk,
//! and short ones as many as there can be.

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

/// Each with the options that it is run under; all together are within the budget of a small guest.
const ANALYSES: [(&[&str], &str); 5] = [
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
    (&["--memory", "128MiB"], "exit 0"),
];

/// An attack that goes on.
pub(crate) struct Attack {
    confinement: Confinement,
    goes_on: Arc<AtomicBool>,
    ended: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
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
        let ended = Arc::new(AtomicU64::new(0));
        let refused = Arc::new(AtomicU64::new(0));
        let threads = ANALYSES
            .iter()
            .map(|(options, script)| {
                let (goes_on, ended, refused) = (
                    Arc::clone(&goes_on),
                    Arc::clone(&ended),
                    Arc::clone(&refused),
                );
                thread::spawn(move || {
                    while goes_on.load(Ordering::Relaxed) {
                        let count = match run(confinement, options, script) {
                            // `sandbox` itself failed.
                            Some(125) => &refused,
                            Some(_) | None => &ended,
                        };
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        wait::until("an analysis to end", || {
            [&ended, &refused]
                .iter()
                .any(|count| count.load(Ordering::Relaxed) > 0)
        });
        Self {
            confinement,
            goes_on,
            ended,
            refused,
            threads,
            kill,
        }
    }

    /// Ends it; gives how many have ended, and how many were not run at all.
    pub(crate) fn end(mut self) -> (u64, u64) {
        self.goes_on.store(false, Ordering::Relaxed);
        let came_to = [&self.ended, &self.refused].map(|count| count.load(Ordering::Relaxed));
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
        came_to.into()
    }
}

/// Runs one to its end; gives its exit status.
fn run(confinement: Confinement, options: &[&str], script: &str) -> Option<i32> {
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
