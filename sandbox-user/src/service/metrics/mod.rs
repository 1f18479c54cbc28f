//! What the service tells a monitoring system, as OpenMetrics text: what became of runs, what waits, and
//! how long things took.
//!
//! All figures of runs but their runner's latencies come from their records, so that a graph and a record cannot
//! disagree; what a record does not know is counted nowhere. They begin at 0 with each service, as counters may. The
//! number of series is bounded, whatever users and analyses do.

pub mod http;
mod labels;
mod text;

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use labels::Refusal;
pub use text::Format;

use crate::evidence::Confidence;
use crate::record::{RunRecord, SCHEMA_VERSION};
use crate::supervise::spool::Latencies;
use labels::{CAUSES, CONFIDENCES, LIMITS, cause, limit, user};

/// So many users have runs of their own name, those whose runs end first; the others' are [`OTHER`]'s.
pub const MOST_USERS: usize = 100;
/// Who has the runs of users that come after [`MOST_USERS`] others.
pub const OTHER: &str = "other";

/// Upper bounds of how long runs last, seconds: 1 s to 7 d.
const WALLTIMES: [f64; 11] = [
    1.0, 10.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 604_800.0,
];

/// All that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    users: Mutex<HashSet<String>>,
    runs: Family<Run, Counter>,
    verdicts: Words,
    limits_hit: Words,
    kills: Words,
    kernel_events: Counter,
    kernel_events_dropped: Counter,
    hooks_failed: Counter,
    start: Histogram,
    spawn: Histogram,
    kill: Histogram,
    cleanup: Histogram,
    walltime: Histogram,
    running: Gauge,
    queued: Gauge,
    connections: Gauge,
    refused: Words,
}

/// Labels of an ended run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Run {
    reason: &'static str,
    user: String,
}

