//! A run in the guardian's care: what it was told of it, and how it goes on from where its
//! supervisor was.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use nix::{
    sys::stat::{Mode, umask},
    unistd,
};

use super::{News, Start, tell};
use crate::{
    cgroup::{CgroupError, LeafCgroup, Mount, Population},
    evidence::IntentReason,
    notes,
    procfs::Stat,
    record::{RunRecord, nanos},
    say::{say, say_notes},
    supervise::{
        clock,
        conclude::{Concluded, Ending, clear, conclude, forget_watch},
        docket::{Change, Docket, TraceDocket},
        errand::Errand,
        gather::{Ended, action_now, add_declared},
        journal::Journal,
        reaper,
        record_file::{Announced, Progress, RecordFile},
        spool::{self, Latencies, Told},
        standstill::overdue,
        state::{Reached, State, States},
    },
    trace::{MainProcess, PinDir, Tracer},
    units::format_duration,
};

/// A run in the guardian's care, as far as it was told.
#[derive(Default)]
pub(super) struct Ward {
    docket: Option<Docket>,
    /// The leaf that is about to be made.
    pub(super) announced: Option<String>,
    leaf: Option<LeafCgroup>,
    tracer: Option<Tracer>,
    record_file: Option<RecordFile>,
    /// How main started; `None` = nobody has said that it did.
    pub(super) start: Option<Start>,
    ended: Ended,
    /// Whether the supervisor has said that it writes the record.
    pub(super) announced_record: Announced,
    /// How far it had come by what was kept of it, where there was neither supervisor nor guardian for a while.
    adopted: Option<Reached>,
    /// What is left to be done, where the run is recorded.
    pub(super) errand: Option<Errand>,
    /// How long its conclusion took.
    latencies: Latencies,
    /// Whether nothing is, but to have the kernel side forget it.
    is_over: bool,
}

/// What was asked for is done, and to be answered.
pub(super) struct Done;

impl Ward {
    /// One whose record goes there; all else is yet to be told.
    pub(super) fn with(record_file: Option<RecordFile>) -> Self {
        Self {
            record_file,
            ..Self::default()
        }
    }

    /// A run that has lost both its processes. What cannot be had any more is no obstacle.
    pub(super) fn adopt(&mut self, state: State) -> Result<(), String> {
        let State {
            owner: _,
            reached,
            docket,
            record,
            errand,
        } = state;
        umask(Mode::from_bits_truncate(docket.umask));
        let _ = std::env::set_current_dir(&docket.directory);
        // A scope of systemd's is gone with its last process.
        self.leaf = docket.leaf.as_ref().and_then(|leaf| open(&leaf.path).ok());
        let pins = docket.trace.pins.as_deref();
        self.tracer = pins.and_then(|pins| Tracer::reopen(PinDir::at(pins)).ok());
        self.docket = Some(docket);
        self.adopted = Some(reached);
        self.errand = errand;
        let record = record.map(RecordFile::open_again).transpose();
        self.record_file = record.map_err(|error| error.to_string())?;
        Ok(())
    }

    /// What run it is; all is there once it has a leaf.
    pub(super) fn take(&mut self, docket: Docket) -> Result<Option<Done>, String> {
        let leaf = docket.leaf.as_ref().map(|leaf| leaf.path.clone());
        let pins = docket.trace.pins.clone();
        self.docket = Some(docket);
        let Some(cgroup) = leaf else {
            return Ok(None);
        };
        self.leaf = Some(open(&cgroup).map_err(|error| error.to_string())?);
        if let Some(pins) = pins {
            let tracer = Tracer::reopen(PinDir::at(&pins)).map_err(|error| error.to_string())?;
            self.tracer = Some(tracer);
        }
        Ok(Some(Done))
    }

    /// Takes in what was done to it.
    pub(super) fn change(&mut self, change: Change) {
        if let Some(docket) = &mut self.docket {
            docket.take(change);
        }
    }

