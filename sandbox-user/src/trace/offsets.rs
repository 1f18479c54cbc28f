//! The offsets that the programs need, as the running kernel has them.

use sandbox_ebpf::{ABSENT, Offsets};

use super::btf::{BtfBlob, BtfError};

/// Bytes of a pointer in `css_set.subsys`.
const POINTER: u32 = 8;
/// Bytes of an `atomic_long_t`.
const LONG: u32 = 8;
/// Indices into `rss_stat`, of include/linux/mm_types_task.h.
const MM_FILEPAGES: u32 = 0;
const MM_ANONPAGES: u32 = 1;
const MM_SHMEMPAGES: u32 = 3;

/// Looks every offset up; what only adds detail may be absent.
///
/// # Errors
/// Names the struct member that a verdict cannot do without and this kernel does not have.
pub(super) fn offsets(btf: &BtfBlob) -> Result<Offsets, BtfError> {
    let at = |structure, member| btf.member_offset(structure, member);
    let optional = |found: Result<u32, BtfError>| found.unwrap_or(ABSENT);
    let pids_css = at("css_set", "subsys").and_then(|subsys| {
        let index = btf.enumerator("cgroup_subsys_id", "pids_cgrp_id")?;
        Ok(subsys + index * POINTER)
    });
    Ok(Offsets {
        task_struct_pid: at("task_struct", "pid")?,
        task_struct_tgid: at("task_struct", "tgid")?,
        task_struct_flags: at("task_struct", "flags")?,
        task_struct_state: at("task_struct", "__state")?,
        task_struct_group_leader: at("task_struct", "group_leader")?,
        task_struct_start_boottime: at("task_struct", "start_boottime")?,
        task_struct_comm: at("task_struct", "comm")?,
        task_struct_cgroups: at("task_struct", "cgroups")?,
        task_struct_exit_code: at("task_struct", "exit_code")?,
        task_struct_signal: at("task_struct", "signal")?,
        task_struct_utime: at("task_struct", "utime")?,
        task_struct_stime: at("task_struct", "stime")?,
        task_struct_runtime: at("task_struct", "se")? + at("sched_entity", "sum_exec_runtime")?,
        task_struct_mm: at("task_struct", "mm")?,
        task_struct_pending_signal: at("task_struct", "pending")? + at("sigpending", "signal")?,
        task_struct_last_siginfo: at("task_struct", "last_siginfo")?,
        mm_struct_arg_start: optional(at("mm_struct", "arg_start")),
        mm_struct_arg_end: optional(at("mm_struct", "arg_end")),
        mm_struct_rss_file: optional(resident(btf, MM_FILEPAGES)),
        mm_struct_rss_anon: optional(resident(btf, MM_ANONPAGES)),
        mm_struct_rss_shmem: optional(resident(btf, MM_SHMEMPAGES)),
        signal_struct_group_exit_code: at("signal_struct", "group_exit_code")?,
        signal_struct_flags: at("signal_struct", "flags")?,
        signal_struct_live: at("signal_struct", "live")?,
        signal_struct_maxrss: at("signal_struct", "maxrss")?,
        // RLIMIT_CPU is the first of them.
        signal_struct_rlimit_cpu: at("signal_struct", "rlim")?,
        css_set_dfl_cgrp: at("css_set", "dfl_cgrp")?,
        css_set_pids_css: optional(pids_css),
        cgroup_kn: at("cgroup", "kn")?,
        kernfs_node_id: at("kernfs_node", "id")?,
        // Renamed when it became RCU-protected, in 6.15.
        kernfs_node_parent: at("kernfs_node", "__parent")
            .or_else(|_| at("kernfs_node", "parent"))?,
        kernfs_open_file_kn: at("kernfs_open_file", "kn")?,
        css_cgroup: at("cgroup_subsys_state", "cgroup")?,
        css_parent: at("cgroup_subsys_state", "parent")?,
        mem_cgroup_memory: at("mem_cgroup", "memory")?,
        page_counter_usage: at("page_counter", "usage")?,
        page_counter_max: at("page_counter", "max")?,
        oom_control_memcg: at("oom_control", "memcg")?,
        oom_control_totalpages: at("oom_control", "totalpages")?,
        oom_control_chosen: at("oom_control", "chosen")?,
        oom_control_chosen_points: at("oom_control", "chosen_points")?,
        oom_control_order: at("oom_control", "order")?,
        kernel_siginfo_si_signo: at("kernel_siginfo", "si_signo")?,
        kernel_siginfo_si_code: at("kernel_siginfo", "si_code")?,
        pids_cgroup_counter: optional(at("pids_cgroup", "counter")),
        pids_cgroup_limit: optional(at("pids_cgroup", "limit")),
        linux_binprm_filename: optional(at("linux_binprm", "filename")),
    })
}

/// Where a process's resident pages of one kind are counted: an array of plain counters up to 6.1,
/// of per-CPU ones since.
fn resident(btf: &BtfBlob, kind: u32) -> Result<u32, BtfError> {
    let counters = btf.member_offset("mm_struct", "rss_stat")?;
    if let Ok(count) = btf.member_offset("mm_rss_stat", "count") {
        return Ok(counters + count + kind * LONG);
    }
    let count = btf.member_offset("percpu_counter", "count")?;
    Ok(counters + kind * btf.struct_size("percpu_counter")? + count)
}
