//! What the kinds of runs share: how they are started, who acts on them, and when.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox_tests::{Outsider, Running, Sandbox, wait};
use serde_json::{Value, json};

use crate::random::Random;

/// So many bytes.
pub(crate) const MIB: usize = 1 << 20;

/// Longer than any run of ours takes: one that hangs is told by its verdict.
const LONGEST: &str = "400s";

/// A run that has no deadline of its own.
pub(crate) fn sandbox() -> Sandbox {
    Sandbox::new().options(["--timeout", LONGEST])
}

/// Somebody outside of every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// This program.
    Us,
    /// A shell of this user.
    Shell(u32),
}

impl Who {
    /// Anybody who may signal ana's processes.
    pub(crate) fn any(random: &mut Random) -> Self {
        random.pick(&[Self::Us, Self::Shell(0), Self::Shell(1000)])
    }

    /// Sends a signal; gives what a record says of its sender.
    pub(crate) fn signals(self, pid: i32, signal: Signal) -> Value {
        let (sender, sent) = self.tries(pid, signal);
        assert!(sent, "{self:?} could not send {signal} to {pid}");
        sender
    }

    /// Tries to, and says whether the receiver was still there.
    pub(crate) fn tries(self, pid: i32, signal: Signal) -> (Value, bool) {
        match self {
            Self::Us => {
                let sender = json!({
                    "kind": "process", "pid": std::process::id(), "comm": "soak", "uid": 0, "in_run": false,
                });
                (sender, kill(Pid::from_raw(pid), signal).is_ok())
            }
            Self::Shell(uid) => {
                let (outsider, sent) = Outsider::tries_to_signal_as(uid, pid, signal);
                (outsider.as_sender(), sent)
            }
        }
    }
}

/// Lets some time pass: at an unknown moment of a run is when the worst things happen.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Waits for some moment of a run's life: some time after it was started, after its guardian was there,
/// or after main was born. From the start alone few would get as far in a busy guest.
pub(crate) fn some_moment(running: &mut Running, random: &mut Random) {
    let after = random.at_most_ms(300);
    let has_come: fn(&Running) -> bool = random.pick(&[
        (|_| true) as fn(&Running) -> bool,
        |running| running.guardian_by_now().is_some(),
        |running| running.main().is_some(),
    ]);
    wait::until("a run to come so far, or to end", || {
        has_come(running) || running.is_over()
    });
    pause(after);
}

/// Waits for the main process to be born and then some time; `None` where the run ended before.
pub(crate) fn main_at(running: &mut Running, after: Duration) -> Option<i32> {
    let found = wait::within(wait::limit(), || match running.main() {
        Some(main) => Some(Some(main)),
        None => running.is_over().then_some(None),
    });
    let main = found.unwrap_or_else(|| panic!("no main process, and no end"))?;
    pause(after);
    Some(main)
}

/// Waits for main to be where it wants to be; `None` where the run ended before, as one that has a
/// deadline may in a busy guest.
pub(crate) fn ready_in_time(running: &mut Running) -> Option<i32> {
    let found = wait::within(wait::limit(), || match running.said("ready ") {
        Some(pid) => Some(Some(pid.parse().expect("a pid"))),
        None => running.is_over().then_some(None),
    });
    found.unwrap_or_else(|| panic!("main is not ready, and the run goes on"))
}
