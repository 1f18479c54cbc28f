//! Records that wait to be taken into the service's store.
//!
//! Whoever concludes a run leaves its record there, whether the service is up or not: a supervisor, its
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

/// What waits there.
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
    if let Err(error) = write(spool, docket.spec.run_id, &spooled) {
        say(format_args!(
            "the record is lost to `sandbox list` and `sandbox show`: {}: {error}",
            spool.display()
        ));
    }
}

fn write(spool: &Path, run_id: RunId, spooled: &Spooled) -> io::Result<()> {
    let draft = spool.join(format!(".{run_id}"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(&serde_json::to_vec(spooled)?)?;
    file.sync_all()?;
    fs::rename(&draft, path_of(spool, run_id))?;
    File::open(spool)?.sync_all()
}

/// Where a run's record is left.
pub fn path_of(spool: &Path, run_id: RunId) -> PathBuf {
    spool.join(format!("{run_id}.json"))
}
