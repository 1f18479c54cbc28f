//! Who holds a run still, while it goes on and at its deadline.

use super::gather::action_now;
use crate::{
    cgroup::{CgroupError, LeafCgroup},
    evidence::{IntentReason, OwnAction},
    record::{Intervention, held_by},
};

/// Who or what holds a run still, for people.
///
/// # Errors
/// When its leaf, or what is above, cannot be read.
pub(super) fn held_still_by(
    leaf: &LeafCgroup,
    interventions: &[Intervention],
) -> Result<Option<String>, CgroupError> {
    let cgroup = leaf.frozen_by()?;
    Ok(cgroup.map(|cgroup| match held_by(interventions) {
        Some(freeze) if cgroup == leaf.cgroup().path => format!("sandbox freeze of {}", freeze.by),
        Some(_) | None => format!("cgroup.freeze of {cgroup}"),
    }))
}

/// The deadline has come; where the run stands still for somebody, that is said.
pub(super) fn overdue(leaf: &LeafCgroup, interventions: &[Intervention]) -> OwnAction {
    let detail = match held_still_by(leaf, interventions) {
        Ok(by) => by.map(|by| format!("frozen by {by}")),
        Err(error) => Some(format!("whether it was frozen is not known: {error}")),
    };
    OwnAction {
        detail,
        ..action_now(IntentReason::Walltime)
    }
}
