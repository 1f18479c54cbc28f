//! What is kept of a run outside of both its processes, in case both are killed.
//!
//! Whoever comes next finds it, by the leaf that they left if there is one, and has the run finished
//! ([`super::recover`]). It is root's alone, and gone with the boot, as the leaf is.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

use nix::libc;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{docket::Docket, errand::Errand, record_file::KeptFile};
use crate::{cgroup::Owner, sys::own_dir};

/// Where the states lie, each under its run's id.
const RUNS: &str = "/run/sandbox/runs";

/// The states of a host's runs; tests have a directory of their own.
#[derive(Clone, Debug)]
pub(super) struct States(PathBuf);

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// Who looks after the run.
    pub(super) owner: Owner,
    /// How far it had come.
    pub(super) reached: Reached,
    /// The run.
    pub(super) docket: Docket,
    /// Its record's file.
    pub(super) record: Option<KeptFile>,
    /// What is left to be done; `None` until it is recorded.
    #[serde(default)]
    pub(super) errand: Option<Errand>,
}

/// How far a run had come when its state was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reached {
    /// It was being set up: nothing was started for it, and its leaf may have been made since.
    SetUp,
    /// All stood: it may have been started.
    Ready,
}

/// What there is of a run's state for whoever wants to act on it.
#[derive(Debug)]
pub(super) enum Claim {
    /// It, while nobody else acts on it.
    Held(Box<State>, Lock),
    /// Somebody else acts on it.
    Taken,
    /// None.
    Nothing,
}

/// Held by the one who acts on a state.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Whether what was read is still what is kept: whoever looks after a run forgets it when it is
    /// concluded, with nobody's leave.
    pub(super) fn is_current(&self) -> bool {
        self.0.metadata().is_ok_and(|found| found.nlink() > 0)
    }
}

/// Whether there is anything kept of a run: it goes on, or waits for being finished.
pub(crate) fn is_kept(run_id: Uuid) -> bool {
    States::default().path(run_id).exists()
}

impl State {
    /// Its leaf's id.
    pub(super) fn leaf_id(&self) -> Option<u64> {
        self.docket.leaf.as_ref().map(|leaf| leaf.id)
    }

    /// Whether a leaf with its name and this id is its own.
    pub(super) fn is_of(&self, leaf_id: u64) -> bool {
        self.leaf_id().is_none_or(|known| known == leaf_id)
    }
}

impl Default for States {
    fn default() -> Self {
        Self(RUNS.into())
    }
}

impl States {
    /// Keeps a run's, where there is anybody to be told of its end; what was kept of it before is gone then.
    ///
    /// # Errors
    /// Where it cannot be written; what was kept before stays then, and nothing else is left behind.
    pub(super) fn keep(&self, state: &State) -> io::Result<()> {
        let spec = &state.docket.spec;
        let has_hook = spec.on_complete.is_some() || spec.host_on_complete.is_some();
        if spec.record.is_none() && !has_hook && spec.spool.is_none() {
            return Ok(());
        }
        own_dir::own_around(&self.0)?;
        own_dir::own(&self.0, 0o700)?;
        self.write(state)
    }

