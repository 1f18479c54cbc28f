//! Judging a host from its facts: what works, what works less well, what is missing, and how each is
//! mended. Pure, so that hosts nobody has at hand are rows of a table.

use serde::{Deserialize, Serialize};

use super::facts::{
    Bpffs, Btf, Capability, HostFacts, HostService, Lockdown, PidNamespace, RootCgroup, Support,
};
use crate::cgroup::{
    CallerLimit, CgroupError, Controller, Manager, Mount, NsDelegate, Placement, decide,
};
use crate::config;
use crate::evidence::Confidence;
use crate::policy::LimitedCallers;

/// How a finding bears on `sandbox run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All is there.
    Ok,
    /// `run` works; less is known or held than could be.
    Degraded,
    /// `run` will not work.
    Missing,
    /// It could not be looked at.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub name: String,
    /// What it means.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do; `None` where there is nothing to do, or `found` says it.
    pub mend: Option<String>,
}

impl Finding {
    fn new(name: &str, status: Status, found: impl Into<String>, mend: Option<&str>) -> Self {
        Self {
            name: name.to_owned(),
            status,
            found: found.into(),
            mend: mend.map(str::to_owned),
        }
    }

    fn ok(name: &str, found: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, found, None)
    }
}

/// What only root can look at.
const TAKES_ROOT: &str = "that takes root: `sudo sandbox check`";

/// Judges a host. `tracing` is what loading the eBPF programs came to; `None`: whoever looks may not.
pub fn assess(facts: &HostFacts, tracing: Option<&Result<Confidence, String>>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = service(facts).into_iter().collect();
    findings.extend([privileges(facts), configuration(facts)]);
    findings.extend(cgroups(facts));
    findings.extend(facts.placement.as_ref().map(|placement| match placement {
        Ok(placement) => place(decide(placement), facts),
        Err(error) => Finding::new("placement", Status::Missing, error, None),
    }));
    findings.push(kernel(facts));
    findings.push(swap(facts));
    findings.push(btf(facts));
    findings.extend(bpf_privileges(facts));
    findings.push(bpffs(facts));
    findings.extend(lockdown(facts));
    findings.push(domains(facts));
    findings.push(match facts.pids {
        PidNamespace::First => tracing.map_or_else(
            || Finding::new("tracing", Status::Unknown, TAKES_ROOT, None),
            programs,
        ),
        PidNamespace::Nested => Finding::new(
            "tracing",
            Status::Degraded,
            "inferred: `sandbox` is in a PID namespace of its own",
            Some("start it in the host's (docker run --pid=host)"),
        ),
    });
    if facts.is_served() {
        let findings = findings.into_iter();
        return findings
            .filter_map(|finding| as_served(facts, finding))
            .collect();
    }
    findings
}

/// A finding as it is for whoever is served: their own rights and place do not matter, and root alone sees the
/// service's.
fn as_served(facts: &HostFacts, finding: Finding) -> Option<Finding> {
    let is_seen = match finding.name.as_str() {
        "privileges" | "eBPF privileges" => return None,
        "placement" | "tracing" => false,
        "configuration" => facts.configuration.is_ok(),
        "BTF" => facts.btf != Btf::Unreadable,
        _ => true,
    };
    Some(match is_seen {
        true => finding,
        false => Finding::new(&finding.name, Status::Unknown, TAKES_ROOT, None),
    })
}

fn service(facts: &HostFacts) -> Option<Finding> {
    let name = "service";
    match (&facts.service, facts.euid) {
        (HostService::Absent, _) => None,
        (HostService::Answers, 0) => Some(Finding::ok(
            name,
            "it answers, and does all runs but those with --standalone",
        )),
        (HostService::Answers, _) => Some(match limit_of(facts) {
            Some(CallerLimit {
                limited, cgroup, ..
            }) => {
                let found = format!(
                    "it refuses your runs: your {limited} is limited by the cgroup {cgroup}"
                );
                let mend =
                    "a cgroup without limits, or `limited-callers` in /etc/sandbox/config.toml";
                Finding::new(name, Status::Missing, found, Some(mend))
            }
            None => Finding::ok(name, "it answers, and does your runs"),
        }),
        (HostService::Fails(error), 0) => {
            let mend = "see its journal (`journalctl -u sandbox`), or run with --standalone";
            Some(Finding::new(name, Status::Degraded, error, Some(mend)))
        }
        (HostService::Fails(error), _) => Some(Finding::new(name, Status::Missing, error, None)),
    }
}