    /// A leaf that was made and not told of any more, and the watch on it.
    fn find_leaf(&mut self) {
        let announced = self.announced.take().filter(|_| self.leaf.is_none());
        let Some(leaf) = announced.and_then(|cgroup| open(&cgroup).ok()) else {
            return;
        };
        if let Some(docket) = &mut self.docket {
            docket.leaf = Some(leaf.cgroup().clone());
        }
        let id = leaf.cgroup().id;
        self.leaf = Some(leaf);
        self.tracer = Tracer::reopen(PinDir::own())
            .ok()
            .filter(|tracer| tracer.facts(id).is_ok_and(|facts| facts.is_some()));
        // The supervisor went before it could tell how the leaf is watched.
        if let (Some(tracer), Some(docket)) = (&self.tracer, &mut self.docket) {
            docket.trace = TraceDocket::of(tracer);
        }
    }

    /// Main's pid, as far as it can be found out: `sandbox` may have died right after the spawn,
    /// before it could tell. Whoever executed first in the leaf is main then.
    fn main_pid(&self) -> Option<u32> {
        if let Some(start) = self.start {
            return Some(start.main_pid);
        }
        if let Some(main) = self.traced_main() {
            return Some(main.process.pid);
        }
        let members = self.leaf.as_ref()?.procs().ok()?;
        members
            .into_iter()
            .filter_map(|pid| Some((pid, Stat::of(pid).ok()?)))
            .filter(|(_, stat)| !stat.never_executed())
            .min_by_key(|(pid, stat)| (stat.start_time_ticks, *pid))
            .map(|(pid, _)| pid)
    }

    /// Main in the kernel's account.
    fn traced_main(&self) -> Option<MainProcess> {
        let leaf = self
            .docket
            .as_ref()
            .and_then(|docket| docket.leaf.as_ref())?;
        self.tracer.as_ref()?.snapshot(leaf.id).ok()??.main
    }

    /// How long ago its wall clock ran out, where it did.
    fn missed_deadline_ns(&self, docket: &Docket) -> Option<u64> {
        let leaf = docket.leaf.as_ref()?;
        let tracer = self.tracer.as_ref();
        let seen = tracer.and_then(|tracer| tracer.executed_at_ns(leaf.id).ok().flatten());
        let began = seen.or(self.start.map(|start| start.at_ns))?;
        let deadline = began.checked_add(nanos(docket.spec.limits.walltime.value?))?;
        clock::now_ns().checked_sub(deadline)
    }

    /// Whether anything ever ran in the leaf, by the CPU time that it took.
    fn leaf_was_used(&self) -> bool {
        let used = |leaf: &LeafCgroup| leaf.stats().value.cpu_usage_us;
        self.leaf.as_ref().and_then(used).is_some_and(|us| us > 0)
    }

    /// Whether main is known to have ended, or to have been there and be gone.
    fn main_has_ended(&self) -> bool {
        if let Some(main) = self.traced_main() {
            return main.status.is_some();
        }
        let was_started = match self.adopted {
            None => self.start.is_some() && self.leaf.is_some(),
            Some(Reached::SetUp) => false,
            Some(Reached::Ready) => self.leaf.is_none() || self.leaf_was_used(),
        };
        let is_empty = |leaf: &LeafCgroup| matches!(leaf.population(), Ok(Population::Empty));
        was_started && self.leaf.as_ref().is_none_or(is_empty)
    }

    /// The supervisor has not ended the run in time: it is stopped. It is told, for when it goes on.
    pub(super) async fn keep_deadline(&mut self, supervisor: &UnixStream) {
        let Some(leaf) = &self.leaf else {
            return;
        };
        if leaf.procs().is_ok_and(|members| !members.is_empty()) {
            if let Some(docket) = &self.docket {
                // What was declared before takes its place in the maps.
                add_declared(docket, self.tracer.as_ref(), &mut self.ended.own_actions);
            }
            let interventions = self.docket.as_ref().map(|docket| &docket.interventions[..]);
            let action = overdue(leaf, interventions.unwrap_or_default());
            tell(supervisor, &News::Did(action.clone()));
            self.ended
                .declare(self.tracer.as_mut(), Some(leaf.cgroup()), action);
            self.ended.killed_at_ns.get_or_insert_with(clock::now_ns);
        }
        // The supervisor tries again when it goes on.
        let _ = reaper::empty(leaf).await;
    }

