//! What is known of a run that goes on, by what was kept of it, its leaf and the kernel side's maps: nobody is asked.

use std::cell::OnceCell;

use jiff::{SignedDuration, Timestamp};

use super::{standstill::held_still_by, state::States};
use crate::{
    cgroup::{LeafCgroup, LeafStats, Mount},
    spec::RunId,
    trace::{PinDir, Tracer},
};

/// It.
#[derive(Debug)]
pub(crate) struct Live {
    /// When main was executed; `None` where that was not seen, or has not happened yet.
    pub(crate) started_at: Option<Timestamp>,
    /// When its wall clock runs out.
    pub(crate) deadline: Option<Timestamp>,
    /// Who or what holds it still, for people.
    pub(crate) frozen_by: Option<String>,
    /// What it uses.
    pub(crate) stats: LeafStats,
}

/// Looks at runs, one after another.
#[derive(Default)]
pub(crate) struct Lives {
    /// The maps of this build's programs, where there are any.
    tracer: OnceCell<Option<Tracer>>,
}

impl Lives {
    /// One of them; `None` where nothing is kept of it, or its leaf is not there: it has not begun, or ends just now.
    pub(crate) fn of(&self, run_id: RunId) -> Option<Live> {
        let docket = States::default().read(run_id).ok()??.docket;
        let leaf = docket.leaf.as_ref()?;
        let opened = LeafCgroup::open(&Mount::find().ok()?, &leaf.path).ok()?;
        let tracer = self.tracer().filter(|tracer| {
            let pins = docket.trace.pins.as_deref();
            pins == Some(tracer.dir().path())
        });
        let started_at = tracer
            .and_then(|tracer| tracer.executed_at_ns(leaf.id).ok().flatten())
            .map(|at_ns| docket.clock.date(at_ns));
        let walltime = docket.spec.limits.walltime.value;
        let walltime = walltime.and_then(|time| SignedDuration::try_from(time).ok());
        let frozen_by = held_still_by(&opened, &docket.interventions);
        Some(Live {
            started_at,
            deadline: started_at
                .zip(walltime)
                .and_then(|(start, time)| start.checked_add(time).ok()),
            frozen_by: frozen_by.ok().flatten(),
            stats: opened.stats().value,
        })
    }

    fn tracer(&self) -> Option<&Tracer> {
        let reopen = || Tracer::reopen(PinDir::own()).ok();
        self.tracer.get_or_init(reopen).as_ref()
    }
}