    /// Puts this in the place of what is there, all at once.
    ///
    /// # Errors
    /// Where it cannot be written; what was there stays then.
    pub(super) fn write(&self, state: &State) -> io::Result<()> {
        let run_id = state.docket.spec.run_id;
        let draft = self.draft(run_id);
        let written = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| file.write_all(&serde_json::to_vec(state)?))
            .and_then(|()| fs::rename(&draft, self.path(run_id)));
        if written.is_err() {
            // The first error is why.
            let _ = fs::remove_file(&draft);
        }
        written
    }

    /// Keeps what has changed of a run, where anything is kept of it.
    ///
    /// # Errors
    /// As [`Self::write`]; where what was kept cannot be read.
    pub(super) fn keep_changed(&self, docket: &Docket) -> io::Result<()> {
        self.change(docket.spec.run_id, |state| state.docket = docket.clone())
    }

    /// Keeps what is left to be done for a run that is recorded, where anything is kept of it.
    ///
    /// # Errors
    /// As [`Self::keep_changed`].
    pub(super) fn keep_errand(&self, run_id: Uuid, errand: &Errand) -> io::Result<()> {
        self.change(run_id, |state| state.errand = Some(errand.clone()))
    }

    fn change(&self, run_id: Uuid, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let Some(mut state) = self.read(run_id)? else {
            return Ok(());
        };
        change(&mut state);
        self.write(&state)
    }

    /// Forgets a run that was concluded; it may have been forgotten already, or never kept.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub(super) fn forget(&self, run_id: Uuid) -> io::Result<()> {
        // There is one where its writer was killed.
        let _ = fs::remove_file(self.draft(run_id));
        match fs::remove_file(self.path(run_id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Reads a run's, for oneself alone.
    ///
    /// # Errors
    /// Where it cannot be read, or another version wrote it.
    pub(super) fn claim(&self, run_id: Uuid) -> io::Result<Claim> {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.path(run_id));
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Claim::Nothing),
            Err(error) => return Err(error),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Claim::Taken),
            Err(errno) => return Err(errno.into()),
        }
        if file.metadata()?.nlink() == 0 {
            return Ok(Claim::Nothing);
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(Claim::Held(serde_json::from_str(&text)?, Lock(file)))
    }

    /// Reads a run's, whoever acts on it; `None` where there is none.
    ///
    /// # Errors
    /// As [`Self::claim`].
    pub(super) fn read(&self, run_id: Uuid) -> io::Result<Option<State>> {
        match fs::read(self.path(run_id)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The runs of which there is one.
    ///
    /// # Errors
    /// Where the directory is there and cannot be read.
    pub(super) fn run_ids(&self) -> io::Result<Vec<Uuid>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let id = |entry: io::Result<fs::DirEntry>| {
            let name = entry.map(|entry| entry.file_name());
            name.map(|name| Uuid::parse_str(name.to_str()?).ok())
        };
        entries.filter_map(|entry| id(entry).transpose()).collect()
    }

    /// Where a run's is written: no run's id, so that nobody takes it for a state.
    fn draft(&self, run_id: Uuid) -> PathBuf {
        self.0.join(format!(".{run_id}"))
    }

    /// Where a run's is.
    pub(super) fn path(&self, run_id: Uuid) -> PathBuf {
        self.0.join(run_id.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        attribution::case::Case,
        cgroup::Proc,
        limits::{Limit, Source},
        record::{Deed, at_second},
        spec::Destination,
        supervise::docket::{Change, tests::docket},
    };

    fn state(record: Option<Destination>) -> State {
        let mut docket = docket();
        docket.spec.record = record;
        docket.spec.spool = None;
        State {
            owner: Owner::of(&Proc::default(), std::process::id(), None).expect("it is this one"),
            reached: Reached::SetUp,
            docket,
            record: None,
            errand: None,
        }
    }

    fn states(temp: &tempfile::TempDir) -> States {
        States(temp.path().join("sandbox/runs"))
    }

    #[test]
    fn what_is_kept_is_claimed_by_one_and_forgotten() {
        let temp = tempfile::tempdir().expect("temp dir");
        let states = states(&temp);
        assert!(states.run_ids().expect("none").is_empty());
        let state = state(Some(Destination::File("/tmp/record.json".into())));
        let run_id = state.docket.spec.run_id;
        states.keep(&state).expect("kept");
        assert_eq!(states.run_ids().expect("one"), [run_id]);
        let mode = fs::metadata(states.path(run_id))
            .expect("it is there")
            .mode();
        assert_eq!(mode & 0o777, 0o600);

        let Ok(Claim::Held(claimed, lock)) = states.claim(run_id) else {
            panic!("it is free");
        };
        assert_eq!(claimed.owner, state.owner);
        assert_eq!(claimed.docket.spec, state.docket.spec);
        assert!(matches!(states.claim(run_id), Ok(Claim::Taken)));
        drop(lock);
        assert!(matches!(states.claim(run_id), Ok(Claim::Held(..))));

        fs::write(states.draft(run_id), "{").expect("its writer was killed");
        states.forget(run_id).expect("removed");
        assert!(!states.draft(run_id).exists());
        states.forget(run_id).expect("nothing to do");
        assert!(matches!(states.claim(run_id), Ok(Claim::Nothing)));
    }

    #[test]
    fn what_is_kept_anew_is_no_more_what_somebody_had_claimed() {
        let temp = tempfile::tempdir().expect("temp dir");
        let states = states(&temp);
        let mut state = state(Some(Destination::Stdout));
        let run_id = state.docket.spec.run_id;
        states.keep(&state).expect("kept");
        let Ok(Claim::Held(claimed, lock)) = states.claim(run_id) else {
            panic!("it is free");
        };
        assert!(claimed.is_of(7), "it knows of no leaf yet");
        assert!(lock.is_current());
        state.reached = Reached::Ready;
        states.keep(&state).expect("kept anew");
        assert!(!lock.is_current());
        let Ok(Claim::Held(claimed, _)) = states.claim(run_id) else {
            panic!("nobody has claimed this one");
        };
        assert_eq!(claimed.reached, Reached::Ready);
    }

    #[test]
    fn what_has_changed_of_a_run_is_kept_where_anything_is() {
        let temp = tempfile::tempdir().expect("temp dir");
        let states = states(&temp);
        let mut state = state(Some(Destination::Stdout));
        states.keep_changed(&state.docket).expect("nothing to do");
        assert!(states.run_ids().is_ok_and(|kept| kept.is_empty()));
        states.keep(&state).expect("kept");
        let walltime = Limit::new(Some(Duration::from_secs(7)), Source::Update);
        state.docket.take(Change {
            intervention: at_second(1, Deed::Freeze),
            walltime,
        });
        states.keep_changed(&state.docket).expect("kept anew");
        let kept = states.read(state.docket.spec.run_id).expect("read");
        let kept = kept.expect("it is there");
        assert_eq!(kept.docket.interventions, state.docket.interventions);
        assert_eq!(kept.docket.spec.limits.walltime, walltime);
        assert_eq!((kept.owner, kept.reached), (state.owner, state.reached));
    }

    #[test]
    fn what_is_left_to_be_done_for_a_run_is_kept_where_anything_is() {
        let temp = tempfile::tempdir().expect("temp dir");
        let states = states(&temp);
        let mut state = state(None);
        let run_id = state.docket.spec.run_id;
        let record = Case::named("it is over").record();
        assert!(Errand::of(&state.docket, &record).is_none());
        state.docket.spec.on_complete = Some("true".to_owned());
        let errand = Errand::of(&state.docket, &record).expect("it has a hook");
        states.keep_errand(run_id, &errand).expect("nothing to do");
        assert!(states.run_ids().is_ok_and(|kept| kept.is_empty()));
        states.keep(&state).expect("kept");
        states.keep_errand(run_id, &errand).expect("kept anew");
        let kept = states.read(run_id).expect("read").expect("it is there");
        assert!(kept.errand.is_some());
        assert_eq!((kept.owner, kept.reached), (state.owner, state.reached));
    }

    #[test]
    fn a_run_that_nobody_is_told_of_is_not_kept() {
        let temp = tempfile::tempdir().expect("temp dir");
        let states = states(&temp);
        states.keep(&state(None)).expect("nothing to do");
        assert!(states.run_ids().expect("none").is_empty());
    }

    #[test]
    fn what_was_cut_short_is_an_error() {
        let temp = tempfile::tempdir().expect("temp dir");
        let states = states(&temp);
        let state = state(Some(Destination::Stdout));
        let run_id = state.docket.spec.run_id;
        states.keep(&state).expect("kept");
        let text = fs::read(states.path(run_id)).expect("it is there");
        fs::write(states.path(run_id), &text[..text.len() / 2]).expect("cut");
        assert!(states.claim(run_id).is_err());
    }
}
