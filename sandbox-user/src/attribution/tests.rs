//! Every ending as a row: what happened, and the verdict on it.

use nix::libc::{
    ENOENT, ENOMEM, SIGABRT, SIGALRM, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGQUIT, SIGSEGV, SIGSYS,
    SIGTERM, SIGUSR1, SIGXCPU, SIGXFSZ,
};

use super::case::{Case, Kill, LEAF, PARENT};
use crate::evidence::{Confidence, Delivery, IntentReason, SetupFailureKind, WaitStatus};
use crate::record::{Finding, KillCause, LimitKind, OomLevel, Reason, RetryHint, SenderKind};

#[test]
fn main_ends_by_itself() {
    Case::named("exit 0")
        .expect(Reason::Completed)
        .surely()
        .hint(RetryHint::None);
    Case::named("exit 3")
        .exits(3)
        .expect(Reason::ExitCode)
        .surely()
        .hint(RetryHint::None);
    Case::named("the job's own 127")
        .exits(127)
        .expect(Reason::ExitCode)
        .surely();
    Case::named("a crash close to the limit that is no OOM")
        .dumps_core(SIGSEGV)
        .with(
            Kill::of_main(SIGSEGV)
                .by_itself()
                .si_code(1)
                .at_one_thread(),
        )
        .expect(Reason::Signal)
        .surely()
        .hint(RetryHint::None)
        .systemd(Some("core-dump"));
    Case::named("abort")
        .dies_of(SIGABRT)
        .with(Kill::of_main(SIGABRT).by_itself().at_one_thread())
        .expect(Reason::Signal)
        .surely()
        .systemd(Some("signal"));
    for signal in [SIGPIPE, SIGXFSZ] {
        let kill = Kill::of_main(signal)
            .by_itself()
            .without_siginfo()
            .at_one_thread();
        let outcome = Case::named("send_sig to itself").dies_of(signal).with(kill);
        let outcome = outcome.expect(Reason::Signal).surely();
        assert_eq!(outcome.attribution.kills[0].cause, KillCause::Kernel);
    }
    Case::named("alarm(2), while a stranger was running")
        .dies_of(SIGALRM)
        .with(Kill::of_main(SIGALRM).by_outsider().by_kernel())
        .expect(Reason::Signal)
        .surely();
    Case::named("timer_create, while a stranger was running")
        .dies_of(SIGUSR1)
        .with(Kill::of_main(SIGUSR1).by_outsider().si_code(-2))
        .expect(Reason::Signal)
        .surely();
    Case::named("seccomp, which generates no signal")
        .dies_of(SIGSYS)
        .expect(Reason::Signal)
        .surely()
        .rests_on("seccomp");
    Case::named("strict seccomp, which generates no signal either")
        .dies_of(SIGKILL)
        .expect(Reason::Signal)
        .confidence(Confidence::Strong)
        .rests_on("strict seccomp");
    Case::named("a child's kill -9")
        .dies_of(SIGKILL)
        .with(Kill::of_main(SIGKILL).by_child())
        .expect(Reason::Signal)
        .surely();
    Case::named("its own kill -TERM $$ on 7.x")
        .dies_of(SIGTERM)
        .with(Kill::of_main(SIGTERM).by_itself().without_siginfo())
        .expect(Reason::Signal)
        .surely();
    Case::named("PDEATHSIG of a parent in the run")
        .dies_of(SIGKILL)
        .with(Kill::of_main(SIGKILL).by_child().of_dying_parent())
        .expect(Reason::Signal)
        .surely();
    Case::named("the end of a PID namespace that it made")
        .dies_of(SIGKILL)
        .with(Kill::of_main(SIGKILL).by_child().by_kernel())
        .expect(Reason::Signal)
        .surely();
    Case::named("a warning that it does not survive")
        .dies_of(SIGUSR1)
        .with(Kill::of_main(SIGUSR1).by_runner_without_intent())
        .expect(Reason::Signal)
        .surely();
}