/// The limit for which the service would do no run.
fn limit_of(facts: &HostFacts) -> Option<&CallerLimit> {
    let placement = facts.placement.as_ref()?.as_ref().ok()?;
    let limit = placement.caller_limit.as_ref();
    limit.filter(|_| placement.limited_callers == LimitedCallers::Refuse)
}

/// Whether `sandbox run` will work.
pub fn will_run(findings: &[Finding]) -> bool {
    findings
        .iter()
        .all(|finding| finding.status != Status::Missing)
}

fn privileges(facts: &HostFacts) -> Finding {
    let name = "privileges";
    if facts.euid != 0 {
        let found = format!("running as uid {}", facts.euid);
        return Finding::new(name, Status::Missing, found, Some("run it with sudo"));
    }
    let needed = [
        (Capability::CapSysAdmin, "CAP_SYS_ADMIN"),
        (Capability::CapSetuid, "CAP_SETUID"),
        (Capability::CapSetgid, "CAP_SETGID"),
        (Capability::CapKill, "CAP_KILL"),
    ];
    let Some(capabilities) = facts.capabilities else {
        let found = "root, with capabilities that cannot be read";
        return Finding::new(name, Status::Degraded, found, Some("mount /proc"));
    };
    let lacking: Vec<&str> = needed
        .iter()
        .filter(|(capability, _)| !capabilities.has(*capability))
        .map(|(_, name)| *name)
        .collect();
    if lacking.is_empty() {
        return Finding::ok(name, "root");
    }
    let found = format!("root without {}", lacking.join(", "));
    let mend =
        "run it on the host, or in a container started with these capabilities (--privileged)";
    Finding::new(name, Status::Missing, found, Some(mend))
}

fn configuration(facts: &HostFacts) -> Finding {
    let name = "configuration";
    let path = config::PATH;
    match &facts.configuration {
        Ok(None) => Finding::ok(name, format!("built-in defaults: there is no {path}")),
        Ok(Some(strangers)) if strangers.is_empty() => Finding::ok(name, path),
        Ok(Some(strangers)) => Finding::new(
            name,
            Status::Degraded,
            format!(
                "{path} has rules for nobody: there is no {}",
                strangers.join(", no ")
            ),
            Some("correct the names (see `getent passwd`, `getent group`)"),
        ),
        Err(error) if facts.euid != 0 => {
            Finding::new(name, Status::Missing, error, Some("run it with sudo"))
        }
        Err(error) => Finding::new(
            name,
            Status::Missing,
            error,
            Some("mend it, or move it away: nothing is started under rules that cannot be read"),
        ),
    }
}

fn cgroups(facts: &HostFacts) -> Vec<Finding> {
    let name = "cgroup v2";
    let missing = |error: String| vec![Finding::new(name, Status::Missing, error, None)];
    let hierarchy = match &facts.hierarchy {
        Ok(hierarchy) => hierarchy.clone(),
        Err(error) => return missing(error.clone()),
    };
    let mount = match hierarchy.into_mount() {
        Ok(mount) => mount,
        Err(error) => return missing(error.to_string()),
    };
    let mut findings = vec![Finding::ok(
        name,
        format!("mounted on {}", mount.root.display()),
    )];
    findings.push(io_controller(&mount));
    findings.push(nsdelegate(&mount, facts.manager));
    findings.extend(local_events(&mount));
    findings
}

