//! The event stream: numbered, lossy by design, every loss counted.
//!
//! A sequence number is drawn before the ring is asked for room, so a gap in the numbers is a
//! loss and `last_seq − dropped` is what came through.

use aya_ebpf::helpers::{
    bpf_ktime_get_ns,
    generated::{bpf_map_lookup_elem, bpf_ringbuf_output},
};
use sandbox_ebpf::{EventKind, Facts, Header};

use crate::maps::{RINGS, count, count_from};

/// The head of the next event of this leaf.
#[inline(always)]
pub(crate) fn header<E>(facts: *mut Facts, cgroup_id: u64, kind: EventKind) -> Header {
    Header {
        seq: count_from(unsafe { &raw mut (*facts).last_seq }) + 1,
        at_ns: unsafe { bpf_ktime_get_ns() },
        cgroup_id,
        kind: kind as u32,
        len: size_of::<E>() as u32,
    }
}

/// Sends an event to the ring of whoever watches this leaf, and counts it as dropped where that
/// is full or gone.
#[inline(always)]
pub(crate) fn send<E>(facts: *mut Facts, cgroup_id: u64, event: &mut E) {
    let ring = unsafe { bpf_map_lookup_elem(RINGS.as_ptr(), (&raw const cgroup_id).cast()) };
    let sent = !ring.is_null()
        && unsafe { bpf_ringbuf_output(ring, (&raw mut *event).cast(), size_of::<E>() as u64, 0) }
            == 0;
    if !sent {
        count(unsafe { &raw mut (*facts).dropped });
    }
}