#[test]
fn memory_runs_out() {
    Case::named("own limit")
        .dies_of(SIGKILL)
        .with(Kill::oom(true, Some(LEAF)))
        .counts_own_oom()
        .expect(Reason::Memory)
        .surely()
        .hint(RetryHint::MoreMemory)
        .systemd(Some("oom-kill"));
    let outcome = Case::named("own limit, a child chosen, the group goes, counted three times")
        .dies_of(SIGKILL)
        .with(Kill::oom(false, Some(LEAF)).at(10))
        .with(Kill::oom(true, Some(LEAF)).at(11))
        .counts_own_oom()
        .counts_oom_kills(1)
        .expect(Reason::Memory)
        .surely();
    let hit = &outcome.attribution.limits_hit[0];
    assert_eq!(
        (hit.limit, hit.count, hit.fatal),
        (LimitKind::Memory, Some(1), true)
    );
    let outcome = Case::named("an ancestor's limit, asked for by a neighbour")
        .dies_of(SIGKILL)
        .with(Kill::oom(true, Some(PARENT)).triggered_from_outside())
        .counts_parents_oom()
        .expect(Reason::MemoryAncestor)
        .surely()
        .hint(RetryHint::Same);
    let oom = outcome.attribution.kills[0].oom.clone();
    let oom = oom.expect("an OOM");
    assert_eq!(oom.scope, Some(OomLevel::Ancestor));
    assert_eq!(oom.cgroup.as_deref(), Some("/sandbox/runs"));
    assert_eq!(oom.trigger_pid, Some(901));
    Case::named("the host's memory")
        .dies_of(SIGKILL)
        .with(Kill::oom(true, None).triggered_from_outside())
        .expect(Reason::HostOom)
        .surely()
        .hint(RetryHint::Same);
    let outcome = Case::named("a cgroup that is neither leaf nor ancestor")
        .dies_of(SIGKILL)
        .with(Kill::oom(true, Some(4242)))
        .expect(Reason::MemoryAncestor)
        .confidence(Confidence::Inferred)
        .degraded("4242");
    assert_eq!(
        outcome.attribution.kills[0]
            .oom
            .as_ref()
            .and_then(|oom| oom.scope),
        None
    );
}

#[test]
fn an_oom_kill_that_was_not_marked_is_none_from_outside() {
    let strong = Confidence::Strong;
    let missed = |name, kill: Kill| Case::named(name).dies_of(SIGKILL).with(kill);
    let by_itself = || Kill::of_main(SIGKILL).by_itself().by_kernel();
    let by_neighbour = || by_itself().triggered_from_outside();
    missed("own limit, asked for by main", by_itself())
        .counts_own_oom()
        .counts_oom_kills(1)
        .expect(Reason::Memory)
        .confidence(strong)
        .hint(RetryHint::MoreMemory)
        .rests_on("memory.events.local rose by 1");
    missed("an ancestor's, asked for by a neighbour", by_neighbour())
        .counts_parents_oom()
        .counts_oom_kills(1)
        .expect(Reason::MemoryAncestor)
        .confidence(strong);
    missed("the host's", by_neighbour())
        .counts_oom_kills(1)
        .expect(Reason::HostOom)
        .confidence(strong);
    missed("main's after a child's that was marked", by_itself().at(20))
        .oom_takes_processes()
        .with(Kill::oom(false, Some(LEAF)).at(10))
        .counts_own_oom()
        .counts_oom_kills(1)
        .expect(Reason::Memory)
        .confidence(strong);
    missed("RLIMIT_CPU or memory", by_itself())
        .rlimit_cpu(1, 1)
        .counts_own_oom()
        .counts_oom_kills(1)
        .expect(Reason::Memory)
        .confidence(Confidence::Inferred)
        .degraded("look alike");
    Case::named("a child's that was marked, then RLIMIT_CPU")
        .dies_of(SIGKILL)
        .rlimit_cpu(1, 1)
        .oom_takes_processes()
        .with(Kill::oom(false, Some(LEAF)).at(10))
        .with(by_itself().at(20))
        .counts_own_oom()
        .expect(Reason::Cputime)
        .surely();
    missed("a kill(2) beside it", Kill::of_main(SIGKILL).by_outsider())
        .counts_own_oom()
        .counts_oom_kills(1)
        .expect(Reason::ExternalKill)
        .confidence(strong);
}

#[test]
fn whether_a_group_was_killed_is_as_the_kernel_counted() {
    let group = |case: Case| {
        let outcome = case.expect(Reason::Memory);
        let oom = outcome.attribution.kills[0].oom.clone();
        oom.expect("an OOM kill").group
    };
    let oom = |name| {
        Case::named(name)
            .dies_of(SIGKILL)
            .with(Kill::oom(true, Some(LEAF)))
            .counts_own_oom()
    };
    assert!(group(oom("a group")));
    assert!(!group(
        oom("somebody took memory.oom.group back").counts_group_kills(0)
    ));
}

#[test]
fn a_child_dies_of_memory_and_main_does_not() {
    let child_oom = |name| {
        Case::named(name)
            .oom_takes_processes()
            .with(Kill::oom(false, Some(LEAF)))
            .counts_own_oom()
    };
    child_oom("a shell that reports its killed child")
        .exits(137)
        .expect(Reason::ExitCode)
        .surely()
        .hint(RetryHint::MoreMemory)
        .rests_on("took another member");
    let outcome = child_oom("a main process that does not mind")
        .expect(Reason::Completed)
        .surely();
    assert_eq!(outcome.attribution.retry_hint, RetryHint::None);
    let hit = &outcome.attribution.limits_hit[0];
    assert_eq!((hit.limit, hit.fatal), (LimitKind::Memory, false));
    child_oom("an unrelated SIGTERM later")
        .dies_of(SIGTERM)
        .with(Kill::of_main(SIGTERM).by_outsider().at(9_000))
        .expect(Reason::ExternalKill)
        .surely()
        .hint(RetryHint::Same)
        .systemd(Some("success"));
    Case::named("a child of the host's OOM, then exit 1")
        .exits(1)
        .with(Kill::oom(false, None))
        .expect(Reason::ExitCode)
        .hint(RetryHint::None);
}