/// A counter for each of a few words.
#[derive(Debug)]
struct Words {
    label: &'static str,
    counters: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Words {
    fn inc(&self, word: &'static str) {
        self.counters.get_or_create(&[(self.label, word)]).inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at 0, counters of a few words too, so that the first of anything is seen as a rise.
    pub fn new() -> Self {
        let mut registered = Registered(Registry::with_prefix("sandbox"));
        let new = &mut registered;
        new.build();
        Self {
            users: Mutex::default(),
            runs: new.runs(),
            verdicts: new.words(
                "verdicts",
                "Runs that have ended, by how sure their reason is",
                "confidence",
                CONFIDENCES.map(Confidence::as_str),
            ),
            limits_hit: new.words(
                "limits_hit",
                "Runs that met a limit; one run may have met several",
                "limit",
                LIMITS.map(limit),
            ),
            kills: new.words(
                "kills",
                "Signals that could be fatal, delivered to members of runs, by what stood behind them",
                "cause",
                CAUSES.map(cause),
            ),
            kernel_events: new.counter("kernel_events", "Events of runs that the kernel side saw"),
            kernel_events_dropped: new.counter(
                "kernel_events_dropped",
                "Events of runs that found no room: detail that was lost, never a fact",
            ),
            hooks_failed: new.counter("hooks_failed", "Runs whose completion hooks failed"),
            start: new.seconds(
                "start",
                "From a run being asked for to its exec, with what it waited for its turn",
                exponential_buckets(0.004, 4.0, 10),
            ),
            spawn: new.seconds(
                "spawn",
                "From a leaf that is ready and watched to the exec in it",
                exponential_buckets(0.001, 2.0, 14),
            ),
            kill: new.seconds(
                "kill",
                "From the first cgroup.kill of the runner to an empty leaf",
                exponential_buckets(0.001, 2.0, 14),
            ),
            cleanup: new.seconds(
                "cleanup",
                "From the end of the main process to a leaf that is gone, with the record written meanwhile",
                exponential_buckets(0.001, 2.0, 14),
            ),
            walltime: new.seconds(
                "walltime",
                "From a run's exec to the end of its main process",
                WALLTIMES,
            ),
            running: new.gauge("running", "Runs that go on"),
            queued: new.gauge("queued", "Runs that wait for their turn"),
            connections: new.gauge("connections", "Clients that are connected"),
            refused: new.words(
                "refused",
                "Requests that were refused, by why",
                "kind",
                Refusal::ALL.map(Refusal::as_str),
            ),
            registry: registered.0,
        }
    }

    /// Counts a run that has ended. To be called once for each record: it is not looked whether one comes
    /// twice.
    pub fn record(&self, record: &RunRecord, latencies: Latencies) {
        let reason = record.termination.reason.as_str();
        let user = self.admit(user(&record.user));
        self.runs.get_or_create(&Run { reason, user }).inc();
        self.verdicts.inc(record.termination.confidence.as_str());
        for hit in &record.limits_hit {
            self.limits_hit.inc(limit(hit.limit));
        }
        for kill in &record.kills {
            if kill.delivered == Some(true) {
                self.kills.inc(cause(kill.cause));
            }
        }
        self.kernel_events
            .inc_by(record.tracing.events.unwrap_or_default());
        self.kernel_events_dropped
            .inc_by(record.tracing.dropped.unwrap_or_default());

        let waited = record
            .started_at
            .map(|started_at| started_at.duration_since(record.accepted_at));
        // Negative where somebody has put the clock back meanwhile.
        observe(
            &self.start,
            waited.and_then(|waited| waited.try_into().ok()),
        );
        observe(&self.walltime, record.walltime_ns.map(Duration::from_nanos));
        let wall = record.cleanup.wall_ms.map(Duration::from_millis);
        observe(&self.cleanup, wall);
        let Latencies { spawn_ns, kill_ns } = latencies;
        observe(&self.spawn, spawn_ns.map(Duration::from_nanos));
        observe(&self.kill, kill_ns.map(Duration::from_nanos));
    }

    /// Counts a run whose completion hooks failed.
    pub fn hook_failed(&self) {
        self.hooks_failed.inc();
    }

    /// Counts a request that was refused.
    pub fn refuse(&self, refusal: Refusal) {
        self.refused.inc(refusal.as_str());
    }

    /// How many runs go on now.
    pub fn set_running(&self, runs: usize) {
        set(&self.running, runs);
    }

    /// How many wait for their turn.
    pub fn set_queued(&self, runs: usize) {
        set(&self.queued, runs);
    }

    /// How many clients are connected.
    pub fn set_connections(&self, clients: usize) {
        set(&self.connections, clients);
    }

    /// All of it as text.
    pub fn render(&self, format: Format) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail, and a text that is cut has no `# EOF`.
        let _ = encode(&mut text, &self.registry);
        match format {
            Format::OpenMetrics => text,
            Format::Prometheus => text::to_prometheus(&text),
        }
    }

    /// The name under which a user's runs are counted.
    fn admit(&self, user: String) -> String {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.contains(&user) {
            return user;
        }
        if users.len() == MOST_USERS {
            return OTHER.to_owned();
        }
        users.insert(user.clone());
        user
    }
}

fn set(gauge: &Gauge, count: usize) {
    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
}

fn observe(histogram: &Histogram, time: Option<Duration>) {
    if let Some(time) = time {
        histogram.observe(time.as_secs_f64());
    }
}

/// Makes metrics and registers them.
struct Registered(Registry);

impl Registered {
    fn build(&mut self) {
        let labels = [
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("schema_version", SCHEMA_VERSION.to_string()),
        ];
        self.0
            .register("build", "Which version this is", Info::new(labels));
    }

    fn runs(&mut self) -> Family<Run, Counter> {
        let runs = Family::default();
        let help = "Runs that have ended, by reason and whom they ran as";
        self.0.register("runs", help, Family::clone(&runs));
        runs
    }

    fn words<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        words: [&'static str; N],
    ) -> Words {
        let counters = Family::<[(&'static str, &'static str); 1], Counter>::default();
        for word in words {
            drop(counters.get_or_create(&[(label, word)]));
        }
        self.0.register(name, help, counters.clone());
        Words { label, counters }
    }

    fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.0.register(name, help, counter.clone());
        counter
    }

    fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.0.register(name, help, gauge.clone());
        gauge
    }

    fn seconds(
        &mut self,
        name: &str,
        help: &str,
        buckets: impl IntoIterator<Item = f64>,
    ) -> Histogram {
        let histogram = Histogram::new(buckets);
        self.0
            .register_with_unit(name, help, Unit::Seconds, histogram.clone());
        histogram
    }
}

#[cfg(test)]
mod tests;
