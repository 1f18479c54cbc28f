//! Any evidence, however contradictory, gives one reason, and a note that is fit to print.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use sandbox_ebpf as wire;

use super::attribute;
use super::case::{Case, main_process, process};
use crate::escape::is_printable;
use crate::evidence::{
    CgroupRef, Confidence, Delivery, DeniedForks, Fugitive, IntentReason, OomContext, OwnAction,
    Process, SetupFailure, SetupFailureKind, Signal, SignalInfo, WaitStatus,
};
use crate::limits::{Enclosing, OnPidsLimit, OomScope, Source};
use crate::notes::MAX_BYTES;
use crate::record::{Finding, KillCause, KillEntry, Reason, RetryHint, RunRecord, exit_status};

/// Times that often collide.
fn time() -> impl Strategy<Value = u64> {
    prop_oneof![0..8_u64, any::<u64>()]
}

fn cgroup_id() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![100, 90, 80, 1, 7])
}

fn status() -> impl Strategy<Value = WaitStatus> {
    prop_oneof![
        (0..256).prop_map(|code| WaitStatus::Exited { code }),
        (1..65, any::<bool>()).prop_map(|(signal, core_dumped)| WaitStatus::Signaled {
            signal,
            core_dumped
        }),
    ]
}

fn a_process() -> impl Strategy<Value = Process> {
    let comm = prop_oneof!["[a-z]{1,15}", any::<String>()];
    let pid = prop::sample::select(vec![4700, 4711, 600, 900]);
    (pid, comm, cgroup_id()).prop_map(|(pid, comm, cgroup)| process(pid, &comm, cgroup))
}

fn intent() -> impl Strategy<Value = IntentReason> {
    (1..10_u32).prop_filter_map("a reason", IntentReason::from_wire)
}

fn signal() -> impl Strategy<Value = Signal> {
    let what = (
        time(),
        prop_oneof![Just(9), Just(15), Just(24), 1..65],
        of(-7..7),
        prop::sample::select(vec![
            SignalInfo::NoInfo,
            SignalInfo::Priv,
            SignalInfo::Siginfo,
        ]),
        prop::sample::select(vec![
            Delivery::Delivered,
            Delivery::Ignored,
            Delivery::AlreadyPending,
            Delivery::Overflowed,
        ]),
    );
    let who = (a_process(), a_process(), any::<[bool; 8]>(), of(0..9_u64));
    let oom = of((of(cgroup_id()), of(time()), any::<bool>()));
    (what, who, of(cgroup_id()), oom, of(intent())).prop_map(
        |(what, (sender, victim, flags, cpu_limit_s), cgroup_kill, oom, intent)| {
            let (at_ns, signal, si_code, info, result) = what;
            let [
                group,
                victim_is_main,
                sender_in_leaf,
                sender_exiting,
                target_new,
                behind_another,
                by_sigqueue,
                injected,
            ] = flags;
            Signal {
                at_ns,
                signal,
                si_code,
                info,
                group,
                result,
                sender,
                victim: if victim_is_main {
                    main_process()
                } else {
                    victim
                },
                victim_is_main,
                sender_in_leaf,
                sender_exiting,
                target_new,
                behind_another,
                by_sigqueue,
                injected,
                cpu_limit_s,
                cgroup_kill,
                oom: oom.map(|(cgroup_id, bytes, demanded)| OomContext {
                    cgroup_id,
                    usage_bytes: bytes,
                    max_bytes: bytes,
                    points: 0,
                    chosen_pid: 1,
                    demanded,
                    victim_rss_bytes: None,
                    holders: Vec::new(),
                }),
                intent,
            }
        },
    )
}

fn action() -> impl Strategy<Value = OwnAction> {
    (
        intent(),
        time(),
        of(1..65),
        of(1..4_u32),
        of(any::<String>()),
    )
        .prop_map(|(reason, at_ns, signal, asked_by, detail)| OwnAction {
            reason,
            at_ns,
            signal,
            asked_by,
            detail,
        })
}