#[test]
fn somebody_else_kills_it() {
    for (name, kill) in [
        ("kill -9", Kill::of_main(SIGKILL).by_outsider()),
        (
            "kill -9 on 7.x",
            Kill::of_main(SIGKILL).by_outsider().without_siginfo(),
        ),
        (
            "PTRACE_KILL",
            Kill::of_main(SIGKILL)
                .by_outsider()
                .without_siginfo()
                .at_one_thread(),
        ),
        (
            "a tracer that lets it go on with SIGKILL",
            Kill::of_main(SIGKILL).by_outsider().injected(),
        ),
        (
            "cgroup.kill",
            Kill::of_main(SIGKILL).by_outsider().via_cgroup_kill(LEAF),
        ),
        (
            "cgroup.kill above",
            Kill::of_main(SIGKILL).by_outsider().via_cgroup_kill(PARENT),
        ),
        (
            "the end of a PID namespace around it",
            Kill::of_main(SIGKILL).by_kernel(),
        ),
    ] {
        Case::named(name)
            .dies_of(SIGKILL)
            .with(kill)
            .expect(Reason::ExternalKill)
            .surely()
            .systemd(Some("signal"));
    }
    Case::named("cgroup.kill above, named")
        .dies_of(SIGKILL)
        .with(Kill::of_main(SIGKILL).by_outsider().via_cgroup_kill(PARENT))
        .expect(Reason::ExternalKill)
        .rests_on("cgroup.kill of /sandbox/runs");
    Case::named("SIGTERM from outside")
        .dies_of(SIGTERM)
        .with(Kill::of_main(SIGTERM).by_outsider())
        .expect(Reason::ExternalKill)
        .surely()
        .systemd(Some("success"));
    let outcome = Case::named("SIGTERM from outside, handled")
        .exits(4)
        .with(Kill::of_main(SIGTERM).by_outsider())
        .expect(Reason::ExitCode)
        .surely()
        .rests_on("handled kills[0]");
    assert_eq!(outcome.attribution.kills[0].delivered, Some(true));
    Case::named("signals after the fatal one")
        .dies_at(6_000, SIGTERM)
        .with(Kill::of_main(SIGTERM).by_outsider().at(5_000))
        .with(
            Kill::of_main(SIGKILL)
                .by_child()
                .at(5_001)
                .undelivered(Delivery::Ignored),
        )
        .with(
            Kill::of_main(SIGTERM)
                .by_child()
                .at(5_002)
                .undelivered(Delivery::AlreadyPending),
        )
        .with(Kill::of_main(SIGTERM).by_child().at(7_000))
        .expect(Reason::ExternalKill)
        .surely();
    let to_its_thread = |name| {
        Case::named(name)
            .dies_at(6_000, SIGQUIT)
            .with(Kill::of_main(SIGQUIT).by_outsider().at_one_thread().at(10))
            .with(Kill::of_main(SIGQUIT).by_child().behind_another().at(20))
    };
    let outcome = to_its_thread("a stopped main, one signal to its thread, then one to all of it")
        .expect(Reason::ExternalKill)
        .surely()
        .rests_on("the fatal signal is kills[0]");
    let handled = |finding: &Finding| matches!(finding, Finding::HandledSignal { .. });
    assert!(!outcome.attribution.evidence.iter().any(handled));
    let mut case = to_its_thread("the same, with threads that may have taken either");
    let facts = case.evidence.facts.as_mut().expect("it is watched");
    facts.threads = 1;
    facts.exits += 1;
    case.expect(Reason::ExternalKill)
        .confidence(Confidence::Strong)
        .degraded("which of its threads took which");
    Case::named("a SIGSEGV that it handled, one sent later")
        .dies_of(SIGSEGV)
        .with(Kill::of_main(SIGSEGV).by_itself().si_code(1).at(10))
        .with(Kill::of_main(SIGSEGV).by_outsider().at(20))
        .expect(Reason::ExternalKill);
    Case::named("its own intent, somebody else's kill before it")
        .dies_at(9_000, SIGKILL)
        .with(Kill::of_main(SIGKILL).by_outsider().at(8_000))
        .acts(IntentReason::Walltime, 8_500)
        .expect(Reason::ExternalKill);
    let outcome = Case::named("cgroup.kill by the runner that nobody meant")
        .dies_of(SIGKILL)
        .with(
            Kill::of_main(SIGKILL)
                .by_runner_without_intent()
                .via_cgroup_kill(LEAF),
        )
        .expect(Reason::ExternalKill)
        .confidence(Confidence::Inferred);
    let sender = outcome.attribution.kills[0].sender.clone();
    assert_eq!(sender.map(|sender| sender.kind), Some(SenderKind::Runner));
}

