//! The second look at the limits, once the leaf is empty.
//!
//! `sandbox` reads its limits back when it has set them, and those of the cgroups above. Whoever is
//! root may write others while the run goes on, and then the record would name limits that were not in
//! force. What differs in the end is therefore named: which limit, what it was, and what it is. What
//! was changed and put back is not seen.

use super::docket::Docket;
use crate::{
    cgroup::{CgroupError, LeafCgroup},
    limits::{EffectiveLimits, Enclosing, EnclosingLimits},
};

/// One sentence for each limit that somebody else changed since it was set, or why that cannot be
/// told. None where `sandbox` was gone before it had set them all.
pub(super) fn changes(leaf: &LeafCgroup, docket: &Docket) -> Vec<String> {
    let Some(set) = &docket.effective else {
        return Vec::new();
    };
    let looked = || -> Result<Vec<String>, CgroupError> {
        let mut changes = differences(set, &leaf.effective()?);
        changes.extend(difference(
            "memory.oom.group",
            "",
            Some(docket.spec.oom.oom_group()),
            Some(leaf.oom_scope()?.oom_group()),
        ));
        // Nobody sets it here. Who reaches it is slowed down, until a deadline that then looks like the cause.
        changes.extend(difference(
            "memory.high",
            " bytes",
            None,
            leaf.memory_high_bytes()?,
        ));
        changes.extend(differences_above(&docket.enclosing, &leaf.enclosing()?));
        Ok(changes)
    };
    looked().unwrap_or_else(|error| {
        vec![format!(
            "whether somebody changed the limits meanwhile is not known: {error}"
        )]
    })
}

fn differences_above(first: &EnclosingLimits, now: &EnclosingLimits) -> Vec<String> {
    [
        difference_above(
            "memory.max",
            " bytes",
            &first.memory_bytes,
            &now.memory_bytes,
        ),
        difference_above(
            "memory.swap.max",
            " bytes",
            &first.swap_bytes,
            &now.swap_bytes,
        ),
        difference_above("cpu.max", " cores", &first.cpus, &now.cpus),
        difference_above("pids.max", "", &first.pids, &now.pids),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn difference_above<T: PartialEq + ToString>(
    file: &str,
    unit: &str,
    first: &Option<Enclosing<T>>,
    now: &Option<Enclosing<T>>,
) -> Option<String> {
    let said = |limit: &Option<Enclosing<T>>| {
        limit.as_ref().map_or_else(
            || "max".to_owned(),
            |limit| format!("{}{unit} of {}", limit.value.to_string(), limit.cgroup),
        )
    };
    (first != now).then(|| {
        format!(
            "somebody changed {file} above this run's cgroup while it ran: the tightest was {}, in the end it was {}",
            said(first),
            said(now)
        )
    })
}

fn differences(set: &EffectiveLimits, now: &EffectiveLimits) -> Vec<String> {
    [
        difference("memory.max", " bytes", set.memory_bytes, now.memory_bytes),
        difference("memory.swap.max", " bytes", set.swap_bytes, now.swap_bytes),
        difference("cpu.max", " cores", set.cpus, now.cpus),
        difference("pids.max", "", set.pids, now.pids),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn difference<T: PartialEq + ToString>(
    file: &str,
    unit: &str,
    set: Option<T>,
    now: Option<T>,
) -> Option<String> {
    let said = |value: &Option<T>| {
        value.as_ref().map_or_else(
            || "max".to_owned(),
            |value| format!("{}{unit}", value.to_string()),
        )
    };
    (set != now).then(|| {
        format!(
            "somebody changed {file} of this run's cgroup from outside: sandbox had set {}, in the end it was {}",
            said(&set),
            said(&now)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> EffectiveLimits {
        EffectiveLimits {
            memory_bytes: Some(4096),
            swap_bytes: Some(0),
            cpus: Some(1.5),
            pids: Some(100),
        }
    }

    #[test]
    fn limits_that_stayed_are_not_spoken_of() {
        assert_eq!(differences(&set(), &set()), Vec::<String>::new());
    }

    #[test]
    fn a_limit_above_that_changed_is_named_with_where_it_stands() {
        let first = EnclosingLimits::default();
        let now = EnclosingLimits {
            memory_bytes: Some(Enclosing {
                value: 4096,
                cgroup: "/sandbox".to_owned(),
            }),
            ..EnclosingLimits::default()
        };
        assert_eq!(differences_above(&now, &now), Vec::<String>::new());
        assert_eq!(
            differences_above(&first, &now),
            [
                "somebody changed memory.max above this run's cgroup while it ran: the tightest was max, in the end it was 4096 bytes of /sandbox"
            ]
        );
    }

    #[test]
    fn each_limit_that_changed_is_named_with_both_values() {
        let now = EffectiveLimits {
            memory_bytes: None,
            swap_bytes: Some(8192),
            cpus: Some(0.5),
            pids: Some(7),
        };
        let tail = "of this run's cgroup from outside: sandbox had set";
        assert_eq!(
            differences(&set(), &now),
            [
                format!("somebody changed memory.max {tail} 4096 bytes, in the end it was max"),
                format!(
                    "somebody changed memory.swap.max {tail} 0 bytes, in the end it was 8192 bytes"
                ),
                format!("somebody changed cpu.max {tail} 1.5 cores, in the end it was 0.5 cores"),
                format!("somebody changed pids.max {tail} 100, in the end it was 7"),
            ]
        );
    }
}
