//! What became of a guest.

use std::fmt;
use std::time::Duration;

/// How a boot ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The command ended with this status.
    Exited(i32),
    /// The guest never got as far as its command.
    NeverReady(String),
    /// The command was still running at its time limit.
    TimedOut(Duration),
    /// The kernel panicked under the command.
    Panicked(String),
    /// The guest went away under the command in some other way.
    Vanished(String),
}

impl Ending {
    /// The command's status, where it came to its end.
    pub(crate) fn status(&self) -> Option<i32> {
        match self {
            Self::Exited(status) => Some(*status),
            Self::NeverReady(_) | Self::TimedOut(_) | Self::Panicked(_) | Self::Vanished(_) => None,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(formatter, "the command ended with status {status}"),
            Self::NeverReady(why) => write!(formatter, "the guest did not report in: {why}"),
            Self::TimedOut(limit) => {
                write!(
                    formatter,
                    "the command was still running after {} s, its time limit",
                    limit.as_secs()
                )
            }
            Self::Panicked(console) => write!(formatter, "the guest's kernel panicked:\n{console}"),
            Self::Vanished(why) => write!(formatter, "the guest went away: {why}"),
        }
    }
}