fn setup_failure() -> impl Strategy<Value = SetupFailure> {
    let kind = prop::sample::select(vec![
        SetupFailureKind::CommandNotFound,
        SetupFailureKind::CommandNotExecutable,
        SetupFailureKind::OutOfMemory,
        SetupFailureKind::OutOfPids,
        SetupFailureKind::Other,
    ]);
    (".{0,300}", any::<Option<i32>>(), kind).prop_map(|(step, errno, kind)| SetupFailure {
        step,
        errno,
        kind,
    })
}

fn facts() -> impl Strategy<Value = wire::Facts> {
    (0..3_u64, 0..3_u64, 0..2_u64, 0..2_u64, 0..2_u64).prop_map(
        |(births, execs, escapes, oom_kills, failed_updates)| wire::Facts {
            births,
            execs,
            exits: births,
            escapes,
            oom_kills,
            failed_updates,
            ..wire::Facts::default()
        },
    )
}

/// What the counters of denied forks may say, and the limits of CPU time that main started with.
fn quotas() -> impl Strategy<Value = (DeniedForks, (Option<u64>, Option<u64>))> {
    let denied = (0..4_u64, 0..4_u64, 0..2_u64, any::<bool>(), of(time()));
    let denied = denied.prop_map(|(by_leaf, by_ancestor, unknown, known, first_at_ns)| {
        let ancestor = known.then(|| CgroupRef {
            path: "/sandbox/runs".to_owned(),
            id: 90,
        });
        DeniedForks {
            by_leaf,
            by_ancestor,
            unknown,
            ancestor,
            leaf_max: (by_leaf > 0).then_some(by_leaf),
            first_at_ns,
        }
    });
    (denied, (of(0..100_u64), of(0..100_u64)))
}

/// Any run, however contradictory what is known of it.
pub(crate) fn any_case() -> impl Strategy<Value = Case> {
    (loose_case(), quotas(), any::<bool>()).prop_map(|(case, quotas, knows_tree)| {
        let mut case = if knows_tree { case.knows_tree() } else { case };
        (case.evidence.denied_forks, case.evidence.rlimit_cpu_seconds) = quotas;
        case
    })
}

