//! An entry as people read it in the journal, and how much it matters there.

use std::fmt;

use super::event::{Event, Order};
use crate::{journal::Priority, units::Printable};

impl Event {
    /// How much it matters.
    pub(super) fn priority(&self) -> Priority {
        match self {
            Self::ServiceStarted { .. }
            | Self::ConfigLoaded { .. }
            | Self::Accepted { .. }
            | Self::Ended(_)
            | Self::Ordered { .. } => Priority::Info,
            Self::Withdrawn { .. } | Self::Refused { .. } | Self::Declined { .. } => {
                Priority::Notice
            }
            Self::Lost { .. }
            | Self::HookFailed { .. }
            | Self::Damaged { .. }
            | Self::Torn { .. } => Priority::Warning,
        }
    }

    /// In one sentence. What users chose is escaped in it.
    pub(super) fn sentence(&self) -> String {
        let sentence = match self {
            Self::ServiceStarted { version, .. } => format!("sandbox {version} serves this host"),
            Self::ConfigLoaded { config_sha256 } => match config_sha256 {
                Some(hash) => format!("the configuration in force is {hash}"),
                None => "there is no configuration in force any more".to_owned(),
            },
            Self::Accepted {
                run_id,
                uid,
                command,
                ..
            } => format!("run {run_id}: accepted for uid {uid}: {command}"),
            Self::Withdrawn { run_id, reason } => format!("run {run_id}: withdrawn: {reason}"),
            Self::Ended(ended) => format!(
                "run {}: {} ({}): {}",
                ended.run_id,
                ended.reason.as_str(),
                ended.confidence.as_str(),
                ended.notes
            ),
            Self::Lost { run_id, notes } => format!("run {run_id}: {notes}"),
            Self::HookFailed { run_id, problem } => format!("run {run_id}: {problem}"),
            Self::Refused {
                uid, what, reason, ..
            } => format!("uid {uid} was refused {what}: {reason}"),
            Self::Ordered {
                uid,
                run_id,
                order,
                detail,
                ..
            } => {
                let detail = detail.as_ref().map(|detail| format!(": {detail}"));
                format!(
                    "run {run_id}: {order} by uid {uid}{}",
                    detail.unwrap_or_default()
                )
            }
            Self::Declined {
                uid,
                run_id,
                order,
                reason,
                ..
            } => format!("run {run_id}: {order} by uid {uid} came to nothing: {reason}"),
            Self::Damaged { kept_in, .. } => {
                format!(
                    "the audit log was damaged or taken away: what was in it is kept as {kept_in}"
                )
            }
            Self::Torn { kept_in, .. } => {
                format!("a crash had torn the audit log's last line, which is kept as {kept_in}")
            }
        };
        Printable(&sentence).to_string()
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::Update => "update",
        })
    }
}
