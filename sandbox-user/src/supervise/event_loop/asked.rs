//! What others ask of a run while it goes on, and what comes of it.

use std::{io, os::fd::AsFd as _};

use nix::libc;

use super::{Running, Stage};
use crate::{
    evidence::{OwnAction, Signal, SignalInfo},
    spawn::Terminal,
    supervise::{
        clock,
        gather::{cancellation, client_gone, killed_by},
        orders::{Control, Controlled, Order},
        signals::{Origin, Received},
    },
    sys::pidfd,
};

/// One signal to the whole process group reaches all of it at once; an older one to main was another.
const TOLD_WITHIN_NS: u64 = 1_000_000_000;

impl Running<'_> {
    pub(super) fn on_order(&mut self, order: Order) -> io::Result<()> {
        match order {
            Order::Signal(received) => self.on_signal(&received),
            Order::ClientGone => self.cancel(client_gone(), libc::SIGTERM),
            Order::Control(control, answer) => {
                let done = self.on_control(control)?;
                // Whoever asked may have gone.
                let _ = answer.send(done);
                Ok(())
            }
        }
    }

    fn on_control(&mut self, control: Control) -> io::Result<Controlled> {
        match control {
            Control::Kill {
                is_patient: true, ..
            } if self.stage != Stage::Running => Ok(Ok(None)),
            Control::Kill {
                by, pid, reason, ..
            } => {
                self.cancel(killed_by(&by, pid, reason), libc::SIGTERM)?;
                Ok(Ok(None))
            }
            Control::Freeze(by) => Ok(self.freeze(by)),
            Control::Thaw(by) => Ok(self.thaw(by)),
            Control::Update {
                by,
                timeout,
                ceiling,
            } => self.update(by, timeout, ceiling),
        }
    }

    fn on_signal(&mut self, received: &Received) -> io::Result<()> {
        let Some(action) = cancellation(received) else {
            // Main may have ended just now, which the next turn sees.
            let _ = pidfd::send_signal(self.main.as_fd(), received.signal);
            return Ok(());
        };
        let from_terminal = received.origin == Origin::Kernel && self.terminal == Terminal::Shared;
        let main_was_told_at_ns = self.main_was_told_at_ns(received);
        // Whoever tells the whole process group has told its members already.
        let told = from_terminal || main_was_told_at_ns.is_some();
        let forward = if told { 0 } else { received.signal };
        self.cancel(at(action, main_was_told_at_ns), forward)
    }

    /// Ends the run for somebody. Whoever asks twice does not want to wait.
    fn cancel(&mut self, action: OwnAction, forward: i32) -> io::Result<()> {
        match self.stage {
            Stage::Running => self.end_as(action, forward),
            Stage::Grace | Stage::Killing => self.kill(),
        }
    }

    /// A signal that came with main's end, such as the terminal's Ctrl-C to both, is its cause. What else was
    /// asked for came too late.
    pub(super) fn take_pending_orders(&mut self) {
        for order in self.orders.waiting() {
            if let Order::Signal(received) = order
                && let Some(action) = cancellation(&received)
                && self.stage == Stage::Running
            {
                self.stage = Stage::Killing;
                let main_was_told_at_ns = self.main_was_told_at_ns(&received);
                self.declare(at(action, main_was_told_at_ns));
            }
        }
    }

    /// When main got the same signal from the same sender, as the whole process group does from a
    /// terminal, `kill %1` and timeout(1).
    fn main_was_told_at_ns(&self, received: &Received) -> Option<u64> {
        let since_ns = clock::now_ns().saturating_sub(TOLD_WITHIN_NS);
        let is_the_same = |signal: &Signal| {
            signal.victim_is_main
                && signal.at_ns >= since_ns
                && signal.signal == received.signal
                && match received.origin {
                    Origin::Kernel => signal.info == SignalInfo::Priv,
                    Origin::Process(pid) => signal.sender.pid == pid,
                }
        };
        let tracer = self.tracer.as_deref()?;
        let snapshot = tracer.snapshot(self.leaf.cgroup().id).ok()??;
        let same = snapshot.signals.into_iter().rev().find(is_the_same)?;
        Some(same.at_ns)
    }
}

/// The action as of when main was told, where it was.
fn at(action: OwnAction, main_was_told_at_ns: Option<u64>) -> OwnAction {
    OwnAction {
        at_ns: main_was_told_at_ns.unwrap_or(action.at_ns),
        ..action
    }
}