fn loose_case() -> impl Strategy<Value = Case> {
    let ends = (
        of(status()),
        of(status()),
        of(time()),
        of(time()),
        of(facts()),
    );
    let acts = (
        vec(signal(), 0..6),
        vec(action(), 0..4),
        of(setup_failure()),
        vec((any::<String>(), ".{0,300}", time()), 0..2),
    );
    let counts = (0..2_u64, 0..2_u64, 0..2_u64, 0..3_u64, any::<[bool; 7]>());
    let sure = prop::sample::select(vec![
        Confidence::Inferred,
        Confidence::Strong,
        Confidence::Exact,
    ]);
    let source = prop::sample::select(vec![
        Source::Default,
        Source::Host,
        Source::Metadata,
        Source::CommandLine,
        Source::Update,
        Source::Ceiling,
    ]);
    (ends, acts, counts, sure, source, any::<u64>()).prop_map(
        |(ends, acts, counts, confidence, source, bytes)| {
            let (own_oom, parents_oom, kills, denials, flags) = counts;
            let [kill, whole, main, readable, local, above, ancestors] = flags;
            let mut case = Case::named("anything")
                .counts_oom_kills(kills)
                .counts_denials(denials);
            if own_oom > 0 {
                case = case.counts_own_oom();
            }
            if parents_oom > 0 {
                case = case.counts_parents_oom();
            }
            if !local {
                case = case.without_pids_events_local();
            }
            if !readable {
                case = case.without_memory_events();
            }
            case = case
                .memory_limit(bytes, source)
                .pids_limit(bytes, source)
                .leaves_over(denials);
            let evidence = &mut case.evidence;
            (
                evidence.status,
                evidence.kernel_status,
                evidence.exec_at_ns,
                evidence.exit_at_ns,
                evidence.facts,
            ) = ends;
            let (signals, actions, setup_failure, fugitives) = acts;
            evidence.signals = signals;
            evidence.own_actions = actions;
            evidence.setup_failure = setup_failure;
            evidence.fugitives = fugitives
                .into_iter()
                .map(|(comm, cgroup, at_ns)| Fugitive {
                    pid: 4711,
                    start_time_ns: 1,
                    comm,
                    cgroup,
                    at_ns,
                    killed: whole,
                })
                .collect();
            evidence.confidence = confidence;
            evidence.on_pids_limit = if kill {
                OnPidsLimit::Kill
            } else {
                OnPidsLimit::Deny
            };
            evidence.oom_scope = if whole {
                OomScope::Whole
            } else {
                OomScope::Process
            };
            evidence.main = main.then(main_process);
            if above {
                evidence.enclosing.pids = Some(Enclosing {
                    value: denials,
                    cgroup: "/sandbox".to_owned(),
                });
            }
            if !ancestors {
                evidence.ancestors = vec![CgroupRef {
                    path: "/elsewhere".repeat(40),
                    id: 90,
                }];
                evidence.ancestor_counters.clear();
            }
            case
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_evidence_gives_one_reason_and_a_note_fit_to_print(case in any_case()) {
        let record = case.record();
        let note = &record.completion_notes;
        prop_assert!(!note.is_empty());
        prop_assert!(note.len() <= MAX_BYTES, "{} bytes: {note}", note.len());
        prop_assert!(note.chars().all(is_printable), "{note:?}");

        let reason = record.termination.reason;
        prop_assert!(Reason::ALL.contains(&reason));
        prop_assert_eq!(reason, attribute(&case.evidence).reason);
        let exit = &record.exit;
        match reason {
            Reason::Completed => prop_assert_eq!(exit.code, Some(0)),
            Reason::ExitCode => prop_assert!(exit.code.is_some_and(|code| code != 0)),
            Reason::Signal => prop_assert!(exit.signal.is_some()),
            Reason::SetupFailed => prop_assert_eq!(record.started_at, None),
            Reason::Escaped => {
                let says_so = record.termination.evidence.iter().any(|finding| {
                    let ours = IntentReason::Escaped;
                    matches!(finding, Finding::LeftLeaf { .. })
                        || matches!(finding, Finding::OwnAction { reason, .. } if *reason == ours)
                });
                // Or only the kernel side remembers what its dead supervisor saw.
                let ours = |kill: &KillEntry| kill.cause == KillCause::Runner;
                prop_assert!(says_so || record.kills.iter().any(ours), "nobody left the leaf");
            }
            Reason::Memory
            | Reason::MemoryAncestor
            | Reason::HostOom
            | Reason::Pids
            | Reason::PidsAncestor
            | Reason::Walltime
            | Reason::Cputime
            | Reason::ExternalKill
            | Reason::Cancelled
            | Reason::RunnerLost => {}
        }
        prop_assert!(record.termination.confidence <= case.evidence.confidence);
        prop_assert_eq!(exit_status(&record) == 0, reason == Reason::Completed);
        for finding in &record.termination.evidence {
            prop_assert!(finding.to_string().chars().all(is_printable));
        }

        let json = serde_json::to_string(&record).expect("a record is JSON");
        let back: RunRecord = serde_json::from_str(&json).expect("and is read back");
        prop_assert_eq!(back, record);
    }

    #[test]
    fn the_order_in_which_signals_are_handed_over_does_not_matter(case in any_case()) {
        let mut times: Vec<u64> = case.evidence.signals.iter().map(|signal| signal.at_ns).collect();
        times.sort_unstable();
        times.dedup();
        prop_assume!(times.len() == case.evidence.signals.len());
        let mut reversed = case.evidence.clone();
        reversed.signals.reverse();
        let (one, other) = (attribute(&case.evidence), attribute(&reversed));
        prop_assert_eq!((one.reason, one.kills), (other.reason, other.kills));
    }

    #[test]
    fn more_memory_is_only_advised_where_the_leafs_own_limit_was_met(case in any_case()) {
        let found = attribute(&case.evidence);
        if found.retry_hint == RetryHint::MoreMemory {
            prop_assert!(matches!(found.reason, Reason::Memory | Reason::ExitCode));
        }
    }
}
