//! Signals: who sent what to whom, and whether it was delivered.
//!
//! `signal_generate` (kernel/signal.c, `__send_signal_locked`) runs under the target's `siglock`
//! with interrupts off, so none is missed. The filter is the *target's* cgroup; the current task
//! is the sender, or for the OOM killer the one that asked for memory. A tracer can put a signal in
//! another's place, which generates none: `ptrace_request` tells of that.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_ANY, BPF_EXIST},
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel},
    macros::{btf_tracepoint, fentry},
    maps::PerCpuArray,
    programs::{BtfTracePointContext, FEntryContext},
};
use aya_log_ebpf::debug;
use sandbox_ebpf::{
    EventKind, Facts, INFO_NOINFO, INFO_POINTER, INFO_PRIV, KILL_BEHIND_ANOTHER, KILL_BY_SIGQUEUE,
    KILL_IN_CGROUP_KILL, KILL_IN_OOM, KILL_INJECTED, KILL_OF_MAIN, KILL_SENDER_EXITING,
    KILL_SENDER_IN_LEAF, KILL_TARGET_NEW, Kill, Oom, SignalEvent, VICTIMS_PER_LEAF, VictimKey,
};

use crate::{
    kernel::{self, PF_EXITING, Ptr, TASK_NEW, load},
    maps::{
        self, CGROUP_KILLS, INJECTIONS, INTENTS, LAST_KILLS, MAINS, OOMS, SIGNALS, VICTIMS, count,
        count_from,
    },
    offsets::offset,
    stream,
};

const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;
/// The `si_code`s of timers, message queues and I/O (include/uapi/asm-generic/siginfo.h), from one to the other.
const SI_SIGIO: i32 = -5;
const SI_TIMER: i32 = -2;

/// `signal_generate(sig, info, task, group, result)`.
#[btf_tracepoint(function = "signal_generate")]
fn signal_generate(ctx: BtfTracePointContext) -> i32 {
    let target: Ptr = ctx.arg(2);
    let cgroup_id = kernel::task_cgroup_id(target);
    let Some(facts) = maps::facts(cgroup_id) else {
        return 0;
    };
    let signal: i32 = ctx.arg(0);
    if !can_be_fatal(signal) {
        return 0;
    }
    let Some(event) = begin(&SIGNALS, facts, signal, target, cgroup_id) else {
        return 0;
    };
    event.kill.group = ctx.arg::<i32>(3) as u32;
    event.kill.result = ctx.arg(4);
    describe_info(&ctx, target, &mut event.kill);
    describe_brackets(target, &mut event.kill);
    debug!(
        &ctx,
        "signal {} to {} result {}", signal, event.kill.victim.pid, event.kill.result
    );
    if event.kill.result == 0 {
        remember(facts, cgroup_id, &event.kill);
    }
    stream::send(facts, cgroup_id, event);
    0
}

/// `ptrace_request(child, request, addr, data)`: its tracer is about to let a tracee go on, with the
/// signal `data` in place of the one that it stopped for. If that is another, no `signal_generate`
/// tells of it (`ptrace_signal`, kernel/signal.c). The tracee is held until the request is done
/// (`ptrace_freeze_traced`, kernel/ptrace.c).
#[fentry(function = "ptrace_request")]
fn inject(ctx: FEntryContext) -> i32 {
    let tracee: Ptr = ctx.arg(0);
    let cgroup_id = kernel::task_cgroup_id(tracee);
    let Some(facts) = maps::facts(cgroup_id) else {
        return 0;
    };
    let (request, data): (u64, u64) = (ctx.arg(1), ctx.arg(3));
    if !resumes(request) || data == 0 || data > 64 {
        return 0;
    }
    let signal = data as i32;
    if !can_be_fatal(signal) || !is_another(tracee, signal) {
        return 0;
    }
    let Some(event) = begin(&INJECTIONS, facts, signal, tracee, cgroup_id) else {
        return 0;
    };
    event.kill.flags |= KILL_INJECTED;
    remember(facts, cgroup_id, &event.kill);
    stream::send(facts, cgroup_id, event);
    0
}

/// Whether a request of ptrace(2) lets the tracee go on and takes a signal for it
/// (include/uapi/linux/ptrace.h, arch/x86/include/uapi/asm/ptrace-abi.h).
#[inline(always)]
fn resumes(request: u64) -> bool {
    // PTRACE_CONT, SINGLESTEP, DETACH, SYSCALL, SYSEMU, SYSEMU_SINGLESTEP, SINGLEBLOCK
    const RESUMING: u64 = 1 << 7 | 1 << 9 | 1 << 17 | 1 << 24 | 1 << 31 | 1 << 32 | 1 << 33;
    request < 64 && RESUMING & (1 << request) != 0
}

