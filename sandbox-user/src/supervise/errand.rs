//! What is left to be done for a run that is recorded: its completion hooks.
//!
//! Whoever concludes a run begins with them, and keeps what is left of it with the guardian and with what is kept
//! of the run. Where the one that runs a hook is killed, the next to look after the run goes on here: with that hook once
//! more, and not with those that have ended.

use serde::{Deserialize, Serialize};

use super::{
    docket::Docket, guardian::Guardian, on_complete::OnComplete, orders::Orders, spool,
    state::States,
};
use crate::{record::RunRecord, say::say};

/// How often a hook is run once more because whoever ran it was killed: it may itself be why.
const MOST_LOST: u32 = 2;

/// What is left to be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Errand {
    record: RunRecord,
    /// How many hooks have come to their end.
    ended: usize,
    /// How often whoever ran the one after those was killed.
    lost: u32,
    /// What went wrong with hooks, one sentence each.
    problems: Vec<String>,
}

impl Errand {
    /// That of a run with this record; `None` where it has no hook.
    pub(super) fn of(docket: &Docket, record: &RunRecord) -> Option<Self> {
        docket.on_complete().next()?;
        Some(Self {
            record: record.clone(),
            ended: 0,
            lost: 0,
            problems: Vec::new(),
        })
    }

    /// The same for the next, where whoever did it was killed.
    pub(super) fn taken_over(self) -> Self {
        Self {
            lost: self.lost + 1,
            ..self
        }
    }

    /// Runs the hooks one after another, and leaves for the service what went wrong.
    pub(super) async fn run(
        mut self,
        docket: &Docket,
        mut orders: Option<&mut Orders>,
        mut guardian: Option<&mut Guardian>,
    ) {
        while let Some(hook) = docket.on_complete().nth(self.ended) {
            self.hand_on(docket, guardian.as_deref_mut());
            let problem = match self.lost {
                0..=MOST_LOST => hook.run(&self.record, orders.as_deref_mut()).await,
                lost => Some(given_up(&hook, lost)),
            };
            self.problems.extend(problem);
            self.ended += 1;
            self.lost = 0;
        }
        if !self.problems.is_empty() {
            spool::leave_hook_problem(docket, &self.problems.join("; "));
        }
    }

    /// Tells of it whoever may have to take it over.
    fn hand_on(&self, docket: &Docket, guardian: Option<&mut Guardian>) {
        if let Some(guardian) = guardian {
            guardian.hand_on(self);
        }
        if let Err(error) = States::default().keep_errand(docket.spec.run_id, self) {
            say(format_args!(
                "no completion hook is run once more, should `sandbox` and its guardian both be killed: {error}"
            ));
        }
    }
}

fn given_up(hook: &OnComplete<'_>, lost: u32) -> String {
    let problem = format!(
        "{}: {} was cut short each time, since whoever ran it was killed, {lost} times",
        hook.name, hook.command
    );
    say(&problem);
    problem
}
