//! Processes and paths as notes name them.

use crate::escape::escape_untrusted;
use crate::record::{KillEntry, RunRecord, Sender, SenderKind};

const PATH_BYTES: usize = 120;
const TEXT_BYTES: usize = 160;
/// Most of a note: what is to be done comes last.
const STEP_BYTES: usize = 400;

/// A name that the analysis chose: as it is where it is plain, else escaped and in quotes.
pub(super) fn program(comm: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+:/@".contains(&byte);
    if !comm.is_empty() && comm.bytes().all(is_plain) {
        return shorten(comm, PATH_BYTES);
    }
    let escaped = escape_untrusted(comm).replace('\'', "\\'");
    format!("'{}'", shorten(&escaped, PATH_BYTES))
}

/// A cgroup's path.
pub(super) fn path(path: &str) -> String {
    shorten(&escape_untrusted(path), PATH_BYTES)
}

/// Words of somebody else's.
pub(super) fn text(text: &str) -> String {
    shorten(&escape_untrusted(text), TEXT_BYTES)
}

/// What a start has failed at, and what is to be done about it.
pub(super) fn step(step: &str) -> String {
    shorten(&escape_untrusted(step), STEP_BYTES)
}

/// `python3 (pid 4711, a child of bash 4700)`; the parent only where the tree has it.
pub(super) fn victim(record: &RunRecord, kill: &KillEntry) -> String {
    let victim = &kill.victim;
    let tree = &record.processes.tree;
    let parent = tree
        .iter()
        .find(|node| (node.pid, node.start_time) == (victim.pid, victim.start_time))
        .and_then(|node| {
            tree.iter().find(|parent| {
                (Some(parent.pid), Some(parent.start_time))
                    == (node.parent_pid, node.parent_start_time)
            })
        });
    let name = program(&victim.comm);
    match parent {
        Some(parent) => format!(
            "{name} (pid {}, a child of {} {})",
            victim.pid,
            program(&parent.comm),
            parent.pid
        ),
        None => format!("{name} (pid {})", victim.pid),
    }
}

/// `earlyoom (pid 900, uid 0)`, `the kernel`, `sandbox`.
pub(super) fn sender(sender: &Sender) -> String {
    match sender.kind {
        SenderKind::Kernel => "the kernel".to_owned(),
        SenderKind::Runner => "sandbox".to_owned(),
        SenderKind::Process => sender_task(sender),
    }
}

/// The task behind a signal, whoever sent it.
pub(super) fn sender_task(sender: &Sender) -> String {
    let name = match &sender.comm {
        Some(comm) => program(comm),
        None => "a process".to_owned(),
    };
    match (sender.pid, sender.uid) {
        (Some(pid), Some(uid)) => format!("{name} (pid {pid}, uid {uid})"),
        (Some(pid), None) => format!("{name} (pid {pid})"),
        (None, _) => name,
    }
}

/// `text` in at most `max_bytes`, with an ellipsis where something was cut off.
pub(super) fn shorten(text: &str, max_bytes: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max_bytes.saturating_sub(ELLIPSIS.len()));
    let kept = text.get(..end).unwrap_or_default();
    format!("{kept}{ELLIPSIS}")
}