/// Whether a tracee stopped for another signal than this one, so that this one is its tracer's. In the stop
/// of an event, or of its group, it is not taken: `si_code` has that above the signal's number then
/// (`ptrace_do_notify`, `do_jobctl_trap`).
#[inline(always)]
fn is_another(tracee: Ptr, signal: i32) -> bool {
    let info: Ptr = load(tracee, offset!(task_struct_last_siginfo));
    if info.is_null() {
        return false;
    }
    let stopped_for: i32 = load(info, offset!(kernel_siginfo_si_signo));
    let code: i32 = load(info, offset!(kernel_siginfo_si_code));
    let is_event = code > 0xff && code & 0xff == stopped_for;
    stopped_for != signal && !is_event
}

/// Whether the default action of a signal ends or stops nothing: signal(7).
#[inline(always)]
fn can_be_fatal(signal: i32) -> bool {
    // SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH
    const HARMLESS: u64 =
        1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23 | 1 << 28;
    !(0..64).contains(&signal) || HARMLESS & (1 << signal) == 0
}

/// Begins the event of a signal, in a place that is its program's own: no run of that is ever within another on
/// one CPU (`prog->active`).
#[inline(always)]
fn begin(
    place: &'static PerCpuArray<SignalEvent>,
    facts: *mut Facts,
    signal: i32,
    target: Ptr,
    cgroup_id: u64,
) -> Option<&'static mut SignalEvent> {
    let event = unsafe { &mut *place.get_ptr_mut(0)? };
    event.header = stream::header::<SignalEvent>(facts, cgroup_id, EventKind::Signal);
    describe(signal, target, cgroup_id, &mut event.kill);
    event.kill.at_ns = event.header.at_ns;
    Some(event)
}

/// Describes a signal of who runs to one of the leaf's: delivered, to one thread, by SI_USER, unless
/// more is known.
#[inline(always)]
fn describe(signal: i32, target: Ptr, cgroup_id: u64, kill: &mut Kill) {
    *kill = Kill {
        at_ns: 0,
        kill_cgroup_id: 0,
        cpu_limit_s: 0,
        signal,
        si_code: 0,
        info: INFO_POINTER,
        group: 0,
        result: 0,
        flags: 0,
        intent: 0,
        victim_rss_pages: 0,
        sender: kernel::describe_current(),
        victim: kernel::describe(target, cgroup_id),
        oom: Oom {
            cgroup_id: 0,
            usage_pages: 0,
            max_pages: 0,
            total_pages: 0,
            points: 0,
            chosen_tgid: 0,
            demanded: 0,
        },
    };
    if load::<u32>(kernel::current(), offset!(task_struct_flags)) & PF_EXITING != 0 {
        kill.flags |= KILL_SENDER_EXITING;
    }
    if load::<u32>(target, offset!(task_struct_state)) & TASK_NEW != 0 {
        kill.flags |= KILL_TARGET_NEW;
    }
    if kill.sender.cgroup_id == cgroup_id {
        kill.flags |= KILL_SENDER_IN_LEAF;
    }
    if let Some(intent) = unsafe { INTENTS.get(cgroup_id) } {
        kill.intent = intent.reason;
    }
    if let Some(main) = unsafe { MAINS.get(cgroup_id) }
        && main.task.tgid == kill.victim.tgid
        && main.task.start_time_ns == kill.victim.start_time_ns
    {
        kill.flags |= KILL_OF_MAIN;
    }
}

/// What the sender gave with it.
#[inline(always)]
fn describe_info(ctx: &BtfTracePointContext, target: Ptr, kill: &mut Kill) {
    match info_of(ctx) {
        0 => kill.info = INFO_NOINFO,
        1 => {
            kill.info = INFO_PRIV;
            kill.cpu_limit_s = cpu_limit_s(kill.signal, target);
        }
        info => {
            let si_code =
                (info as *const u8).wrapping_add(offset!(kernel_siginfo_si_code) as usize);
            kill.si_code = unsafe { bpf_probe_read_kernel(si_code.cast()) }.unwrap_or(0);
            if (SI_SIGIO..=SI_TIMER).contains(&kill.si_code) && kernel::is_in_sigqueue() {
                kill.flags |= KILL_BY_SIGQUEUE;
            }
        }
    }
    // A SIGKILL to all of a process has been given to each of its threads by now (`complete_signal`).
    if kill.group != 0 && kill.signal != SIGKILL && is_pending(target, kill.signal) {
        kill.flags |= KILL_BEHIND_ANOTHER;
    }
}

