//! What people had done to a run while it went on, besides ending it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::LimitKind;

/// Something that somebody had done to it, and that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intervention {
    /// When.
    pub at: Timestamp,
    /// Who, by name; by number where there is none.
    pub by: String,
    /// Who, by number.
    pub uid: u32,
    /// With which process.
    pub pid: u32,
    /// What.
    #[serde(flatten)]
    pub deed: Deed,
}

/// What was done, by the verb that it is asked for with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Deed {
    /// It was held still.
    Freeze,
    /// It was let go on.
    Thaw,
    /// One of its limits was changed.
    Update {
        /// Which.
        limit: LimitKind,
        /// What it was; null = no limit.
        from_ns: Option<u64>,
        /// What it became, which the host's ceiling may have lowered; null = no limit.
        to_ns: Option<u64>,
    },
}

/// The freeze that still held it still after all of these, which are by time.
pub fn held_by(interventions: &[Intervention]) -> Option<&Intervention> {
    let last = interventions.iter().rev().find(|done| match done.deed {
        Deed::Freeze | Deed::Thaw => true,
        Deed::Update { .. } => false,
    })?;
    (last.deed == Deed::Freeze).then_some(last)
}

/// How long it was held still by then.
pub fn frozen_for(interventions: &[Intervention], until: Timestamp) -> Duration {
    let between = |since: Timestamp, at: Timestamp| {
        let time = at.duration_since(since).try_into();
        // It ended first.
        time.unwrap_or(Duration::ZERO)
    };
    let mut total = Duration::ZERO;
    let mut held_since = None;
    for Intervention { at, deed, .. } in interventions {
        match (deed, held_since) {
            (Deed::Freeze, None) => held_since = Some(*at),
            (Deed::Thaw, Some(since)) => {
                total += between(since, *at);
                held_since = None;
            }
            (Deed::Freeze, Some(_)) | (Deed::Thaw, None) | (Deed::Update { .. }, _) => {}
        }
    }
    total + held_since.map_or(Duration::ZERO, |since| between(since, until))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// By ana, so many seconds after noon.
    pub(crate) fn at_second(second: i64, deed: Deed) -> Intervention {
        let noon: Timestamp = "2026-03-01T12:00:00Z".parse().expect("a date");
        Intervention {
            at: noon + Duration::from_secs(second.unsigned_abs()),
            by: "ana".to_owned(),
            uid: 1000,
            pid: 77,
            deed,
        }
    }

    #[test]
    fn each_time_that_it_was_held_still_counts_once() {
        let end = at_second(100, Deed::Thaw).at;
        for (deeds, seconds) in [
            (&[][..], 0),
            (&[(10, Deed::Freeze), (40, Deed::Thaw)], 30),
            (&[(10, Deed::Freeze)], 90),
            (
                &[(10, Deed::Freeze), (20, Deed::Freeze), (40, Deed::Thaw)],
                30,
            ),
            (
                &[(10, Deed::Freeze), (11, Deed::Thaw), (98, Deed::Freeze)],
                3,
            ),
            (&[(10, Deed::Thaw)], 0),
            (&[(200, Deed::Freeze)], 0),
        ] {
            let deeds: Vec<_> = deeds
                .iter()
                .map(|(at, deed)| at_second(*at, *deed))
                .collect();
            let expected = Duration::from_secs(seconds);
            assert_eq!(frozen_for(&deeds, end), expected, "{deeds:?}");
        }
    }

    #[test]
    fn the_last_word_tells_whether_it_is_held_still() {
        let (freeze, thaw) = (at_second(1, Deed::Freeze), at_second(2, Deed::Thaw));
        assert_eq!(held_by(&[]), None);
        assert_eq!(held_by(std::slice::from_ref(&freeze)), Some(&freeze));
        let update = Deed::Update {
            limit: LimitKind::Walltime,
            from_ns: None,
            to_ns: Some(1),
        };
        let update = at_second(3, update);
        assert_eq!(held_by(&[freeze.clone(), update.clone()]), Some(&freeze));
        assert_eq!(held_by(&[freeze, thaw, update]), None);
    }
}
