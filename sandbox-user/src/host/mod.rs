//! The host: facts, then a judgement, then its rendering by `sandbox check`.
//!
//! What can go wrong before a run differs from host to host and is the first thing that a new user
//! meets, so every lack is found ahead of time and comes with the way to mend it.

mod assess;
mod check;
mod facts;
mod pins;

use serde::{Deserialize, Serialize};

pub use assess::{Finding, Status, assess, will_run};
pub use check::{CheckReport, Colour, check};
pub use facts::{
    Bpffs, Btf, Capabilities, Capability, HostFacts, HostService, Lockdown, PidNamespace,
    RootCgroup, Support,
};
pub(crate) use pins::remove_pins;

/// Why there is no kernel side in a container, and what to do about it.
pub(crate) const NESTED_PIDS: &str = "`sandbox` is in a PID namespace of its own, and the kernel's programs see other process ids; start it in the host's (docker run --pid=host)";

/// What the record says of the host; `None` = could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// /proc/sys/kernel/hostname.
    pub hostname: Option<String>,
    /// /proc/sys/kernel/random/boot_id.
    pub boot_id: Option<String>,
    /// /proc/sys/kernel/osrelease.
    pub kernel: Option<String>,
    /// `model name` of /proc/cpuinfo.
    pub cpu_model: Option<String>,
    /// Processors online.
    pub cpus: Option<u32>,
    /// `MemTotal`, bytes.
    pub memory_bytes: Option<u64>,
    /// `SwapTotal`, bytes.
    pub swap_bytes: Option<u64>,
    /// Version of sandbox.
    pub runner_version: String,
}
