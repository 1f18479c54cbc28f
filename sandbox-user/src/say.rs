//! What `sandbox` itself has to say: lines on stderr that begin with `sandbox: `, to be told from
//! those of the analysis. Where stderr is the journal they are entries of it, with a priority and the run's id. Where stderr is closed, or nobody reads it, there is nobody to tell, and nothing
//! else to do.

use std::{
    fmt::Display,
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use crate::{
    journal::{self, Priority, Sent},
    outlet,
    record::{Reason, RunRecord},
    spec::NotesPolicy,
    units::Printable,
};

/// Says one line; what is unprintable is escaped in it. A backslash stays one: errors show what
/// they quote as escapes already.
pub fn say(line: impl Display) {
    print(&printable(line), Priority::Warning, None);
}

/// Says one line that nobody has to do anything about.
pub fn mention(line: impl Display) {
    print(&printable(line), Priority::Info, None);
}

/// Says one line of a run.
pub fn say_of(run: impl Display, line: impl Display) {
    let line = printable(format_args!("run {run}: {line}"));
    print(&line, Priority::Warning, Some(&run.to_string()));
}

fn printable(line: impl Display) -> String {
    Printable(&line.to_string()).to_string()
}

/// Says how a run ended, where that is wanted. The notes were escaped when they were rendered.
pub fn say_notes(policy: NotesPolicy, record: &RunRecord) {
    let reason = record.termination.reason;
    // Why a start failed was said when it did, in full.
    if policy.wants(reason) && reason != Reason::SetupFailed {
        print(
            &record.completion_notes,
            Priority::Info,
            Some(&record.run_id.to_string()),
        );
    }
}

/// Whether stderr is a pipe that nobody was seen to read in time: no line is waited for any more.
static UNREAD: AtomicBool = AtomicBool::new(false);

fn print(line: &str, priority: Priority, run_id: Option<&str>) {
    if journal::has_stderr() {
        let run_id = run_id.map(|run_id| ("SANDBOX_RUN_ID", run_id));
        if let Ok(Sent::ToJournal) = journal::send(line, priority, run_id.as_slice()) {
            return;
        }
    }
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
