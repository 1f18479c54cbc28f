//! `sandbox run` in the foreground: every step from the request to the record, in order.

mod begun;
mod set_up;

use std::{collections::BTreeMap, io, os::fd::AsFd as _, time::Instant};

use begun::Begun;

use super::{
    clock,
    conclude::{Concluded, Ending, conclude, forget_watch},
    docket::{Docket, TraceDocket},
    errand::Errand,
    event_loop::{Running, Watch},
    gather::{Ended, action_now, add_declared},
    guardian::{Guardian, News, Start},
    journal::Journal,
    orders::{Orders, Remote},
    prepare::{self, RunError},
    record_file::KeptFile,
    runtime::runtime,
    spool::{self, Told},
    state::{Reached, State, States},
    thaw,
};
use crate::{
    caller,
    cgroup::{LeafCgroup, Owner, Place, Proc, Staging},
    events::kept::Kept,
    evidence::{EventCounters, IntentReason, OwnAction, SetupFailure, SetupFailureKind},
    host::HostInfo,
    identity::Identity,
    limits::EnclosingLimits,
    record::{self, RunRecord, User},
    say::{say, say_notes},
    spawn::{self, Launch, SpawnError, SpawnSpec, Terminal},
    spec::RunSpec,
    stdio::Outputs,
    sys::rlimits::CallersLimits,
    trace::{Ring, Tracer},
};

/// `oom_score_adj` of an analysis: it goes before the host's services.
const OOM_SCORE_ADJ: i16 = 500;

/// How `sandbox run` is over.
#[derive(Debug)]
pub struct Outcome {
    /// The record, which was also written where it was asked for.
    pub record: RunRecord,
    /// The exit status of `sandbox`.
    pub status: u8,
}

/// Runs an analysis to its end, under the caller's limits. A supervisor of the service's is told what to do
/// by `remote`, too, and keeps the event stream in `events`.
///
/// # Errors
/// Where the request cannot be carried out on this host at all, so that no record was begun. Later
/// failures are in the record, as `setup_failed`.
pub fn foreground(
    spec: RunSpec,
    rlimits: CallersLimits,
    remote: Option<Remote>,
    events: Option<Kept>,
) -> Result<Outcome, RunError> {
    let begun = Begun::with(&spec)?;
    let runtime = runtime().map_err(RunError::system("starting the event loop"))?;
    runtime.block_on(run(spec, rlimits, remote, events, begun))
}

/// What a run has made so far, so that a failure at any step can be concluded.
struct Made {
    docket: Docket,
    leaf: Option<LeafCgroup>,
    tracer: Option<Tracer>,
    ring: Option<Ring>,
    journal: Journal,
    guardian: Option<Guardian>,
    place: Option<Place>,
    /// Its record's file.
    kept: Option<KeptFile>,
    /// Whether something of it is kept, and to be forgotten once it is concluded.
    is_kept: bool,
    timings: BTreeMap<String, u64>,
    lap: Instant,
}

