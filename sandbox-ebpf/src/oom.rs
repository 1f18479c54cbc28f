//! The OOM killer's bracket: everything that is signalled within it dies of want of memory.
//!
//! `oom_kill_process(oc, message)` (mm/oom_kill.c) runs once per OOM and kills the chosen process,
//! and with `memory.oom.group` the others of its group, before it returns. `oc->memcg` says whose
//! memory ran out: NULL is the host's.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::bpf_get_current_pid_tgid,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use aya_log_ebpf::debug;
use sandbox_ebpf::{EventKind, Oom, OomEvent};

use crate::{
    kernel::{self, Ptr, load},
    maps::{self, OOMS, check_bracket},
    offsets::offset,
    stream,
};

/// Remembers whose memory ran out.
#[fentry(function = "oom_kill_process")]
fn oom_begin(ctx: FEntryContext) -> i32 {
    let control: Ptr = ctx.arg(0);
    let mut oom = Oom {
        cgroup_id: 0,
        usage_pages: 0,
        max_pages: 0,
        total_pages: load(control, offset!(oom_control_totalpages)),
        points: load(control, offset!(oom_control_chosen_points)),
        chosen_tgid: 0,
        // `is_sysrq_oom` (include/linux/oom.h).
        demanded: u32::from(load::<i32>(control, offset!(oom_control_order)) == -1),
    };
    let memcg: Ptr = load(control, offset!(oom_control_memcg));
    if !memcg.is_null() {
        // `css` is the first member of `struct mem_cgroup`.
        oom.cgroup_id = kernel::cgroup_id(load(memcg, offset!(css_cgroup)));
        let memory = offset!(mem_cgroup_memory);
        oom.usage_pages = load(memcg, memory + offset!(page_counter_usage));
        oom.max_pages = load(memcg, memory + offset!(page_counter_max));
    }
    let chosen: Ptr = load(control, offset!(oom_control_chosen));
    if !chosen.is_null() {
        oom.chosen_tgid = kernel::tgid(chosen);
        tell(chosen, oom);
    }
    debug!(&ctx, "OOM in {} chose {}", oom.cgroup_id, oom.chosen_tgid);
    check_bracket(OOMS.insert(bpf_get_current_pid_tgid(), oom, BPF_ANY.into()));
    0
}

/// Forgets it.
#[fexit(function = "oom_kill_process")]
fn oom_end(_ctx: FExitContext) -> i32 {
    // Absent where there was no room for it.
    let _ = OOMS.remove(bpf_get_current_pid_tgid());
    0
}

/// Tells the leaf of whoever was chosen.
#[inline(always)]
fn tell(chosen: Ptr, oom: Oom) {
    let cgroup_id = kernel::task_cgroup_id(chosen);
    let Some(facts) = maps::facts(cgroup_id) else {
        return;
    };
    let mut event = OomEvent {
        header: stream::header::<OomEvent>(facts, cgroup_id, EventKind::Oom),
        trigger: kernel::describe_current(),
        chosen: kernel::describe(chosen, cgroup_id),
        oom,
    };
    stream::send(facts, cgroup_id, &mut event);
}