#[test]
fn main_handles_a_signal_from_outside_and_passes_it_on_to_itself() {
    let handled = |name, kill: Kill| {
        Case::named(name)
            .dies_at(5_003, SIGTERM)
            .with(kill.at(5_000))
            .with(Kill::of_main(SIGTERM).by_itself().at(5_002))
    };
    let outsiders = || Kill::of_main(SIGTERM).by_outsider();
    let outcome = handled("kill -TERM $$ in a trap", outsiders())
        .expect(Reason::ExternalKill)
        .surely()
        .rests_on("the fatal signal is kills[0]")
        .rests_on("kills[1] is how the main process passed kills[0] on");
    let kills = &outcome.attribution.kills;
    assert_eq!(kills.len(), 2, "both are told");
    let sender = kills[0].sender.clone().expect("a sender");
    assert_eq!(sender.comm.as_deref(), Some("earlyoom"));
    handled("the same on 7.x", outsiders().without_siginfo()).expect(Reason::ExternalKill);
    handled(
        "the deadline",
        Kill::of_main(SIGTERM).by_runner(IntentReason::Walltime),
    )
    .acts(IntentReason::Walltime, 4_999)
    .expect(Reason::Walltime)
    .surely();
    handled(
        "a warning",
        Kill::of_main(SIGTERM).by_runner_without_intent(),
    )
    .expect(Reason::Signal);
    handled("a child's", Kill::of_main(SIGTERM).by_child())
        .expect(Reason::Signal)
        .surely();
    handled("from outside, then the deadline", outsiders().at(100))
        .with(
            Kill::of_main(SIGTERM)
                .by_runner(IntentReason::Walltime)
                .at(5_001),
        )
        .acts(IntentReason::Walltime, 5_000)
        .expect(Reason::Walltime);
    handled("a child's after it", outsiders())
        .with(Kill::of_main(SIGTERM).by_child().at(5_001))
        .expect(Reason::ExternalKill);
    Case::named("another signal from outside")
        .dies_of(SIGTERM)
        .with(Kill::of_main(SIGINT).by_outsider().at(10))
        .with(Kill::of_main(SIGTERM).by_itself().at(20))
        .expect(Reason::Signal);
    Case::named("one from outside, another from a child that it dies of")
        .dies_of(SIGTERM)
        .with(Kill::of_main(SIGTERM).by_outsider().at(10))
        .with(Kill::of_main(SIGTERM).by_child().at(20))
        .expect(Reason::Signal);
    Case::named("the terminal's Ctrl-C, and sandbox did not mind")
        .dies_of(SIGINT)
        .with(Kill::of_main(SIGINT).by_kernel().at(10))
        .with(Kill::of_main(SIGINT).by_itself().at_one_thread().at(20))
        .expect(Reason::ExternalKill);
}

#[test]
fn time_runs_out() {
    let deadline = |name| Case::named(name).acts(IntentReason::Walltime, 60_000);
    let term = || {
        Kill::of_main(SIGTERM)
            .by_runner(IntentReason::Walltime)
            .at(60_001)
    };
    let kill = || {
        Kill::of_main(SIGKILL)
            .by_runner(IntentReason::Walltime)
            .via_cgroup_kill(LEAF)
            .at(65_000)
    };
    deadline("dies of SIGTERM at the deadline")
        .dies_at(60_002, SIGTERM)
        .with(term())
        .expect(Reason::Walltime)
        .surely()
        .hint(RetryHint::MoreTime);
    deadline("ignores SIGTERM, is stopped, spins")
        .dies_at(65_001, SIGKILL)
        .with(term())
        .with(kill())
        .expect(Reason::Walltime)
        .surely();
    deadline("exits 0 within the grace")
        .exits_at(61_000, 0)
        .with(term())
        .expect(Reason::Walltime);
    deadline("crashes within the grace")
        .dies_at(61_000, SIGSEGV)
        .with(term())
        .with(Kill::of_main(SIGSEGV).by_itself().si_code(1).at(60_900))
        .expect(Reason::Walltime);
    deadline("runs out of memory within the grace")
        .dies_at(61_000, SIGKILL)
        .with(term())
        .with(Kill::oom(true, Some(LEAF)).at(60_900))
        .counts_own_oom()
        .expect(Reason::Walltime);
    deadline("exits just before the deadline")
        .exits_at(59_999, 0)
        .expect(Reason::Completed);
    deadline("exits at the very deadline")
        .exits_at(60_000, 1)
        .expect(Reason::ExitCode);
    deadline("is OOM-killed before the deadline and takes its time to die")
        .dies_at(60_300, SIGKILL)
        .with(Kill::oom(true, Some(LEAF)).at(59_990))
        .with(kill().at(60_100).undelivered(Delivery::Ignored))
        .counts_own_oom()
        .expect(Reason::Memory)
        .surely();
    deadline("Ctrl-C within the grace")
        .acts_on(IntentReason::Cancelled, 61_000, SIGINT)
        .dies_at(61_001, SIGKILL)
        .with(
            Kill::of_main(SIGKILL)
                .by_runner(IntentReason::Cancelled)
                .at(61_000),
        )
        .expect(Reason::Walltime);
    Case::named("an intent that only the kernel side remembers")
        .dies_at(65_001, SIGKILL)
        .with(kill())
        .expect(Reason::Walltime)
        .surely();
    Case::named("clearing up after main")
        .exits_at(100, 0)
        .acts(IntentReason::LeftOver, 101)
        .with(
            Kill::of_child(SIGKILL)
                .by_runner(IntentReason::LeftOver)
                .at(102),
        )
        .expect(Reason::Completed)
        .surely();
}

