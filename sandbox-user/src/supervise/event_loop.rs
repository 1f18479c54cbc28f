//! The event loop of a running analysis: its main process, signals, deadlines, the kernel's events.
//!
//! Main's end is looked at first, so that an exit before the deadline wins. What has to be ended is
//! declared before the first signal is sent; then SIGTERM to every member and, after the grace,
//! `cgroup.kill`; a denied fork and an escape have no grace.

mod asked;
mod hands;
mod walltime;

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use nix::libc;
use sandbox_ebpf::Facts;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::yield_now,
};

use super::{
    clock, denied,
    docket::Docket,
    gather::{Ended, action_now},
    guardian::Guardian,
    journal::Journal,
    orders::Orders,
    reaper,
    samples::Samples,
    sources::{Alarms, CounterFile, MainEnd, counter_changed, event_waits, main_end},
    unreaped::{Unreaped, Why},
};
use crate::{
    cgroup::{EventFile, LeafCgroup},
    evidence::{IntentReason, OwnAction},
    limits::OnPidsLimit,
    spawn::{Spawned, Terminal},
    sys::{pidfd, readiness},
    trace::{EventKind, Ring, Tracer},
};

/// Events taken at a time, so that timers and signals are served in between.
const AT_A_TIME: usize = 256;
/// `cgroup.kill` is written again this often until main is gone.
const KILL_EVERY: Duration = Duration::from_millis(100);
/// How long after the first `cgroup.kill` main may take to die.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
/// Orders taken in a row, so that a client that gives no rest keeps nothing else waiting.
const ORDERS_IN_A_ROW: usize = 16;
/// What the ring had no room to say is looked for this often.
const REVIEW_EVERY: Duration = Duration::from_secs(1);
/// The CPU time is looked at no more often than this.
const BUDGET_AT_LEAST: Duration = Duration::from_millis(10);

/// A run that has started.
pub(super) struct Running<'a> {
    docket: &'a mut Docket,
    leaf: &'a LeafCgroup,
    tracer: Option<&'a mut Tracer>,
    ring: Option<Ring>,
    events: Option<AsyncFd<OwnedFd>>,
    more_events: bool,
    main: AsyncFd<OwnedFd>,
    terminal: Terminal,
    orders: &'a mut Orders,
    /// How many were taken in a row by now.
    orders_in_a_row: usize,
    pids_events: Option<CounterFile>,
    alarms: Alarms,
    stage: Stage,
    /// Why main is left, should it not have been waited for.
    left: Why,
    samples: Samples,
    journal: &'a mut Journal,
    guardian: Option<&'a mut Guardian>,
    ended: Ended,
}

/// How a run is watched: with a kernel side or without, where it is written down, and who else looks after
/// it.
pub(super) struct Watch<'a> {
    pub(super) tracer: Option<&'a mut Tracer>,
    pub(super) ring: Option<Ring>,
    pub(super) journal: &'a mut Journal,
    pub(super) guardian: Option<&'a mut Guardian>,
}

/// How far the ending has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody ends it.
    Running,
    /// Its members were asked to end.
    Grace,
    /// It is being killed.
    Killing,
}

/// Passes on some events; returns whether more may be waiting.
pub(super) fn take_events(ring: &mut Ring, journal: &mut Journal, ended: &mut Ended) -> bool {
    ring.drain(AT_A_TIME, |event| match event {
        Ok(event) => journal.take(event),
        Err(error) => ended.degraded.push(error.to_string()),
    })
}