fn io_controller(mount: &Mount) -> Finding {
    let name = "controllers";
    if mount.controllers.contains(&Controller::Io) {
        return Finding::ok(name, "memory, cpu, pids, io");
    }
    let mend = "a kernel with CONFIG_BLK_CGROUP=y; without it bytes read and written are unknown";
    Finding::new(
        name,
        Status::Degraded,
        "memory, cpu, pids, but no io",
        Some(mend),
    )
}

fn nsdelegate(mount: &Mount, manager: Manager) -> Finding {
    let name = "nsdelegate";
    match (mount.nsdelegate(), manager) {
        (NsDelegate::On, _) => Finding::ok(name, "cgroup namespaces are borders"),
        (NsDelegate::Off, Manager::None) => {
            Finding::ok(name, "off; `sandbox run` remounts cgroup2 with it")
        }
        (NsDelegate::Off, Manager::Systemd) => {
            let found = "off: cgroup namespaces are no borders";
            let mend = format!("mount -o remount,nsdelegate {}", mount.root.display());
            Finding::new(name, Status::Degraded, found, Some(&mend))
        }
    }
}

/// Mount options that change what the event files count.
fn local_events(mount: &Mount) -> Option<Finding> {
    let options: Vec<&str> = ["memory_localevents", "pids_localevents"]
        .into_iter()
        .filter(|option| mount.has_option(option))
        .collect();
    if options.is_empty() {
        return None;
    }
    let found = format!(
        "mounted with {}: events of children are not counted above them",
        options.join(", ")
    );
    let mend = "remount cgroup2 without that option";
    Some(Finding::new(
        "event counters",
        Status::Degraded,
        found,
        Some(mend),
    ))
}

fn place(decided: Result<Placement, CgroupError>, facts: &HostFacts) -> Finding {
    let name = "placement";
    match decided {
        Ok(Placement::Unit(cgroup)) => {
            Finding::ok(name, format!("in {cgroup}, which systemd delegated"))
        }
        Ok(Placement::Scope(_)) => match facts.system_bus {
            Support::Present => Finding::ok(name, "in a transient scope of systemd's, one a run"),
            Support::Absent => {
                let found = "systemd cannot be asked for a scope: nobody answers on /run/dbus/system_bus_socket";
                let mend = "install and start the system bus (`systemctl start dbus.socket`)";
                Finding::new(name, Status::Missing, found, Some(mend))
            }
        },
        Ok(Placement::Bare(_)) if facts.root == RootCgroup::Occupied => {
            let found = "processes sit in the root cgroup of this container: no controller can be enabled below it";
            let mend = "move them into a cgroup below it first, or start the container with the host's cgroups (docker run --cgroupns=host)";
            Finding::new(name, Status::Missing, found, Some(mend))
        }
        Ok(Placement::Within(cgroup)) => {
            Finding::ok(name, format!("in {cgroup}, whose limits hold for you"))
        }
        Ok(Placement::Bare(cgroup)) => Finding::ok(name, format!("in {cgroup} (no systemd)")),
        Err(error) => Finding::new(name, Status::Missing, error.to_string(), None),
    }
}

fn kernel(facts: &HostFacts) -> Finding {
    let name = "kernel";
    let release = facts.info.kernel.as_deref().unwrap_or("unknown");
    match (facts.cgroup_kill, facts.memory_peak) {
        (Some(Support::Absent), _) => {
            let found = format!("{release}, without cgroup.kill");
            Finding::new(
                name,
                Status::Missing,
                found,
                Some("Linux 5.14 or later; 6.1 is the oldest that is tested"),
            )
        }
        (_, Some(Support::Absent)) => {
            let found = format!("{release}, without memory.peak: the peak is unknown");
            Finding::new(name, Status::Degraded, found, Some("Linux 5.19 or later"))
        }
        (Some(Support::Present) | None, Some(Support::Present) | None) => {
            Finding::ok(name, release)
        }
    }
}

