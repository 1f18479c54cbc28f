//! Every note as it really reads.

mod hands;

use nix::libc::{
    EACCES, EAGAIN, EINVAL, ENOENT, ENOMEM, SIGINT, SIGKILL, SIGSEGV, SIGTERM, SIGXCPU,
};

use crate::attribution::case::{Case, Kill, LEAF, PARENT};
use crate::evidence::{IntentReason, SetupFailureKind};
use crate::limits::Source;

#[track_caller]
fn reads(case: Case, note: &str) {
    assert_eq!(case.record().completion_notes, note);
}

#[test]
fn it_ended_by_itself() {
    reads(Case::named("completed"), "Completed after 3 min 12 s.");
    reads(
        Case::named("completed, with something left").leaves_over(2),
        "Completed after 3 min 12 s. 2 processes that it left behind were killed.",
    );
    reads(
        Case::named("exit code").exits(3),
        "Failed: the main process exited with code 3 after 3 min 12 s.",
    );
    reads(
        Case::named("SIGTERM handled")
            .exits(4)
            .with(Kill::of_main(SIGTERM).by_outsider()),
        "Failed: the main process exited with code 4 after 3 min 12 s. Before that it had handled SIGTERM from outside, sent by earlyoom (pid 900, uid 1000).",
    );
    reads(
        Case::named("denied forks")
            .denying_goes_on()
            .denied_by_leaf(3, 500)
            .exits(1),
        "Failed: the main process exited with code 1 after 3 min 12 s. 3 forks were denied by the limit of 100 processes and threads (default).",
    );
    reads(
        Case::named("crash")
            .dumps_core(SIGSEGV)
            .with(Kill::of_main(SIGSEGV).by_itself().si_code(1)),
        "Died: the main process got SIGSEGV (core dumped) after 3 min 12 s, a crash of its own.",
    );
    reads(
        Case::named("a sibling's kill")
            .dies_of(SIGKILL)
            .with(Kill::of_main(SIGKILL).by_child()),
        "Died: the main process got SIGKILL after 3 min 12 s, sent by python3 (pid 4711, uid 1000), a process of the analysis.",
    );
    reads(
        Case::named("kill -TERM $$")
            .dies_of(SIGTERM)
            .with(Kill::of_main(SIGTERM).by_itself()),
        "Died: the main process got SIGTERM after 3 min 12 s, which it sent to itself.",
    );
    reads(
        Case::named("parent's death")
            .dies_of(SIGTERM)
            .with(Kill::of_main(SIGTERM).by_child().of_dying_parent()),
        "Died: the main process got SIGTERM after 3 min 12 s, having asked for it on the death of its parent python3 (pid 4711, uid 1000).",
    );
    reads(
        Case::named("warned")
            .dies_of(SIGTERM)
            .with(Kill::of_main(SIGTERM).by_runner_without_intent()),
        "Died: the main process got SIGTERM after 3 min 12 s, which sandbox had sent as a warning or passed on.",
    );
    reads(
        Case::named("crash, nobody watching")
            .dies_of(SIGSEGV)
            .inferred(),
        "Died: the main process got SIGSEGV after 3 min 12 s, taken to be its own, though who sent it was not seen.",
    );
}

