//! What confines the main process, looked at from outside in the moment it is executed.

use std::collections::BTreeSet;
use std::fs;

use nix::unistd::Pid;

/// Files of the leaf that say how it is limited.
const LIMITS: &[&str] = &[
    "memory.max",
    "memory.swap.max",
    "memory.oom.group",
    "pids.max",
    "cpu.max",
    "cgroup.max.descendants",
];

/// What of /proc/PID/status tells who a process is, and what it may do.
const STATUS: &[&str] = &[
    "Uid:",
    "Gid:",
    "CapInh:",
    "CapPrm:",
    "CapEff:",
    "CapBnd:",
    "CapAmb:",
    "NoNewPrivs:",
];

/// The main process as it was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Where it is, with what limits and whose rights: the same in every run.
    pub confinement: BTreeSet<String>,
    /// Its supplementary groups.
    pub groups: BTreeSet<String>,
    /// What may fail and be said: mounts, resource limits, signals.
    pub surroundings: BTreeSet<String>,
}

impl Witness {
    pub(super) fn of(pid: Pid) -> Self {
        let read =
            |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let cgroup = read("cgroup");
        let path = cgroup
            .trim()
            .strip_prefix("0::")
            .unwrap_or("(no cgroup v2)");
        let mut confinement = BTreeSet::new();
        // The last part is the run's own id.
        let place = path.rsplit_once('/').map_or(path, |(place, _)| place);
        confinement.insert(format!("in {place}"));
        for limit in LIMITS {
            let value = fs::read_to_string(format!("/sys/fs/cgroup{path}/{limit}"));
            let value = value.unwrap_or_else(|error| error.to_string());
            confinement.insert(format!("{limit} {}", value.trim()));
        }
        let status = read("status");
        let mut groups = BTreeSet::new();
        let mut surroundings: BTreeSet<String> = BTreeSet::new();
        for line in status.lines() {
            if let Some(found) = line.strip_prefix("Groups:") {
                groups.extend(found.split_whitespace().map(str::to_owned));
            }
            if STATUS.iter().any(|field| line.starts_with(field)) {
                confinement.insert(line.to_owned());
            } else if line.starts_with("Sig") && !line.starts_with("SigQ") {
                surroundings.insert(line.to_owned());
            }
        }
        surroundings.insert(format!("oom_score_adj {}", read("oom_score_adj").trim()));
        surroundings.extend(read("limits").lines().map(str::to_owned));
        for line in read("mountinfo").lines() {
            // From the fourth field on (proc_pid_mountinfo(5)): the first ones are numbers of the day.
            let mount: Vec<&str> = line.split(' ').skip(4).collect();
            let mount = mount.join(" ");
            match mount.starts_with("/sys/fs/") {
                true => confinement.insert(mount),
                false => surroundings.insert(mount),
            };
        }
        let namespace = |name: &str, of: &str| fs::read_link(format!("/proc/{of}/ns/{name}")).ok();
        for name in ["cgroup", "ipc", "mnt"] {
            let own = namespace(name, &pid.to_string()) != namespace(name, "self");
            confinement.insert(format!("a {name} namespace of its own: {own}"));
        }
        Self {
            confinement,
            groups,
            surroundings,
        }
    }
}