#[test]
fn cpu_time_runs_out() {
    Case::named("the budget of the leaf")
        .dies_at(60_001, SIGKILL)
        .acts(IntentReason::Cputime, 60_000)
        .with(
            Kill::of_main(SIGKILL)
                .by_runner(IntentReason::Cputime)
                .at(60_001),
        )
        .expect(Reason::Cputime)
        .surely()
        .hint(RetryHint::MoreTime);
    Case::named("RLIMIT_CPU, soft")
        .dies_of(SIGXCPU)
        .rlimit_cpu(1, 2)
        .with(Kill::of_main(SIGXCPU).by_itself().by_kernel())
        .expect(Reason::Cputime)
        .surely()
        .rests_on("soft 1 s");
    let hard = |name| {
        Case::named(name)
            .dies_of(SIGKILL)
            .rlimit_cpu(1, 1)
            .with(Kill::of_main(SIGKILL).by_itself().by_kernel())
    };
    hard("RLIMIT_CPU, hard").expect(Reason::Cputime).surely();
    hard("RLIMIT_CPU, hard, without fentry")
        .strong()
        .expect(Reason::Cputime)
        .confidence(Confidence::Strong);
    Case::named("SIGXCPU by hand")
        .dies_of(SIGXCPU)
        .with(Kill::of_main(SIGXCPU).by_outsider())
        .expect(Reason::ExternalKill);
    Case::named("SIGXCPU, nobody watching")
        .dies_of(SIGXCPU)
        .rlimit_cpu(1, 2)
        .inferred()
        .expect(Reason::Cputime)
        .confidence(Confidence::Inferred);
}

#[test]
fn forks_are_denied() {
    Case::named("a fork bomb")
        .denied_by_leaf(7, 500)
        .acts(IntentReason::Pids, 501)
        .dies_at(502, SIGKILL)
        .with(Kill::of_main(SIGKILL).by_runner(IntentReason::Pids).at(502))
        .expect(Reason::Pids)
        .surely()
        .hint(RetryHint::MorePids);
    Case::named("main exits by itself first")
        .denied_by_leaf(1, 500)
        .exits_at(501, 254)
        .expect(Reason::Pids)
        .surely();
    Case::named("main exits 0 all the same, only the counter saw")
        .counts_denials(1)
        .exits(0)
        .expect(Reason::Pids);
    Case::named("what main left behind is denied")
        .denied_by_leaf(1, 502)
        .exits_at(501, 0)
        .expect(Reason::Completed);
    Case::named("denied after the OOM kill")
        .denied_by_leaf(1, 600)
        .dies_at(700, SIGKILL)
        .with(Kill::oom(true, Some(LEAF)).at(500))
        .counts_own_oom()
        .expect(Reason::Memory);
    let outcome = Case::named("deny")
        .denying_goes_on()
        .denied_by_leaf(3, 500)
        .exits(1)
        .expect(Reason::ExitCode)
        .surely()
        .hint(RetryHint::None)
        .rests_on("3 forks denied");
    let hit = &outcome.attribution.limits_hit[0];
    assert_eq!(
        (hit.limit, hit.count, hit.fatal),
        (LimitKind::Pids, Some(3), false)
    );
    Case::named("an ancestor's limit")
        .denied_by_ancestor(2, 500)
        .acts(IntentReason::PidsAncestor, 501)
        .dies_at(502, SIGKILL)
        .with(
            Kill::of_main(SIGKILL)
                .by_runner(IntentReason::PidsAncestor)
                .at(502),
        )
        .expect(Reason::PidsAncestor)
        .surely()
        .hint(RetryHint::Same)
        .rests_on("/sandbox/runs");
    Case::named("an ancestor's on 6.1, counted in the leaf, taken for its own at first")
        .without_pids_events_local()
        .denied_by_ancestor(2, 500)
        .counts_denials(2)
        .acts(IntentReason::Pids, 501)
        .dies_at(502, SIGKILL)
        .with(Kill::of_main(SIGKILL).by_runner(IntentReason::Pids).at(502))
        .expect(Reason::PidsAncestor)
        .rests_on("pids_ancestor");
    for inferred in [true, false] {
        let mut case =
            Case::named("6.12, without fentry: denied above, maybe somebody else").exits(1);
        case = if inferred {
            case.inferred()
        } else {
            case.strong()
        };
        case.parent_counts_denials(2)
            .expect(Reason::ExitCode)
            .confidence(Confidence::Inferred)
            .degraded("pids.max of /sandbox/runs");
    }
    Case::named("6.1, nobody watching, no limit above")
        .inferred()
        .without_pids_events_local()
        .counts_denials(2)
        .exits(1)
        .expect(Reason::Pids);
    Case::named("6.1, nobody watching, a tighter limit above")
        .inferred()
        .without_pids_events_local()
        .enclosed_pids(50)
        .counts_denials(2)
        .exits(1)
        .expect(Reason::PidsAncestor)
        .confidence(Confidence::Inferred)
        .degraded("concluded");
}

