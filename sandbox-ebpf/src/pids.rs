//! Forks that a `pids.max` denied, and at which level of the tree.
//!
//! `pids_can_fork` (kernel/cgroup/pids.c) returns non-zero exactly when it counts a `max` event.
//! Which ancestor's limit it was is not passed on, so it is looked for right after: the nearest
//! level whose counter stands at its limit.

use aya_ebpf::{macros::fexit, programs::FExitContext};
use aya_log_ebpf::debug;
use sandbox_ebpf::{ABSENT, EventKind, ForkDeniedEvent};

use crate::{
    kernel::{self, Ptr, load},
    maps::{self, count},
    offsets::offset,
    stream,
};

/// How many levels above the leaf are looked at; deeper trees leave the level unknown.
const LEVELS: u32 = 12;

/// `pids_can_fork(task, cset)`; `cset` may be NULL up to 6.1, where current's is meant.
#[fexit(function = "pids_can_fork")]
fn fork_denied(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(2) == 0 {
        return 0;
    }
    let mut css_set: Ptr = ctx.arg(1);
    if css_set.is_null() {
        css_set = load(kernel::current(), offset!(task_struct_cgroups));
    }
    let cgroup_id = kernel::css_set_cgroup_id(css_set);
    let Some(facts) = maps::facts(cgroup_id) else {
        return 0;
    };
    let (limiting_cgroup_id, max) = limiting(css_set);
    let mut event = ForkDeniedEvent {
        header: stream::header::<ForkDeniedEvent>(facts, cgroup_id, EventKind::ForkDenied),
        task: kernel::describe_current(),
        limiting_cgroup_id,
    };
    let counter = unsafe {
        if event.limiting_cgroup_id == cgroup_id {
            (*facts).denied_max = max;
            &raw mut (*facts).denied_by_leaf
        } else if event.limiting_cgroup_id == 0 {
            &raw mut (*facts).denied_unknown
        } else {
            (*facts).denying_cgroup_id = event.limiting_cgroup_id;
            &raw mut (*facts).denied_by_ancestor
        }
    };
    count(counter);
    unsafe {
        if (*facts).first_denied_ns == 0 {
            (*facts).first_denied_ns = event.header.at_ns;
        }
    }
    debug!(
        &ctx,
        "fork denied in {} by {}", cgroup_id, event.limiting_cgroup_id
    );
    stream::send(facts, cgroup_id, &mut event);
    0
}

/// The nearest cgroup whose `pids.current` is at its `pids.max`, and that limit; 0 where none is any
/// more.
#[inline(always)]
fn limiting(css_set: Ptr) -> (u64, u64) {
    if offset!(css_set_pids_css) == ABSENT || offset!(pids_cgroup_limit) == ABSENT {
        return (0, 0);
    }
    let mut css: Ptr = load(css_set, offset!(css_set_pids_css));
    for _ in 0..LEVELS {
        if css.is_null() {
            return (0, 0);
        }
        // `css` is the first member of `struct pids_cgroup`; what follows it lies outside of the
        // type that the verifier knows, hence the helper.
        let counter = kernel::peek::<i64>(css, offset!(pids_cgroup_counter));
        let limit = kernel::peek::<i64>(css, offset!(pids_cgroup_limit));
        if let (Some(counter), Some(limit)) = (counter, limit)
            && counter >= limit
        {
            return (
                kernel::cgroup_id(load(css, offset!(css_cgroup))),
                limit as u64,
            );
        }
        css = load(css, offset!(css_parent));
    }
    (0, 0)
}