    /// The supervisor is gone: goes on where it was, and has the kernel side forget the run last. Whoever has it adopted
    /// a run hears how that went.
    pub(super) async fn finish(mut self, mut answers: UnixStream) -> io::Result<()> {
        if self.is_over {
            self.forget();
            return Ok(());
        }
        let docket = self.docket.clone();
        let is_waited_for = self.adopted.is_some();
        let kept = || {
            States::default()
                .read(docket.as_ref()?.spec.run_id)
                .ok()??
                .errand
        };
        let taken_over = self.errand.take().or_else(kept);
        let (record, mut finished) = match &taken_over {
            Some(_) => (None, Ok(())),
            None => self.go_on().await,
        };
        let begun = || Errand::of(docket.as_ref()?, record.as_ref()?);
        let mut errand = taken_over.or_else(begun);
        if let (Some(docket), Some(errand)) = (&docket, &errand) {
            errand.keep(docket);
        }
        let told = match &docket {
            Some(docket) => tell_the_service(docket, record.as_ref(), self.latencies, &mut errand),
            None => Ok(()),
        };
        finished = finished.and(told.map_err(io::Error::other));
        let forget = |docket: &Docket| match told {
            Ok(()) => States::default().forget(docket.spec.run_id),
            // Whoever looks after lost runs next needs it.
            Err(_) => Ok(()),
        };
        if let (Some(docket), None) = (&docket, &errand) {
            finished = finished.and(forget(docket));
        }
        if is_waited_for {
            let problem = finished.as_ref().err().map(ToString::to_string);
            let problem = problem.unwrap_or_default().replace('\n', " ");
            let _ = writeln!(answers, "{problem}");
        }
        drop(answers);
        if let (Some(docket), Some(record)) = (&docket, &record) {
            say_notes(docket.spec.notes, record);
        }
        // Last, since they may take their time.
        if let (Some(docket), Some(errand)) = (&docket, errand) {
            errand.run(docket, None, None).await;
            finished = finished.and(forget(docket));
        }
        self.forget();
        finished
    }

