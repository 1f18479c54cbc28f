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

use super::docket::Docket;
use crate::{record::RunRecord, say::say, spec::RunId};

/// Leaves the record of a run that the service started, durably.
pub(super) fn leave(docket: &Docket, record: &RunRecord) {
    let Some(spool) = &docket.spec.spool else {
        return;
    };
    if let Err(error) = write(spool, docket.spec.run_id, record) {
        say(format_args!(
            "the record is lost to `sandbox list` and `sandbox show`: {}: {error}",
            spool.display()
        ));
    }
}

fn write(spool: &Path, run_id: RunId, record: &RunRecord) -> io::Result<()> {
    let draft = spool.join(format!(".{run_id}"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    fs::rename(&draft, path_of(spool, run_id))?;
    File::open(spool)?.sync_all()
}

/// Where a run's record is left.
pub fn path_of(spool: &Path, run_id: RunId) -> PathBuf {
    spool.join(format!("{run_id}.json"))
}
