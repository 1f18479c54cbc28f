//! The line between the service and the process that attends to one of its clients: JSON documents, one a
//! line, over a socket pair. Both ends are this program as root.
//!
//! The service alone has the store, so that only one process writes to it; what clients pass, and what
//! comes of it, is its attendants' alone.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
};

use nix::poll::PollTimeout;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::{
    control,
    metrics::Refusal,
    protocol::to_line,
    queue::{Entry, Need},
};
use crate::{
    audit::Order,
    spec::RunId,
    store::{Filter, Run, Whose},
    sys::readiness::readable,
};

/// What an attendant asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Call {
    /// To store a run that is to be started, and to say when it may be.
    Accept(Application),
    /// To let a run wait on that a service before this one has accepted, and to say when it may be started.
    Resume(Application),
    /// To let it be started out of turn: it is not to wait any more, and ends before it begins.
    GiveUp,
    /// To take in what a run has left.
    Ended {
        /// Which.
        run_id: RunId,
        /// With what `sandbox run` ends.
        status: u8,
    },
    /// For runs, the latest first.
    List {
        /// Whose.
        whose: Whose,
        /// Which.
        filter: Filter,
        /// At most so many.
        most: u32,
    },
    /// For the latest run of this id, or of the analysis of this id.
    Show {
        /// Whose it has to be.
        whose: Whose,
        /// The run's id, or its analysis's.
        id: String,
    },
    /// The same, once it has ended.
    Wait {
        /// Whose it has to be.
        whose: Whose,
        /// The run's id, or its analysis's.
        id: String,
    },
    /// To enter that somebody is about to have something done to a run.
    Ordered(Ordered),
    /// To enter that it came to nothing, and why.
    Declined(Ordered, String),
    /// To look for runs that have lost their supervisor: one was met.
    LookForLost,
    /// To enter that somebody was refused.
    Refused(Refused),
    /// For what is counted.
    Metrics,
}

/// Something that is about to be done to a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ordered {
    /// Who wants it.
    pub(super) uid: u32,
    /// With which process.
    pub(super) pid: i32,
    pub(super) run_id: RunId,
    pub(super) order: Order,
    /// What else is to be said of it.
    pub(super) detail: Option<String>,
}

/// A run that was not to be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refused {
    /// Who wanted it.
    pub(super) uid: u32,
    /// With which process.
    pub(super) pid: i32,
    pub(super) kind: Refusal,
    /// Why, for people.
    pub(super) reason: String,
}

/// A run that wants to be started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Application {
    /// Its id.
    pub(super) run_id: RunId,
    /// Who asks for it.
    pub(super) uid: u32,
    /// With which process.
    pub(super) pid: i32,
    /// What it is held to.
    pub(super) need: Need,
    /// How many of that user's there may be at once.
    pub(super) most_of_user: Option<usize>,
    /// Whom it is to run as, where that was asked for.
    pub(super) asked_user: Option<String>,
    /// Whom it is to run as, for people.
    pub(super) user: String,
    /// The analysis's id.
    pub(super) analysis_id: Option<String>,
    /// Its labels.
    pub(super) labels: BTreeMap<String, String>,
    /// Program and arguments.
    pub(super) command: Vec<String>,
    /// What is asked for besides, as people read it.
    pub(super) spec: Value,
}

impl Application {
    /// Its place among the runs that wait.
    pub(super) fn entry(&self) -> Entry {
        Entry {
            run_id: self.run_id,
            uid: self.uid,
            most_of_user: self.most_of_user,
            need: self.need,
        }
    }
}

/// What the service says to that.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// It is done.
    Done,
    /// It is not this run's turn; so many are before it.
    Waiting(usize),
    /// What is counted.
    Metrics(String),
    /// Runs that were asked for.
    Runs(Vec<Run>),
    /// A run that was asked for, and its record where there is one.
    Run(Box<Run>, Option<Box<RawValue>>),
    /// There is no such run.
    Nothing,
    /// It is not done, and why.
    Refused(String),
}

/// Whether that is what comes of talking to one that has gone.
pub(super) fn has_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// An attendant's end.
#[derive(Debug)]
pub(super) struct Office(BufReader<UnixStream>);

impl Office {
    pub(super) fn at(line: UnixStream) -> Self {
        Self(BufReader::new(line))
    }

    /// Opens a line to the service that there is now; `None` where there is none.
    ///
    /// # Errors
    /// EMFILE and the like.
    pub(super) fn of_the_service() -> io::Result<Option<Self>> {
        control::connected(control::SERVICE).map(|line| line.map(Self::at))
    }

    /// Asks, and waits for what is said.
    ///
    /// # Errors
    /// Where the service has gone.
    pub(super) fn call(&mut self, call: &Call) -> io::Result<Reply> {
        self.0.get_mut().write_all(&to_line(call)?)?;
        self.reply()
    }

    /// Whether more has been said already.
    pub(super) fn has_more(&self) -> bool {
        !self.0.buffer().is_empty()
    }

    /// Where what is said next comes.
    pub(super) fn line(&self) -> &UnixStream {
        self.0.get_ref()
    }

    /// Asks for what may take its time, and waits for what is said as long as the client is there.
    ///
    /// # Errors
    /// As [`Self::call`]; where the client has gone.
    pub(super) fn call_for(&mut self, client: &UnixStream, call: &Call) -> io::Result<Reply> {
        self.0.get_mut().write_all(&to_line(call)?)?;
        match readable([self.line().as_fd(), client.as_fd()], PollTimeout::NONE)? {
            [true, _] => self.reply(),
            // It has said all that it had to say.
            [false, _] => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Hears what is said next.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            let kind = io::ErrorKind::UnexpectedEof;
            return Err(io::Error::new(kind, "the service has been ended"));
        }
        Ok(serde_json::from_str(&line)?)
    }
}