impl Made {
    fn lap(&mut self, step: &str) {
        let ns = u64::try_from(self.lap.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.timings.insert(step.to_owned(), ns);
        self.lap = Instant::now();
    }

    /// Keeps what is known of the run by now.
    fn keep(&mut self, owner: &Owner, reached: Reached) -> io::Result<()> {
        States::default().keep(&State {
            owner: owner.clone(),
            reached,
            docket: self.docket.clone(),
            record: self.kept.clone(),
            errand: None,
        })?;
        self.is_kept = true;
        Ok(())
    }

    /// Nothing is left to be done for the run, but to forget it: what was kept of it at once, and what the kernel side
    /// holds of it by the guardian, since nobody is to wait for that.
    fn let_go(&mut self) {
        self.forget();
        let rest = self.guardian.take().map(|guardian| match &self.tracer {
            Some(_) => guardian.leave_the_rest(),
            None => Err(guardian),
        });
        match rest {
            Some(Ok(())) => {}
            Some(Err(guardian)) => {
                guardian.dismiss();
                self.forget_watch();
            }
            None => self.forget_watch(),
        }
    }

    fn forget_watch(&mut self) {
        if let Some(tracer) = &mut self.tracer {
            forget_watch(tracer, &self.docket);
        }
    }

    fn forget(&self) {
        if self.is_kept
            && let Err(error) = States::default().forget(self.docket.spec.run_id)
        {
            say(format_args!(
                "what was kept of the run stays in /run/sandbox: {error}"
            ));
        }
    }
}

async fn run(
    spec: RunSpec,
    rlimits: CallersLimits,
    remote: Option<Remote>,
    events: Option<Kept>,
    begun: Begun,
) -> Result<Outcome, RunError> {
    let Begun {
        accepted_at,
        caller,
        recorder,
        mut record_file,
        began,
        guardian,
    } = begun;
    let mut orders = Orders::open(remote).map_err(RunError::system("opening a signalfd"))?;
    let identified = prepare::identify(&spec, &caller);
    let (user, degraded) = match &identified {
        Ok((identity, _)) => (user_of(identity), identity.degraded()),
        Err(_) => (
            User {
                uid: caller.uid,
                gid: caller.gid,
                name: None,
            },
            None,
        ),
    };
    if let Some(warning) = &degraded {
        say(warning);
    }
    let mut made = Made {
        docket: Docket {
            user,
            caller: recorder,
            host: HostInfo::gather(&Proc::default()),
            accepted_at,
            clock: clock::anchor(),
            leaf: None,
            ancestors: Vec::new(),
            effective: None,
            enclosing: EnclosingLimits::default(),
            before: Default::default(),
            ancestors_before: Vec::new(),
            host_oom_kills_before: prepare::host_oom_kills(),
            umask: caller::umask(),
            directory: std::env::current_dir().unwrap_or_else(|_| "/".into()),
            rlimits,
            trace: TraceDocket::none(),
            runner_pids: vec![std::process::id()],
            interventions: Vec::new(),
            degraded: degraded.into_iter().collect(),
            spec,
        },
        leaf: None,
        tracer: None,
        ring: None,
        journal: Journal::default(),
        guardian: None,
        place: None,
        kept: record_file
            .as_ref()
            .and_then(|file| file.kept().ok().flatten()),
        is_kept: false,
        timings: BTreeMap::new(),
        lap: began,
    };

    let guarded = guardian.map(|mut guardian| {
        made.docket.runner_pids.push(guardian.pid());
        guardian.announce(&made.docket);
        let pid = guardian.pid();
        made.guardian = Some(guardian);
        pid
    });
    made.lap("guardian");
    let started = match (identified, guarded) {
        (Err(error), _) => Err(error),
        (Ok(_), Err(error)) => Err(RunError::system("starting the guardian")(error)),
        (Ok((identity, outputs)), Ok(guardian_pid)) => {
            let set_up = set_up::set_up(&mut made, guardian_pid).await;
            let begun = made.journal.begin(&made.docket, events.as_ref());
            // What failed first is why.
            match set_up.and(begun) {
                Err(error) => Err(error),
                Ok(()) => start_and_wait(&mut made, &identity, &outputs, &mut orders).await,
            }
        }
    };
    let mut ended = started.unwrap_or_else(|error| {
        say(&error);
        Ended {
            setup_failure: Some(SetupFailure {
                step: error.to_string(),
                errno: None,
                kind: SetupFailureKind::Other,
            }),
            ..Ended::default()
        }
    });

    if let Some(guardian) = &made.guardian {
        for news in guardian.news() {
            match news {
                News::Did(action) => ended.add_action(action),
                News::Failed(problem) => ended.degraded.push(problem),
            }
        }
    }
    if let Some(end) = made.guardian.as_mut().and_then(Guardian::end) {
        ended.degraded.push(format!(
            "the guardian died ({end}): had `sandbox` been killed too, nobody would have ended the run"
        ));
    }
    // Whoever asked for the end is answered.
    tokio::task::yield_now().await;
    let Concluded {
        record,
        recorded,
        latencies,
    } = conclude(Ending {
        docket: &made.docket,
        leaf: made.leaf.as_ref(),
        tracer: made.tracer.as_mut(),
        ring: made.ring.take(),
        journal: std::mem::take(&mut made.journal),
        ended,
        record_file: record_file.take(),
        timings: std::mem::take(&mut made.timings),
    })
    .await;
    // In this order: who is told that the run has ended finds it compressed. What fails here the service
    // tries again.
    let _ = events.map(Kept::compress);
    let mut errand = Errand::of(&made.docket, &record);
    if let Some(errand) = &errand {
        // First: the service may take the record at once, and whoever goes on here needs it.
        errand.keep(&made.docket);
    }
    let told = spool::leave(&made.docket, &record, latencies);
    if told == Told::No {
        // It stays kept, for whoever looks after lost runs to do that later.
        made.is_kept = false;
        errand.get_or_insert_with(|| Errand::untold(&record));
    }
    if let Some(errand) = &mut errand {
        errand.told = told;
    }
    if errand.is_none() {
        made.let_go();
    }
    say_notes(made.docket.spec.notes, &record);
    // Those that came while the run was concluded were about the run.
    drop(orders.waiting());
    if let Some(errand) = errand {
        let guardian = made.guardian.as_mut();
        errand.run(&made.docket, Some(&mut orders), guardian).await;
        made.let_go();
    }
    let status = match recorded {
        Ok(()) => record::exit_status(&record),
        Err(error) => {
            say(&error);
            crate::cli::EXIT_FAILURE
        }
    };
    Ok(Outcome { record, status })
}

fn user_of(identity: &Identity) -> User {
    User {
        uid: identity.uid,
        gid: identity.gid,
        name: identity.name.clone(),
    }
}

/// Starts the analysis and waits for its end.
async fn start_and_wait(
    made: &mut Made,
    identity: &Identity,
    outputs: &Outputs,
    orders: &mut Orders,
) -> Result<Ended, RunError> {
    let Some(leaf) = &made.leaf else {
        return Ok(Ended::default());
    };
    let spec = &made.docket.spec;
    let terminal = Terminal::detect();
    let stdio = prepare::stdio(spec, outputs)
        .map_err(RunError::system("duplicating stdin, stdout and stderr"))?;
    while let Some(order) = orders
        .first()
        .await
        .map_err(RunError::system("reading the signalfd"))?
    {
        if let Some(ended) = Ended::cancelled_before_start(order, None) {
            return Ok(ended);
        }
    }
    if let Some(ended) = thaw::wait(leaf, orders)
        .await
        .map_err(RunError::system("reading the signalfd"))?
    {
        return Ok(ended);
    }
    let mut start = SpawnSpec {
        argv: spec.command.clone(),
        env: prepare::environment(spec, identity),
        cwd: prepare::working_directory(spec),
        identity,
        stdin: stdio.stdin.as_fd(),
        stdout: stdio.stdout.as_fd(),
        stderr: stdio.stderr.as_fd(),
        leaf: leaf.fd(),
        launch: Launch::Direct,
        oom_score_adj: OOM_SCORE_ADJ,
        terminal,
        ignored_signals: caller::ignored_signals(),
        rlimits: made.docket.rlimits.to_restore(),
    };
    let mut spawned = spawn::spawn(&start);
    if let (Err(SpawnError::KilledAtBirth), Some(place)) = (&spawned, &made.place) {
        // cgroup.kill was once written in our own cgroup: clone from another one. The child that was
        // killed must not pass for the main process.
        let staging = Staging::create(place, spec.run_id)?;
        if let Some(tracer) = &mut made.tracer {
            tracer.forget(leaf.cgroup().id)?;
            made.ring = Some(tracer.watch(leaf.cgroup().id, spec.ring_bytes)?);
        }
        start.launch = Launch::Staged {
            procs: staging.procs(),
        };
        spawned = spawn::spawn(&start);
    }
    drop(stdio);
    let spawned = match spawned {
        Ok(spawned) => spawned,
        Err(error @ SpawnError::Unwatched { pid, .. }) => {
            let ended = Ended {
                main_pid: u32::try_from(pid).ok(),
                started_at_ns: Some(clock::now_ns()),
                ..Ended::default()
            };
            return Ok(lost(&made.docket, made.tracer.as_mut(), ended, &error));
        }
        Err(error) => {
            let error = if allocation_failed(leaf, &made.docket) {
                error.after_failed_allocation(&spec.command)
            } else {
                error
            };
            say(&error);
            return Ok(match error {
                // By the OOM killer or by somebody, on its way to exec: the kernel side knows.
                SpawnError::Killed { status, .. } if made.tracer.is_some() => Ended {
                    status: Some(status),
                    ..Ended::default()
                },
                error @ (SpawnError::Setup(_)
                | SpawnError::KilledAtBirth
                | SpawnError::Killed { .. }
                | SpawnError::Unwatched { .. }) => Ended {
                    setup_failure: Some(error.into_failure()),
                    ..Ended::default()
                },
            });
        }
    };
    let spawn_ns = u64::try_from(made.lap.elapsed().as_nanos()).unwrap_or(u64::MAX);
    made.timings.insert("spawn".to_owned(), spawn_ns);
    let running_since = Instant::now();
    if let (Some(guardian), Ok(main_pid)) = (&mut made.guardian, u32::try_from(spawned.pid)) {
        guardian.started(Start::of(main_pid, clock::now_ns(), spec));
    }
    let main_pid = u32::try_from(spawned.pid).ok();
    let running = Running::new(
        &mut made.docket,
        leaf,
        Watch {
            tracer: made.tracer.as_mut(),
            ring: made.ring.take(),
            journal: &mut made.journal,
            guardian: made.guardian.as_mut(),
        },
        spawned,
        terminal,
        orders,
    );
    let (ended, waited) = match running {
        Ok(mut running) => {
            let waited = running.until_main_ends().await;
            let (ended, ring) = running.finish();
            made.ring = ring;
            (ended, waited)
        }
        Err(error) => {
            let ended = Ended {
                main_pid,
                started_at_ns: Some(clock::now_ns()),
                ..Ended::default()
            };
            (ended, Err(error))
        }
    };
    let ended = match waited {
        Ok(()) => ended,
        Err(error) => lost(&made.docket, made.tracer.as_mut(), ended, &error),
    };
    let run_ns = u64::try_from(running_since.elapsed().as_nanos()).unwrap_or(u64::MAX);
    made.timings.insert("run".to_owned(), run_ns);
    Ok(ended)
}

/// A run that cannot be watched any longer: what is still running is killed with the leaf, and the
/// verdict says that it was us.
fn lost(
    docket: &Docket,
    tracer: Option<&mut Tracer>,
    mut ended: Ended,
    error: &dyn std::fmt::Display,
) -> Ended {
    add_declared(docket, tracer.as_deref(), &mut ended.own_actions);
    let action = OwnAction {
        detail: Some(format!("it could not watch it any longer: {error}")),
        ..action_now(IntentReason::RunnerLost)
    };
    ended.declare(tracer, docket.leaf.as_ref(), action);
    ended.main_is_declared = true;
    ended
}

/// Whether the leaf's memory ran out since it was made (`oom` of memory.events).
fn allocation_failed(leaf: &LeafCgroup, docket: &Docket) -> bool {
    let count = |counters: &EventCounters| {
        let events = counters.memory_events.as_ref()?;
        events.get("oom").copied()
    };
    count(&docket.before)
        .zip(count(&leaf.counters().value))
        .is_some_and(|(before, now)| now > before)
}