#[test]
fn what_looks_like_the_analysiss_own_and_is_not() {
    for si_code in [-2, -3] {
        Case::named("a timer's or a queue's si_code, claimed by who sent it")
            .dies_of(SIGTERM)
            .with(
                Kill::of_main(SIGTERM)
                    .by_outsider()
                    .si_code(si_code)
                    .by_sigqueue(),
            )
            .expect(Reason::ExternalKill)
            .surely();
        Case::named("a timer of its own, and somebody was interrupted")
            .dies_of(SIGTERM)
            .with(Kill::of_main(SIGTERM).by_outsider().si_code(si_code))
            .expect(Reason::Signal)
            .surely();
    }
    let by_child = || {
        Case::named("killed from within, where somebody has moved in")
            .dies_of(SIGKILL)
            .with(Kill::of_main(SIGKILL).by_child())
    };
    by_child().expect(Reason::Signal).surely();
    let mut joined = by_child();
    let facts = joined.evidence.facts.as_mut().expect("facts");
    (facts.joined, facts.exits) = (1, facts.exits + 1);
    joined
        .expect(Reason::Signal)
        .confidence(Confidence::Strong)
        .degraded("moved into the run");
    Case::named("sysrq f")
        .dies_of(SIGKILL)
        .with(Kill::oom(true, None).triggered_from_outside().demanded())
        .expect(Reason::ExternalKill);
}

#[test]
fn it_is_cancelled() {
    Case::named("Ctrl-C")
        .acts_on(IntentReason::Cancelled, 900, SIGINT)
        .dies_at(901, SIGTERM)
        .with(
            Kill::of_main(SIGTERM)
                .by_runner(IntentReason::Cancelled)
                .at(900),
        )
        .expect(Reason::Cancelled)
        .surely()
        .hint(RetryHint::Same);
    for signal in [SIGINT, SIGHUP] {
        Case::named("the terminal reaches main first")
            .acts_on(IntentReason::Cancelled, 901, signal)
            .dies_at(905, signal)
            .with(Kill::of_main(signal).by_kernel().at(900))
            .expect(Reason::Cancelled);
    }
    Case::named("the terminal, and sandbox did not mind")
        .dies_of(SIGINT)
        .with(Kill::of_main(SIGINT).by_kernel())
        .expect(Reason::ExternalKill)
        .confidence(Confidence::Strong);
    Case::named("kill %1, or timeout(1): the process group is told, and main is quicker")
        .asked_to_end(900, SIGTERM, 900)
        .dies_at(905, SIGTERM)
        .with(Kill::of_main(SIGTERM).by_outsider().at(900))
        .expect(Reason::Cancelled)
        .surely();
    Case::named("one stranger kills main, another asks sandbox")
        .asked_to_end(901, SIGTERM, 901)
        .dies_at(905, SIGTERM)
        .with(Kill::of_main(SIGTERM).by_outsider().at(900))
        .expect(Reason::ExternalKill)
        .surely();
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
        Case::named("the process group is told, and nobody watches")
            .inferred()
            .asked_to_end(906, signal, 900)
            .dies_at(905, signal)
            .expect(Reason::Cancelled)
            .confidence(Confidence::Inferred);
    }
    Case::named("cancelled before exec")
        .never_executes()
        .acts_on(IntentReason::Cancelled, 1, SIGTERM)
        .dies_at(2, SIGKILL)
        .with(
            Kill::of_main(SIGKILL)
                .by_runner(IntentReason::Cancelled)
                .at(1),
        )
        .expect(Reason::Cancelled);
}

#[test]
fn a_task_leaves() {
    Case::named("seen and ended")
        .loses("escapee", 100)
        .acts(IntentReason::Escaped, 101)
        .dies_at(102, SIGKILL)
        .with(
            Kill::of_main(SIGKILL)
                .by_runner(IntentReason::Escaped)
                .at(102),
        )
        .expect(Reason::Escaped)
        .surely()
        .systemd(None);
    Case::named("main was faster")
        .loses("escapee", 100)
        .exits_at(101, 0)
        .expect(Reason::Escaped);
    Case::named("it left after main")
        .loses("escapee", 100)
        .exits_at(99, 0)
        .expect(Reason::Completed);
}

