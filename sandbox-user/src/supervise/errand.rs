//! What is left to be done for a run that is recorded: its completion hooks, and to tell the service of it where that
//! could not be done.
//!
//! Whoever concludes a run begins with them, and keeps what is left of it with the guardian and with what is kept
//! of the run. Where the one that runs a hook is killed, the next to look after the run goes on here: with that hook once
//! more, and not with those that have ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    clock,
    docket::Docket,
    guardian::Guardian,
    hook_cgroup::HookCgroup,
    on_complete::{self, OnComplete, Problem},
    orders::Orders,
    spool::{self, Told},
    state::States,
};
use crate::{record::RunRecord, say::say};

/// How long a hook may take, all that it is run together.
const WITHIN: Duration = Duration::from_secs(600);
/// How long it is waited before a hook is run once more that failed, or whose runner was killed; then it is given up.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// What is left to be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Errand {
    record: RunRecord,
    /// Whether the service has been told of it. Whoever takes this over tells it where it was not.
    #[serde(default)]
    pub(super) told: Told,
    /// How many hooks have come to their end.
    ended: usize,
    /// How often the one after those was begun.
    tries: usize,
    /// When that was for the first time (CLOCK_MONOTONIC).
    began_at_ns: Option<u64>,
    /// What went wrong with hooks, one sentence each.
    problems: Vec<String>,
}

impl Errand {
    /// That of a run with this record; `None` where it has no hook.
    pub(super) fn of(docket: &Docket, record: &RunRecord) -> Option<Self> {
        docket.on_complete().next()?;
        Some(Self::untold(record))
    }

    /// That of a run of which the service could not be told.
    pub(super) fn untold(record: &RunRecord) -> Self {
        Self {
            record: record.clone(),
            told: Told::No,
            ended: 0,
            tries: 0,
            began_at_ns: None,
            problems: Vec::new(),
        }
    }

    /// The record of the run.
    pub(super) const fn record(&self) -> &RunRecord {
        &self.record
    }

    /// Runs the hooks one after another, and leaves for the service what went wrong.
    pub(super) async fn run(
        mut self,
        docket: &Docket,
        mut orders: Option<&mut Orders>,
        mut guardian: Option<&mut Guardian>,
    ) {
        while let Some(hook) = docket.on_complete().nth(self.ended) {
            let problem = self
                .run_hook(&hook, orders.as_deref_mut(), guardian.as_deref_mut())
                .await;
            self.problems.extend(problem);
            self.ended += 1;
            self.tries = 0;
            self.began_at_ns = None;
        }
        if !self.problems.is_empty() {
            spool::leave_hook_problem(docket, &self.problems.join("; "));
        }
        // Who looks after it from here on has nothing to do.
        self.hand_on(docket, guardian);
    }

    /// Runs one to its end, and where it fails a few times more; what goes wrong is said. Gives what went wrong the
    /// last time. What asks for the end of the run ends it too.
    async fn run_hook(
        &mut self,
        hook: &OnComplete<'_>,
        mut orders: Option<&mut Orders>,
        mut guardian: Option<&mut Guardian>,
    ) -> Option<String> {
        let now_ns = clock::now_ns();
        let began_at_ns = *self.began_at_ns.get_or_insert(now_ns);
        let passed = Duration::from_nanos(now_ns.saturating_sub(began_at_ns));
        let until = Instant::now() + WITHIN.saturating_sub(passed);
        if self.tries > 0 {
            let cut_short = Problem::of(hook, "was cut short: whoever ran it was killed");
            if !self.is_tried_again(&cut_short, orders.as_deref_mut()).await {
                if let Some(left) = HookCgroup::left(hook.docket) {
                    left.remove().await;
                }
                return Some(cut_short.text);
            }
        }
        loop {
            self.tries += 1;
            self.hand_on(hook.docket, guardian.as_deref_mut());
            let tried = hook.run(&self.record, until, orders.as_deref_mut()).await;
            let problem = tried.err()?;
            if !self.is_tried_again(&problem, orders.as_deref_mut()).await {
                return Some(problem.text);
            }
        }
    }

    /// Says what went wrong and waits a while; false where the hook is given up.
    async fn is_tried_again(&self, problem: &Problem, orders: Option<&mut Orders>) -> bool {
        let pause = PAUSES.get(self.tries - 1).filter(|_| !problem.is_last);
        let Some(pause) = pause else {
            say(&problem.text);
            return false;
        };
        say(format_args!(
            "{}; it is run once more in {} s",
            problem.text,
            pause.as_secs()
        ));
        let is_ended = on_complete::is_ended_within(*pause, orders).await;
        if is_ended {
            say("it is not run once more: the end was asked for");
        }
        !is_ended
    }

    /// Tells of it whoever may have to take it over.
    fn hand_on(&self, docket: &Docket, guardian: Option<&mut Guardian>) {
        if let Some(guardian) = guardian {
            guardian.hand_on(self);
        }
        self.keep(docket);
    }

    /// Keeps it for whoever may have to take it over.
    pub(super) fn keep(&self, docket: &Docket) {
        if let Err(error) = States::default().keep_errand(docket.spec.run_id, self) {
            say(format_args!(
                "no completion hook is run once more, should `sandbox` and its guardian both be killed: {error}"
            ));
        }
    }
}