#[test]
fn memory_ran_out() {
    let child_chosen = || {
        Case::named("group")
            .dies_of(SIGKILL)
            .with(Kill::oom(false, Some(LEAF)).at(10))
            .with(Kill::oom(true, Some(LEAF)).at(11))
            .counts_own_oom()
    };
    reads(
        child_chosen().knows_tree(),
        "Killed: memory limit of 2 GiB (default) reached. The kernel OOM killer killed python3 (pid 4711, a child of bash 4700) at 2.00 GiB; the whole analysis was stopped after 3 min 12 s. Raise it with sandbox.memory.",
    );
    reads(
        child_chosen().memory_limit(64 << 20, Source::CommandLine),
        "Killed: memory limit of 64 MiB (--memory) reached. The kernel OOM killer killed python3 (pid 4711) at 2.00 GiB; the whole analysis was stopped after 3 min 12 s. Raise it with --memory.",
    );
    reads(
        child_chosen().memory_limit(3 << 29, Source::Metadata),
        "Killed: memory limit of 1536 MiB (from its metadata) reached. The kernel OOM killer killed python3 (pid 4711) at 2.00 GiB; the whole analysis was stopped after 3 min 12 s. Raise it with sandbox.memory.",
    );
    reads(
        child_chosen().memory_limit(1 << 30, Source::Host),
        "Killed: memory limit of 1 GiB (the host's default) reached. The kernel OOM killer killed python3 (pid 4711) at 2.00 GiB; the whole analysis was stopped after 3 min 12 s. Raise it with sandbox.memory.",
    );
    reads(
        child_chosen().memory_limit(1 << 30, Source::Ceiling),
        "Killed: memory limit of 1 GiB (the host's ceiling) reached. The kernel OOM killer killed python3 (pid 4711) at 2.00 GiB; the whole analysis was stopped after 3 min 12 s. It is the host's ceiling; only its administrator can raise it.",
    );
    let mut changed = child_chosen();
    changed.evidence.effective.memory_bytes = Some(3 << 30);
    reads(
        changed,
        "Killed: memory limit of 2 GiB, which somebody set from outside while it ran, reached. The kernel OOM killer killed python3 (pid 4711) at 2.00 GiB; the whole analysis was stopped after 3 min 12 s. sandbox had set a memory limit of 3 GiB (default).",
    );
    reads(
        Case::named("one process")
            .oom_takes_processes()
            .dies_of(SIGKILL)
            .with(Kill::oom(true, Some(LEAF)))
            .counts_own_oom(),
        "Killed: memory limit of 2 GiB (default) reached. The kernel OOM killer killed bash (pid 4700) at 2.00 GiB, its main process, after 3 min 12 s. Raise it with sandbox.memory.",
    );
    reads(
        Case::named("nobody watching")
            .dies_of(SIGKILL)
            .inferred()
            .counts_own_oom()
            .counts_oom_kills(1),
        "Killed: memory limit of 2 GiB (default) reached, as far as the cgroup's counters tell. The analysis was stopped after 3 min 12 s. Raise it with sandbox.memory.",
    );
    reads(
        Case::named("ancestor")
            .dies_of(SIGKILL)
            .with(Kill::oom(true, Some(PARENT))),
        "Killed: memory limit of 2 GiB of the enclosing cgroup /sandbox/runs reached. The kernel OOM killer killed bash (pid 4700) at 2.00 GiB; the whole analysis was stopped after 3 min 12 s. Its own memory limit was not what ended it; run it again when there is room.",
    );
    reads(
        Case::named("ancestor with less than the leaf")
            .enclosed_memory(1 << 30)
            .dies_of(SIGKILL)
            .with(Kill::oom(true, Some(PARENT))),
        "Killed: memory limit of 2 GiB of the enclosing cgroup /sandbox/runs reached. The kernel OOM killer killed bash (pid 4700) at 2.00 GiB; the whole analysis was stopped after 3 min 12 s. It can never have more than 1 GiB there, whatever its own limit says; run it where there is more.",
    );
    reads(
        Case::named("ancestor, nobody watching")
            .dies_of(SIGKILL)
            .inferred()
            .counts_parents_oom()
            .counts_oom_kills(1),
        "Killed: memory limit of the enclosing cgroup /sandbox/runs reached, as far as the cgroup's counters tell. The analysis was stopped after 3 min 12 s. Its own memory limit was not what ended it; run it again when there is room.",
    );
    reads(
        Case::named("neither leaf nor ancestor")
            .dies_of(SIGKILL)
            .with(Kill::oom(true, Some(4242))),
        "Killed: out of memory, at a level above the analysis that could not be told. The kernel OOM killer killed bash (pid 4700) at 2.00 GiB; the whole analysis was stopped after 3 min 12 s. Its own memory limit was not what ended it; run it again when there is room.",
    );
    reads(
        Case::named("host")
            .dies_of(SIGKILL)
            .with(Kill::oom(true, None)),
        "Killed: the host ran out of memory. The kernel OOM killer killed bash (pid 4700); the whole analysis was stopped after 3 min 12 s. Its own memory limit was not what ended it; run it again when there is room.",
    );
    reads(
        Case::named("host, nobody watching")
            .dies_of(SIGKILL)
            .inferred()
            .counts_oom_kills(1),
        "Killed: the host ran out of memory, as far as the cgroup's counters tell. The analysis was stopped after 3 min 12 s. Its own memory limit was not what ended it; run it again when there is room.",
    );
    reads(
        Case::named("a child, and the shell says 137")
            .oom_takes_processes()
            .exits(137)
            .with(Kill::oom(false, Some(LEAF)))
            .counts_own_oom()
            .knows_tree(),
        "Failed: the main process exited with code 137 after 3 min 12 s. The kernel OOM killer killed python3 (pid 4711, a child of bash 4700) at 2.00 GiB, the memory limit of 2 GiB (default) being reached. Raise it with sandbox.memory.",
    );
    let mut changed = Case::named("a child, at a limit that somebody set")
        .oom_takes_processes()
        .exits(3)
        .with(Kill::oom(false, Some(LEAF)))
        .counts_own_oom();
    changed.evidence.effective.memory_bytes = Some(3 << 30);
    reads(
        changed,
        "Failed: the main process exited with code 3 after 3 min 12 s. The kernel OOM killer killed python3 (pid 4711) at 2.00 GiB, the memory limit of 2 GiB being reached, which somebody set from outside while it ran.",
    );
    reads(
        Case::named("a child, and main completes")
            .oom_takes_processes()
            .with(Kill::oom(false, None)),
        "Completed after 3 min 12 s. The kernel OOM killer killed python3 (pid 4711), the host being out of memory.",
    );
    reads(
        Case::named("137, nobody watching")
            .exits(137)
            .inferred()
            .counts_own_oom()
            .counts_oom_kills(1),
        "Failed: the main process exited with code 137 after 3 min 12 s. As far as the cgroup's counters tell, the kernel OOM killer killed a child of it at the memory limit of 2 GiB (default). Raise it with sandbox.memory.",
    );
}

