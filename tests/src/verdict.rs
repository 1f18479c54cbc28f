//! Asking a record, and how `sandbox` ended, for a whole verdict at once.
//!
//! What follows from the reason alone (other systems' terms, whether notes are printed) is checked
//! here against the design's own table; a test names what is special to its ending.

use serde_json::Value;

use crate::record::Record;
use crate::run::Outcome;

/// systemd, Slurm, Kubernetes, BenchExec, by reason; an empty one is null.
const TERMS: &[(&str, [&str; 4])] = &[
    ("completed", ["success", "COMPLETED", "Completed", ""]),
    ("exit_code", ["exit-code", "FAILED", "Error", ""]),
    ("signal", ["signal", "FAILED", "Error", ""]),
    (
        "memory",
        ["oom-kill", "OUT_OF_MEMORY", "OOMKilled", "memory"],
    ),
    (
        "memory_ancestor",
        ["oom-kill", "OUT_OF_MEMORY", "OOMKilled", "memory"],
    ),
    (
        "host_oom",
        ["oom-kill", "OUT_OF_MEMORY", "OOMKilled", "memory"],
    ),
    ("pids", ["exit-code", "FAILED", "Error", ""]),
    ("pids_ancestor", ["exit-code", "FAILED", "Error", ""]),
    (
        "walltime",
        ["timeout", "TIMEOUT", "DeadlineExceeded", "walltime"],
    ),
    ("cputime", ["signal", "TIMEOUT", "Error", "cputime"]),
    ("external_kill", ["signal", "FAILED", "Error", "killed"]),
    ("cancelled", ["signal", "CANCELLED", "Error", "killed"]),
    ("escaped", ["", "FAILED", "Error", ""]),
    (
        "setup_failed",
        ["exit-code", "FAILED", "StartError", "failed"],
    ),
    ("runner_lost", ["", "NODE_FAIL", "Unknown", ""]),
];

const SIGTERM: i64 = 15;

impl Outcome {
    /// The record, once `sandbox` has exited with `status` and the record says this much, exactly.
    #[track_caller]
    pub fn ended(&self, status: i32, reason: &str, retry_hint: &str) -> Record {
        let record = self.ended_somehow(status);
        record.assert_verdict(reason, retry_hint);
        record
    }

    /// The same where so many end at once that the kernel may skip programs: the record is as sure as it can be
    /// then, and says so.
    #[track_caller]
    pub fn ended_among_many(&self, status: i32, reason: &str, retry_hint: &str) -> Record {
        let record = self.ended_somehow(status);
        let skipped = record.number("/tracing/missed") > 0;
        let is_told = record
            .list("/tracing/degraded")
            .iter()
            .any(|sentence| sentence.to_string().contains("the kernel skipped "));
        if skipped && is_told {
            record.assert_reason(reason, retry_hint);
            // A program that only adds detail lowers nothing.
            let sure = ["exact", "strong"].contains(&record.confidence());
            assert!(sure, "{record}");
        } else {
            record.assert_verdict(reason, retry_hint);
        }
        record
    }

    #[track_caller]
    fn ended_somehow(&self, status: i32) -> Record {
        let record = self.record();
        assert_eq!(
            self.code(),
            status,
            "the exit status of `sandbox`; stderr:\n{}\n{record}",
            self.stderr
        );
        self.assert_told(&record);
        record
    }

    /// That the notes were printed if the run failed, and only then.
    #[track_caller]
    pub fn assert_told(&self, record: &Record) {
        let reason = record.reason();
        // Why a start failed is said by its error instead.
        if reason != "setup_failed" {
            let notes = format!("sandbox: {}\n", record.notes());
            assert_eq!(
                self.stderr.contains(&notes),
                reason != "completed",
                "notes are printed when a run failed, and only then; stderr:\n{}\n{record}",
                self.stderr
            );
        }
    }
}

impl Record {
    /// The reason, known exactly, with its hint and other systems' terms.
    #[track_caller]
    pub fn assert_verdict(&self, reason: &str, retry_hint: &str) {
        self.assert_reason(reason, retry_hint);
        assert_eq!(self.confidence(), "exact", "\n{self}");
    }

