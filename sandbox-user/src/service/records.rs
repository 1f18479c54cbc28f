//! The store, and how records come into it from the spool.

use std::{
    fs, io,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::{
    control, files, logs, metrics::Metrics, office::Application, steady_clock::steady_for,
    trail::Trail,
};
use crate::{
    audit::{Event, Excerpt},
    cgroup::Proc,
    cli::EXIT_FAILURE,
    config::ServiceConfig,
    record::Reason,
    say::{say, say_of},
    spec::RunId,
    store::{Accepted, Filter, Most, Run, RunState, Store, StoreError, Whose},
    supervise::{
        is_kept,
        spool::{self, Spooled},
    },
};

/// How long the clock has not to have been set before something is removed for its age; less where little is kept.
const BELIEVED_AFTER: Duration = Duration::from_secs(3600);

/// The runs that the service knows.
#[derive(Debug)]
pub(super) struct Records {
    store: Store,
    spool: PathBuf,
    /// Told whenever one has ended.
    ended: Notify,
    trail: Rc<Trail>,
    metrics: Rc<Metrics>,
}

impl Records {
    /// Those in this store, with this spool.
    pub(super) fn new(store: Store, spool: &Path, trail: Rc<Trail>, metrics: Rc<Metrics>) -> Self {
        Self {
            store,
            spool: spool.to_owned(),
            ended: Notify::new(),
            trail,
            metrics,
        }
    }

    /// Stores a run that is to be started.
    ///
    /// # Errors
    /// Where it cannot be stored.
    pub(super) fn accept(
        &self,
        application: &Application,
        state: RunState,
    ) -> Result<(), StoreError> {
        let Application {
            run_id,
            uid,
            pid: _,
            need,
            most_of_user: _,
            asked_user: _,
            user,
            analysis_id,
            labels,
            command,
            spec,
        } = application.clone();
        self.store.accept(&Accepted {
            run_id,
            uid,
            state,
            memory_bytes: need.memory_bytes,
            cpus: need.cpus,
            pids: need.pids,
            user: Some(user),
            analysis_id,
            labels,
            command,
            spec,
            accepted_at: Timestamp::now(),
            boot_id: boot_id(),
        })
    }

    /// A run that waited is being started.
    ///
    /// # Errors
    /// Where that cannot be stored.
    pub(super) fn start(&self, run_id: RunId) -> Result<(), StoreError> {
        self.store.start(run_id)
    }

    /// The runs that have not ended, as far as is known.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub(super) fn unfinished(&self) -> Result<Vec<Run>, StoreError> {
        self.store.unfinished()
    }

    /// The runs that are meant, the latest first.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub(super) fn list(
        &self,
        whose: Whose,
        filter: &Filter,
        most: u32,
    ) -> Result<Vec<Run>, StoreError> {
        self.store.list(whose, filter, most)
    }

    /// Whether a run is over.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub(super) fn is_over(&self, run_id: RunId) -> Result<bool, StoreError> {
        let state = self.state(run_id)?;
        Ok(state.is_none_or(|state| state == RunState::Ended))
    }

    /// How far a run is; `None` where it is not known.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub(super) fn state(&self, run_id: RunId) -> Result<Option<RunState>, StoreError> {
        let run = self.store.run(run_id)?;
        Ok(run.map(|run| run.state))
    }

    /// The run of this id, or else the latest of the analysis of this id, and its record.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub(super) fn show(
        &self,
        whose: Whose,
        id: &str,
    ) -> Result<Option<(Run, Option<String>)>, StoreError> {
        match self.store.list(whose, &Filter::of(id), 1)?.pop() {
            Some(mut run) => {
                run.spec = self.store.spec(run.run_id)?;
                let record = self.store.record(run.run_id)?;
                Ok(Some((run, record)))
            }
            None => Ok(None),
        }
    }

    /// The same, once it has ended.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub(super) async fn once_ended(
        &self,
        whose: Whose,
        id: &str,
    ) -> Result<Option<(Run, Option<String>)>, StoreError> {
        let Some((mut run, _)) = self.show(whose, id)? else {
            return Ok(None);
        };
        loop {
            // Before it is looked, so that no end is missed.
            let ended = self.ended.notified();
            match self.store.run(run.run_id)? {
                None => return Ok(None),
                Some(found) => run = found,
            }
            if run.state == RunState::Ended {
                let record = self.store.record(run.run_id)?;
                return Ok(Some((run, record)));
            }
            ended.await;
        }
    }

    /// A run is over, with this exit status: takes its record in. Where there is none, it was not used rightly.
    ///
    /// # Errors
    /// Where the store cannot be written; the record stays in the spool then.
    pub(super) fn settle(&self, run_id: RunId, status: u8) -> Result<(), StoreError> {
        if self.has_record(run_id)? {
            return self.take_in_hook_problem(run_id);
        }
        if is_kept(run_id) {
            // Its record could not be left yet: whoever looks after lost runs sees to it.
            return Ok(());
        }
        if status != EXIT_FAILURE {
            return self.lose(run_id, Reason::RunnerLost, "Lost: it left no record.");
        }
        if logs::open(run_id).is_ok() {
            // Its user has been told of it, and can read there why.
            let notes = "Not started: `sandbox logs` has what it said.";
            return self.lose(run_id, Reason::SetupFailed, notes);
        }
        self.withdraw(
            run_id,
            "it came to nothing before there was anything to record",
        )
    }

    /// Forgets a run that its client has been told nothing of, or has been told that it is none.
    fn withdraw(&self, run_id: RunId, reason: &str) -> Result<(), StoreError> {
        self.trail.tell(&Event::Withdrawn {
            run_id,
            reason: Excerpt::from(reason),
        });
        self.store.withdraw(run_id)?;
        files::remove(run_id);
        spool::release(&self.spool, run_id);
        self.ended.notify_waiters();
        Ok(())
    }

    /// The supervisor of a run has gone without a word. Its guardian leaves a record, or whoever finishes the
    /// run in its stead; where there is nobody who could, it is lost.
    ///
    /// # Errors
    /// Where the store cannot be written.
    pub(super) fn abandoned(&self, run_id: RunId, state: RunState) -> Result<(), StoreError> {
        // In this order: the record is there before what is kept of the run is forgotten.
        if is_kept(run_id) || control::is_attended(run_id) || self.has_record(run_id)? {
            return Ok(());
        }
        if control::was_given_back(run_id) {
            return self.withdraw(run_id, "the service was ended before it could begin");
        }
        let notes = match state {
            RunState::Queued => "Lost: its supervisor was killed while it waited for its turn.",
            RunState::Running | RunState::Ended => "Lost: its supervisor was killed.",
        };
        self.lose(run_id, Reason::RunnerLost, notes)
    }

    /// Whether there is a record of a run, which is taken in where it has not been yet.
    fn has_record(&self, run_id: RunId) -> Result<bool, StoreError> {
        self.take_in(run_id)?;
        self.is_recorded(run_id)
    }

    fn is_recorded(&self, run_id: RunId) -> Result<bool, StoreError> {
        Ok(self.store.record(run_id)?.is_some())
    }

    fn lose(&self, run_id: RunId, reason: Reason, notes: &str) -> Result<(), StoreError> {
        self.store.lose(run_id, reason, notes)?;
        spool::release(&self.spool, run_id);
        self.trail.tell(&Event::Lost {
            run_id,
            notes: Excerpt::from(notes),
        });
        self.ended.notify_waiters();
        Ok(())
    }

    /// Takes in what runs have left that nobody has told of yet; what cannot be taken in is tried again. Gives the
    /// runs that are over.
    pub(super) fn take_in_all(&self) -> Vec<RunId> {
        let over = self.take_in_each(spool::RECORD, Self::take_in);
        // A record is left before its hooks are run.
        self.take_in_each(spool::HOOK, Self::take_in_hook_problem);
        over
    }

    fn take_in_each(
        &self,
        what: &str,
        take_in: fn(&Self, RunId) -> Result<(), StoreError>,
    ) -> Vec<RunId> {
        let mut left = files::runs_with(&self.spool, what).unwrap_or_else(|error| {
            say(format_args!("{}: {error}", self.spool.display()));
            Vec::new()
        });
        left.retain(|run_id| {
            let taken = take_in(self, *run_id);
            if let Err(error) = &taken {
                let path = spool::path_of(&self.spool, *run_id, what);
                say_of(run_id, format_args!("{}: {error}", path.display()));
            }
            taken.is_ok()
        });
        left
    }

    /// Takes in how a run's completion hooks have failed, where they have.
    fn take_in_hook_problem(&self, run_id: RunId) -> Result<(), StoreError> {
        if spool::path_of(&self.spool, run_id, spool::RECORD).exists() {
            // It comes first.
            return Ok(());
        }
        let path = spool::path_of(&self.spool, run_id, spool::HOOK);
        let Some(problem) = spooled(&path)? else {
            return Ok(());
        };
        let problem = String::from_utf8_lossy(&problem);
        if self.store.note_hook_problem(run_id, &problem)? {
            self.metrics.hook_failed();
            self.trail.tell(&Event::HookFailed {
                run_id,
                problem: Excerpt::from(problem.as_ref()),
            });
        }
        fs::remove_file(&path).map_err(|source| StoreError::Directory { path, source })
    }

    /// Looks after runs for which nobody here waits: those that a service before this one has started. Where
    /// none can be left that would say how one ended, it is lost.
    pub(super) fn look_after(&self, is_waited_for: impl Fn(RunId) -> bool) {
        let boot_id = boot_id();
        let unfinished = match self.store.unfinished() {
            Ok(unfinished) => unfinished,
            Err(error) => return say(error),
        };
        for run in unfinished {
            let run_id = run.run_id;
            let looked_after = if run.boot_id != boot_id {
                self.lose(
                    run_id,
                    Reason::RunnerLost,
                    "Lost: the host went down under it.",
                )
            } else if is_waited_for(run_id) {
                Ok(())
            } else {
                self.abandoned(run_id, run.state)
            };
            if let Err(error) = looked_after {
                say_of(run_id, error);
            }
        }
        self.forget_given_back();
        if let Err(error) = control::remove_dead(is_waited_for) {
            say(format_args!("{}: {error}", control::DIRECTORY));
        }
    }

    /// Removes the notes of runs that were given back and are not in the store: withdrawn by now, or never stored.
    fn forget_given_back(&self) {
        let given_back = match control::all_given_back() {
            Ok(given_back) => given_back,
            Err(error) => return say(format_args!("{}: {error}", control::DIRECTORY)),
        };
        for run_id in given_back {
            if !control::is_attended(run_id) && self.is_over(run_id).is_ok_and(|is_over| is_over) {
                control::forget_given_back(run_id);
            }
        }
    }

    /// Removes what is older, or more, than is to be kept; its logs and events go with it.
    pub(super) fn expire(&self, config: &ServiceConfig) {
        if config.keep_runs.is_none() && config.keep_bytes.is_none() {
            return;
        }
        let before = config
            .keep_runs
            .filter(|age| steady_for() >= BELIEVED_AFTER.min(*age / 24))
            .and_then(|age| Timestamp::now().checked_sub(age).ok());
        let most = config.keep_bytes.map(|bytes| {
            let beside = files::bytes()?;
            Ok(Most { bytes, beside })
        });
        let most = most.transpose().unwrap_or_else(|error: io::Error| {
            // What cannot be told is no reason to remove anything.
            say(format_args!(
                "how much is kept of runs cannot be told: {error}"
            ));
            None
        });
        match self.store.expire(before, most.as_ref()) {
            Ok(expired) => expired.into_iter().for_each(files::remove),
            Err(error) => say(error),
        }
    }

    /// Takes in what a run has left, where that is there.
    fn take_in(&self, run_id: RunId) -> Result<(), StoreError> {
        let path = spool::path_of(&self.spool, run_id, spool::RECORD);
        let Some(text) = spooled(&path)? else {
            return Ok(());
        };
        let Spooled {
            uid,
            record,
            latencies,
        } = match serde_json::from_slice(&text) {
            Ok(spooled) => spooled,
            Err(source) => {
                // It would be no better the next time.
                let aside = path.with_extension("json.damaged");
                let _ = fs::rename(&path, &aside);
                return Err(StoreError::Record {
                    path: aside,
                    source,
                });
            }
        };
        debug_assert_eq!(record.run_id, run_id);
        // The first one stands: another is the same, or was written by somebody who could not know of it.
        if !self.is_recorded(run_id)? {
            let stored = self.store.conclude(&record, uid)?;
            self.metrics.record(&record, latencies);
            self.trail.tell(&Event::ended(&record, stored.as_bytes()));
        }
        self.ended.notify_waiters();
        // Where it stays it is looked at once more, which changes nothing.
        if let Err(error) = fs::remove_file(&path) {
            say(format_args!("{}: {error}", path.display()));
        }
        Ok(())
    }
}

/// What waits there; `None` where nothing does.
fn spooled(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Directory {
            path: path.to_owned(),
            source,
        }),
    }
}

fn boot_id() -> String {
    Proc::default().boot_id().unwrap_or_default().to_owned()
}
