//! The engine: each analysis in a cgroup v2 leaf of its own, watched in the kernel, its ending told
//! with evidence. Modules stand in the order of the flow.

pub mod limits;

pub mod host;

pub mod cgroup;

pub mod evidence;