/// Whether the sender is carrying out an OOM kill or a `cgroup.kill`.
///
/// A bracket whose end was missed stays open, so each is asked for only where the signal looks as its
/// own do: SIGKILL without a siginfo, and SEND_SIG_PRIV from `__oom_kill_process` (mm/oom_kill.c). Up
/// to 6.18 kill(2) has a siginfo.
#[inline(always)]
fn describe_brackets(target: Ptr, kill: &mut Kill) {
    let sender_task = bpf_get_current_pid_tgid();
    if kill.signal == SIGKILL
        && kill.info == INFO_PRIV
        && let Some(oom) = unsafe { OOMS.get(sender_task) }
    {
        kill.flags |= KILL_IN_OOM;
        kill.oom = *oom;
        kill.victim_rss_pages = kernel::resident_pages(target);
    }
    if kill.signal == SIGKILL
        && kill.info != INFO_POINTER
        && let Some(killed) = unsafe { CGROUP_KILLS.get(sender_task) }
    {
        kill.flags |= KILL_IN_CGROUP_KILL;
        kill.kill_cgroup_id = *killed;
    }
}

/// Whether a signal waits for a thread alone; those for its whole process are elsewhere.
#[inline(always)]
fn is_pending(task: Ptr, signal: i32) -> bool {
    let pending: u64 = load(task, offset!(task_struct_pending_signal));
    (1..=64).contains(&signal) && pending & (1 << (signal - 1)) != 0
}

/// The limit that a signal of `check_process_timers` (kernel/time/posix-cpu-timers.c) is for.
#[inline(always)]
fn cpu_limit_s(signal: i32, target: Ptr) -> u64 {
    // `struct rlimit` has the soft limit first.
    let of_pair = match signal {
        SIGXCPU => 0,
        SIGKILL => 8,
        _ => return 0,
    };
    let group: Ptr = load(target, offset!(task_struct_signal));
    load(group, offset!(signal_struct_rlimit_cpu) + of_pair)
}

/// The second argument: a number below 2, or a pointer. Read as a number from where the arguments lie,
/// since the verifier takes it for a pointer that is never NULL, as all of a tracepoint's, and from
/// 6.18 on drops what is done where it is (`reg_not_null`, kernel/bpf/verifier.c).
#[inline(always)]
fn info_of(ctx: &BtfTracePointContext) -> u64 {
    kernel::peek(ctx.as_ptr().cast(), size_of::<u64>() as u32).unwrap_or(0)
}

/// Whether a victim gets an entry: main always, of the others so many. Counts it.
#[inline(always)]
fn has_room(facts: *mut Facts, kill: &Kill) -> bool {
    if kill.flags & KILL_OF_MAIN != 0 {
        count(unsafe { &raw mut (*facts).main_victims });
        return true;
    }
    count_from(unsafe { &raw mut (*facts).victims }) < VICTIMS_PER_LEAF
}

/// Keeps a delivered signal in the maps, where no stalled reader can lose it.
#[inline(always)]
fn remember(facts: *mut Facts, cgroup_id: u64, kill: &Kill) {
    if kill.signal == SIGKILL {
        let counter = unsafe {
            if kill.flags & KILL_IN_OOM != 0 {
                &raw mut (*facts).oom_kills
            } else if kill.flags & KILL_IN_CGROUP_KILL != 0 {
                &raw mut (*facts).cgroup_kills
            } else {
                &raw mut (*facts).other_kills
            }
        };
        count(counter);
    }
    let key = VictimKey {
        cgroup_id,
        start_time_ns: kill.victim.start_time_ns,
        tgid: kill.victim.tgid,
        signal: kill.signal as u16,
        from_leaf: u16::from(kill.flags & KILL_SENDER_IN_LEAF != 0),
    };
    if unsafe { VICTIMS.get(key) }.is_some() {
        if kill.flags & KILL_BEHIND_ANOTHER != 0 {
            return;
        }
        maps::check(facts, VICTIMS.insert(key, kill, BPF_EXIST.into()));
    } else if has_room(facts, kill) {
        maps::check(facts, VICTIMS.insert(key, kill, BPF_ANY.into()));
    } else {
        count(unsafe { &raw mut (*facts).victims_left_out });
        maps::check(facts, LAST_KILLS.insert(cgroup_id, kill, BPF_ANY.into()));
    }
}
