//! The maps, keyed by cgroup id, and the counting in them.
//!
//! All are preallocated: an insert can fail only for want of room, and every failure is counted, in
//! the leaf's own [`Facts::failed_updates`] or, where no leaf is known yet, in [`UNMARKED`]. A leaf is watched when it stands in [`FACTS`].

use core::{
    cell::UnsafeCell,
    intrinsics::{AtomicOrdering, atomic_xadd},
};

use aya_ebpf::{
    bindings::{bpf_map_def, bpf_map_type::BPF_MAP_TYPE_HASH},
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use sandbox_ebpf::{
    ExecEvent, Facts, Fugitive, Intent, Kill, Main, Oom, ProcessKey, SignalEvent, VICTIMS_PER_LEAF,
    VictimKey,
};

/// How many leaves can be watched at once.
const LEAVES: u32 = 8192;
/// How many victims are kept, all leaves together.
const VICTIMS_MAX: u32 = 32768;
/// How many leaves can have more victims than there is a place for: each has filled its own share before.
const LAST_KILLS_MAX: u32 = VICTIMS_MAX / VICTIMS_PER_LEAF as u32;
/// How many processes are kept with their leaf, all leaves together (`strong` mode only).
const MEMBERS_MAX: u32 = 32768;
/// How many processes may be within one bracket at once: one a CPU, and those preempted there.
const BRACKETS: u32 = 4096;

/// Cgroup id → counters.
#[map]
pub(crate) static FACTS: HashMap<u64, Facts> = HashMap::with_max_entries(LEAVES, 0);
/// Cgroup id → the main process.
#[map]
pub(crate) static MAINS: HashMap<u64, Main> = HashMap::with_max_entries(LEAVES, 0);
/// Cgroup id → what the runner is about to do, written by user space.
#[map]
pub(crate) static INTENTS: HashMap<u64, Intent> = HashMap::with_max_entries(LEAVES, 0);
/// (Victim, signal, from within or not) → the last delivered one.
#[map]
pub(crate) static VICTIMS: HashMap<VictimKey, Kill> = HashMap::with_max_entries(VICTIMS_MAX, 0);
/// Cgroup id → the last signal of those that found no place in [`VICTIMS`].
#[map]
pub(crate) static LAST_KILLS: HashMap<u64, Kill> = HashMap::with_max_entries(LAST_KILLS_MAX, 0);
/// Processes outside that came from a leaf.
#[map]
pub(crate) static FUGITIVES: HashMap<ProcessKey, Fugitive> = HashMap::with_max_entries(LEAVES, 0);
/// Processes → the leaf that they are in, for the tracepoint that tells of a move only once it is
/// done. Without fentry only.
#[map]
pub(crate) static MEMBERS: HashMap<ProcessKey, u64> = HashMap::with_max_entries(MEMBERS_MAX, 0);
/// `pid_tgid` → the OOM kill that this task is carrying out.
#[map]
pub(crate) static OOMS: HashMap<u64, Oom> = HashMap::with_max_entries(BRACKETS, 0);
/// `pid_tgid` → the cgroup whose `cgroup.kill` this task is writing.
#[map]
pub(crate) static CGROUP_KILLS: HashMap<u64, u64> = HashMap::with_max_entries(BRACKETS, 0);
/// Brackets that found no room, on the whole host: whose kills they were is not known.
#[map]
pub(crate) static UNMARKED: Array<u64> = Array::with_max_entries(1, 0);

/// Where an exec's event is put together: it is too large for the stack of a program.
#[map]
pub(crate) static EXECS: PerCpuArray<ExecEvent> = PerCpuArray::with_max_entries(1, 0);
/// The same for a signal's.
#[map]
pub(crate) static SIGNALS: PerCpuArray<SignalEvent> = PerCpuArray::with_max_entries(1, 0);
/// The same for a signal that a tracer injects: another may be generated on this CPU meanwhile.
#[map]
pub(crate) static INJECTIONS: PerCpuArray<SignalEvent> = PerCpuArray::with_max_entries(1, 0);

/// Cgroup id → the ring buffer of the supervisor that watches it.
///
/// A hash *of maps*, which aya-ebpf can only declare with BTF, and BTF in the object would carry
/// the paths of the machine that built it. So it is declared as a plain hash of the same key and
/// value, and the loader makes the real one first and has this definition reuse its pin.
#[map]
pub(crate) static RINGS: Rings = Rings(UnsafeCell::new(bpf_map_def {
    type_: BPF_MAP_TYPE_HASH,
    key_size: size_of::<u64>() as u32,
    value_size: size_of::<u32>() as u32,
    max_entries: LEAVES,
    map_flags: 0,
    id: 0,
    pinning: 0,
}));

/// See [`RINGS`].
#[repr(transparent)]
pub(crate) struct Rings(UnsafeCell<bpf_map_def>);

unsafe impl Sync for Rings {}

impl Rings {
    /// What the map helpers take.
    pub(crate) fn as_ptr(&self) -> *mut core::ffi::c_void {
        self.0.get().cast()
    }
}

/// Counts one more in a counter that several CPUs count in.
#[inline(always)]
pub(crate) fn count(counter: *mut u64) {
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1) };
}

/// The same, and says what the counter was before. Sequentially consistent, since for a relaxed one
/// LLVM 22 emits an addition that fetches nothing, and its "result" is the 1 that was added.
#[inline(always)]
pub(crate) fn count_from(counter: *mut u64) -> u64 {
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(counter, 1) }
}

/// The counters of a leaf, if it is watched.
#[inline(always)]
pub(crate) fn facts(cgroup_id: u64) -> Option<*mut Facts> {
    FACTS.get_ptr_mut(cgroup_id)
}

/// Counts a bracket that the kernel refused to keep.
#[inline(always)]
pub(crate) fn check_bracket(kept: Result<(), i32>) {
    if kept.is_err()
        && let Some(unmarked) = UNMARKED.get_ptr_mut(0)
    {
        count(unmarked);
    }
}

/// Counts a map update that the kernel refused.
#[inline(always)]
pub(crate) fn check(facts: *mut Facts, updated: Result<(), i32>) {
    if updated.is_err() {
        count(unsafe { &raw mut (*facts).failed_updates });
    }
}
