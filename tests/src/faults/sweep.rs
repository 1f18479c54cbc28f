//! All faults of a scenario, or a share of them.

use std::collections::BTreeSet;

use nix::errno::Errno;

use super::call::Fault;
use super::tracer::Taken;
use super::trial::{Scenario, Trial};

/// Every `of`th fault, from `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which is the first one.
    pub first: usize,
    /// How far it is from one to the next.
    pub of: usize,
}

/// What a sweep came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Faults that took place.
    pub injected: usize,
    /// Steps that this run did not come to.
    pub not_reached: usize,
    /// What is wrong, a paragraph for each fault.
    pub wrong: Vec<String>,
    /// Why some steps were left alone.
    pub unfit: BTreeSet<String>,
}

/// The faults of a scenario.
#[derive(Debug)]
pub struct Sweep {
    scenario: Scenario,
    usual: Trial,
    faults: Vec<(Taken, Errno)>,
    tally: Tally,
}

impl Sweep {
    /// Lists what can fail.
    ///
    /// # Panics
    ///
    /// Where the run goes wrong without any fault.
    #[must_use]
    pub fn of(scenario: Scenario) -> Self {
        match scenario {
            // The first run on a host loads the programs, which the others find in place.
            Scenario::Completes | Scenario::Overruns | Scenario::LeavesOver => {
                let _ = Trial::run(scenario, None);
            }
            Scenario::Cold => {}
        }
        let usual = Trial::run(scenario, None);
        let complaints = usual.complaints(scenario, &usual);
        assert!(
            complaints.is_empty(),
            "without any fault: {complaints:?}\n{usual}"
        );
        assert!(
            usual.record.is_some(),
            "without any fault, no record: {usual}"
        );
        let mut tally = Tally::default();
        let mut faults = Vec::new();
        for taken in &usual.traced.steps {
            if !scenario.has_of_its_own(taken) {
                continue;
            }
            match taken.step.call.fault(&taken.subject) {
                Some(Fault::Error(errno)) => faults.push((taken.clone(), errno)),
                Some(Fault::Unfit(why)) => {
                    let name = taken.step.call.name().unwrap_or_default();
                    tally.unfit.insert(format!("{name}: {why}"));
                }
                None => tally
                    .wrong
                    .push(format!("nobody has said how {taken} may fail")),
            }
        }
        Self {
            scenario,
            usual,
            faults,
            tally,
        }
    }

    /// How many faults there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.faults.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// Keeps a share of the faults.
    #[must_use]
    pub fn share(mut self, share: Share) -> Self {
        let faults = self
            .faults
            .into_iter()
            .skip(share.first)
            .step_by(share.of.max(1));
        self.faults = faults.collect();
        self
    }

    /// Keeps the faults that `wanted` says.
    #[must_use]
    pub fn only(mut self, wanted: impl Fn(&Taken) -> bool) -> Self {
        self.faults.retain(|(taken, _)| wanted(taken));
        self
    }

    /// Runs them, and tells of each.
    #[must_use]
    pub fn run(mut self, mut tell: impl FnMut(&str)) -> Tally {
        for (expected, errno) in &self.faults {
            let trial = Trial::run(self.scenario, Some((expected.step, *errno)));
            let mut said = match &trial.traced.failed {
                Some(failed) => {
                    self.tally.injected += 1;
                    format!("{failed} = {errno}: {trial}")
                }
                // How often an event loop turns differs from run to run.
                None => {
                    self.tally.not_reached += 1;
                    format!("not reached: {expected}: {trial}")
                }
            };
            for complaint in trial.complaints(self.scenario, &self.usual) {
                said = format!("{said}\n  WRONG: {complaint}");
            }
            if said.contains("\n  WRONG: ") {
                self.tally.wrong.push(said.clone());
            }
            tell(&said);
        }
        self.tally
    }

    /// The steps, for a reader.
    pub fn steps(&self) -> impl Iterator<Item = &Taken> {
        self.faults.iter().map(|(taken, _)| taken)
    }
}
