//! The words that label what is counted, as the record has them.

use serde::{Deserialize, Serialize};

use crate::evidence::Confidence;
use crate::record::{KillCause, LimitKind, User};

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Its user has enough connections.
    Connections,
    /// It is no request, or one of another version.
    Malformed,
    /// Its caller is bound by what a run of the service's would be free of, or sees other files.
    Bound,
    /// Its caller's own cgroup is limited.
    LimitedCaller,
    /// It was to run as another user.
    OtherUser,
    /// Too many runs wait.
    Queue,
    /// Too many of its user's runs wait.
    UserQueue,
    /// What it asks for is more than all runs together may have.
    Budget,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Connections,
        Self::Malformed,
        Self::Bound,
        Self::LimitedCaller,
        Self::OtherUser,
        Self::Queue,
        Self::UserQueue,
        Self::Budget,
    ];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Malformed => "malformed",
            Self::Bound => "bound",
            Self::LimitedCaller => "limited_caller",
            Self::OtherUser => "other_user",
            Self::Queue => "queue",
            Self::UserQueue => "user_queue",
            Self::Budget => "budget",
        }
    }
}

pub(super) const CONFIDENCES: [Confidence; 3] =
    [Confidence::Inferred, Confidence::Strong, Confidence::Exact];

pub(super) const LIMITS: [LimitKind; 7] = [
    LimitKind::Memory,
    LimitKind::MemoryAncestor,
    LimitKind::Cpus,
    LimitKind::Pids,
    LimitKind::PidsAncestor,
    LimitKind::Walltime,
    LimitKind::Cputime,
];

pub(super) const fn limit(limit: LimitKind) -> &'static str {
    match limit {
        LimitKind::Memory => "memory",
        LimitKind::MemoryAncestor => "memory_ancestor",
        LimitKind::Cpus => "cpus",
        LimitKind::Pids => "pids",
        LimitKind::PidsAncestor => "pids_ancestor",
        LimitKind::Walltime => "walltime",
        LimitKind::Cputime => "cputime",
    }
}

pub(super) const CAUSES: [KillCause; 5] = [
    KillCause::Oom,
    KillCause::CgroupKill,
    KillCause::Runner,
    KillCause::Process,
    KillCause::Kernel,
];

pub(super) const fn cause(cause: KillCause) -> &'static str {
    match cause {
        KillCause::Oom => "oom",
        KillCause::CgroupKill => "cgroup_kill",
        KillCause::Runner => "runner",
        KillCause::Process => "process",
        KillCause::Kernel => "kernel",
    }
}

/// A user's name, or uid where there is none, as it stands in a label: `prometheus-client` writes values
/// as they are, and names may come from elsewhere (LDAP).
pub(super) fn user(user: &User) -> String {
    match &user.name {
        Some(name) => name
            .replace('\\', r"\\")
            .replace('"', "\\\"")
            .replace('\n', r"\n"),
        None => user.uid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    fn in_the_record(value: impl Serialize) -> String {
        let json = serde_json::to_value(value).expect("JSON");
        json.as_str().expect("a word").to_owned()
    }

    #[test]
    fn words_are_those_of_the_record() {
        for each in CONFIDENCES {
            assert_eq!(each.as_str(), in_the_record(each));
        }
        for each in LIMITS {
            assert_eq!(limit(each), in_the_record(each));
        }
        for each in CAUSES {
            assert_eq!(cause(each), in_the_record(each));
        }
    }

    #[test]
    fn a_user_without_a_name_is_a_number_and_one_with_a_strange_one_breaks_no_line() {
        let named = |name: Option<&str>| User {
            uid: 1000,
            gid: 1000,
            name: name.map(str::to_owned),
        };
        assert_eq!(user(&named(Some("ana"))), "ana");
        assert_eq!(user(&named(None)), "1000");
        assert_eq!(user(&named(Some("a\"b\\c\nd"))), r#"a\"b\\c\nd"#);
    }
}
