//! What runs that lost both supervisor and guardian left on this host: leaves, and what the kernel
//! side's maps hold of them. Every run and every check sees to it first.
//!
//! Such a run keeps its limits, and the kernel side goes on recording. Where its [`State`] was kept, a
//! new guardian finishes it as the lost one would have: the record says how it ended, if it has ended
//! meanwhile, or that it lost its runner.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use uuid::Uuid;

use super::{
    docket::Docket,
    guardian::Guardian,
    staged::draft_of,
    state::{Claim, State, States},
};
use crate::{
    cgroup::{
        Liveness, Mount, Owner, Proc,
        orphans::{self, Adoption, Orphan},
    },
    say::say,
    spec::Destination,
    trace::{self, PinDir},
};

/// How long a run that is finished may hold up the one that found it.
const FINISHED_WITHIN: Duration = Duration::from_secs(5);

/// What was done about it.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The leaves that are gone.
    pub left: Vec<Left>,
    /// What could not be judged, finished or removed, one sentence each: no fault of a run that comes
    /// later.
    pub problems: Vec<String>,
}

impl Recovered {
    /// Says it; trouble with it is the host's and not that of the run that found it.
    pub(super) fn say(&self) {
        for left in &self.left {
            say(format_args!(
                "removed {left}: left behind by a run whose `sandbox` was killed"
            ));
        }
        self.problems.iter().for_each(say);
    }
}

/// A leaf that was left behind, and is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its cgroup.
    pub cgroup: String,
    /// The run's record, where one was written.
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

/// Finishes and removes it. Takes up to 5 s for each leaf whose processes will not die; blocks.
pub fn recover(mount: &Mount) -> Recovered {
    let proc = Proc::default();
    let states = States::default();
    let survey = orphans::survey(mount, &proc);
    let mut done = Recovered::default();
    done.problems
        .extend(survey.failures.iter().map(ToString::to_string));
    for orphan in &survey.orphans {
        match settle(mount, &proc, &states, orphan, &mut done.problems) {
            Ok(left) => done.left.extend(left),
            Err(problem) => done.problems.push(format!("{}: {problem}", orphan.cgroup)),
        }
    }
    let leaves = survey.live.iter().map(String::as_str);
    let orphaned = survey.orphans.iter().map(|orphan| orphan.cgroup.as_str());
    let known: Vec<Uuid> = leaves.chain(orphaned).filter_map(run_of).collect();
    if let Err(error) = forget_stale(mount, &proc, &states, &known, &mut done.problems) {
        done.problems.push(error);
    }
    if proc.is_in_first_pid_namespace()
        && let Err(error) = trace::remove_abandoned()
    {
        done.problems.push(error.to_string());
    }
    // Where only a part of the tree is seen, a leaf that is not seen may be there.
    if let Err(error) = trace::forget_gone(|known| orphans::present(mount, known)) {
        done.problems.push(error.to_string());
    }
    done
}

/// Whose leaf this is.
fn run_of(cgroup: &str) -> Option<Uuid> {
    let (_, name) = cgroup.rsplit_once('/')?;
    Uuid::parse_str(name).ok()
}

/// Has a run finished; where nothing is known of it but its leaf, removes that.
fn settle(
    mount: &Mount,
    proc: &Proc,
    states: &States,
    orphan: &Orphan,
    problems: &mut Vec<String>,
) -> Result<Option<Left>, String> {
    let run_id = run_of(&orphan.cgroup);
    match run_id.map_or(Ok(Claim::Nothing), |run_id| states.claim(run_id)) {
        Ok(Claim::Taken) => return Ok(None),
        Ok(Claim::Held(state, _lock)) if state.is_of(orphan.id) => {
            return finish(mount, proc, orphan, state.docket, problems);
        }
        Ok(Claim::Held(..) | Claim::Nothing) => {}
        Err(error) => problems.push(format!(
            "{}: what was kept of its run cannot be read, so there will be no record: {error}",
            orphan.cgroup
        )),
    }
    orphans::remove(mount, proc, orphan).map_err(|error| error.to_string())?;
    if let Some(run_id) = run_id {
        states.forget(run_id).map_err(|error| error.to_string())?;
    }
    Ok(Some(Left {
        cgroup: orphan.cgroup.clone(),
        record: None,
    }))
}