#[test]
fn pids_ran_out() {
    let bomb = || {
        Case::named("fork bomb")
            .denied_by_leaf(7, 500)
            .acts(IntentReason::Pids, 501)
            .dies_at(502, SIGKILL)
            .with(Kill::of_main(SIGKILL).by_runner(IntentReason::Pids).at(502))
    };
    reads(
        bomb(),
        "Killed: limit of 100 processes and threads (default) reached, 7 forks were denied; the analysis was stopped after 502 ms. Raise it with sandbox.pids. If it starts a thread for each core, sandbox.thread-env keeps that to the cores it was given.",
    );
    reads(
        bomb().denied_at(1),
        "Killed: limit of 1 processes and threads, which somebody set from outside while it ran, reached, 7 forks were denied; the analysis was stopped after 502 ms. sandbox had set a limit of 100 processes and threads (default).",
    );
    reads(
        bomb().pids_limit(40, Source::CommandLine),
        "Killed: limit of 40 processes and threads (--pids) reached, 7 forks were denied; the analysis was stopped after 502 ms. Raise it with --pids. If it starts a thread for each core, --thread-env keeps that to the cores it was given.",
    );
    reads(
        Case::named("main exits first")
            .denied_by_leaf(1, 500)
            .exits_at(501, 254),
        "Failed: limit of 100 processes and threads (default) reached, a fork was denied; the main process exited with code 254 after 501 ms. Raise it with sandbox.pids. If it starts a thread for each core, sandbox.thread-env keeps that to the cores it was given.",
    );
    reads(
        Case::named("ancestor")
            .denied_by_ancestor(2, 500)
            .acts(IntentReason::PidsAncestor, 501)
            .dies_at(502, SIGKILL),
        "Killed: PID limit of the enclosing cgroup /sandbox/runs reached, 2 forks were denied; the analysis was stopped after 502 ms. Its own limit was not what ended it; run it again when there is room.",
    );
    reads(
        Case::named("nobody watching")
            .inferred()
            .without_pids_events_local()
            .counts_denials(2)
            .exits(1),
        "Failed: limit of 100 processes and threads (default) reached, 2 forks were denied, as far as the cgroup's counters tell; the main process exited with code 1 after 3 min 12 s. Raise it with sandbox.pids. If it starts a thread for each core, sandbox.thread-env keeps that to the cores it was given.",
    );
}

