//! What `sandbox` itself has to say: lines on stderr that begin with `sandbox: `, to be told from
//! those of the analysis. Where stderr is closed, or nobody reads it, there is nobody to tell, and nothing
//! else to do.

use std::{
    fmt::Display,
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use crate::{
    outlet,
    record::{Reason, RunRecord},
    spec::NotesPolicy,
    units::Printable,
};

/// Says one line; what is unprintable is escaped in it. A backslash stays one: errors show what
/// they quote as escapes already.
pub fn say(line: impl Display) {
    print(&Printable(&line.to_string()).to_string());
}

/// Says how a run ended, where that is wanted. The notes were escaped when they were rendered.
pub fn say_notes(policy: NotesPolicy, record: &RunRecord) {
    let reason = record.termination.reason;
    // Why a start failed was said when it did, in full.
    if policy.wants(reason) && reason != Reason::SetupFailed {
        print(&record.completion_notes);
    }
}

/// Whether stderr is a pipe that nobody was seen to read in time: no line is waited for any more.
static UNREAD: AtomicBool = AtomicBool::new(false);

fn print(line: &str) {
    let stderr = std::io::stderr();
    let within = match UNREAD.load(Ordering::Relaxed) {
        true => Duration::ZERO,
        false => outlet::WITHIN,
    };
    let has_room = outlet::has_room(&stderr, within);
    UNREAD.store(!has_room, Ordering::Relaxed);
    if has_room {
        let _ = writeln!(&stderr, "sandbox: {line}");
    }
}
