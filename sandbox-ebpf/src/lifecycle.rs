//! Births, execs, exits, and tasks that change their cgroup.
//!
//! `css_set_move_task` (kernel/cgroup/cgroup.c) is where the kernel itself does its bookkeeping of
//! who is in which cgroup: from NULL at birth (`cgroup_post_fork`, the parent runs), to NULL at
//! exit (`cgroup_exit`, or once the task is off its CPU for good from 6.19 on), from one to another
//! at a migration. It runs with interrupts off, so no run of the program is ever skipped.
//! Where it cannot be hooked, three tracepoints stand in.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::{bpf_ktime_get_ns, bpf_probe_read_kernel_str_bytes, generated::bpf_probe_read_user},
    macros::{btf_tracepoint, fentry},
    programs::{BtfTracePointContext, FEntryContext},
};
use aya_log_ebpf::debug;
use sandbox_ebpf::{
    ABSENT, ARGV_LEN, BirthEvent, EscapeEvent, EventKind, ExecEvent, ExitEvent, Facts, Fugitive,
    Main, ProcessKey, SIGNAL_GROUP_EXIT, Task,
};

use crate::{
    kernel::{self, Ptr, load},
    maps::{self, EXECS, FUGITIVES, MAINS, MEMBERS, count, count_from},
    offsets::offset,
    stream,
};

/// `css_set_move_task(task, from_cset, to_cset, use_mg_tasks)`.
#[fentry(function = "css_set_move_task")]
fn move_task(ctx: FEntryContext) -> i32 {
    let task: Ptr = ctx.arg(0);
    let from: Ptr = ctx.arg(1);
    let to: Ptr = ctx.arg(2);
    if from.is_null() {
        if !to.is_null() {
            born(task, kernel::css_set_cgroup_id(to));
        }
    } else if to.is_null() {
        exited(task, kernel::css_set_cgroup_id(from));
    } else {
        let (left, entered) = (
            kernel::css_set_cgroup_id(from),
            kernel::css_set_cgroup_id(to),
        );
        if left != entered {
            if maps::facts(left).is_some() {
                debug!(&ctx, "task {} left leaf {}", kernel::pid(task), left);
            }
            moved(task, left, entered);
        }
    }
    0
}

/// `sched_wakeup_new(p)`: a new task runs for the first time; its parent is current.
#[btf_tracepoint(function = "sched_wakeup_new")]
fn wakeup_new(ctx: BtfTracePointContext) -> i32 {
    let task: Ptr = ctx.arg(0);
    let cgroup_id = kernel::task_cgroup_id(task);
    born(task, cgroup_id);
    if kernel::pid(task) == kernel::tgid(task)
        && let Some(facts) = maps::facts(cgroup_id)
    {
        remember_member(facts, task, cgroup_id);
    }
    0
}

/// `sched_process_exit(p, …)`: later kernels add an argument, which is not read.
#[btf_tracepoint(function = "sched_process_exit")]
fn exit(ctx: BtfTracePointContext) -> i32 {
    let task: Ptr = ctx.arg(0);
    let cgroup_id = kernel::task_cgroup_id(task);
    exited(task, cgroup_id);
    let signal: Ptr = load(task, offset!(task_struct_signal));
    // `do_exit` (kernel/exit.c) counted this task off before: whoever is last sees 0.
    if maps::facts(cgroup_id).is_some() && load::<u32>(signal, offset!(signal_struct_live)) == 0 {
        // Whoever was moved in while no move was seen is not there.
        let _ = MEMBERS.remove(process_key(task));
    }
    0
}

/// `cgroup_attach_task(dst_cgrp, path, leader, threadgroup)`, fired once a process *has* moved
/// (`cgroup_attach_task`, kernel/cgroup/cgroup.c): where from, only [`MEMBERS`] still knows.
#[btf_tracepoint(function = "cgroup_attach_task")]
fn attach_task(ctx: BtfTracePointContext) -> i32 {
    let destination: Ptr = ctx.arg(0);
    let task: Ptr = ctx.arg(2);
    let entered = kernel::cgroup_id(destination);
    let key = process_key(task);
    // No cgroup has the id 0.
    let left = unsafe { MEMBERS.get(key) }.copied().unwrap_or(0);
    if left == entered {
        return 0;
    }
    moved(task, left, entered);
    if let Some(facts) = maps::facts(entered) {
        remember_member(facts, task, entered);
    } else if left != 0 {
        // It was found just now; who else might remove it wants the same.
        let _ = MEMBERS.remove(key);
    }
    0
}