#[test]
fn time_ran_out() {
    let late = || {
        Case::named("deadline")
            .acts(IntentReason::Walltime, 1_800_000)
            .timeout(1800, Source::Default)
    };
    reads(
        late().dies_at(1_800_010, SIGTERM),
        "Killed: wall clock limit of 30 min (default) reached; the analysis ended on SIGTERM after 30 min. Raise it with sandbox.timeout.",
    );
    reads(
        late().leaves_over(2).dies_at(1_800_010, SIGTERM),
        "Killed: wall clock limit of 30 min (default) reached; the analysis ended on SIGTERM after 30 min. Raise it with sandbox.timeout.",
    );
    reads(
        late()
            .timeout(1800, Source::CommandLine)
            .dies_at(1_805_010, SIGKILL),
        "Killed: wall clock limit of 30 min (--timeout) reached; the analysis was killed after 30 min 5 s. Raise it with --timeout.",
    );
    reads(
        late().exits_at(1_801_000, 0),
        "Killed: wall clock limit of 30 min (default) reached; told to end, the main process exited with code 0 after 30 min 1 s. Raise it with sandbox.timeout.",
    );
    let mut frozen = late().dies_at(1_800_010, SIGTERM);
    frozen.evidence.own_actions[0].detail =
        Some("frozen by cgroup.freeze of /sandbox/runs/a".to_owned());
    reads(
        frozen,
        "Killed: wall clock limit of 30 min (default) reached; the analysis ended on SIGTERM after 30 min. At its deadline: frozen by cgroup.freeze of /sandbox/runs/a. Raise it with sandbox.timeout.",
    );
    let cpu = |source| {
        Case::named("budget")
            .acts(IntentReason::Cputime, 60_000)
            .cpu_time(60, source)
            .dies_at(60_010, SIGKILL)
    };
    reads(
        cpu(Source::Metadata),
        "Killed: CPU time limit of 1 min (from its metadata) used up; the analysis was killed after 1 min. Raise it with sandbox.cpu-time.",
    );
    reads(
        Case::named("RLIMIT_CPU, soft")
            .dies_at(1_200, SIGXCPU)
            .rlimit_cpu(1, 2)
            .with(Kill::of_main(SIGXCPU).by_itself().by_kernel().at(1_100)),
        "Killed: RLIMIT_CPU of 1 s used up; the main process got SIGXCPU from the kernel after 1.2 s. Raise it with ulimit -t where sandbox is called.",
    );
    reads(
        Case::named("RLIMIT_CPU of its own")
            .dies_at(1_200, SIGKILL)
            .with(
                Kill::of_main(SIGKILL)
                    .by_itself()
                    .by_kernel()
                    .of_cpu_limit(1)
                    .at(1_100),
            ),
        "Killed: RLIMIT_CPU of 1 s used up; the main process got SIGKILL from the kernel after 1.2 s. It did not start with one: the analysis set it, or somebody did.",
    );
    reads(
        Case::named("RLIMIT_CPU, lowered")
            .dies_at(1_200, SIGXCPU)
            .rlimit_cpu(1000, 1000)
            .with(
                Kill::of_main(SIGXCPU)
                    .by_itself()
                    .by_kernel()
                    .of_cpu_limit(1)
                    .at(1_100),
            ),
        "Killed: RLIMIT_CPU of 1 s used up; the main process got SIGXCPU from the kernel after 1.2 s. That is less than it started with: the analysis lowered it, or somebody did.",
    );
}

