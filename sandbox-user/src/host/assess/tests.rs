//! Hosts and what is found on them.

use super::*;
use crate::cgroup::{CallerLimit, Hierarchy, Limited, PlacementFacts};
use crate::host::HostInfo;
use crate::host::facts::Capabilities;
use crate::policy::LimitedCallers;

fn mount() -> Mount {
    Mount {
        root: "/sys/fs/cgroup".into(),
        subtree: "/".to_owned(),
        options: vec!["rw".to_owned(), "nsdelegate".to_owned()],
        controllers: Controller::parse_list("cpu io memory pids"),
    }
}

fn good() -> HostFacts {
    HostFacts {
        configuration: Ok(None),
        info: HostInfo {
            hostname: Some("host".to_owned()),
            boot_id: Some("boot".to_owned()),
            kernel: Some("6.12.0".to_owned()),
            cpu_model: None,
            cpus: Some(4),
            memory_bytes: Some(1 << 30),
            swap_bytes: Some(0),
            runner_version: "0.1.0".to_owned(),
        },
        euid: 0,
        capabilities: Some(Capabilities(u64::MAX)),
        hierarchy: Ok(Hierarchy::Unified(mount())),
        placement: Some(Ok(PlacementFacts {
            manager: Manager::Systemd,
            unit: None,
            holding: None,
            inside_leaf: None,
            caller_limit: None,
            limited_callers: LimitedCallers::Refuse,
        })),
        manager: Manager::Systemd,
        system_bus: Support::Present,
        cgroup_kill: Some(Support::Present),
        memory_peak: Some(Support::Present),
        swap_max: Some(Support::Present),
        btf: Btf::Readable,
        bpffs: Bpffs::Mounted,
        lockdown: Some(Lockdown::None),
        root: RootCgroup::Open,
        pids: PidNamespace::First,
        landlock_domains: Support::Present,
        service: HostService::Absent,
    }
}

/// The findings that are not ok, on a host that differs in one thing.
fn troubles(change: impl FnOnce(&mut HostFacts)) -> Vec<Finding> {
    let mut facts = good();
    change(&mut facts);
    let mut findings = assess(&facts, Some(&Ok(Confidence::Exact)));
    findings.retain(|finding| finding.status != Status::Ok);
    findings
}

#[test]
fn a_good_host_has_no_trouble() {
    assert_eq!(troubles(|_| {}), []);
    assert!(will_run(&assess(&good(), Some(&Ok(Confidence::Exact)))));
}

#[test]
fn each_lack_is_one_finding_that_says_how_to_mend_it() {
    type Change = fn(&mut HostFacts);
    let table: [(Change, &str, Status, &str); 18] = [
        (
            |f| f.configuration = Err("config.toml:1:1: memory: unknown key".to_owned()),
            "configuration",
            Status::Missing,
            "mend it",
        ),
        (
            |f| f.configuration = Ok(Some(vec!["user `anna`".to_owned()])),
            "configuration",
            Status::Degraded,
            "getent",
        ),
        (
            |f| {
                f.root = RootCgroup::Occupied;
                f.placement = Some(Ok(PlacementFacts {
                    manager: Manager::None,
                    unit: None,
                    holding: None,
                    inside_leaf: None,
                    caller_limit: None,
                    limited_callers: LimitedCallers::Refuse,
                }));
            },
            "placement",
            Status::Missing,
            "--cgroupns=host",
        ),
        (
            |f| f.pids = PidNamespace::Nested,
            "tracing",
            Status::Degraded,
            "--pid=host",
        ),
        (
            |f| f.landlock_domains = Support::Absent,
            "Landlock",
            Status::Degraded,
            "a user of its own",
        ),
        (
            |f| f.system_bus = Support::Absent,
            "placement",
            Status::Missing,
            "dbus.socket",
        ),
        (|f| f.euid = 1000, "privileges", Status::Missing, "sudo"),
        (
            |f| f.capabilities = Some(Capabilities(!(1 << 7))),
            "privileges",
            Status::Missing,
            "CAP_SETUID",
        ),
        (
            |f| {
                f.hierarchy = Ok(Hierarchy::V1Only {
                    v1_mount: "/x".into(),
                })
            },
            "cgroup v2",
            Status::Missing,
            "systemd.unified_cgroup_hierarchy=1",
        ),
        (
            |f| {
                f.hierarchy = Ok(Hierarchy::Lacking {
                    mount: mount(),
                    missing: vec![Controller::Memory],
                })
            },
            "cgroup v2",
            Status::Missing,
            "cgroup_disable=memory",
        ),
        (
            |f| f.hierarchy = Ok(Hierarchy::NotMounted),
            "cgroup v2",
            Status::Missing,
            "mount -t cgroup2",
        ),
        (
            |f| {
                f.hierarchy = Ok(Hierarchy::Unified(Mount {
                    options: Vec::new(),
                    ..mount()
                }))
            },
            "nsdelegate",
            Status::Degraded,
            "remount",
        ),
        (
            |f| f.cgroup_kill = Some(Support::Absent),
            "kernel",
            Status::Missing,
            "5.14",
        ),
        (
            |f| f.memory_peak = Some(Support::Absent),
            "kernel",
            Status::Degraded,
            "5.19",
        ),
        (
            |f| {
                f.swap_max = Some(Support::Absent);
                f.info.swap_bytes = Some(1)
            },
            "swap limit",
            Status::Missing,
            "swapaccount=1",
        ),
        (
            |f| f.btf = Btf::Absent,
            "BTF",
            Status::Degraded,
            "CONFIG_DEBUG_INFO_BTF=y",
        ),
        (
            |f| f.bpffs = Bpffs::NotMounted,
            "bpffs",
            Status::Degraded,
            "mount -t bpf",
        ),
        (
            |f| f.lockdown = Some(Lockdown::Confidentiality),
            "lockdown",
            Status::Degraded,
            "lockdown=integrity",
        ),
    ];
    for (change, name, status, mend) in table {
        let found = troubles(change);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].name.as_str(), found[0].status), (name, status));
        let said = format!(
            "{} {}",
            found[0].found,
            found[0].mend.as_deref().unwrap_or("")
        );
        assert!(said.contains(mend), "{said}");
    }
}

