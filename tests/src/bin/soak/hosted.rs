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
/// What a client says whose run had not begun when the service was killed.
const TURNED_AWAY: &str = "the service was ended, and nothing of this run was started";

/// Whether this tells of a client whose run had not begun when the service was killed.
pub(crate) fn is_turned_away(said: &str) -> bool {
    said.contains(TURNED_AWAY)
}

/// The reasons that the runs' own records have, by run.
#[derive(Debug, Default)]
pub(crate) struct Recorded(Mutex<BTreeMap<String, String>>);

impl Recorded {
    /// Notes what a run has left, where it has.
    pub(crate) fn add(&self, outcome: &Outcome) {
        if outcome.has_record() {
            let record = outcome.record();
            let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            reasons.insert(
                record.text("/run_id").to_owned(),
                record.reason().to_owned(),
            );
        }
    }

    /// What the store has else, or not at all.
    fn missing_in(&self, store: &BTreeMap<String, Stored>) -> Vec<String> {
        let reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let differs = |(run_id, reason): (&String, &String)| match store.get(run_id) {
            None => Some(format!("run {run_id} ({reason}) is not in the store")),
            Some(stored) if stored.reason.as_ref() != Some(reason) => Some(format!(
                "run {run_id} is {reason}, and in the store {stored:?}"
            )),
            Some(_) => None,
        };
        reasons.iter().filter_map(differs).collect()
    }
}

/// A run as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    state: String,
    reason: Option<String>,
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
    pub(crate) fn end(self, recorded: &Recorded) -> bool {
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
        let lost = store
            .values()
            .filter(|stored| stored.reason.as_deref() == Some("runner_lost"));
        println!(
            "the store has {} runs, {} of them lost",
            store.len(),
            lost.count()
        );
        let missing = recorded.missing_in(&store);
        for problem in &missing {
            println!("{problem}");
        }
        missing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_the_store_lacks_or_tells_otherwise_is_named() {
        let stored = |reason: &str| Stored {
            state: "ended".to_owned(),
            reason: Some(reason.to_owned()),
        };
        let recorded = Recorded::default();
        let reasons = [("a", "memory"), ("b", "walltime"), ("c", "completed")];
        let reasons = reasons.map(|(run_id, reason)| (run_id.to_owned(), reason.to_owned()));
        *recorded.0.lock().expect("nobody panics") = reasons.into();
        let store = [("a", "memory"), ("b", "runner_lost"), ("z", "signal")];
        let store = store
            .map(|(run_id, reason)| (run_id.to_owned(), stored(reason)))
            .into();
        let missing = recorded.missing_in(&store);
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert!(missing[0].contains("run b is walltime"), "{missing:?}");
        assert!(
            missing[1].contains("run c (completed) is not"),
            "{missing:?}"
        );
    }
}
