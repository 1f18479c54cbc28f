//! What people have done to a run that goes on, besides ending it: it is held still, let go on (given more
//! time or less: `walltime`).
//!
//! Only what was done is written down: for the record, for the guardian, and for whoever finishes the
//! run should both be killed. The clocks of a run go on while it stands still, so that a frozen one ends
//! at its deadline all the same.

use std::time::Duration;

use super::{Running, Stage};
use crate::{
    limits::Limit,
    record::{Deed, Intervention, held_by},
    supervise::{
        clock,
        docket::Change,
        orders::{Asker, Controlled},
        state::States,
    },
};

/// The most that is written down of a run: a record stays a document that people can open.
const MOST: usize = 1000;

impl Running<'_> {
    /// Holds it still. Where its leaf is frozen already that is as it was.
    pub(super) fn freeze(&mut self, by: Asker) -> Controlled {
        self.check_can_change()?;
        if self.is_frozen_itself()? {
            return Ok(None);
        }
        self.leaf.freeze().map_err(|error| error.to_string())?;
        self.write_down(by, Deed::Freeze, self.docket.spec.limits.walltime);
        Ok(None)
    }

    /// Lets it go on, whoever froze its leaf. What a cgroup above holds still stays so, and that is said.
    pub(super) fn thaw(&mut self, by: Asker) -> Controlled {
        if self.is_frozen_itself()? {
            self.leaf.thaw().map_err(|error| error.to_string())?;
            self.write_down(by, Deed::Thaw, self.docket.spec.limits.walltime);
        }
        match self.leaf.frozen_by() {
            Ok(None) => Ok(None),
            Ok(Some(cgroup)) => Err(format!(
                "it stays frozen, since cgroup.freeze of {cgroup} is 1"
            )),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Has those whom `sandbox freeze` holds still hear that the run is being ended.
    pub(super) fn let_go(&mut self) {
        if held_by(&self.docket.interventions).is_some()
            && let Err(error) = self.leaf.thaw()
        {
            self.ended.degraded.push(error.to_string());
        }
    }

    pub(super) fn check_can_change(&self) -> Result<(), String> {
        if self.stage != Stage::Running {
            return Err("it is being ended".to_owned());
        }
        if self.docket.interventions.len() >= MOST {
            return Err(format!(
                "it was frozen, thawed and changed {MOST} times, and its record has no place for more"
            ));
        }
        Ok(())
    }

    fn is_frozen_itself(&self) -> Result<bool, String> {
        match self.leaf.frozen_by() {
            Ok(cgroup) => Ok(cgroup.is_some_and(|cgroup| cgroup == self.leaf.cgroup().path)),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) fn write_down(&mut self, by: Asker, deed: Deed, walltime: Limit<Duration>) {
        let Asker { by, uid, pid } = by;
        let change = Change {
            intervention: Intervention {
                at: self.docket.clock.date(clock::now_ns()),
                by,
                uid,
                pid,
                deed,
            },
            walltime,
        };
        if let Some(guardian) = self.guardian.as_deref_mut() {
            guardian.changed(&change);
        }
        self.docket.take(change);
        if let Err(error) = States::default().keep_changed(self.docket) {
            self.ended.degraded.push(format!(
                "what was done to the run would not be known, had `sandbox` and its guardian both been killed: {error}"
            ));
        }
    }
}