impl<'a> Running<'a> {
    /// Takes over what was just spawned and arms its deadlines.
    ///
    /// # Errors
    /// Where a descriptor cannot be made or polled.
    pub(super) fn new(
        docket: &'a mut Docket,
        leaf: &'a LeafCgroup,
        watch: Watch<'a>,
        spawned: Spawned,
        terminal: Terminal,
        orders: &'a mut Orders,
    ) -> io::Result<Self> {
        let Watch {
            tracer,
            ring,
            journal,
            guardian,
        } = watch;
        let alarms = Alarms::new()?;
        let spec = &docket.spec;
        if spec.limits.cputime.value.is_some() {
            alarms.budget.set(BUDGET_AT_LEAST)?;
        }
        let (mut samples, problem) = Samples::of(leaf, spec.sampling);
        alarms.sample.set(samples.wait())?;
        alarms.review.set(REVIEW_EVERY)?;
        let pids_events = match spec.on_pids_limit {
            OnPidsLimit::Kill => leaf
                .event_file(EventFile::Pids)
                .map_err(io::Error::other)?
                .map(CounterFile::watch)
                .transpose()?,
            OnPidsLimit::Deny => None,
        };
        let ended = Ended {
            main_pid: u32::try_from(spawned.pid).ok(),
            started_at_ns: Some(clock::now_ns()),
            degraded: problem.iter().map(ToString::to_string).collect(),
            ..Ended::default()
        };
        let running = Self {
            ended,
            samples,
            journal,
            guardian,
            docket,
            leaf,
            tracer,
            events: ring
                .as_ref()
                .map(|ring| readiness::watch(ring, Interest::READABLE))
                .transpose()?,
            ring,
            more_events: false,
            main: readiness::watch(&spawned.pidfd, Interest::READABLE)?,
            terminal,
            orders,
            orders_in_a_row: 0,
            pids_events,
            alarms,
            stage: Stage::Running,
            left: Why::Lost,
        };
        running.arm()?;
        Ok(running)
    }

    /// Waits until main has ended, ending it where its time has come. Limits come before what others ask for, and
    /// events last, so that a storm of either keeps nothing else waiting.
    ///
    /// # Errors
    /// Where a descriptor fails; the run is then still there to be killed.
    pub(super) async fn until_main_ends(&mut self) -> io::Result<()> {
        loop {
            let in_a_row = std::mem::take(&mut self.orders_in_a_row);
            tokio::select! {
                biased;
                end = main_end(&self.main, self.ended.main_pid) => {
                    match end? {
                        MainEnd::Waited(status) => self.ended.status = Some(status),
                        MainEnd::Withheld { tracer } => self.left = Why::withheld(tracer),
                    }
                    self.ended.ended_at_ns = Some(clock::now_ns());
                    self.take_pending_orders();
                    return Ok(());
                }
                rung = self.alarms.deadline.rings() => {
                    rung?;
                    self.on_deadline()?;
                }
                rung = self.alarms.grace.rings() => {
                    rung?;
                    self.kill()?;
                }
                rung = self.alarms.kill_again.rings() => {
                    rung?;
                    self.kill()?;
                }
                rung = self.alarms.warning.rings() => {
                    rung?;
                    self.warn();
                }
                rung = self.alarms.budget.rings() => {
                    rung?;
                    self.check_budget()?;
                }
                rung = self.alarms.give_up.rings() => {
                    rung?;
                    self.left = Why::Hangs;
                    return Ok(());
                }
                denied = counter_changed(self.pids_events.as_ref()) => {
                    denied?;
                    self.check_denials()?;
                }
                order = self.orders.next(), if in_a_row < ORDERS_IN_A_ROW => {
                    self.orders_in_a_row = in_a_row + 1;
                    self.on_order(order?)?;
                }
                rung = self.alarms.sample.rings() => {
                    rung?;
                    self.sample();
                    self.alarms.sample.set(self.samples.wait())?;
                }
                rung = self.alarms.review.rings() => {
                    rung?;
                    self.reap_strays();
                    self.review()?;
                    self.journal.settle();
                    self.alarms.review.set(REVIEW_EVERY)?;
                }
                ready = event_waits(self.events.as_ref(), self.more_events) => {
                    ready?;
                    self.on_events()?;
                }
                // Nobody else has anything to do.
                () = yield_now(), if in_a_row >= ORDERS_IN_A_ROW => {}
            }
        }
    }

