//! Which programs make up a mode, and what the loss of a run of one would mean.

use crate::evidence::Confidence;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attach {
    /// A tracepoint with typed arguments.
    TpBtf,
    /// The entry of a kernel function.
    Fentry,
    /// The return of a kernel function.
    Fexit,
}

/// One program of the object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    /// Its name in the object.
    pub name: &'static str,
    /// Tracepoint or kernel function.
    pub hook: &'static str,
    /// How it is attached.
    pub attach: Attach,
    /// Whether a verdict rests on it, so that a missed run lowers the confidence; the others only
    /// add detail.
    pub verdict: bool,
}

const fn program(name: &'static str, hook: &'static str, attach: Attach, verdict: bool) -> Program {
    Program {
        name,
        hook,
        attach,
        verdict,
    }
}

const SIGNAL: Program = program("signal_generate", "signal_generate", Attach::TpBtf, true);
const EXEC: Program = program("exec", "sched_process_exec", Attach::TpBtf, false);

const EXACT: &[Program] = &[
    program("move_task", "css_set_move_task", Attach::Fentry, true),
    program("oom_begin", "oom_kill_process", Attach::Fentry, true),
    program("oom_end", "oom_kill_process", Attach::Fexit, true),
    program(
        "cgroup_kill_begin",
        "cgroup_kill_write",
        Attach::Fentry,
        true,
    ),
    program("cgroup_kill_end", "cgroup_kill_write", Attach::Fexit, true),
    program("fork_denied", "pids_can_fork", Attach::Fexit, false),
    program("inject", "ptrace_request", Attach::Fentry, true),
    SIGNAL,
    EXEC,
];

const STRONG: &[Program] = &[
    program("wakeup_new", "sched_wakeup_new", Attach::TpBtf, true),
    program("exit", "sched_process_exit", Attach::TpBtf, true),
    program("attach_task", "cgroup_attach_task", Attach::TpBtf, true),
    SIGNAL,
    EXEC,
];

/// The programs of a mode; `inferred` has none.
pub(super) const fn of(mode: Confidence) -> &'static [Program] {
    match mode {
        Confidence::Exact => EXACT,
        Confidence::Strong => STRONG,
        Confidence::Inferred => &[],
    }
}