/// `sched_process_exec(p, old_pid, bprm)`; p is current, and has its new memory by then.
#[btf_tracepoint(function = "sched_process_exec")]
fn exec(ctx: BtfTracePointContext) -> i32 {
    let task: Ptr = ctx.arg(0);
    let cgroup_id = kernel::task_cgroup_id(task);
    let Some(facts) = maps::facts(cgroup_id) else {
        return 0;
    };
    count(unsafe { &raw mut (*facts).execs });
    // No run of this program is ever within another on one CPU (`prog->active`).
    let Some(event) = EXECS.get_ptr_mut(0) else {
        return 0;
    };
    let event = unsafe { &mut *event };
    event.header = stream::header::<ExecEvent>(facts, cgroup_id, EventKind::Exec);
    event.task = kernel::describe(task, cgroup_id);
    event.old_pid = ctx.arg::<i32>(1) as u32;
    if let Some(main) = MAINS.get_ptr_mut(cgroup_id)
        && is_main(main, &event.task)
        && unsafe { (*main).exec_at_ns } == 0
    {
        unsafe { (*main).exec_at_ns = event.header.at_ns };
    }
    let signal: Ptr = load(task, offset!(task_struct_signal));
    event.max_rss_pages = load(signal, offset!(signal_struct_maxrss));
    let bprm: Ptr = ctx.arg(2);
    event.filename[0] = 0;
    if offset!(linux_binprm_filename) != ABSENT {
        let filename: Ptr = load(bprm, offset!(linux_binprm_filename));
        // An unreadable name stays empty.
        let _ = unsafe { bpf_probe_read_kernel_str_bytes(filename, &mut event.filename) };
    }
    read_arguments(task, event);
    stream::send(facts, cgroup_id, event);
    0
}

/// Copies the arguments as the new program will find them on its stack (`create_elf_tables`,
/// fs/binfmt_elf.c); their pages were written just before, so that they can be read here.
#[inline(always)]
fn read_arguments(task: Ptr, event: &mut ExecEvent) {
    event.argv_len = 0;
    event.argv_read = 0;
    if offset!(mm_struct_arg_start) == ABSENT || offset!(mm_struct_arg_end) == ABSENT {
        return;
    }
    let mm: Ptr = load(task, offset!(task_struct_mm));
    let start: u64 = load(mm, offset!(mm_struct_arg_start));
    let end: u64 = load(mm, offset!(mm_struct_arg_end));
    let len = end.wrapping_sub(start);
    event.argv_len = len;
    // The verifier follows constants and masks.
    let size = if len < ARGV_LEN as u64 {
        len as u32 & (ARGV_LEN as u32 - 1)
    } else {
        ARGV_LEN as u32
    };
    let read = unsafe {
        bpf_probe_read_user(
            event.argv.as_mut_ptr().cast(),
            size,
            start as *const core::ffi::c_void,
        )
    };
    if read == 0 {
        event.argv_read = size;
    }
}

/// Whether a task belongs to the main process.
#[inline(always)]
fn is_main(main: *const Main, task: &Task) -> bool {
    let known = unsafe { &(*main).task };
    known.tgid == task.tgid && known.start_time_ns == task.start_time_ns
}

#[inline(always)]
fn born(task: Ptr, cgroup_id: u64) {
    let Some(facts) = maps::facts(cgroup_id) else {
        follow_fugitive(task, cgroup_id);
        return;
    };
    let mut event = BirthEvent {
        header: stream::header::<BirthEvent>(facts, cgroup_id, EventKind::Birth),
        child: kernel::describe(task, cgroup_id),
        parent: kernel::describe_current(),
    };
    if event.child.pid == event.child.tgid {
        if count_from(unsafe { &raw mut (*facts).births }) == 0 {
            let main = Main {
                task: event.child,
                exec_at_ns: 0,
                exit_at_ns: 0,
                leader_exit_code: 0,
                group_exit_code: 0,
                signal_flags: 0,
                leader_exited: 0,
                all_exited: 0,
                _pad: 0,
            };
            maps::check(facts, MAINS.insert(cgroup_id, main, BPF_NOEXIST.into()));
        }
    } else {
        count(unsafe { &raw mut (*facts).threads });
    }
    stream::send(facts, cgroup_id, &mut event);
}

