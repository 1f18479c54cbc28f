//! When a run's use is looked at, and through which open files.

use std::time::Duration;

use crate::{
    cgroup::{CgroupError, LeafCgroup, LeafStats, Sampler},
    spec::Sampling,
};

/// Between two looks, where the stream has no samples.
const EVERY: Duration = Duration::from_secs(1);
/// The first look comes this soon; then the time doubles, up to what was asked for, so that short runs
/// are seen too.
const FIRST: Duration = Duration::from_millis(50);

/// The looks at one run.
pub(super) struct Samples {
    sampler: Option<Sampler>,
    period: Duration,
    wait: Duration,
}

impl Samples {
    /// None taken yet; and why there will be none.
    pub(super) fn of(leaf: &LeafCgroup, sampling: Sampling) -> (Self, Option<CgroupError>) {
        let (sampler, problem) = match leaf.sampler() {
            Ok(sampler) => (Some(sampler), None),
            Err(error) => (None, Some(error)),
        };
        let period = match sampling {
            Sampling::Every(period) => period,
            Sampling::Off => EVERY,
        };
        let samples = Self {
            sampler,
            period,
            wait: period.min(FIRST),
        };
        (samples, problem)
    }

    /// How long it is until the next look, from the last one on.
    pub(super) fn wait(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(self.period);
        wait
    }

    /// Looks; what cannot be read is `None`.
    pub(super) fn look(&self) -> Option<LeafStats> {
        Some(self.sampler.as_ref()?.sample().value)
    }
}