#[test]
fn a_bare_host_without_nsdelegate_is_fine_since_run_mends_it() {
    let found = troubles(|facts| {
        facts.manager = Manager::None;
        facts.hierarchy = Ok(Hierarchy::Unified(Mount {
            options: Vec::new(),
            ..mount()
        }));
    });
    assert_eq!(found, []);
}

#[test]
fn being_inside_a_leaf_is_missing_a_place() {
    let found = troubles(|facts| {
        facts.placement = Some(Ok(PlacementFacts {
            manager: Manager::None,
            unit: None,
            holding: None,
            inside_leaf: Some("/".to_owned()),
            caller_limit: None,
            limited_callers: LimitedCallers::Refuse,
        }));
    });
    assert_eq!(
        (found[0].name.as_str(), found[0].status),
        ("placement", Status::Missing)
    );
}

#[test]
fn tracing_that_fails_degrades_and_never_keeps_a_run_from_starting() {
    for tracing in [
        Ok(Confidence::Strong),
        Ok(Confidence::Inferred),
        Err("EPERM".to_owned()),
    ] {
        let findings = assess(&good(), Some(&tracing));
        let last = findings.last().expect("tracing");
        assert_eq!(
            (last.name.as_str(), last.status),
            ("tracing", Status::Degraded)
        );
        assert!(will_run(&findings));
    }
}

#[test]
fn a_user_whose_runs_the_service_does_needs_no_rights_and_is_told_what_could_not_be_looked_at() {
    let served = HostFacts {
        euid: 1000,
        capabilities: Some(Capabilities(0)),
        service: HostService::Answers,
        // Neither is the service's.
        placement: Some(Err("/run/sandbox is root's: use sudo".to_owned())),
        system_bus: Support::Absent,
        configuration: Err("config.toml: permission denied".to_owned()),
        ..good()
    };
    let findings = assess(&served, None);
    assert!(will_run(&findings), "{findings:#?}");
    assert_eq!(findings[0].name, "service");
    let unseen: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.status != Status::Ok)
        .map(|finding| {
            assert_eq!(finding.status, Status::Unknown);
            assert!(finding.found.contains("sudo"), "{finding:?}");
            finding.name.as_str()
        })
        .collect();
    let expected = ["configuration", "placement", "tracing"];
    assert_eq!(unseen, expected);

    // But for one that the service refuses.
    let mut limited = served.clone();
    let mut placement = good().placement.expect("it is there").expect("gathered");
    placement.caller_limit = Some(CallerLimit {
        limited: Limited::Cpu,
        cgroup: "/job_1".to_owned(),
        processes: 0,
        controllers: Controller::parse_list(""),
    });
    limited.placement = Some(Ok(placement));
    let findings = assess(&limited, None);
    assert!(findings[0].found.contains("/job_1"), "{findings:#?}");
    assert!(!will_run(&findings));

    // Root's own place matters all the same.
    let root = HostFacts { euid: 0, ..served };
    assert!(!will_run(&assess(&root, None)));
}

#[test]
fn a_service_that_does_not_answer_is_what_keeps_users_from_running_and_root_from_nothing() {
    for (euid, expected) in [(0, Status::Degraded), (1000, Status::Missing)] {
        let found = troubles(|facts| {
            facts.euid = euid;
            facts.service = HostService::Fails("it does not answer".to_owned());
        });
        let service = found.iter().find(|finding| finding.name == "service");
        assert_eq!(service.map(|finding| finding.status), Some(expected));
    }
}
