//! The bracket of a write to `cgroup.kill`.
//!
//! The SIGKILLs it sends carry no siginfo (SEND_SIG_NOINFO), as others do; only that they are sent
//! from within `cgroup_kill_write` (kernel/cgroup/cgroup.c) tells them apart.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::bpf_get_current_pid_tgid,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};

use crate::{
    kernel::{Ptr, load},
    maps::{CGROUP_KILLS, check_bracket},
    offsets::offset,
};

/// `cgroup_kill_write(of, buf, nbytes, off)`: remembers which cgroup is being killed.
#[fentry(function = "cgroup_kill_write")]
fn cgroup_kill_begin(ctx: FEntryContext) -> i32 {
    let open_file: Ptr = ctx.arg(0);
    // The file's node is a child of its cgroup's.
    let file: Ptr = load(open_file, offset!(kernfs_open_file_kn));
    let directory: Ptr = load(file, offset!(kernfs_node_parent));
    let cgroup_id: u64 = load(directory, offset!(kernfs_node_id));
    check_bracket(CGROUP_KILLS.insert(bpf_get_current_pid_tgid(), cgroup_id, BPF_ANY.into()));
    0
}

/// Forgets it.
#[fexit(function = "cgroup_kill_write")]
fn cgroup_kill_end(_ctx: FExitContext) -> i32 {
    // Absent where there was no room for it.
    let _ = CGROUP_KILLS.remove(bpf_get_current_pid_tgid());
    0
}
