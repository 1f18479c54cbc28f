//! How the host's service goes about its work: how much of it at a time, for whom, what it keeps and
//! what it tells.
//!
//! What is said here of runs is about when they start and what stays of them; what a run may use is said by
//! defaults, ceilings and budget.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::policy::LimitedCallers;

/// The table `[service]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// How many runs go on at once on the host; `None` = no limit.
    pub runs: Option<usize>,
    /// How many of one user's, where `runs` of a user or a group does not say; `None` = no limit.
    pub runs_per_user: Option<usize>,
    /// How many runs may wait for their turn.
    pub queue: usize,
    /// How many of one user's.
    pub queue_per_user: usize,
    /// What becomes of callers whose own cgroup is limited.
    pub limited_callers: LimitedCallers,
    /// Below which directories a run's metadata has to be; `None` = anywhere.
    pub metadata_paths: Option<Vec<PathBuf>>,
    /// Where metrics are served over HTTP, an address of the host's own; `None` = on the socket only.
    pub metrics: Option<SocketAddr>,
    /// How long a run stays in the store once it is over; `None` = for good.
    pub keep_runs: Option<Duration>,
    /// How much records, logs and event streams of ended runs may be together, bytes; `None` = no limit.
    pub keep_bytes: Option<u64>,
    /// The most that is kept of each log of a detached run, bytes.
    pub log_bytes: u64,
    /// The most that is kept of each run's event stream, bytes before it is compressed; 0 = none is kept.
    pub events_bytes: u64,
}

impl Default for ServiceConfig {
    /// No limit on runs, 1,000 that wait, 100 of them one user's, logs and event streams of 16 MiB; all else off.
    fn default() -> Self {
        Self {
            runs: None,
            runs_per_user: None,
            queue: 1000,
            queue_per_user: 100,
            limited_callers: LimitedCallers::default(),
            metadata_paths: None,
            metrics: None,
            keep_runs: None,
            keep_bytes: None,
            log_bytes: 16 << 20,
            events_bytes: 16 << 20,
        }
    }
}