#[test]
fn it_never_gets_to_exec() {
    use SetupFailureKind::{CommandNotFound, OutOfMemory};
    Case::named("no such command")
        .fails_setup("execve /no/such", ENOENT, CommandNotFound)
        .exits_at(1, 127)
        .acts(IntentReason::SetupFailed, 2)
        .expect(Reason::SetupFailed)
        .surely()
        .rests_on("/no/such");
    Case::named("ENOMEM before exec")
        .fails_setup("execve /bin/true", ENOMEM, OutOfMemory)
        .without_main()
        .expect(Reason::SetupFailed)
        .surely();
    Case::named("OOM-killed before exec, the pipe just closed")
        .never_executes()
        .dies_at(1, SIGKILL)
        .with(Kill::oom(true, Some(LEAF)).at(0))
        .counts_own_oom()
        .expect(Reason::SetupFailed)
        .surely()
        .hint(RetryHint::None);
    Case::named("killed in its birth by the cgroup.kill of another time")
        .never_executes()
        .dies_at(1, SIGKILL)
        .with(
            Kill::of_main(SIGKILL)
                .by_runner_without_intent()
                .racing_fork()
                .at(0),
        )
        .expect(Reason::SetupFailed);
    Case::named("Ctrl-C after it had failed")
        .fails_setup("execve /no/such", ENOENT, CommandNotFound)
        .acts(IntentReason::SetupFailed, 2)
        .acts_on(IntentReason::Cancelled, 3, SIGINT)
        .expect(Reason::SetupFailed);
    Case::named("nobody was ever born, and nobody says why")
        .never_executes()
        .without_main()
        .expect(Reason::SetupFailed)
        .confidence(Confidence::Inferred);
    let exec_seen = |mut case: Case| {
        case.evidence.exec_at_ns = Some(1);
        case
    };
    exec_seen(
        Case::named("an exec event outweighs a closed pipe").fails_setup(
            "read the pipe",
            0,
            SetupFailureKind::Other,
        ),
    )
    .exits(3)
    .expect(Reason::ExitCode)
    .confidence(Confidence::Strong);
}

#[test]
fn the_runner_is_lost() {
    Case::named("the guardian ends it")
        .acts(IntentReason::RunnerLost, 700)
        .dies_at(701, SIGKILL)
        .with(
            Kill::of_main(SIGKILL)
                .by_runner(IntentReason::RunnerLost)
                .at(700),
        )
        .expect(Reason::RunnerLost)
        .surely()
        .hint(RetryHint::Same);
    Case::named("it had asked to die with sandbox")
        .dies_of(SIGKILL)
        .with(
            Kill::of_main(SIGKILL)
                .by_runner_without_intent()
                .of_dying_parent(),
        )
        .expect(Reason::RunnerLost);
    Case::named("nobody saw its end")
        .unseen_end()
        .expect(Reason::RunnerLost)
        .confidence(Confidence::Inferred);
    let mut adopted = Case::named("adopted after it had ended").dies_of(SIGKILL);
    adopted.evidence.status = None;
    adopted
        .with(Kill::oom(true, Some(LEAF)))
        .counts_own_oom()
        .expect(Reason::Memory)
        .surely();
}

#[test]
fn without_fentry_the_counters_stand_in_for_the_brackets() {
    let strong = Confidence::Strong;
    let oom = |name| {
        Case::named(name)
            .dies_of(SIGKILL)
            .with(Kill::oom(true, Some(LEAF)))
            .strong()
    };
    oom("own limit")
        .counts_own_oom()
        .expect(Reason::Memory)
        .confidence(strong);
    oom("an ancestor's")
        .counts_parents_oom()
        .expect(Reason::MemoryAncestor)
        .confidence(strong);
    oom("the host's").expect(Reason::HostOom).confidence(strong);
    oom("counters gone")
        .without_memory_events()
        .expect(Reason::MemoryAncestor)
        .confidence(Confidence::Inferred);
    let kill = Kill::of_main(SIGKILL)
        .by_outsider()
        .via_cgroup_kill(LEAF)
        .without_brackets();
    let outcome = Case::named("cgroup.kill")
        .dies_of(SIGKILL)
        .with(kill)
        .strong();
    let outcome = outcome.expect(Reason::ExternalKill).confidence(strong);
    assert_eq!(outcome.attribution.kills[0].cause, KillCause::CgroupKill);
    Case::named("a neighbour's OOM and somebody's kill")
        .dies_of(SIGKILL)
        .with(Kill::of_main(SIGKILL).by_outsider())
        .counts_parents_oom()
        .strong()
        .expect(Reason::ExternalKill)
        .confidence(strong);
}

