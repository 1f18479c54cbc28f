//! Runs that go on while something above all of them runs out of memory, and are judged as well.
//!
//! What runs out is theirs too, so that any of them may be the one that the kernel chooses. Whom it
//! chose, the kernel's own log tells.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;
use nix::sys::signal::Signal;
use sandbox_tests::Running;
use serde_json::{Value, json};

use crate::random::Random;
use crate::stage::{MIB, Who, sandbox};
use crate::truth::{Case, Truth};

/// The memory limit of the one that exceeds its own, in MiB.
const OWN_LIMIT: usize = 8;

/// Several runs, each of which ends in a way of its own unless the kernel chooses it.
pub(crate) struct Company {
    neighbours: Vec<Neighbour>,
    log: OomLog,
}

struct Neighbour {
    running: Running,
    main: i32,
    end: End,
}

/// How a run ends that nobody chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It exits with this code, told to.
    Exits(i32),
    /// It holds memory, and somebody outside kills it.
    IsKilled(Who),
    /// It holds memory, and is cancelled.
    IsCancelled,
    /// It exceeds its own limit, told to while the others still go on.
    RunsOut,
}

impl Company {
    /// Starts them; one holds up to so much memory.
    pub(crate) fn start(random: &mut Random, most_mib: usize) -> Self {
        let held = format!("{}MiB", random.between(4, most_mib));
        let code = random.pick(&[0, 3]);
        let holder = if random.flip() {
            End::IsCancelled
        } else {
            End::IsKilled(Who::any(random))
        };
        let runs_out =
            "trap 'exec victim eat 24MiB' USR1; echo ready $$; while :; do sleep 0.05; done";
        let own_limit = format!("{OWN_LIMIT}MiB");
        let exits = sandbox().start_victim(["handle", "USR1", &code.to_string()]);
        let holds = sandbox().start_victim(["eat", &held]);
        let exceeds = sandbox()
            .options(["--memory", &own_limit])
            .start(["bash", "-c", runs_out]);
        let neighbours = [
            (exits, End::Exits(code)),
            (holds, holder),
            (exceeds, End::RunsOut),
        ];
        Self {
            neighbours: neighbours
                .map(|(running, end)| Neighbour {
                    main: running.ready(),
                    running,
                    end,
                })
                .into(),
            log: OomLog::from_now_on(),
        }
    }

    /// Has a neighbour's own memory run out, about the time when there is none left above.
    pub(crate) fn stir(&self) {
        for neighbour in &self.neighbours {
            match neighbour.end {
                End::RunsOut => {
                    // It may have been chosen by now.
                    let (_, _) = Who::Us.tries(neighbour.main, Signal::SIGUSR1);
                }
                End::Exits(_) | End::IsKilled(_) | End::IsCancelled => {}
            }
        }
    }

    /// Ends whoever is left, and judges each: by this truth, where the kernel chose it.
    ///
    /// # Panics
    ///
    /// Where a record does not say what is true of its run.
    pub(crate) fn judge(mut self, reason: &'static str, oom: &Value) {
        let chosen = self.log.killed();
        for Neighbour { running, main, end } in self.neighbours {
            let told = Truth::oom(reason, oom).fatal(&json!({"victim": {"pid": main}}));
            let truths = match end {
                End::RunsOut => {
                    assert!(chosen.contains(&main), "the kernel did not kill {main}");
                    // The log does not always say for which cgroup.
                    let own = json!({"scope": "leaf", "max_bytes": OWN_LIMIT * MIB, "group": true});
                    vec![Truth::oom("memory", &own), told]
                }
                End::Exits(_) | End::IsKilled(_) | End::IsCancelled if chosen.contains(&main) => {
                    vec![told]
                }
                End::Exits(code) => {
                    let (_, _) = Who::Us.tries(main, Signal::SIGUSR1);
                    vec![Truth::exited(code)]
                }
                End::IsKilled(who) => vec![Truth::outside(9, &who.signals(main, Signal::SIGKILL))],
                End::IsCancelled => {
                    running.signal(Signal::SIGTERM);
                    vec![Truth::ended("cancelled", "same", 15)]
                }
            };
            Case::race(running.finish(), truths).hold(&format!("beside it, {end:?}"));
        }
    }
}

/// Whom the OOM killer killed, by `/dev/kmsg`.
struct OomLog(File);

impl OomLog {
    fn from_now_on() -> Self {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let mut log = options.open("/dev/kmsg").expect("root may read it");
        let _end = log.seek(SeekFrom::End(0)).expect("as kmsg(4) says");
        Self(log)
    }

    /// The pids so far.
    fn killed(&mut self) -> BTreeSet<i32> {
        let mut killed = BTreeSet::new();
        // One read gives one message.
        let mut message = [0; 8192];
        loop {
            match self.0.read(&mut message) {
                Ok(length) => {
                    killed.extend(killed_by(&String::from_utf8_lossy(&message[..length])));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return killed,
                Err(error) => panic!("/dev/kmsg: {error}"),
            }
        }
    }
}

/// The process that a message of the kernel's says was killed (`__oom_kill_process`, mm/oom_kill.c).
fn killed_by(message: &str) -> Option<i32> {
    let (_, rest) = message.split_once("ut of memory: Killed process ")?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_log_tells_whom_it_killed_for_a_cgroup_or_the_host() {
        let of_a_cgroup =
            "3,914,8812,-;Memory cgroup out of memory: Killed process 417 (victim) total-vm:3000kB";
        let of_the_host = "3,915,8813,-;Out of memory: Killed process 23 (victim) total-vm:3000kB";
        assert_eq!(killed_by(of_a_cgroup), Some(417));
        assert_eq!(killed_by(of_the_host), Some(23));
        assert_eq!(
            killed_by("6,916,8814,-;oom_reaper: reaped process 417"),
            None
        );
    }
}