/// Has a guardian finish a run; `None` where another one does already.
fn finish(
    mount: &Mount,
    proc: &Proc,
    orphan: &Orphan,
    mut docket: Docket,
    problems: &mut Vec<String>,
) -> Result<Option<Left>, String> {
    let failed = |what: &str, error: &dyn fmt::Display| format!("{what}: {error}");
    let mut guardian = Guardian::start_for_another()
        .map_err(|error| failed("starting a guardian to finish its run", &error))?;
    let pid = guardian.pid();
    let adopted = Owner::of(proc, pid, None)
        .and_then(|owner| orphans::adopt(mount, proc, orphan, &owner))
        .map_err(|error| failed("adopting it", &error))?;
    if adopted == Adoption::Owned {
        guardian.dismiss();
        return Ok(None);
    }
    docket.runner_pids.push(pid);
    // The maps of another build may look different.
    if docket
        .trace
        .pins
        .as_deref()
        .is_some_and(|pins| pins != PinDir::own().path())
    {
        docket.trace.pins = None;
    }
    let mut note = |problem: String| problems.push(format!("{}: {problem}", orphan.cgroup));
    if let Err(problem) = guardian.entrust(&docket) {
        note(problem);
    }
    let reopened = guardian.reopen();
    let record = match (&docket.spec.record, &reopened) {
        (Some(Destination::File(path)), Ok(())) => Some(path.clone()),
        _ => None,
    };
    if let Err(problem) = reopened {
        note(problem);
    }
    match guardian.leave(FINISHED_WITHIN) {
        Ok(Some(status)) if status.success() => Ok(Some(Left {
            cgroup: orphan.cgroup.clone(),
            record,
        })),
        Ok(Some(status)) => Err(format!(
            "its run could not be finished: the guardian ended with {status}"
        )),
        Ok(None) => Err(format!("its run is still being finished, by process {pid}")),
        Err(error) => Err(failed(
            "waiting for the guardian that finishes its run",
            &error,
        )),
    }
}

/// Forgets runs that are not there any more, nor anybody who looks after them: killed between the
/// removal of their leaf and the end.
fn forget_stale(
    mount: &Mount,
    proc: &Proc,
    states: &States,
    known: &[Uuid],
    problems: &mut Vec<String>,
) -> Result<(), String> {
    let failed = |path: PathBuf, error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let run_ids = states
        .run_ids()
        .map_err(|error| format!("listing what was kept of runs: {error}"))?;
    for run_id in run_ids.into_iter().filter(|run_id| !known.contains(run_id)) {
        let stale = match states.claim(run_id) {
            Ok(Claim::Taken | Claim::Nothing) => false,
            Ok(Claim::Held(state, _lock)) => {
                let leaf = state.docket.leaf.as_ref().map(|leaf| mount.dir(&leaf.path));
                let is_gone = !leaf.is_some_and(|dir| dir.is_ok_and(|dir| dir.exists()));
                let is_lost = matches!(state.owner.liveness(proc), Ok(Liveness::Dead));
                let draft = draft(&state);
                if is_gone && is_lost && draft.as_deref().is_some_and(Path::exists) {
                    problems.push(format!(
                        "run {run_id} lost its `sandbox` when its record was all but written; what there is of it is {}",
                        draft.unwrap_or_default().display()
                    ));
                }
                is_gone && is_lost
            }
            // Of another version, or cut short: nothing was started for it, or it is not there any more.
            Err(_) => true,
        };
        if stale {
            states
                .forget(run_id)
                .map_err(|error| failed(states.path(run_id), &error))?;
        }
    }
    Ok(())
}

fn draft(state: &State) -> Option<PathBuf> {
    let spec = &state.docket.spec;
    match &spec.record {
        Some(Destination::File(path)) => Some(draft_of(path, spec.run_id)),
        Some(Destination::Fd(_) | Destination::Stdout) | None => None,
    }
}
