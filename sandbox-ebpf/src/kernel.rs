//! Reading the kernel's structs: typed loads at offsets that the verifier knows.
//!
//! A load at a constant offset from a tracing argument needs no helper: the verifier checks it
//! against BTF, and a fault reads as 0 (bpf_jit_comp.c, `ex_handler_bpf`).

use aya_ebpf::helpers::{
    bpf_get_current_uid_gid, bpf_probe_read_kernel,
    generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
};
use sandbox_ebpf::{ABSENT, COMM_LEN, Task};

use crate::offsets::offset;

/// `PF_EXITING` of include/linux/sched.h.
pub(crate) const PF_EXITING: u32 = 0x0000_0004;
/// `TASK_NEW` of include/linux/sched.h: forked, not yet woken for the first time.
pub(crate) const TASK_NEW: u32 = 0x0000_0800;

/// A pointer to a kernel struct. Which one is said by the function that takes it.
pub(crate) type Ptr = *const u8;

/// Loads the field at `offset` of the struct at `base`.
#[inline(always)]
pub(crate) fn load<T: Copy>(base: Ptr, offset: u32) -> T {
    unsafe { core::ptr::read_volatile(base.add(offset as usize).cast()) }
}

/// `struct task_struct *` of who runs.
#[inline(always)]
pub(crate) fn current() -> Ptr {
    unsafe { bpf_get_current_task_btf() as Ptr }
}

/// Whether who runs is in a system call that lets it choose the `si_code` of the signal that it sends.
#[inline(always)]
pub(crate) fn is_in_sigqueue() -> bool {
    /// Of `orig_ax` in the x86-64 `struct pt_regs` (arch/x86/include/asm/ptrace.h).
    const ORIG_AX: u32 = 15 * 8;
    /// rt_sigqueueinfo, rt_tgsigqueueinfo and pidfd_send_signal, and the first two as 32-bit programs call them.
    const CALLS: [u64; 5] = [129, 297, 424, 178, 335];
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as Ptr;
    let call = peek::<u64>(registers, ORIG_AX).unwrap_or(0);
    CALLS.contains(&call)
}

/// Id of `struct cgroup *`, that of its kernfs node.
#[inline(always)]
pub(crate) fn cgroup_id(cgroup: Ptr) -> u64 {
    let kn: Ptr = load(cgroup, offset!(cgroup_kn));
    load(kn, offset!(kernfs_node_id))
}

/// Id of the v2 cgroup of a `struct css_set *`.
#[inline(always)]
pub(crate) fn css_set_cgroup_id(css_set: Ptr) -> u64 {
    cgroup_id(load(css_set, offset!(css_set_dfl_cgrp)))
}

/// Id of the v2 cgroup of a `struct task_struct *`.
#[inline(always)]
pub(crate) fn task_cgroup_id(task: Ptr) -> u64 {
    css_set_cgroup_id(load(task, offset!(task_struct_cgroups)))
}

/// Thread-group id of a `struct task_struct *`.
#[inline(always)]
pub(crate) fn tgid(task: Ptr) -> u32 {
    load(task, offset!(task_struct_tgid))
}

/// Thread id of a `struct task_struct *`.
#[inline(always)]
pub(crate) fn pid(task: Ptr) -> u32 {
    load(task, offset!(task_struct_pid))
}

/// `start_boottime` of the thread-group leader of a `struct task_struct *`.
#[inline(always)]
pub(crate) fn start_time_ns(task: Ptr) -> u64 {
    let leader: Ptr = load(task, offset!(task_struct_group_leader));
    load(leader, offset!(task_struct_start_boottime))
}

/// Resident pages of the process of a `struct task_struct *`: `get_mm_rss` (include/linux/mm.h). 0
/// where it has no memory any more, or this kernel counts elsewhere.
#[inline(always)]
pub(crate) fn resident_pages(task: Ptr) -> u32 {
    let mm: Ptr = load(task, offset!(task_struct_mm));
    if mm.is_null() || offset!(mm_struct_rss_file) == ABSENT {
        return 0;
    }
    // A per-CPU counter's central part, which the kernel takes for the whole, may be below zero.
    let pages = |offset: u32| peek::<i64>(mm, offset).unwrap_or(0).max(0) as u32;
    pages(offset!(mm_struct_rss_file))
        + pages(offset!(mm_struct_rss_anon))
        + pages(offset!(mm_struct_rss_shmem))
}

/// Reads a field that lies outside of the type that the verifier knows.
#[inline(always)]
pub(crate) fn peek<T>(base: Ptr, offset: u32) -> Option<T> {
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast()) }.ok()
}

/// Describes a `struct task_struct *` that is in this cgroup.
#[inline(always)]
pub(crate) fn describe(task: Ptr, cgroup_id: u64) -> Task {
    let mut record = Task {
        start_time_ns: start_time_ns(task),
        cgroup_id,
        tgid: tgid(task),
        pid: pid(task),
        uid: u32::MAX,
        _pad: 0,
        comm: [0; COMM_LEN],
    };
    let offset = offset!(task_struct_comm);
    let halves: [u64; 2] = [load(task, offset), load(task, offset + 8)];
    record.comm = unsafe { core::mem::transmute::<[u64; 2], [u8; COMM_LEN]>(halves) };
    record
}

/// Describes who runs, with its real uid.
#[inline(always)]
pub(crate) fn describe_current() -> Task {
    let task = current();
    let mut record = describe(task, task_cgroup_id(task));
    record.uid = bpf_get_current_uid_gid() as u32;
    record
}
