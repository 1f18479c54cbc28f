//! The only place that touches cgroupfs: where leaves go, the leaf and its limits, what is read from
//! it, and what is left of runs that lost everybody.
//!
//! In the order of a run: [`prepare`] finds the mount, decides on a place and makes it;
//! [`LeafCgroup::create`] makes the leaf and [`LeafCgroup::limit`] its limits; readers give counters
//! and statistics; [`LeafCgroup::remove`] ends it. [`orphans`] serves the next run and
//! `sandbox check`.

mod above;
mod budget;
mod caller_limit;
mod control;
mod error;
mod files;
mod frame;
mod freezer;
mod held;
pub mod hooks;
mod kill;
mod leaf;
mod mount;
pub mod orphans;
mod owner;
mod placement;
mod quota;
mod sampler;
mod staging;
mod stats;
mod systemd;
mod tree;
mod unit;

pub use budget::memory_limit_of_all_runs;
pub use caller_limit::{CallerLimit, Limited};
pub use error::CgroupError;
pub use files::{CpuMax, Dir, Max};
pub use held::{HeldLeaf, HeldRuns};
pub use leaf::{EventFile, LeafCgroup, Population, leaf_path};
pub use mount::{Controller, Hierarchy, Mount, NsDelegate};
pub(crate) use owner::parse_meminfo;
pub use owner::{Liveness, Mark, Owner, Proc, ProcessId};
pub use placement::{
    Manager, Place, Placement, PlacementFacts, decide, enter, leaf_around, leave_the_service,
    prepare,
};
pub use quota::cpu_max_for;
pub use sampler::Sampler;
pub use staging::Staging;
pub use stats::{LeafStats, Reading};
pub use systemd::scope_name;
pub use tree::Removal;
pub use unit::{Delegation, Unit};
