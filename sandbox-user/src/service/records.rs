//! The store, and how records come into it from the spool.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::{
    cgroup::Proc,
    cli::EXIT_FAILURE,
    record::RunRecord,
    say::say,
    spec::RunId,
    store::{Accepted, Run, Store, StoreError, Whose},
    supervise::{is_kept, spool},
};

/// The runs that the service knows.
#[derive(Debug)]
pub(super) struct Records {
    store: Store,
    spool: PathBuf,
}

impl Records {
    /// Those in this store, with this spool.
    pub(super) fn new(store: Store, spool: &Path) -> Self {
        Self {
            store,
            spool: spool.to_owned(),
        }
    }

    /// Stores a run that is to be started.
    ///
    /// # Errors
    /// Where it cannot be stored.
    pub(super) fn accept(
        &self,
        run_id: RunId,
        uid: u32,
        command: Vec<String>,
    ) -> Result<(), StoreError> {
        self.store.accept(&Accepted {
            run_id,
            uid,
            command,
            accepted_at: Timestamp::now(),
            boot_id: boot_id(),
        })
    }

    /// The latest runs.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub(super) fn list(&self, whose: Whose, most: u32) -> Result<Vec<Run>, StoreError> {
        self.store.list(whose, most)
    }

    /// A run and its record.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub(super) fn show(
        &self,
        run_id: RunId,
        whose: Whose,
    ) -> Result<Option<(Run, Option<String>)>, StoreError> {
        match self.store.run(run_id, whose)? {
            Some(run) => Ok(Some((run, self.store.record(run_id)?))),
            None => Ok(None),
        }
    }

    /// The supervisor of a run has ended, with this status or of a signal: takes its record in. Where there is
    /// none the run was not used rightly, or will be recorded by its guardian, or is lost.
    ///
    /// # Errors
    /// Where the store cannot be written; the record stays in the spool then.
    pub(super) fn settle(&self, run_id: RunId, status: Option<u8>) -> Result<(), StoreError> {
        match self.take_in(run_id, &spool::path_of(&self.spool, run_id))? {
            Taken::Stored => Ok(()),
            Taken::NotThere if is_kept(run_id) => Ok(()),
            Taken::NotThere if status == Some(EXIT_FAILURE) => self.store.withdraw(run_id),
            Taken::NotThere => self.store.lose(run_id, "Lost: it left no record."),
        }
    }

    /// Takes in what has come of runs that nobody waits for; what cannot be taken in is tried again.
    pub(super) fn take_in_all(&self) {
        match self.spooled() {
            Ok(spooled) => {
                for (run_id, path) in spooled {
                    if let Err(error) = self.take_in(run_id, &path) {
                        say(format_args!("{}: {error}", path.display()));
                    }
                }
            }
            Err(error) => say(format_args!("{}: {error}", self.spool.display())),
        }
    }

    /// What happened while no service was there: records that came, and runs of which none can come.
    pub(super) fn catch_up(&self) {
        self.take_in_all();
        let boot_id = boot_id();
        let running = match self.store.running() {
            Ok(running) => running,
            Err(error) => return say(error),
        };
        for run in running {
            let Ok(run_id) = RunId::parse_str(&run.run_id) else {
                continue;
            };
            let lost = if run.boot_id != boot_id {
                "Lost: the host went down under it."
            } else if !is_kept(run_id) {
                "Lost: the service died before it was started."
            } else {
                // Its supervisor, or the guardian that finishes it, will leave its record.
                continue;
            };
            if let Err(error) = self.store.lose(run_id, lost) {
                say(error);
            }
        }
    }

    fn spooled(&self) -> io::Result<Vec<(RunId, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.spool)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let run_id = name.and_then(|name| RunId::parse_str(name.strip_suffix(".json")?).ok());
            found.extend(run_id.map(|run_id| (run_id, path)));
        }
        Ok(found)
    }

    fn take_in(&self, run_id: RunId, path: &Path) -> Result<Taken, StoreError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Taken::NotThere),
            Err(source) => {
                return Err(StoreError::Directory {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let record: RunRecord =
            serde_json::from_slice(&text).map_err(|source| StoreError::Record {
                path: path.to_owned(),
                source,
            })?;
        debug_assert_eq!(record.run_id, run_id);
        self.store.conclude(&record, record.user.uid)?;
        // Where it stays it is stored once more, which changes nothing.
        if let Err(error) = fs::remove_file(path) {
            say(format_args!("{}: {error}", path.display()));
        }
        Ok(Taken::Stored)
    }
}

enum Taken {
    Stored,
    NotThere,
}

fn boot_id() -> String {
    Proc::default().boot_id().unwrap_or_default().to_owned()
}