fn swap(facts: &HostFacts) -> Finding {
    let name = "swap limit";
    match (facts.swap_max, facts.info.swap_bytes) {
        (Some(Support::Present), _) => Finding::ok(name, "memory.swap.max is there"),
        (Some(Support::Absent), Some(0)) => {
            Finding::ok(name, "memory.swap.max is not there, but neither is swap")
        }
        (Some(Support::Absent), _) => {
            let mend = "boot with swapaccount=1, or `swapoff -a`, or run with --swap none";
            let found = "memory.swap.max is not there, but swap is: runs with a swap limit (the default) are refused";
            Finding::new(name, Status::Missing, found, Some(mend))
        }
        (None, _) => Finding::ok(name, "not known before the first run"),
    }
}

fn btf(facts: &HostFacts) -> Finding {
    let name = "BTF";
    let inferred = "endings are then inferred from counters";
    match facts.btf {
        Btf::Readable => Finding::ok(name, "/sys/kernel/btf/vmlinux"),
        Btf::Unreadable => {
            let found = format!("/sys/kernel/btf/vmlinux cannot be read; {inferred}");
            Finding::new(name, Status::Degraded, found, Some("run it with sudo"))
        }
        Btf::Absent => {
            let found = format!("/sys/kernel/btf/vmlinux does not exist; {inferred}");
            let mend = "a kernel with CONFIG_DEBUG_INFO_BTF=y";
            Finding::new(name, Status::Degraded, found, Some(mend))
        }
    }
}

fn bpf_privileges(facts: &HostFacts) -> Option<Finding> {
    let capabilities = facts.capabilities?;
    let may = capabilities.has(Capability::CapSysAdmin)
        || (capabilities.has(Capability::CapBpf) && capabilities.has(Capability::CapPerfmon));
    if may {
        return None;
    }
    let found = "neither CAP_SYS_ADMIN nor CAP_BPF and CAP_PERFMON";
    Some(Finding::new(
        "eBPF privileges",
        Status::Degraded,
        found,
        Some("run it with sudo"),
    ))
}

fn bpffs(facts: &HostFacts) -> Finding {
    let name = "bpffs";
    match facts.bpffs {
        Bpffs::Mounted => Finding::ok(name, "/sys/fs/bpf"),
        Bpffs::NotMounted => {
            let found = "not mounted on /sys/fs/bpf: programs cannot be shared between runs";
            let mend = "mount -t bpf bpf /sys/fs/bpf";
            Finding::new(name, Status::Degraded, found, Some(mend))
        }
    }
}

fn lockdown(facts: &HostFacts) -> Option<Finding> {
    match facts.lockdown? {
        Lockdown::None | Lockdown::Integrity => None,
        Lockdown::Confidentiality => {
            let found = "confidentiality: the kernel refuses programs that read its memory";
            let mend = "boot with lockdown=integrity, or without lockdown";
            Some(Finding::new(
                "lockdown",
                Status::Degraded,
                found,
                Some(mend),
            ))
        }
    }
}

fn programs(tracing: &Result<Confidence, String>) -> Finding {
    let name = "tracing";
    match tracing {
        Ok(Confidence::Exact) => Finding::ok(name, "exact: all programs load"),
        Ok(Confidence::Strong) => {
            let found = "strong: tracepoints only, fentry is refused";
            let mend =
                "a kernel with CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS=y, not in a container";
            Finding::new(name, Status::Degraded, found, Some(mend))
        }
        Ok(Confidence::Inferred) => {
            let found = "inferred: no program loads, endings rest on counters and wait status";
            Finding::new(
                name,
                Status::Degraded,
                found,
                Some("see the findings above"),
            )
        }
        Err(error) => {
            let found = format!("inferred: {error}");
            Finding::new(
                name,
                Status::Degraded,
                found,
                Some("see the findings above"),
            )
        }
    }
}

fn domains(facts: &HostFacts) -> Finding {
    let name = "Landlock";
    match facts.landlock_domains {
        Support::Present => Finding::ok(name, "keeps an analysis from its user's other processes"),
        Support::Absent => {
            let found = "absent, or older than Linux 6.12: an analysis can signal and trace its user's other processes";
            let mend = "run what you do not trust as a user of its own";
            Finding::new(name, Status::Degraded, found, Some(mend))
        }
    }
}

#[cfg(test)]
mod tests;