    /// Hands back what was gathered.
    pub(super) fn finish(mut self) -> (Ended, Option<Ring>) {
        if self.ended.status.is_none() {
            self.ended.unreaped = Some(Unreaped {
                main: self.main.into_inner(),
                why: self.left,
            });
        }
        (self.ended, self.ring)
    }

    /// Ends the run for this reason: every member is asked by SIGTERM where the reason has a grace.
    fn end(&mut self, reason: IntentReason, detail: Option<String>) -> io::Result<()> {
        let action = OwnAction {
            detail,
            ..action_now(reason)
        };
        self.end_as(action, libc::SIGTERM)
    }

    /// Declares why, asks every member to end with `signal` (0 = they know already) and starts the
    /// grace; without a grace, kills. A reason without a grace also ends one that is under way.
    fn end_as(&mut self, action: OwnAction, signal: i32) -> io::Result<()> {
        let grace = match action.reason {
            IntentReason::Walltime | IntentReason::Cputime | IntentReason::Cancelled => {
                self.docket.spec.grace
            }
            IntentReason::Pids
            | IntentReason::PidsAncestor
            | IntentReason::Escaped
            | IntentReason::LeftOver
            | IntentReason::RunnerLost
            | IntentReason::SetupFailed => Duration::ZERO,
        };
        match self.stage {
            Stage::Killing => return Ok(()),
            Stage::Grace if !grace.is_zero() => return Ok(()),
            Stage::Running | Stage::Grace => {}
        }
        self.declare(action);
        if grace.is_zero() {
            return self.kill();
        }
        self.stage = Stage::Grace;
        self.alarms.grace.set(grace)?;
        if signal != 0 {
            self.tell_members(signal);
        }
        // A stopped process can take the signal only once it goes on, and so can a frozen one.
        self.tell_members(libc::SIGCONT);
        self.let_go();
        Ok(())
    }

    fn declare(&mut self, action: OwnAction) {
        let leaf = Some(self.leaf.cgroup());
        self.ended.declare(self.tracer.as_deref_mut(), leaf, action);
    }

    fn tell_members(&mut self, signal: i32) {
        if let Err(error) = reaper::signal_members(self.leaf, signal) {
            self.ended.degraded.push(error.to_string());
        }
    }

    fn kill(&mut self) -> io::Result<()> {
        if self.stage != Stage::Killing {
            self.stage = Stage::Killing;
            self.ended.killed_at_ns = Some(clock::now_ns());
            self.alarms.give_up.set(GIVE_UP_AFTER)?;
        }
        self.alarms.grace.unset()?;
        if let Err(error) = self.leaf.kill() {
            self.ended.degraded.push(error.to_string());
        }
        self.kill_fugitives();
        self.alarms.kill_again.set(KILL_EVERY)
    }

    /// Who left the leaf is beyond `cgroup.kill`; main itself may be among them.
    fn kill_fugitives(&mut self) {
        let Some(tracer) = self.tracer.as_deref() else {
            return;
        };
        match tracer.fugitives_of(self.leaf.cgroup().id) {
            Ok(known) => {
                for (key, _) in &known {
                    reaper::kill_fugitive(key);
                }
            }
            Err(error) => self.ended.degraded.push(error.to_string()),
        }
    }

    fn warn(&self) {
        if let Some(warn) = &self.docket.spec.warn {
            // Main may have ended just now, which the next turn sees.
            let _ = pidfd::send_signal(self.main.as_fd(), warn.signal);
        }
    }