    /// The reason, however sure it is, with its hint and other systems' terms.
    #[track_caller]
    pub fn assert_reason(&self, reason: &str, retry_hint: &str) {
        assert_eq!(self.reason(), reason, "\n{self}");
        assert_eq!(self.text("/termination/retry_hint"), retry_hint, "\n{self}");
        let Some((_, terms)) = TERMS.iter().find(|(known, _)| *known == reason) else {
            panic!("{reason} is not a reason");
        };
        for (system, term) in ["systemd", "slurm", "kubernetes", "benchexec"]
            .iter()
            .zip(terms)
        {
            let term = match (*system, reason) {
                ("systemd", "signal") if self.at("/exit/core_dumped") == true => "core-dump",
                ("systemd", "external_kill") if self.at("/exit/signal") == SIGTERM => "success",
                _ => term,
            };
            let found = self.at(&format!("/termination/nearest_terms/{system}"));
            assert_eq!(found.as_str().unwrap_or_default(), term, "{system}\n{self}");
        }
    }

    /// The line of the evidence that states this fact.
    #[track_caller]
    pub fn finding(&self, fact: &str) -> &Value {
        let evidence = self.list("/termination/evidence");
        match evidence.iter().find(|finding| finding["fact"] == fact) {
            Some(finding) => finding,
            None => panic!("{fact} is not in the evidence:\n{self}"),
        }
    }

    /// Whether the evidence states this fact.
    #[must_use]
    #[track_caller]
    pub fn has_finding(&self, fact: &str) -> bool {
        let evidence = self.list("/termination/evidence");
        evidence.iter().any(|finding| finding["fact"] == fact)
    }

    /// The entry of `kills` that this fact of the evidence points to.
    #[track_caller]
    pub fn kill_in(&self, fact: &str) -> &Value {
        let place = self.finding(fact)["kill"].as_u64();
        let kill = place.and_then(|place| self.kills().get(usize::try_from(place).ok()?));
        match kill {
            Some(kill) => kill,
            None => panic!("{fact} points to no kill:\n{self}"),
        }
    }

    /// The kill that decided.
    #[track_caller]
    pub fn fatal(&self) -> &Value {
        self.kill_in("fatal_signal")
    }

    /// The entry of `limits_hit` for this limit.
    #[track_caller]
    pub fn limit_hit(&self, limit: &str) -> &Value {
        let hits = self.list("/limits_hit");
        match hits.iter().find(|hit| hit["limit"] == limit) {
            Some(hit) => hit,
            None => panic!("{limit} is not in limits_hit:\n{self}"),
        }
    }

    /// That the notes have all of these in them, in this order.
    #[track_caller]
    pub fn assert_notes(&self, phrases: &[&str]) {
        let mut rest = self.notes();
        for phrase in phrases {
            match rest.split_once(phrase) {
                Some((_, after)) => rest = after,
                None => panic!("the notes do not go on with {phrase:?}:\n{self}"),
            }
        }
    }
}

/// That `actual` has every field of `expected`, at any depth; it may have more.
#[track_caller]
pub fn assert_has(actual: &Value, expected: &Value) {
    if let Some(pointer) = difference(actual, expected) {
        panic!("at {pointer:?} expected {expected:#}\nin {actual:#}");
    }
}

fn difference(actual: &Value, expected: &Value) -> Option<String> {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => {
            expected.iter().find_map(|(key, expected)| {
                let inside = actual.get(key).map(|actual| difference(actual, expected));
                match inside {
                    None => Some(format!("/{key}")),
                    Some(difference) => difference.map(|rest| format!("/{key}{rest}")),
                }
            })
        }
        (actual, expected) => (actual != expected).then(String::new),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_part_is_compared_at_any_depth() {
        let actual = json!({"signal": 9, "victim": {"pid": 7, "comm": "victim"}});
        let differs = |expected| difference(&actual, &expected);
        assert_eq!(differs(json!({"victim": {"pid": 7}})), None);
        assert_eq!(
            differs(json!({"victim": {"pid": 8}})).as_deref(),
            Some("/victim/pid")
        );
        assert_eq!(differs(json!({"sender": null})).as_deref(), Some("/sender"));
    }
}
