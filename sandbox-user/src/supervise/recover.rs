//! What runs that lost both supervisor and guardian left on this host: leaves, and what the kernel
//! side's maps hold of them. Every check and every run that is not the service's sees to it first, though not each run
//! where there are many ([`Round`]); the service, every now and then.
//!
//! Such a run keeps its limits, and the kernel side goes on recording. Where its [`State`] was kept, a
//! new guardian finishes it as the lost one would have: the record says how it ended, if it has ended
//! meanwhile, or that it lost its runner.

use std::{
    collections::BTreeSet,
    fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    guardian::Guardian,
    prepare,
    round::Round,
    state::{Claim, Lock, State, States},
};
use crate::{
    caller::Caller,
    cgroup::{
        Liveness, Mount, Owner, Proc,
        orphans::{self, Adoption, Disposal, Orphan},
    },
    say::say,
    spec::Destination,
    trace::{self, PinDir},
};

/// How long lost runs may hold up the one that found them; what is not done by then is left to those who
/// do it, or to the next.
const WITHIN: Duration = Duration::from_secs(5);

/// What was done about it.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The runs that are gone.
    pub left: Vec<Left>,
    /// What could not be judged, finished or removed, one sentence each: no fault of a run that comes
    /// later.
    pub problems: Vec<String>,
}

impl Recovered {
    /// Says it; trouble with it is the host's and not that of the run that found it.
    pub fn say(&self) {
        for left in &self.left {
            say(format_args!(
                "removed {left}: left behind by a run whose `sandbox` was killed"
            ));
        }
        self.problems.iter().for_each(say);
    }
}

/// A run that was left behind, and is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its cgroup; where it had come to none, which run it was.
    pub cgroup: String,
    /// Its record, where one was written and is the business of who asks.
    pub record: Option<PathBuf>,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cgroup)?;
        match &self.record {
            Some(record) => write!(f, ", whose record is {}", record.display()),
            None => Ok(()),
        }
    }
}

/// Finishes and removes it. Takes some 5 s at most, and as long again for each leaf of which nothing but
/// processes that will not die is known; blocks.
pub fn recover(mount: &Mount) -> Recovered {
    make(Round::begin(), mount)
}

/// The same, where somebody who came to many leaves has not just done it.
pub(super) fn recover_if_due(mount: &Mount) -> Recovered {
    Round::if_due().map_or_else(Recovered::default, |round| make(round, mount))
}

fn make(round: Round, mount: &Mount) -> Recovered {
    let mut recovery = Recovery {
        mount,
        proc: Proc::default(),
        states: States::default(),
        until: Instant::now() + WITHIN,
        done: Recovered::default(),
    };
    let leaves = recovery.see_to_all();
    let done = recovery.done;
    round.end(leaves, done.left.is_empty() && done.problems.is_empty());
    done
}

/// A recovery that is going on.
struct Recovery<'a> {
    mount: &'a Mount,
    proc: Proc,
    states: States,
    until: Instant,
    done: Recovered,
}

