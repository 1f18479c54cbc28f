//! The wall clock of a run: its limit counts from main's exec, as `walltime_ns` of the record does.

use std::{io, time::Duration};

use super::Running;
use crate::{
    policy::{Ceiling, TimeoutChange},
    record::{Deed, LimitKind, nanos},
    supervise::{
        clock,
        guardian::Start,
        orders::{Asker, Controlled},
        standstill::overdue,
    },
};

impl Running<'_> {
    /// Sets the deadline and the warning before it.
    ///
    /// # Errors
    /// None that timerfd_settime(2) knows for a valid timer.
    pub(super) fn arm(&self) -> io::Result<()> {
        self.alarms
            .set_deadline(self.time_left(), self.docket.spec.warn)
    }

    /// The deadline has rung. Where it was set before main was executed, it was set too early: a spawn comes
    /// back as soon as main's descriptors are closed (begin_new_exec() in fs/exec.c), and on a busy host its
    /// program may take tens of milliseconds more to be loaded.
    ///
    /// # Errors
    /// As `end_as`.
    pub(super) fn on_deadline(&mut self) -> io::Result<()> {
        match self.time_left() {
            None => Ok(()),
            Some(left) if !left.is_zero() => {
                self.tell_guardian(self.executed_at_ns());
                self.alarms.deadline.set(left)
            }
            Some(_) => {
                let action = overdue(self.leaf, &self.docket.interventions);
                self.end_as(action, libc::SIGTERM)
            }
        }
    }

    /// Changes its wall clock limit, and with that its deadline and the warning before it.
    ///
    /// # Errors
    /// Where a timer cannot be set.
    pub(super) fn update(
        &mut self,
        by: Asker,
        timeout: TimeoutChange,
        ceiling: Option<Ceiling<Duration>>,
    ) -> io::Result<Controlled> {
        let executed_at_ns = self.executed_at_ns();
        let elapsed = since(executed_at_ns);
        let present = self.docket.spec.limits.walltime;
        let settled = self.check_can_change().and_then(|()| {
            let settled = timeout.settle(present, elapsed, ceiling);
            settled.map_err(|error| error.to_string())
        });
        let (walltime, said) = match settled {
            Ok(settled) => settled,
            Err(problem) => return Ok(Err(problem)),
        };
        let update = Deed::Update {
            limit: LimitKind::Walltime,
            from_ns: present.value.map(nanos),
            to_ns: walltime.value.map(nanos),
        };
        self.write_down(by, update, walltime);
        self.arm()?;
        self.tell_guardian(executed_at_ns);
        Ok(Ok(said))
    }

    /// The guardian's deadline goes with this one.
    fn tell_guardian(&mut self, executed_at_ns: u64) {
        if let (Some(guardian), Some(main_pid)) =
            (self.guardian.as_deref_mut(), self.ended.main_pid)
        {
            guardian.started(Start::of(main_pid, executed_at_ns, &self.docket.spec));
        }
    }

    fn time_left(&self) -> Option<Duration> {
        let walltime = self.docket.spec.limits.walltime.value;
        walltime.map(|time| time.saturating_sub(since(self.executed_at_ns())))
    }

    /// When main was executed, or, as long as the kernel side has not seen that, when its spawn came back.
    fn executed_at_ns(&self) -> u64 {
        let seen = self
            .tracer
            .as_deref()
            .and_then(|tracer| tracer.executed_at_ns(self.leaf.cgroup().id).ok().flatten());
        seen.or(self.ended.started_at_ns).unwrap_or_default()
    }
}

fn since(at_ns: u64) -> Duration {
    Duration::from_nanos(clock::now_ns().saturating_sub(at_ns))
}