#[inline(always)]
fn exited(task: Ptr, cgroup_id: u64) {
    let Some(facts) = maps::facts(cgroup_id) else {
        return;
    };
    count(unsafe { &raw mut (*facts).exits });
    let signal: Ptr = load(task, offset!(task_struct_signal));
    let mut event = ExitEvent {
        header: stream::header::<ExitEvent>(facts, cgroup_id, EventKind::Exit),
        task: kernel::describe(task, cgroup_id),
        exit_code: load(task, offset!(task_struct_exit_code)),
        group_exit_code: load(signal, offset!(signal_struct_group_exit_code)),
        signal_flags: load(signal, offset!(signal_struct_flags)),
        live: load(signal, offset!(signal_struct_live)),
        max_rss_pages: load(signal, offset!(signal_struct_maxrss)),
        user_ns: load(task, offset!(task_struct_utime)),
        system_ns: load(task, offset!(task_struct_stime)),
        runtime_ns: load(task, offset!(task_struct_runtime)),
    };
    if let Some(main) = MAINS.get_ptr_mut(cgroup_id)
        && is_main(main, &event.task)
    {
        let main = unsafe { &mut *main };
        main.exit_at_ns = event.header.at_ns;
        // Two tasks may exit at once, so each only adds what stays true; a 0 for `live` is seen by
        // whoever is last to be counted off, if by nobody else.
        if event.signal_flags & SIGNAL_GROUP_EXIT != 0 {
            main.group_exit_code = event.group_exit_code;
            main.signal_flags = event.signal_flags;
        }
        if event.live == 0 {
            main.all_exited = 1;
        }
        if event.task.pid == event.task.tgid {
            main.leader_exit_code = event.exit_code;
            main.leader_exited = 1;
        }
    }
    stream::send(facts, cgroup_id, &mut event);
}

/// Identity of the process that a task belongs to.
#[inline(always)]
fn process_key(task: Ptr) -> ProcessKey {
    ProcessKey {
        start_time_ns: kernel::start_time_ns(task),
        tgid: kernel::tgid(task),
        _pad: 0,
    }
}

/// Keeps which leaf a process is in.
#[inline(always)]
fn remember_member(facts: *mut Facts, task: Ptr, leaf_id: u64) {
    maps::check(
        facts,
        MEMBERS.insert(process_key(task), leaf_id, BPF_ANY.into()),
    );
}

#[inline(always)]
fn moved(task: Ptr, left: u64, entered: u64) {
    if let Some(facts) = maps::facts(entered) {
        count(unsafe { &raw mut (*facts).joined });
    }
    let Some(facts) = maps::facts(left) else {
        return;
    };
    count(unsafe { &raw mut (*facts).escapes });
    let mut event = EscapeEvent {
        header: stream::header::<EscapeEvent>(facts, left, EventKind::Escape),
        task: kernel::describe(task, entered),
    };
    remember_fugitive(facts, left, &event.task);
    stream::send(facts, left, &mut event);
}

/// Keeps a task that is out of its leaf, so that the runner can end it.
#[inline(always)]
fn remember_fugitive(facts: *mut Facts, leaf_id: u64, task: &Task) {
    let key = ProcessKey {
        start_time_ns: task.start_time_ns,
        tgid: task.tgid,
        _pad: 0,
    };
    let fugitive = Fugitive {
        leaf_id,
        cgroup_id: task.cgroup_id,
        at_ns: unsafe { bpf_ktime_get_ns() },
        comm: task.comm,
    };
    maps::check(facts, FUGITIVES.insert(key, fugitive, BPF_ANY.into()));
}

/// A process born outside: of interest only where its parent had left a leaf.
#[inline(always)]
fn follow_fugitive(task: Ptr, cgroup_id: u64) {
    let parent = kernel::current();
    let Some(fugitive) = (unsafe { FUGITIVES.get(process_key(parent)) }) else {
        return;
    };
    let leaf_id = fugitive.leaf_id;
    if let Some(facts) = maps::facts(leaf_id) {
        remember_fugitive(facts, leaf_id, &kernel::describe(task, cgroup_id));
    }
}