impl Recovery<'_> {
    /// Gives how many leaves it came to.
    fn see_to_all(&mut self) -> usize {
        let survey = orphans::survey(self.mount, &self.proc);
        for orphan in &survey.orphans {
            self.settle(orphan);
        }
        // Where something could not be judged its state must not be taken for one without a leaf.
        if survey.failures.is_empty() {
            let orphaned = survey.orphans.iter().map(|orphan| &orphan.cgroup);
            let known = survey.live.iter().chain(orphaned);
            self.settle_without_leaves(&known.filter_map(|leaf| run_of(leaf)).collect());
        }
        survey.remove_empty_frames();
        let failures = survey.failures.iter().map(ToString::to_string);
        self.done.problems.extend(failures);
        if self.proc.is_in_first_pid_namespace()
            && let Err(error) = trace::remove_abandoned()
        {
            self.done.problems.push(error.to_string());
        }
        let mut leaves = survey.live.len() + survey.orphans.len();
        let forgotten = trace::forget_gone(|known| {
            leaves = leaves.max(known.len());
            self.still_needed(known)
        });
        if let Err(error) = forgotten {
            self.done.problems.push(error.to_string());
        }
        leaves
    }

    /// Has the run of a leaf finished; where nothing is known of it, removes the leaf.
    fn settle(&mut self, orphan: &Orphan) {
        let claim = match run_of(&orphan.cgroup) {
            Some(run_id) => self.states.claim(run_id),
            None => Ok(Claim::Nothing),
        };
        match claim {
            Ok(Claim::Taken) => {}
            Ok(Claim::Held(state, lock)) if state.is_of(orphan.id) => {
                self.finish(*state, &lock, Some(orphan));
            }
            Ok(Claim::Held(..) | Claim::Nothing) => self.remove(orphan),
            Err(error) => {
                self.problem(
                    &orphan.cgroup,
                    &format!(
                        "there will be no record, what was kept of its run cannot be read: {error}"
                    ),
                );
                self.remove(orphan);
            }
        }
    }

    fn remove(&mut self, orphan: &Orphan) {
        match orphans::remove(self.mount, &self.proc, orphan) {
            Ok(Disposal::Left) => {}
            Ok(Disposal::Removed) => {
                let forgotten = run_of(&orphan.cgroup).map(|run_id| self.states.forget(run_id));
                if let Some(Err(error)) = forgotten {
                    self.problem(&orphan.cgroup, &error.to_string());
                }
                self.done.left.push(Left {
                    cgroup: orphan.cgroup.clone(),
                    record: None,
                });
            }
            Err(error) => self.done.problems.push(error.to_string()),
        }
    }

    /// Has runs finished that had come to no leaf yet, and those whose leaf is gone: a scope of systemd's ends
    /// with its last process, and some were killed when they had removed it.
    fn settle_without_leaves(&mut self, known: &BTreeSet<Uuid>) {
        let run_ids = match self.states.run_ids() {
            Ok(run_ids) => run_ids,
            Err(error) => {
                let problem = format!("listing what was kept of runs: {error}");
                return self.done.problems.push(problem);
            }
        };
        for run_id in run_ids.into_iter().filter(|run_id| !known.contains(run_id)) {
            // What cannot be read is of another version, whose business it is.
            if let Ok(Claim::Held(state, lock)) = self.states.claim(run_id)
                && state.leaf_id().is_none_or(|leaf| self.is_gone(leaf))
            {
                self.finish(*state, &lock, None);
            }
        }
    }

    /// Has a guardian finish a run that nobody looks after.
    fn finish(&mut self, state: State, lock: &Lock, orphan: Option<&Orphan>) {
        let is_lost = matches!(state.owner.liveness(&self.proc), Ok(Liveness::Dead));
        // In this order: one that has ended may have concluded its run before.
        if !is_lost || !lock.is_current() {
            return;
        }
        let known = state.docket.leaf.as_ref().map(|leaf| &leaf.path);
        let found = orphan.map(|orphan| &orphan.cgroup);
        let cgroup = match found.or(known) {
            Some(cgroup) => cgroup.clone(),
            None => format!("run {}", state.docket.spec.run_id),
        };
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let problem = "its run has lost its `sandbox`, and is left to the next: there are many";
            return self.problem(&cgroup, problem);
        }
        match self.try_finish(state, orphan, &cgroup, left) {
            Ok(left) => self.done.left.extend(left),
            Err(problem) => self.problem(&cgroup, &problem),
        }
    }

    fn try_finish(
        &mut self,
        mut state: State,
        orphan: Option<&Orphan>,
        cgroup: &str,
        within: Duration,
    ) -> Result<Option<Left>, String> {
        let mut guardian = Guardian::start_for_another(within)
            .map_err(|error| format!("no guardian could be started to finish its run: {error}"))?;
        let pid = guardian.pid();
        if !self.hand_over(&mut state, orphan, pid)? {
            guardian.dismiss();
            return Ok(None);
        }
        if let Err(problem) = guardian.adopt(&state) {
            self.problem(cgroup, &problem);
        }
        let within = self.until.saturating_duration_since(Instant::now());
        match guardian.leave(within)? {
            // Its leaf had gone before: what is left to be done is nobody's news here.
            Some(()) if state.errand.is_some() => Ok(None),
            Some(()) => Ok(Some(Left {
                cgroup: cgroup.to_owned(),
                record: record_for_callers_eyes(&state),
            })),
            None => Err(format!("its run is being finished, by process {pid}")),
        }
    }

    /// Makes a guardian the owner of a run; false where somebody else is by now.
    fn hand_over(
        &self,
        state: &mut State,
        orphan: Option<&Orphan>,
        guardian: u32,
    ) -> Result<bool, String> {
        let failed = |error: &dyn fmt::Display| format!("its run cannot be adopted: {error}");
        let owner = Owner::of(&self.proc, guardian, None).map_err(|error| failed(&error))?;
        if let Some(orphan) = orphan {
            let is_ours = match state.leaf_id() {
                Some(_) => orphans::adopt(self.mount, &self.proc, orphan, &owner)
                    .map(|adoption| adoption == Adoption::Adopted),
                // It was made after the state was written: nothing was started in it.
                None => orphans::remove(self.mount, &self.proc, orphan)
                    .map(|disposal| disposal == Disposal::Removed),
            };
            if !is_ours.map_err(|error| failed(&error))? {
                return Ok(false);
            }
        }
        state.owner = owner;
        state.docket.runner_pids.push(guardian);
        // The maps of another build may look different.
        let pins = &mut state.docket.trace.pins;
        *pins = pins.take().filter(|pins| pins == PinDir::own().path());
        // Before anything is done: whoever comes after this one has to know of it.
        self.states.write(state).map_err(|error| failed(&error))?;
        Ok(true)
    }

    /// Of the leaves that maps know, those whose facts are needed still; `None` where that cannot be told.
    fn still_needed(&self, known: &BTreeSet<u64>) -> Option<BTreeSet<u64>> {
        let mut needed = orphans::present(self.mount, known)?;
        if needed.len() < known.len() {
            for run_id in self.states.run_ids().ok()? {
                needed.extend(
                    self.states
                        .read(run_id)
                        .ok()?
                        .and_then(|state| state.leaf_id()),
                );
            }
        }
        Some(needed)
    }

    fn is_gone(&self, leaf: u64) -> bool {
        let present = orphans::present(self.mount, &BTreeSet::from([leaf]));
        present.is_some_and(|present| present.is_empty())
    }

    fn problem(&mut self, cgroup: &str, problem: &str) {
        self.done.problems.push(format!("{cgroup}: {problem}"));
    }
}

/// Whose leaf this is.
fn run_of(cgroup: &str) -> Option<Uuid> {
    let (_, name) = cgroup.rsplit_once('/')?;
    Uuid::parse_str(name).ok()
}

/// Where the record is, for root and whoever had asked for it.
fn record_for_callers_eyes(state: &State) -> Option<PathBuf> {
    let reader = prepare::recorder(&Caller::current().ok()?).uid;
    match &state.docket.spec.record {
        Some(Destination::File(path)) if state.record.is_some() => {
            (reader == 0 || reader == state.docket.caller.uid).then(|| path.clone())
        }
        _ => None,
    }
}
