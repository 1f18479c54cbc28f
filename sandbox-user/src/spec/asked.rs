//! What was asked for as people read it: plain JSON with the record's names and units.
//!
//! The guardian's form of a spec keeps arguments and paths byte by byte; this one is for the store, where a run
//! stands from its acceptance on. Of the environment it says nothing.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Destination, Output, RunSpec, Sampling, Timings};
use crate::limits::Limit;
use crate::record::{lossless, nanos, signal_name};

impl RunSpec {
    /// It. Program, arguments, ids and labels are left out: they stand beside it.
    pub fn as_asked(&self) -> Value {
        let limits = &self.limits;
        json!({
            "cwd": lossless(self.cwd.as_os_str()),
            "attempt": self.attempt,
            "retry_of": self.retry_of,
            "limits": {
                "memory_bytes": limit(&limits.memory_bytes, |bytes| bytes),
                "swap_bytes": limit(&limits.swap_bytes, |bytes| bytes),
                "cpus": limit(&limits.cpus, |cores| cores),
                "pids": limit(&limits.pids, |count| count),
                "walltime_ns": limit(&limits.walltime, nanos),
                "cputime_ns": limit(&limits.cputime, nanos),
            },
            "grace_ns": nanos(self.grace),
            "warn": self.warn.map(|warn| json!({
                "signal": signal_name(warn.signal),
                "before_ns": nanos(warn.before),
            })),
            "on_pids_limit": self.on_pids_limit,
            "oom": self.oom,
            "thread_env": self.thread_env,
            "stdout": output(&self.stdout),
            "stderr": output(&self.stderr),
            "record": self.record.as_ref().map(destination),
            "events": self.events.as_ref().map(destination),
            "sample_ns": match self.sampling {
                Sampling::Every(time) => Some(nanos(time)),
                Sampling::Off => None,
            },
            "ring_bytes": self.ring_bytes,
            "notes": self.notes,
            "on_complete": self.on_complete.as_deref().map(cut),
            "host_on_complete": self.host_on_complete.as_deref().map(cut),
            "timings": self.timings == Timings::Include,
        })
    }
}

/// What was asked for, what the host lets it have, and who said so.
fn limit<T: Copy, V: Serialize>(limit: &Limit<T>, unit: impl Fn(T) -> V) -> Value {
    json!({
        "requested": limit.requested.map(&unit),
        "value": limit.value.map(&unit),
        "source": limit.source,
    })
}

/// A file's path; null = where `sandbox`'s own goes.
fn output(output: &Output) -> Option<String> {
    match output {
        Output::Inherit => None,
        Output::Stderr => Some("stderr".to_owned()),
        Output::File(path) => Some(lossless(path.as_os_str())),
    }
}

/// A command, so much of it as is some 4 KiB.
fn cut(command: &str) -> String {
    const SHOWN_BYTES: usize = 4096;
    match command.len() {
        0..=SHOWN_BYTES => command.to_owned(),
        _ => format!("{}…", &command[..command.floor_char_boundary(SHOWN_BYTES)]),
    }
}

fn destination(destination: &Destination) -> String {
    match destination {
        Destination::File(path) => lossless(path.as_os_str()),
        Destination::Fd(_) | Destination::Stdout => destination.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::spec::tests::spec;

    #[test]
    fn what_was_asked_for_has_the_records_names_and_units() {
        let mut spec = spec();
        spec.retry_of = None;
        spec.grace = Duration::from_secs(5);
        let text = serde_json::to_string_pretty(&spec.as_asked()).expect("JSON");
        insta::assert_snapshot!(text);
    }
}
