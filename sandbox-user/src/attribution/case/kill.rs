//! Signals of these stories.

use nix::libc::SIGKILL;

use super::{MS, RUNNER_PID, START_MS, child, main_process, process};
use crate::evidence::{Delivery, IntentReason, OomContext, Signal, SignalInfo};

/// A signal of these stories; times are milliseconds after main's exec.
#[derive(Clone)]
pub(crate) struct Kill(Signal);

impl Kill {
    pub(crate) fn of_main(signal: i32) -> Self {
        Self(Signal {
            at_ns: (START_MS + 5_000) * MS,
            signal,
            si_code: None,
            info: SignalInfo::NoInfo,
            group: true,
            result: Delivery::Delivered,
            sender: process(1, "systemd", 1),
            victim: main_process(),
            victim_is_main: true,
            sender_in_leaf: false,
            sender_exiting: false,
            target_new: false,
            behind_another: false,
            by_sigqueue: false,
            injected: false,
            cpu_limit_s: None,
            cgroup_kill: None,
            oom: None,
            intent: None,
        })
    }

    pub(super) fn signal(&self) -> &Signal {
        &self.0
    }

    pub(crate) fn of_child(signal: i32) -> Self {
        let mut kill = Self::of_main(signal);
        kill.0.victim = child();
        kill.0.victim_is_main = false;
        kill
    }

    pub(crate) fn at(mut self, ms: u64) -> Self {
        self.0.at_ns = (START_MS + ms) * MS;
        self
    }

    /// kill(2) up to 6.18.
    pub(crate) fn by_outsider(mut self) -> Self {
        self.0.sender = process(900, "earlyoom", 7);
        self.user(0)
    }

    pub(crate) fn by_child(mut self) -> Self {
        self.0.sender = child();
        self.0.sender_in_leaf = true;
        self.user(0)
    }

    pub(crate) fn by_itself(mut self) -> Self {
        self.0.sender = self.0.victim.clone();
        self.0.sender_in_leaf = true;
        self.user(-6)
    }

    pub(crate) fn by_runner(mut self, intent: IntentReason) -> Self {
        self.0.sender = process(RUNNER_PID, "sandbox", 5);
        self.0.intent = Some(intent);
        self
    }

    pub(crate) fn by_runner_without_intent(mut self) -> Self {
        self.0.sender = process(RUNNER_PID, "sandbox", 5);
        self
    }

    fn user(mut self, si_code: i32) -> Self {
        self.0.info = SignalInfo::Siginfo;
        self.0.si_code = Some(si_code);
        self
    }

    /// kill(2) on 7.x.
    pub(crate) fn without_siginfo(mut self) -> Self {
        self.0.info = SignalInfo::NoInfo;
        self.0.si_code = None;
        self
    }

    pub(crate) fn si_code(mut self, si_code: i32) -> Self {
        self.0.info = SignalInfo::Siginfo;
        self.0.si_code = Some(si_code);
        self
    }

    pub(crate) fn by_kernel(mut self) -> Self {
        self.0.info = SignalInfo::Priv;
        self.0.si_code = None;
        self
    }

    pub(crate) fn via_cgroup_kill(mut self, cgroup_id: u64) -> Self {
        self.0.info = SignalInfo::NoInfo;
        self.0.si_code = None;
        self.0.group = false;
        self.0.cgroup_kill = Some(cgroup_id);
        self
    }

    pub(crate) fn without_brackets(mut self) -> Self {
        self.0.cgroup_kill = None;
        self.0.oom = None;
        self
    }

    pub(crate) fn racing_fork(mut self) -> Self {
        self.0.info = SignalInfo::NoInfo;
        self.0.target_new = true;
        self
    }

    pub(crate) fn behind_another(mut self) -> Self {
        self.0.behind_another = true;
        self
    }

    pub(crate) fn of_dying_parent(mut self) -> Self {
        self.0.info = SignalInfo::NoInfo;
        self.0.si_code = None;
        self.0.sender_exiting = true;
        self
    }

    pub(crate) fn at_one_thread(mut self) -> Self {
        self.0.group = false;
        self
    }

    pub(crate) fn undelivered(mut self, result: Delivery) -> Self {
        self.0.result = result;
        self
    }

    pub(crate) fn named(mut self, comm: &str) -> Self {
        comm.clone_into(&mut self.0.victim.comm);
        self
    }

    /// Of the OOM killer, for this cgroup (`None`: the host), asked for by the victim itself.
    pub(crate) fn oom(victim_is_main: bool, cgroup_id: Option<u64>) -> Self {
        let kill = if victim_is_main {
            Self::of_main(SIGKILL)
        } else {
            Self::of_child(SIGKILL)
        };
        let chosen_pid = kill.0.victim.pid;
        let mut kill = kill.by_itself().by_kernel();
        kill.0.oom = Some(OomContext {
            cgroup_id,
            usage_bytes: cgroup_id.map(|_| 2 << 30),
            max_bytes: cgroup_id.map(|_| 2 << 30),
            points: 1000,
            chosen_pid,
            demanded: false,
            victim_rss_bytes: None,
            holders: Vec::new(),
        });
        kill
    }

    /// Asked for by sysrq.
    pub(crate) fn demanded(mut self) -> Self {
        if let Some(oom) = &mut self.0.oom {
            oom.demanded = true;
        }
        self
    }

    /// By a tracer, in place of another.
    pub(crate) fn injected(mut self) -> Self {
        self.0.injected = true;
        self.at_one_thread()
    }

    pub(crate) fn by_sigqueue(mut self) -> Self {
        self.0.by_sigqueue = true;
        self
    }

    pub(crate) fn of_cpu_limit(mut self, seconds: u64) -> Self {
        self.0.cpu_limit_s = Some(seconds);
        self
    }

    pub(crate) fn triggered_from_outside(mut self) -> Self {
        self.0.sender = process(901, "neighbour", 8);
        self.0.sender_in_leaf = false;
        self
    }
}