#[test]
fn somebody_had_the_kernel_kill_it() {
    reads(
        Case::named("sysrq f")
            .dies_of(SIGKILL)
            .with(Kill::oom(true, None).triggered_from_outside().demanded()),
        "Killed from outside after 3 min 12 s: the main process got SIGKILL of the OOM killer, which somebody had asked to kill the largest process (sysrq f). Neither sandbox nor a limit of the analysis ended it.",
    );
}

#[test]
fn somebody_else_ended_it() {
    let outside = |kill: Kill| Case::named("outside").dies_of(SIGKILL).with(kill);
    reads(
        outside(Kill::of_main(SIGKILL).by_outsider()),
        "Killed from outside after 3 min 12 s: the main process got SIGKILL from earlyoom (pid 900, uid 1000). Neither sandbox nor a limit of the analysis ended it.",
    );
    reads(
        outside(Kill::of_main(SIGKILL).by_outsider().via_cgroup_kill(LEAF)),
        "Killed from outside after 3 min 12 s: the main process got SIGKILL by cgroup.kill of /sandbox/runs/r1, written by earlyoom (pid 900, uid 1000). Neither sandbox nor a limit of the analysis ended it.",
    );
    reads(
        outside(Kill::of_main(SIGKILL).by_outsider().via_cgroup_kill(PARENT)),
        "Killed from outside after 3 min 12 s: the main process got SIGKILL by cgroup.kill of /sandbox/runs, written by earlyoom (pid 900, uid 1000). Neither sandbox nor a limit of the analysis ended it.",
    );
    reads(
        outside(
            Kill::of_main(SIGKILL)
                .by_runner_without_intent()
                .via_cgroup_kill(LEAF),
        ),
        "Killed from outside after 3 min 12 s: the main process got SIGKILL by cgroup.kill of /sandbox/runs/r1, written by sandbox. As concluded: sandbox wrote cgroup.kill and no intent of it is on record.",
    );
    reads(
        Case::named("SIGTERM, nobody watching")
            .dies_of(SIGTERM)
            .inferred(),
        "Killed from outside after 3 min 12 s: the main process got SIGTERM from a sender that was not seen. As concluded: who sent the signal is not known; a program seldom ends itself by it, so it is taken to be from outside.",
    );
    reads(
        outside(Kill::of_main(SIGKILL).by_kernel()),
        "Killed from outside after 3 min 12 s: the main process got SIGKILL from the kernel (a terminal, the end of a PID namespace, sysrq). Neither sandbox nor a limit of the analysis ended it.",
    );
    reads(
        Case::named("nobody watching").dies_of(SIGKILL).inferred(),
        "Killed from outside after 3 min 12 s: the main process got SIGKILL from a sender that was not seen. As concluded: a SIGKILL that sandbox did not send, with no OOM kill counted, is taken to be from outside.",
    );
    reads(
        Case::named("Ctrl-C")
            .acts_on(IntentReason::Cancelled, 900, SIGINT)
            .dies_at(901, SIGTERM),
        "Cancelled after 901 ms: sandbox got SIGINT.",
    );
    let mut asked = Case::named("asked for")
        .acts(IntentReason::Cancelled, 900)
        .dies_at(901, SIGTERM);
    asked.evidence.own_actions[0].detail =
        Some("sandbox kill by ada: wrong \u{202e}input\n".to_owned());
    reads(
        asked,
        "Cancelled after 901 ms: sandbox kill by ada: wrong \\u{202e}input\\n.",
    );
    reads(
        Case::named("escaped")
            .loses("evil name\x1b[2J'", 100)
            .acts(IntentReason::Escaped, 101)
            .dies_at(102, SIGKILL),
        "Stopped after 102 ms: 'evil name\\x1b[2J\\'' (pid 4712) left the analysis's cgroup for /user.slice/user-1000.slice and was killed all the same.",
    );
    reads(
        Case::named("guardian")
            .acts(IntentReason::RunnerLost, 700)
            .dies_at(701, SIGKILL),
        "Lost: sandbox died under the analysis, which was stopped after 701 ms.",
    );
    reads(
        Case::named("asked to die with it").dies_of(SIGKILL).with(
            Kill::of_main(SIGKILL)
                .by_runner_without_intent()
                .of_dying_parent(),
        ),
        "Lost: sandbox died under the analysis, which had asked to get SIGKILL then, and got it after 3 min 12 s.",
    );
    reads(
        Case::named("unseen").unseen_end(),
        "Lost: nobody was there when the analysis ended; how it ended is not known.",
    );
}

