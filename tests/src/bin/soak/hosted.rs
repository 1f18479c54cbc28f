//! The host's service, killed again and again while it does the runs.
//!
//! Its socket stays, as under systemd: who connects while it is down waits for the next one. What the store has
//! in the end is held against the records that the runs have left.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sandbox_tests::{Outcome, Service, wait};
use serde_json::Value;

use crate::random::Random;

/// How long one lives: some are killed before they listen, others have time to settle.
const LIVES_MS: usize = 2500;
/// What a client says whose run had not begun when the service was killed: it was refused, or cancelled.
const NOT_BEGUN: [&str; 2] = ["nothing of it was started", "cancelled before it had begun"];

/// Whether this tells of a client whose run had not begun when the service was killed. That nothing of it was
/// started is seen in the end: it is not in the store.
pub(crate) fn has_not_begun(said: &str) -> bool {
    NOT_BEGUN.iter().any(|text| said.contains(text))
}

/// The reasons that the runs' own records have, by run.
static RECORDED: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Notes what a run has left, where it has.
pub(crate) fn note(outcome: &Outcome) {
    if outcome.has_record() {
        let record = outcome.record();
        let mut recorded = RECORDED.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.insert(
            record.text("/run_id").to_owned(),
            record.reason().to_owned(),
        );
    }
}

/// A run as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    state: String,
    reason: Option<String>,
}

/// Where the store has something else than the records, or lacks a run, or has one that left no record.
fn differences(
    recorded: &BTreeMap<String, String>,
    store: &BTreeMap<String, Stored>,
) -> Vec<String> {
    let missing = recorded.iter().filter_map(|(run_id, reason)| {
        let stored = store.get(run_id);
        let is_same = stored.is_some_and(|stored| stored.reason.as_ref() == Some(reason));
        (!is_same).then(|| format!("run {run_id} is {reason}, and in the store {stored:?}"))
    });
    let others = store.iter().filter_map(|(run_id, stored)| {
        let is_known = recorded.contains_key(run_id);
        (!is_known).then(|| format!("run {run_id} left no record, and is in the store {stored:?}"))
    });
    missing.chain(others).collect()
}

fn store() -> Option<BTreeMap<String, Stored>> {
    let list = Command::new("sandbox")
        .args(["list", "--json", "--most", "2000"])
        .output()
        .expect("`sandbox` is in the guest");
    let runs: Value = serde_json::from_slice(&list.stdout).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let stored = runs.as_array()?.iter().map(|run| {
        let stored = Stored {
            state: text(&run["state"])?,
            reason: text(&run["reason"]),
        };
        Some((text(&run["run_id"])?, stored))
    });
    stored.collect()
}

/// A service that somebody kills again and again.
#[derive(Debug)]
pub(crate) struct Plagued {
    /// Dropped, it is left in peace.
    goes_on: Sender<()>,
    killer: JoinHandle<(Service, u64)>,
}

impl Plagued {
    /// Begins to kill it, at moments that follow from the seed.
    pub(crate) fn begin(mut service: Service, seed: u64) -> Self {
        let (goes_on, ended) = mpsc::channel();
        let mut random = Random::of_run(seed, u64::MAX);
        let killer = thread::spawn(move || {
            let mut kills = 0;
            loop {
                let life = Duration::from_millis(random.between(0, LIVES_MS) as u64);
                match ended.recv_timeout(life) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return (service, kills),
                }
                service.kill();
                kills += 1;
                service.restart();
            }
        });
        Self { goes_on, killer }
    }

    /// Leaves it in peace, and says whether it has all runs, none of them as going on, with the reasons of their
    /// records.
    pub(crate) fn end(self) -> bool {
        drop(self.goes_on);
        let (_service, kills) = self
            .killer
            .join()
            .expect("the service could be started again");
        println!("the service was killed {kills} times");
        let settled = wait::within(wait::limit(), || {
            store().filter(|store| store.values().all(|stored| stored.state == "ended"))
        });
        let Some(store) = settled else {
            println!("the store has runs that do not end: {:?}", self::store());
            return false;
        };
        println!("the store has {} runs", store.len());
        let recorded = RECORDED.lock().unwrap_or_else(PoisonError::into_inner);
        let differences = differences(&recorded, &store);
        for difference in &differences {
            println!("{difference}");
        }
        differences.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_the_store_lacks_or_tells_otherwise_or_has_besides_is_named() {
        let texts = |pairs: [(&str, &str); 3]| {
            pairs.map(|(run_id, reason)| (run_id.to_owned(), reason.to_owned()))
        };
        let recorded = texts([("a", "memory"), ("b", "walltime"), ("c", "completed")]).into();
        let store = texts([("a", "memory"), ("b", "runner_lost"), ("z", "signal")]);
        let store = store.map(|(run_id, reason)| {
            let stored = Stored {
                state: "ended".to_owned(),
                reason: Some(reason),
            };
            (run_id, stored)
        });
        let differences = differences(&recorded, &store.into());
        let expected = [
            "run b is walltime",
            "run c is completed",
            "run z left no record",
        ];
        assert_eq!(differences.len(), expected.len(), "{differences:?}");
        for (difference, expected) in differences.iter().zip(expected) {
            assert!(difference.starts_with(expected), "{difference}");
        }
    }
}
