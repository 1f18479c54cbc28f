//! The engine: each analysis in a cgroup v2 leaf of its own, watched in the kernel, its ending told
//! with evidence. Modules stand in the order of the flow.

pub mod cli;
pub mod config;
pub mod document;
pub mod metadata;
pub mod policy;
pub mod request;
pub mod spec;

pub mod limits;
pub mod units;

pub mod host;
pub mod procfs;

pub mod cgroup;
pub mod trace;

pub mod caller;
pub mod identity;
pub mod spawn;
pub mod stdio;
pub mod sys;

pub mod supervise;

pub mod audit;
pub mod service;
pub mod store;

pub mod evidence;

pub mod attribution;
pub mod events;
pub mod record;

pub mod notes;

pub mod escape;
pub mod journal;
pub mod outlet;
pub mod say;

#[cfg(test)]
mod hot_paths;
