//! The eBPF programs: what they hook and in which mode they serve.
//!
//! They hold no policy. Each looks up the leaf that its *target* is in, counts, keeps first facts
//! in maps and streams the detail; the verdict is made in user space. `exact` mode attaches the
//! `fentry`/`fexit` programs and those tracepoints marked both; `strong` mode, where the kernel
//! refuses fentry, attaches tracepoints only.
//!
//! | program | hook | mode |
//! |---|---|---|
//! | `move_task` | fentry `css_set_move_task` | exact |
//! | `oom_begin`, `oom_end` | fentry, fexit `oom_kill_process` | exact |
//! | `cgroup_kill_begin`, `cgroup_kill_end` | fentry, fexit `cgroup_kill_write` | exact |
//! | `fork_denied` | fexit `pids_can_fork` | exact |
//! | `inject` | fentry `ptrace_request` | exact |
//! | `signal_generate` | tp_btf | both |
//! | `exec` | tp_btf `sched_process_exec` | both |
//! | `wakeup_new` | tp_btf `sched_wakeup_new` | strong |
//! | `exit` | tp_btf `sched_process_exit` | strong |
//! | `attach_task` | tp_btf `cgroup_attach_task` | strong |
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(
    internal_features,
    reason = "AtomicU64::fetch_add does not exist for bpfel; the intrinsic does"
)]
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "every access is checked by the kernel's verifier, which refuses an unsound program"
)]

mod cgroup_kill;
mod kernel;
mod lifecycle;
mod maps;
mod offsets;
mod oom;
mod pids;
mod signal;
mod stream;

/// Helpers marked `gpl_only` are used, so the object has to say that it may.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