    /// Nothing is left to be done for it, but to forget it: lets go of all that is its caller's, who may be waiting
    /// for the end of a pipe, or unmount something.
    pub(super) fn be_over(&mut self) {
        self.is_over = true;
        self.record_file = None;
        // What cannot be let go of goes with this process.
        if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
            let _ = unistd::dup2_stdout(&null);
            let _ = unistd::dup2_stderr(&null);
        }
        let _ = unistd::chdir("/");
    }

    /// Has the kernel side forget the run, once it is recorded and not kept any more.
    fn forget(&mut self) {
        if let (Some(mut tracer), Some(docket)) = (self.tracer.take(), &self.docket) {
            forget_watch(&mut tracer, docket);
        }
    }

    async fn go_on(&mut self) -> (Option<RunRecord>, io::Result<()>) {
        self.find_leaf();
        let announced = self.announced_record;
        let progress = self
            .record_file
            .as_mut()
            .map(|file| file.progress(announced));
        match progress {
            Some(Progress::Unseen) => {
                say("killed while it wrote the record, which may not be whole");
                (None, self.clear().await)
            }
            // The supervisor says notes and runs hooks only once its guardian is gone or knows of them.
            Some(Progress::Published(record)) => (Some(*record), self.clear().await),
            Some(Progress::Drafted(record)) => self.finish_recording(*record).await,
            Some(Progress::Nothing) | None => match self.docket.as_ref().and_then(spool::left) {
                Some(record) => (Some(record), self.clear().await),
                None => self.judge().await,
            },
        }
    }

    /// Nothing was judged yet.
    async fn judge(&mut self) -> (Option<RunRecord>, io::Result<()>) {
        let record_file = self.record_file.take();
        let Some(docket) = self.docket.clone() else {
            // There is no run to speak of.
            if let Some(file) = record_file {
                file.discard();
            }
            return (None, self.clear().await);
        };
        let may_have_run = self.adopted == Some(Reached::Ready);
        if may_have_run && self.leaf.is_none() && self.traced_main().is_none() {
            // The kernel side forgets a run only once it is recorded and not kept any more.
            let nothing =
                "nothing is left that could tell how its run ended, unless it is recorded already";
            return (None, Err(io::Error::other(nothing)));
        }
        let mut ended = Ended {
            main_pid: self.main_pid(),
            started_at_ns: self.start.map(|start| start.at_ns),
            ..std::mem::take(&mut self.ended)
        };
        if self.tracer.is_none() {
            let why = if may_have_run {
                "what the kernel side recorded cannot be read any more"
            } else {
                "the kernel side was not watching when sandbox died"
            };
            ended.degraded.push(why.to_owned());
        }
        if ended.main_pid.is_none() && self.tracer.is_none() && self.leaf_was_used() {
            ended.degraded.push(
                "something ran in the leaf and was gone before it could be seen whether the analysis had started"
                    .to_owned(),
            );
        }
        // What the supervisor was about to do comes first, and the next declaration takes its place.
        add_declared(&docket, self.tracer.as_ref(), &mut ended.own_actions);
        if !self.main_has_ended() {
            let leaf = self.leaf.as_ref().map(LeafCgroup::cgroup);
            let mut own = ended.own_actions.iter();
            let action = match self.missed_deadline_ns(&docket) {
                Some(ns) if !own.any(|own| own.reason == IntentReason::Walltime) => {
                    ended.degraded.push(format!(
                        "nobody was there at its deadline: it was found {} later",
                        format_duration(Duration::from_nanos(ns))
                    ));
                    action_now(IntentReason::Walltime)
                }
                Some(_) | None => action_now(IntentReason::RunnerLost),
            };
            ended.declare(self.tracer.as_mut(), leaf, action);
            ended.main_is_declared = true;
        }
        let Concluded {
            record,
            recorded,
            latencies,
        } = conclude(Ending {
            docket: &docket,
            leaf: self.leaf.as_ref(),
            tracer: self.tracer.as_mut(),
            ring: None,
            journal: Journal::default(),
            ended,
            record_file,
            timings: BTreeMap::new(),
        })
        .await;
        self.latencies = latencies;
        (Some(record), recorded.map_err(io::Error::other))
    }

    /// The supervisor had judged and drafted the record before it went. What is drafted is recorded
    /// whatever becomes of the leaf.
    async fn finish_recording(
        &mut self,
        mut record: RunRecord,
    ) -> (Option<RunRecord>, io::Result<()>) {
        match &self.leaf {
            Some(leaf) => match clear(leaf).await {
                Ok(()) => record.cleanup.removed = true,
                Err(error) => record.tracing.degraded.push(error.to_string()),
            },
            None => record.cleanup.removed = record.cleanup.method.is_some(),
        }
        record.completion_notes = notes::render(&record);
        let recorded = match self.record_file.take() {
            Some(file) => file.finish(&record).map_err(io::Error::other),
            None => Ok(()),
        };
        let cleared = self.clear().await;
        (Some(record), recorded.and(cleared))
    }

    /// The record is out: the leaf goes, where it is still there.
    async fn clear(&self) -> io::Result<()> {
        match &self.leaf {
            Some(leaf) => clear(leaf).await.map_err(io::Error::other),
            None => Ok(()),
        }
    }
}

/// Leaves the service the record of a run, where its supervisor did not come to that. Where it cannot be left there is
/// an errand from then on, for whoever looks after lost runs next.
fn tell_the_service(
    docket: &Docket,
    record: Option<&RunRecord>,
    latencies: Latencies,
    errand: &mut Option<Errand>,
) -> Result<(), &'static str> {
    let untold = errand.as_ref().filter(|errand| errand.told == Told::No);
    let Some(record) = record.or(untold.map(Errand::record)).cloned() else {
        return Ok(());
    };
    let told = spool::leave(docket, &record, latencies);
    if told == Told::No {
        errand.get_or_insert_with(|| Errand::untold(&record));
    }
    if let Some(errand) = errand {
        errand.told = told;
    }
    match told {
        Told::Yes => Ok(()),
        Told::No => Err("its record could not be left for the service"),
    }
}

fn open(cgroup: &str) -> Result<LeafCgroup, CgroupError> {
    LeafCgroup::open(&Mount::find()?, cgroup)
}