    /// Ends the run when its CPU time is used up, else looks again when it could be at the soonest.
    fn check_budget(&mut self) -> io::Result<()> {
        let Some(budget) = self.docket.spec.limits.cputime.value else {
            return Ok(());
        };
        let used = self.leaf.stats().value.cpu_usage_us.unwrap_or_default();
        let left = budget.saturating_sub(Duration::from_micros(used));
        if left.is_zero() {
            return self.end(IntentReason::Cputime, None);
        }
        let cores = self
            .docket
            .effective
            .as_ref()
            .and_then(|limits| limits.cpus);
        let cores = cores.unwrap_or(1024.0).max(1.0);
        self.alarms
            .budget
            .set(left.div_f64(cores).max(BUDGET_AT_LEAST))
    }

    fn on_events(&mut self) -> io::Result<()> {
        let Some(ring) = &mut self.ring else {
            return Ok(());
        };
        let mut denied = false;
        let mut escaped = None;
        let mut out_of_memory = false;
        let mut exited = false;
        let (ended, journal) = (&mut self.ended, &mut *self.journal);
        self.more_events = ring.drain(AT_A_TIME, |event| match event {
            Ok(event) => {
                match &event.kind {
                    EventKind::ForkDenied { .. } => denied = true,
                    EventKind::Escape { process } => escaped = Some(process.clone()),
                    EventKind::Oom { .. } => out_of_memory = true,
                    EventKind::Exit { .. } => exited = true,
                    EventKind::Birth { .. } | EventKind::Exec { .. } | EventKind::Signal(_) => {}
                }
                journal.take(event);
            }
            Err(error) => ended.degraded.push(error.to_string()),
        });
        journal.settle();
        if out_of_memory {
            journal.look_at_holders();
        }
        if exited {
            self.reap_strays();
        }
        if let Some(tracer) = self.tracer.as_deref_mut() {
            tracer.flush_log();
        }
        if let Some(process) = escaped {
            let detail = format!("pid {} went to cgroup {}", process.pid, process.cgroup_id);
            self.end(IntentReason::Escaped, Some(detail))?;
        }
        if denied {
            self.check_denials()?;
        }
        Ok(())
    }

    /// Ends the run where a fork was denied and that is to end it.
    fn check_denials(&mut self) -> io::Result<()> {
        if self.docket.spec.on_pids_limit == OnPidsLimit::Deny {
            return Ok(());
        }
        // Before the counters: what the kernel side has seen is in them.
        let facts = self.facts();
        let limits = self.docket.effective.as_ref();
        let reason = denied::intent(
            facts.as_ref(),
            &self.leaf.counters().value,
            limits.and_then(|limits| limits.pids),
            &self.docket.enclosing,
        );
        match reason {
            Some(reason) => self.end(reason, None),
            None => Ok(()),
        }
    }

    /// Ends the run where a task has left the leaf, or a fork was denied, and the ring had no room to say
    /// so. Hundreds of runs may do this every second, so files are read only where there may be something.
    fn review(&mut self) -> io::Result<()> {
        let facts = self.facts();
        if facts.is_some_and(|facts| facts.escapes > 0) {
            self.end(IntentReason::Escaped, None)?;
        }
        let denied =
            |facts: Facts| facts.denied_by_leaf + facts.denied_by_ancestor + facts.denied_unknown;
        if facts.is_none_or(|facts| denied(facts) > 0) {
            self.check_denials()?;
        }
        Ok(())
    }

    fn reap_strays(&mut self) {
        reaper::reap_strays(self.ended.main_pid, self.guardian.as_deref_mut());
    }

    /// What the kernel side has counted so far.
    fn facts(&self) -> Option<Facts> {
        let tracer = self.tracer.as_deref()?;
        tracer.facts(self.leaf.cgroup().id).ok().flatten()
    }

    fn sample(&mut self) {
        if let Some(stats) = self.samples.look() {
            let needed = stats.memory_needed_bytes();
            self.ended.memory_needed_bytes = self.ended.memory_needed_bytes.max(needed);
            self.journal.sample(&stats, self.docket.spec.sampling);
        }
    }
}
