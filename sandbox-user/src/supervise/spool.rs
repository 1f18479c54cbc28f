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

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::docket::Docket;
use crate::{record::RunRecord, say::say, spec::RunId};

/// How the name of a run's record ends.
pub const RECORD: &str = ".json";
/// How the name of what went wrong with its completion hooks ends: text.
pub const HOOK: &str = ".hook";

/// How much of a record finds room however full the disk is by then: more than what most runs leave.
const RESERVED_BYTES: u64 = 64 << 10;

/// Whether the service, where it started a run, has been left the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    /// It has, or it is none of its runs.
    Yes,
    /// It has not.
    #[default]
    No,
}

/// A record that waits there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spooled {
    /// Who asked for the run.
    pub uid: u32,
    /// Its record.
    pub record: RunRecord,
    /// How long its runner took.
    #[serde(default)]
    pub latencies: Latencies,
}

/// How long the runner took for what others wait for, ns; null = it did not come to that, or was killed over it. These
/// are the service's to count, and no part of the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latencies {
    /// From a leaf that is ready and watched to the exec in it.
    pub spawn_ns: Option<u64>,
    /// From the first `cgroup.kill` to an empty leaf.
    pub kill_ns: Option<u64>,
}

/// Takes the room for the record of a run that is about to be started, which may fill the disk itself.
///
/// # Errors
/// Where there is none.
pub fn reserve(spool: &Path, run_id: RunId) -> io::Result<()> {
    match fallocate(
        draft(spool, run_id)?,
        FallocateFlags::empty(),
        0,
        RESERVED_BYTES,
    ) {
        // A file system that knows no such thing.
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => {
            release(spool, run_id);
            Err(errno.into())
        }
    }
}

/// Gives that room back, where no record has come of it.
pub fn release(spool: &Path, run_id: RunId) {
    // It may have been given back already.
    let _ = fs::remove_file(path_of_draft(spool, run_id));
}

/// Leaves the record of a run that the service started, durably. Says what goes wrong.
pub(super) fn leave(docket: &Docket, record: &RunRecord, latencies: Latencies) -> Told {
    let Some(spool) = &docket.spec.spool else {
        return Told::Yes;
    };
    let spooled = Spooled {
        uid: docket.caller.uid,
        record: record.clone(),
        latencies,
    };
    let text = serde_json::to_vec(&spooled).map_err(io::Error::from);
    let written = text.and_then(|text| write(spool, docket.spec.run_id, RECORD, &text));
    match written {
        Ok(()) => Told::Yes,
        Err(error) => {
            say(format_args!(
                "the record waits in /run/sandbox/runs until it can be stored: {}: {error}",
                spool.display()
            ));
            Told::No
        }
    }
}

/// The record of a run that the service started, where it was left and the service has not taken it yet.
pub(super) fn left(docket: &Docket) -> Option<RunRecord> {
    let path = path_of(docket.spec.spool.as_ref()?, docket.spec.run_id, RECORD);
    let spooled: Spooled = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some(spooled.record)
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
    let mut file = draft(spool, run_id)?;
    file.write_all(text)?;
    file.set_len(text.len() as u64)?;
    file.sync_all()?;
    fs::rename(path_of_draft(spool, run_id), path_of(spool, run_id, what))?;
    File::open(spool)?.sync_all()
}

/// What is to become a record, with the room that was taken for it.
fn draft(spool: &Path, run_id: RunId) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path_of_draft(spool, run_id))
}

fn path_of_draft(spool: &Path, run_id: RunId) -> PathBuf {
    spool.join(format!(".{run_id}"))
}

/// Where this is left of a run: [`RECORD`] or [`HOOK`].
pub fn path_of(spool: &Path, run_id: RunId, what: &str) -> PathBuf {
    spool.join(format!("{run_id}{what}"))
}
