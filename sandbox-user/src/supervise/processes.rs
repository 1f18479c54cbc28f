//! Who was in the run, as the event stream tells it: names, programs, parents.
//!
//! Detail only: bounded, and what does not fit is left out; verdicts rest on the maps.

use std::collections::HashMap;

use crate::{
    evidence::{Process, Signal},
    record::ProcessNode,
    trace::{Event, EventKind},
};

/// How many processes are remembered.
const MOST: usize = 1024;

/// The processes of one run.
#[derive(Debug, Default)]
pub(super) struct ProcessTable {
    nodes: HashMap<(u32, u64), ProcessNode>,
    order: Vec<(u32, u64)>,
}

impl ProcessTable {
    /// Takes in an event.
    pub(super) fn take(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Birth { child, parent } => {
                if child.pid == child.tid {
                    self.birth(child, parent);
                }
            }
            EventKind::Exec {
                process, filename, ..
            } => {
                if let Some(node) = self.nodes.get_mut(&key(process)) {
                    node.comm.clone_from(&process.comm);
                    node.exe = Some(filename.clone());
                }
            }
            EventKind::Exit { .. }
            | EventKind::Signal(_)
            | EventKind::ForkDenied { .. }
            | EventKind::Escape { .. } => {}
        }
    }

    fn birth(&mut self, child: &Process, parent: &Process) {
        if self.order.len() >= MOST {
            return;
        }
        let inherited = self
            .nodes
            .get(&key(parent))
            .and_then(|node| node.exe.clone());
        let node = ProcessNode {
            pid: child.pid,
            start_time: child.start_time_ns,
            parent_pid: Some(parent.pid),
            parent_start_time: Some(parent.start_time_ns),
            comm: child.comm.clone(),
            exe: inherited,
        };
        if self.nodes.insert(key(child), node).is_none() {
            self.order.push(key(child));
        }
    }

    /// Adds what is known of the programs to the signals' senders and victims.
    pub(super) fn name(&self, signals: &mut [Signal]) {
        for signal in signals {
            for process in [&mut signal.sender, &mut signal.victim] {
                process.exe = self
                    .nodes
                    .get(&key(process))
                    .and_then(|node| node.exe.clone());
            }
        }
    }

    /// The tree, by birth.
    pub(super) fn tree(&self) -> Vec<ProcessNode> {
        self.order
            .iter()
            .filter_map(|key| self.nodes.get(key).cloned())
            .collect()
    }
}

fn key(process: &Process) -> (u32, u64) {
    (process.pid, process.start_time_ns)
}