#[test]
fn it_never_started() {
    use SetupFailureKind::{CommandNotExecutable, CommandNotFound, Other, OutOfMemory, OutOfPids};
    for (step, errno, kind, note) in [
        (
            "execve /no/such",
            ENOENT,
            CommandNotFound,
            "Not started: execve /no/such: command not found.",
        ),
        (
            "execve /etc/passwd",
            EACCES,
            CommandNotExecutable,
            "Not started: execve /etc/passwd: cannot be executed (Permission denied).",
        ),
        (
            "execve /bin/true",
            ENOMEM,
            OutOfMemory,
            "Not started: out of memory at execve /bin/true, under the memory limit of 2 GiB (default). Raise it with sandbox.memory.",
        ),
        (
            "clone3",
            EAGAIN,
            OutOfPids,
            "Not started: out of PIDs at clone3, under the limit of 100 processes and threads (default) or one above it.",
        ),
        (
            "mount tmpfs on /dev/shm",
            EINVAL,
            Other,
            "Not started: mount tmpfs on /dev/shm failed (Invalid argument).",
        ),
    ] {
        reads(
            Case::named("setup")
                .fails_setup(step, errno, kind)
                .without_main(),
            note,
        );
    }
    let long = format!("{}: use --user NAME", "it cannot be done ".repeat(15));
    reads(
        Case::named("long")
            .fails_setup(&long, EINVAL, Other)
            .without_main(),
        &format!("Not started: {long} failed (Invalid argument)."),
    );
    reads(
        Case::named("OOM before exec")
            .never_executes()
            .dies_at(1, SIGKILL)
            .with(Kill::oom(true, Some(LEAF)).at(0)),
        "Not started: the kernel OOM killer killed it before its exec, the memory limit of 2 GiB (default) being reached.",
    );
    reads(
        Case::named("killed before exec")
            .never_executes()
            .dies_at(1, SIGKILL)
            .with(Kill::of_main(SIGKILL).by_outsider().at(0)),
        "Not started: SIGKILL from earlyoom (pid 900, uid 1000) killed it before its exec.",
    );
    reads(
        Case::named("nothing").never_executes().without_main(),
        "Not started: its exec was never seen.",
    );
}

#[test]
fn names_that_the_analysis_chose_are_made_safe() {
    reads(
        Case::named("odd names")
            .dies_of(SIGKILL)
            .with(Kill::oom(false, Some(LEAF)).at(10).named("a b'\u{202e}\n"))
            .with(Kill::oom(true, Some(LEAF)).at(11)),
        "Killed: memory limit of 2 GiB (default) reached. The kernel OOM killer killed 'a b\\'\\u{202e}\\n' (pid 4711) at 2.00 GiB; the whole analysis was stopped after 3 min 12 s. Raise it with sandbox.memory.",
    );
}
