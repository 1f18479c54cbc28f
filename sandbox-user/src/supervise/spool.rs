//! Records that wait to be taken into the service's store, and how completion hooks failed.
//!
//! Whoever concludes a run leaves both there, whether the service is up or not: a supervisor, its
//! guardian, or the guardian that finishes a run which lost both.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::docket::Docket;
use crate::{record::RunRecord, say::say, spec::RunId};

/// How the name of a run's record ends.
pub const RECORD: &str = ".json";
/// How the name of what went wrong with its completion hooks ends: text.
pub const HOOK: &str = ".hook";

/// A record that waits there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spooled {
    /// Who asked for the run.
    pub uid: u32,
    /// Its record.
    pub record: RunRecord,
}

/// Leaves the record of a run that the service started, durably.
pub(super) fn leave(docket: &Docket, record: &RunRecord) {
    let Some(spool) = &docket.spec.spool else {
        return;
    };
    let spooled = Spooled {
        uid: docket.caller.uid,
        record: record.clone(),
    };
    let text = serde_json::to_vec(&spooled).map_err(io::Error::from);
    let written = text.and_then(|text| write(spool, docket.spec.run_id, RECORD, &text));
    if let Err(error) = written {
        say(format_args!(
            "the record is lost to `sandbox list` and `sandbox show`: {}: {error}",
            spool.display()
        ));
    }
}

/// Leaves how the completion hooks of a run that the service started have failed.
pub(super) fn leave_hook_problem(docket: &Docket, problem: &str) {
    let Some(spool) = &docket.spec.spool else {
        return;
    };
    if let Err(error) = write(spool, docket.spec.run_id, HOOK, problem.as_bytes()) {
        say(format_args!(
            "`sandbox show` will not tell of that: {}: {error}",
            spool.display()
        ));
    }
}

fn write(spool: &Path, run_id: RunId, what: &str, text: &[u8]) -> io::Result<()> {
    let draft = spool.join(format!(".{run_id}"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&draft, path_of(spool, run_id, what))?;
    File::open(spool)?.sync_all()
}

/// Where this is left of a run: [`RECORD`] or [`HOOK`].
pub fn path_of(spool: &Path, run_id: RunId, what: &str) -> PathBuf {
    spool.join(format!("{run_id}{what}"))
}

/// The runs of which this is left.
///
/// # Errors
/// Where the spool cannot be read.
pub fn all(spool: &Path, what: &str) -> io::Result<Vec<RunId>> {
    let run_id = |entry: fs::DirEntry| {
        let name = entry.file_name();
        RunId::parse_str(name.to_str()?.strip_suffix(what)?).ok()
    };
    fs::read_dir(spool)?
        .filter_map(|entry| entry.map(run_id).transpose())
        .collect()
}
