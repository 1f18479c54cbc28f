//! The guardian: a small process that ends a run whose `sandbox` was killed.
//!
//! It is a fork of the supervisor, outside of every leaf, in a session of its own, and holds one end of a socket to
//! it. The kernel closes that socket whatever the
//! supervisor dies of; then the guardian kills the leaf, writes the record and removes the leaf. It
//! also keeps the deadline while the supervisor is stopped (SIGSTOP, Ctrl-Z) and cannot.
//!
//! It knows of each thing before there is one to be left behind: it has the record's file from its start, and is told of
//! the request, of the leaf before it is made, of the whole run before that starts, which it
//! answers with a line (empty, or what it cannot do). What goes to a stream must not get there twice
//! and cannot be read back: [`Message::Recording`] comes right before it is written, and the
//! guardian writes none from then on. A file can be looked at, so there it is the file that tells.
//!
//! It goes to its own cgroup, where the run goes on for more than a moment, and in the end has the kernel side forget
//! the run, by itself: both take a grace period of RCU, for which its supervisor does not wait. So it outlives it for a
//! moment where all went well.
//!
//! Where the run has completion hooks it stays until they have ended, and goes on with them where the supervisor
//! is killed meanwhile.

mod handle;
mod process;
mod ward;

use std::{
    io::{self, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub(super) use self::handle::{Announcer, Guardian};
pub use self::process::main;
use super::{
    clock,
    docket::{Change, Docket},
    errand::Errand,
    state::State,
};
use crate::{evidence::OwnAction, spec::RunSpec};

/// The verb under which this program is a guardian.
const VERB: &str = "guardian";

/// What the supervisor tells its guardian, one JSON document a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    /// This is the run; to be answered once it has a leaf.
    Run(Box<Docket>),
    /// This cgroup is about to be made for it.
    Leaf(String),
    /// The guardian belongs into this cgroup, and goes there in a moment, if the run is not over by then.
    Home(String),
    /// Main has started; again where its deadline has changed.
    Started(Start),
    /// Somebody had something done to it.
    Changed(Box<Change>),
    /// This run has lost both its processes: it is to be finished; to be answered at once, and once more when
    /// it is.
    Adopt(Box<State>),
    /// The record is about to be written, to what cannot be told apart from the outside.
    Recording,
    /// The run is recorded, and this is left to be done.
    Recorded(Box<Errand>),
    /// The run is over and done with, and the kernel side is to forget it; to be answered before that.
    Over,
}

/// What the guardian tells its supervisor unasked, one JSON document a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum News {
    /// It did this in the supervisor's place.
    Did(OwnAction),
    /// This it could not do.
    Failed(String),
}

/// How it started.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Start {
    /// Main's pid.
    pub(super) main_pid: u32,
    /// When main was executed, or as long as that is not known, when its spawn came back.
    pub(super) at_ns: u64,
    /// From then on: when it is to be over at the latest.
    end_within: Option<Duration>,
}

impl Start {
    /// That of a run with these limits.
    pub(super) fn of(main_pid: u32, at_ns: u64, spec: &RunSpec) -> Self {
        let walltime = spec.limits.walltime.value;
        Self {
            main_pid,
            at_ns,
            end_within: walltime.map(|walltime| walltime.saturating_add(spec.grace)),
        }
    }

    /// How much of that is left; `None` = there is no deadline.
    fn left(&self) -> Option<Duration> {
        let passed = Duration::from_nanos(clock::now_ns().saturating_sub(self.at_ns));
        self.end_within.map(|time| time.saturating_sub(passed))
    }
}

/// Tells the supervisor; where it has gone there is nobody to be told.
fn tell(socket: &UnixStream, news: &News) {
    let _ = send(socket, news);
}

fn send(mut socket: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    socket.write_all(&line)
}