#[test]
fn with_nobody_watching_status_and_counters_decide() {
    let killed = |name| Case::named(name).dies_of(SIGKILL).inferred();
    let inferred = Confidence::Inferred;
    killed("own limit")
        .counts_own_oom()
        .counts_oom_kills(1)
        .expect(Reason::Memory)
        .confidence(inferred)
        .hint(RetryHint::MoreMemory)
        .rests_on("memory.events.local rose by 1");
    killed("an ancestor's")
        .counts_parents_oom()
        .counts_oom_kills(1)
        .expect(Reason::MemoryAncestor)
        .confidence(inferred);
    killed("the host's")
        .counts_oom_kills(1)
        .expect(Reason::HostOom)
        .confidence(inferred);
    killed("an ancestor's OOM that hit a neighbour")
        .counts_parents_oom()
        .expect(Reason::ExternalKill)
        .confidence(inferred);
    killed("an OOM of its own that killed nobody")
        .counts_own_oom()
        .expect(Reason::ExternalKill)
        .confidence(inferred);
    killed("nothing counted")
        .expect(Reason::ExternalKill)
        .rests_on("with no OOM kill counted");
    killed("nothing countable")
        .without_memory_events()
        .expect(Reason::ExternalKill);
    let mut unreadable = killed("an ancestor that cannot be read").counts_oom_kills(1);
    unreadable.evidence.ancestor_counters.clear();
    unreadable.clone().expect(Reason::HostOom);
    unreadable
        .enclosed_memory(1 << 30)
        .expect(Reason::MemoryAncestor)
        .rests_on("could not be told");
    Case::named("SIGTERM")
        .dies_of(SIGTERM)
        .inferred()
        .expect(Reason::ExternalKill);
    Case::named("SIGSEGV")
        .dies_of(SIGSEGV)
        .inferred()
        .expect(Reason::Signal);
    Case::named("exit 137 of a shell")
        .exits(137)
        .inferred()
        .counts_own_oom()
        .counts_oom_kills(1)
        .expect(Reason::ExitCode)
        .hint(RetryHint::MoreMemory)
        .confidence(inferred);
    Case::named("the deadline")
        .acts(IntentReason::Walltime, 60_000)
        .dies_at(60_002, SIGTERM)
        .inferred()
        .expect(Reason::Walltime);
}

#[test]
fn facts_that_disagree_lower_confidence_and_are_named() {
    let strong = Confidence::Strong;
    let with_facts = |name, change: fn(&mut sandbox_ebpf::Facts)| {
        let mut case = Case::named(name);
        change(case.evidence.facts.as_mut().expect("facts"));
        case
    };
    with_facts("births", |facts| facts.births = 2)
        .expect(Reason::Completed)
        .confidence(strong)
        .degraded("2 tasks were seen to come");
    with_facts("updates", |facts| facts.failed_updates = 1)
        .expect(Reason::Completed)
        .confidence(strong)
        .degraded("1 map updates");
    with_facts("denied forks", |facts| facts.denied_by_leaf = 2)
        .expect(Reason::Completed)
        .confidence(strong)
        .degraded("2 forks denied by the leaf's limit and pids.events.local counted 0");
    let mut case = Case::named("the same, up to 6.11").without_pids_events_local();
    case.evidence.facts.as_mut().expect("facts").denied_unknown = 2;
    case.expect(Reason::Completed)
        .confidence(strong)
        .degraded("2 forks denied and pids.events counted 0");
    let mut case = Case::named("more OOM kills seen than counted")
        .oom_takes_processes()
        .with(Kill::oom(false, Some(LEAF)));
    case.evidence.facts.as_mut().expect("facts").oom_kills += 2;
    case.expect(Reason::Completed)
        .confidence(strong)
        .degraded("saw 3 OOM kills and memory.events counted 1");
    with_facts("victims", |facts| facts.victims_left_out = 5)
        .expect(Reason::Completed)
        .confidence(Confidence::Exact)
        .degraded("5 signals");
    with_facts("an OOM kill among the victims left out", |facts| {
        facts.victims_left_out = 5;
        facts.oom_kills = 1;
    })
    .counts_own_oom()
    .counts_oom_kills(1)
    .exits(1)
    .expect(Reason::ExitCode)
    .confidence(Confidence::Exact)
    .hint(RetryHint::MoreMemory);
    with_facts("an escape of which no more is known", |facts| {
        facts.escapes = 1;
        facts.births = 2;
    })
    .expect(Reason::Escaped)
    .rests_on("a task left the leaf")
    .confidence(strong);
    Case::named("an OOM kill that nobody saw")
        .counts_oom_kills(1)
        .expect(Reason::Completed)
        .confidence(strong)
        .degraded("memory.events counted 1");
    for miss in ["a birth", "a map update", "a run of a program"] {
        let mut case = Case::named("no record of the signal").dies_of(SIGKILL);
        let facts = case.evidence.facts.as_mut().expect("it is watched");
        match miss {
            "a birth" => facts.births = 0,
            "a map update" => facts.failed_updates = 1,
            _ => case.evidence.confidence = strong,
        }
        case.expect(Reason::ExternalKill)
            .confidence(Confidence::Inferred)
            .degraded("no record of the signal");
    }
    let mut case = Case::named("two counts of OOM kills")
        .oom_takes_processes()
        .with(Kill::oom(false, Some(LEAF)));
    case.evidence.host_oom_kills = Some(0);
    case.expect(Reason::Completed)
        .confidence(strong)
        .degraded("/proc/vmstat none");
    let mut case = Case::named("two accounts of one end").exits(1);
    case.evidence.kernel_status = Some(WaitStatus::Exited { code: 2 });
    case.expect(Reason::ExitCode)
        .confidence(strong)
        .degraded("different ends");
}
