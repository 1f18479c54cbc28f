//! What `sandbox` itself has to say: lines on stderr that begin with `sandbox: `, to be told from
//! those of the analysis. Where stderr is closed there is nobody to tell, and nothing else to do.

use std::{fmt::Display, io::Write as _};

use crate::{
    escape::escape_untrusted,
    record::{Reason, RunRecord},
    spec::NotesPolicy,
};

/// Says one line; what an analysis chose to call itself is escaped in it.
pub fn say(line: impl Display) {
    print(&escape_untrusted(&line.to_string()));
}

/// Says how a run ended, where that is wanted. The notes were escaped when they were rendered.
pub fn say_notes(policy: NotesPolicy, record: &RunRecord) {
    let reason = record.termination.reason;
    // Why a start failed was said when it did, in full.
    if policy.wants(reason) && reason != Reason::SetupFailed {
        print(&record.completion_notes);
    }
}

fn print(line: &str) {
    let _ = writeln!(std::io::stderr(), "sandbox: {line}");
}
