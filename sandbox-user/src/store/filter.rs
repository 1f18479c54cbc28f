//! Which runs are meant.

use jiff::Timestamp;
use rusqlite::{ToSql, types::ToSqlOutput};
use serde::{Deserialize, Serialize};

use super::row;
use crate::record::Reason;

/// Whose runs are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// Everybody's.
    All,
    /// Those that this uid asked for.
    Of(u32),
}

/// What runs have to be like; one that asks for nothing is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// The run's id, or its analysis's.
    pub id: Option<String>,
    /// Whom it runs as, or who asked for it: a name or a number.
    pub user: Option<String>,
    /// A label that it has, with its value.
    pub label: Option<(String, String)>,
    /// It has not ended.
    pub unfinished: bool,
    /// Why it ended.
    pub reason: Option<Reason>,
    /// It has ended otherwise than by itself and well.
    pub failed: bool,
    /// It was asked for then or later.
    pub since: Option<Timestamp>,
}

/// The condition that [`Filter::parameters`] go with, the latest first; but a run of the id that is asked for
/// before those of an analysis which was given that for its own.
pub(super) const CONDITION: &str = "
    (:uid IS NULL OR uid = :uid)
    AND (:id IS NULL OR run_id = :id OR analysis_id = :id)
    AND (:user IS NULL OR user = :user OR CAST(uid AS TEXT) = :user)
    AND (:label IS NULL OR EXISTS (
        SELECT 1 FROM json_each(labels) WHERE json_each.key = :label AND json_each.value = :value))
    AND (NOT :unfinished OR state <> 'ended')
    AND (:reason IS NULL OR reason = :reason)
    AND (NOT :failed OR (state = 'ended' AND reason <> 'completed'))
    AND (:since IS NULL OR accepted_at >= :since)
    ORDER BY run_id = :id DESC, accepted_at DESC, run_id DESC LIMIT :most";

impl Filter {
    /// That run, or the runs of that analysis.
    pub fn of(id: impl Into<String>) -> Self {
        Self {
            id: Some(id.into()),
            ..Self::default()
        }
    }

    /// What [`CONDITION`] asks for.
    pub(super) fn parameters(&self, whose: Whose, most: u32) -> Vec<(&'static str, Owned)> {
        let uid = match whose {
            Whose::All => None,
            Whose::Of(uid) => Some(uid),
        };
        let (label, value) = self.label.clone().unzip();
        vec![
            (":uid", Owned::Number(uid.map(Into::into))),
            (":id", Owned::Text(self.id.clone())),
            (":user", Owned::Text(self.user.clone())),
            (":label", Owned::Text(label)),
            (":value", Owned::Text(value)),
            (":unfinished", Owned::Number(Some(self.unfinished.into()))),
            (
                ":reason",
                Owned::Text(self.reason.as_ref().and_then(row::word)),
            ),
            (":failed", Owned::Number(Some(self.failed.into()))),
            (":since", Owned::Text(self.since.map(row::time))),
            (":most", Owned::Number(Some(most.into()))),
        ]
    }
}

/// A parameter of a query.
#[derive(Debug)]
pub(super) enum Owned {
    Number(Option<i64>),
    Text(Option<String>),
}

impl ToSql for Owned {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Number(number) => number.to_sql(),
            Self::Text(text) => text.to_sql(),
        }
    }
}
