//! What this host is and offers, gathered and not yet judged.
//!
//! Each fact comes from one file and is `None` where that file is absent or unreadable: that a host
//! hides something must never look like it lacks it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::HostInfo;
use crate::cgroup::{Controller, Hierarchy, Manager, Mount, PlacementFacts, Proc, parse_meminfo};
use crate::config::Config;
use crate::identity::SystemAccounts;
use crate::policy::LimitedCallers;
use crate::procfs::{self, MountLine, mounts, status_field};
use crate::service::{ClientError, client};
use crate::store::Filter;

/// Capabilities that matter here (include/uapi/linux/capability.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
pub enum Capability {
    /// Signal any process.
    CapKill = 5,
    /// Switch groups.
    CapSetgid = 6,
    /// Switch users.
    CapSetuid = 7,
    /// Namespaces, mounts, trusted attributes.
    CapSysAdmin = 21,
    /// Trace with eBPF (5.8).
    CapPerfmon = 38,
    /// Load eBPF (5.8).
    CapBpf = 39,
}

/// A set of capabilities, as the mask of /proc/PID/status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Whether it is in the set.
    pub const fn has(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u8) != 0
    }
}

/// Whether the running kernel's BTF is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Btf {
    /// /sys/kernel/btf/vmlinux can be opened.
    Readable,
    /// It is there and cannot be opened.
    Unreadable,
    /// It is not there.
    Absent,
}

/// What is on /sys/fs/bpf, where shared programs are pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bpffs {
    /// A bpf file system.
    Mounted,
    /// None.
    NotMounted,
}

/// Whether leaves with limits can be made below the root that is seen here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootCgroup {
    /// They can.
    Open,
    /// It cannot be read.
    Unknown,
    /// Processes sit in it: in a container, whose root is no root (cgroup-v2.rst, "No Internal
    /// Process Constraint").
    Occupied,
}

impl RootCgroup {
    fn of(root: &Path) -> Self {
        // The real root has no type, and may hold processes.
        if !root.join("cgroup.type").exists() {
            return Self::Open;
        }
        let read = |name| procfs::text(root.join(name));
        let (Ok(enabled), Ok(members)) = (read("cgroup.subtree_control"), read("cgroup.procs"))
        else {
            return Self::Unknown;
        };
        let missing = Controller::missing_from(&Controller::parse_list(&enabled));
        if missing.is_empty() || members.is_empty() {
            Self::Open
        } else {
            Self::Occupied
        }
    }
}

/// Which PID namespace `sandbox` is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PidNamespace {
    /// The host's.
    First,
    /// A container's.
    Nested,
}

/// Kernel lockdown (kernel_lockdown(7)); `confidentiality` refuses what tracing needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lockdown {
    /// Off.
    None,
    /// No unsigned changes to the kernel.
    Integrity,
    /// Nor reading its memory.
    Confidentiality,
}

impl Lockdown {
    /// This host's; `None` where it has none or hides it (securityfs is not mounted).
    pub fn of_host() -> Option<Self> {
        let text = procfs::text("/sys/kernel/security/lockdown").ok()?;
        parse_lockdown(&text)
    }
}

/// Whether something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Support {
    /// It is.
    Present,
    /// It is not.
    Absent,
}

/// The host's service, as whoever looks is served by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostService {
    /// There is none.
    Absent,
    /// It answers.
    Answers,
    /// It is there and does not, and why.
    Fails(String),
}

impl HostService {
    fn ask() -> Self {
        match client::list(&Filter::default(), 1) {
            Ok(_) => Self::Answers,
            Err(ClientError::NoService) => Self::Absent,
            Err(error) => Self::Fails(error.to_string()),
        }
    }
}

/// Everything that the judgement rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostFacts {
    /// What the record says of the host.
    pub info: HostInfo,
    /// Effective user id.
    pub euid: u32,
    /// Effective capabilities.
    pub capabilities: Option<Capabilities>,
    /// How cgroups are set up, or why that could not be found out.
    pub hierarchy: Result<Hierarchy, String>,
    /// Where leaves would go, or why that could not be found out; `None` where there is no mount.
    pub placement: Option<Result<PlacementFacts, String>>,
    /// Whether processes in the root keep controllers from being enabled below it.
    pub root: RootCgroup,
    /// Who owns the cgroup tree.
    pub manager: Manager,
    /// Whether the system bus takes connections, over which systemd is asked for a scope.
    pub system_bus: Support,
    /// `cgroup.kill` (5.14); `None` where no cgroup is there to look at.
    pub cgroup_kill: Option<Support>,
    /// `memory.peak` (5.19).
    pub memory_peak: Option<Support>,
    /// `memory.swap.max`.
    pub swap_max: Option<Support>,
    /// The kernel's BTF.
    pub btf: Btf,
    /// The bpf file system.
    pub bpffs: Bpffs,
    /// Lockdown; `None` where the kernel has none or hides it.
    pub lockdown: Option<Lockdown>,
    /// Whether this process's pids are the kernel's.
    pub pids: PidNamespace,
    /// Whom the configuration names and the host does not know, `None` where there is none; or why it
    /// cannot be gone by.
    pub configuration: Result<Option<Vec<String>>, String>,
    /// Landlock domains that keep signals in (Linux 6.12).
    pub landlock_domains: Support,
    /// Who does the runs of those that are not root.
    pub service: HostService,
}

impl HostFacts {
    /// Whether the runs of whoever looks need nothing of its own, since the service does them.
    pub fn is_served(&self) -> bool {
        self.euid != 0 && self.service == HostService::Answers
    }

    /// Gathers them. Never fails: what cannot be found out is said in its place.
    pub fn gather() -> Self {
        let proc = Proc::default();
        let hierarchy = Hierarchy::survey().map_err(|error| error.to_string());
        let mount = match &hierarchy {
            Ok(Hierarchy::Unified(mount)) => Some(mount),
            Ok(
                Hierarchy::Hybrid { .. }
                | Hierarchy::Lacking { .. }
                | Hierarchy::V1Only { .. }
                | Hierarchy::NotMounted,
            )
            | Err(_) => None,
        };
        let samples = mount.map(samples).unwrap_or_default();
        let status = proc.read("self/status").ok();
        let config = Config::of_host();
        let limited = match &config {
            Ok(Some(config)) => config.service.limited_callers,
            Ok(None) | Err(_) => LimitedCallers::default(),
        };
        Self {
            info: HostInfo::gather(&proc),
            euid: nix::unistd::geteuid().as_raw(),
            capabilities: status.as_deref().and_then(parse_capabilities),
            placement: mount.map(|mount| {
                PlacementFacts::gather(mount, Some(limited)).map_err(|error| error.to_string())
            }),
            root: mount.map_or(RootCgroup::Open, |mount| RootCgroup::of(&mount.root)),
            // For the wording of advice alone; `placement` says what is wrong.
            manager: Manager::of_host().unwrap_or(Manager::None),
            system_bus: listening(Path::new("/run/dbus/system_bus_socket")),
            cgroup_kill: support(&samples, "cgroup.procs", "cgroup.kill"),
            memory_peak: support(&samples, "memory.max", "memory.peak"),
            swap_max: support(&samples, "memory.max", "memory.swap.max"),
            btf: btf(Path::new("/sys/kernel/btf/vmlinux")),
            bpffs: match mounts() {
                Ok(mounts) if has_bpffs(&mounts) => Bpffs::Mounted,
                Ok(_) | Err(_) => Bpffs::NotMounted,
            },
            pids: if proc.is_in_first_pid_namespace() {
                PidNamespace::First
            } else {
                PidNamespace::Nested
            },
            lockdown: Lockdown::of_host(),
            configuration: config
                .and_then(|config| {
                    let strangers = config.map(|config| config.strangers(&SystemAccounts));
                    strangers.transpose()
                })
                .map_err(|error| error.to_string()),
            landlock_domains: if crate::sys::step::knows_domains() {
                Support::Present
            } else {
                Support::Absent
            },
            service: HostService::ask(),
            hierarchy,
        }
    }
}

/// The cgroups right below the root: what a file's absence is looked up on.
fn samples(mount: &Mount) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(&mount.root) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.filter(|path| path.is_dir()).collect()
}

/// Looks for `name` in cgroups that have `beside`, a file of the same controller.
fn support(samples: &[std::path::PathBuf], beside: &str, name: &str) -> Option<Support> {
    let sample = samples.iter().find(|path| path.join(beside).exists())?;
    Some(if sample.join(name).exists() {
        Support::Present
    } else {
        Support::Absent
    })
}

/// Whether somebody listens on a socket: its file outlives who made it.
fn listening(path: &Path) -> Support {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Support::Present,
        Err(_) => Support::Absent,
    }
}

fn btf(path: &Path) -> Btf {
    match std::fs::File::open(path) {
        Ok(_) => Btf::Readable,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Btf::Absent,
        Err(_) => Btf::Unreadable,
    }
}

/// `CapEff: 000001ffffffffff`
fn parse_capabilities(status: &str) -> Option<Capabilities> {
    let mask = status_field(status, "CapEff")?;
    u64::from_str_radix(mask, 16).ok().map(Capabilities)
}

/// `[none] integrity confidentiality`
fn parse_lockdown(text: &str) -> Option<Lockdown> {
    let (_, rest) = text.split_once('[')?;
    match rest.split_once(']')?.0 {
        "none" => Some(Lockdown::None),
        "integrity" => Some(Lockdown::Integrity),
        "confidentiality" => Some(Lockdown::Confidentiality),
        _ => None,
    }
}

fn has_bpffs(mounts: &[MountLine]) -> bool {
    mounts
        .iter()
        .any(|mount| mount.at == Path::new("/sys/fs/bpf") && mount.filesystem == "bpf")
}

impl HostInfo {
    /// Gathers what the record says of the host.
    pub fn gather(proc: &Proc) -> Self {
        let read = |name| {
            proc.read(name)
                .ok()
                .map(|text: String| text.trim().to_owned())
        };
        let meminfo = read("meminfo");
        let memory = |key| meminfo.as_deref().and_then(|text| parse_meminfo(text, key));
        Self {
            hostname: read("sys/kernel/hostname"),
            boot_id: read("sys/kernel/random/boot_id"),
            kernel: read("sys/kernel/osrelease"),
            cpu_model: proc
                .head("cpuinfo")
                .ok()
                .as_deref()
                .and_then(parse_cpu_model),
            cpus: procfs::text("/sys/devices/system/cpu/online")
                .ok()
                .and_then(|text| count_cpus(&text)),
            memory_bytes: memory("MemTotal"),
            swap_bytes: memory("SwapTotal"),
            runner_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// `model name : …` on x86; arm64 has none.
fn parse_cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Counts a list of ranges such as `0-3,8`.
fn count_cpus(list: &str) -> Option<u32> {
    list.trim().split(',').try_fold(0_u32, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::procfs::parse_mounts;

    #[test]
    fn capabilities_are_read_from_the_effective_mask() {
        let all = parse_capabilities("CapPrm:\t0\nCapEff:\t000001ffffffffff\n").expect("a mask");
        assert!(all.has(Capability::CapSysAdmin) && all.has(Capability::CapBpf));
        let docker = parse_capabilities("CapEff:\t00000000a80425fb\n").expect("a mask");
        assert!(docker.has(Capability::CapSetuid));
        assert!(!docker.has(Capability::CapSysAdmin));
        assert_eq!(parse_capabilities("CapEff:\tx\n"), None);
    }

    #[test]
    fn lockdown_is_the_bracketed_word() {
        assert_eq!(
            parse_lockdown("[none] integrity confidentiality\n"),
            Some(Lockdown::None)
        );
        assert_eq!(
            parse_lockdown("none integrity [confidentiality]\n"),
            Some(Lockdown::Confidentiality)
        );
        assert_eq!(parse_lockdown("none\n"), None);
    }

    #[test]
    fn cpus_are_counted_over_ranges() {
        let table = [
            ("0\n", Some(1)),
            ("0-3,8\n", Some(5)),
            ("", None),
            ("3-1", None),
            ("0-4294967295", None),
        ];
        for (list, expected) in table {
            assert_eq!(count_cpus(list), expected, "{list:?}");
        }
    }

    #[test]
    fn a_bpf_file_system_counts_only_where_pins_go() {
        let line = |point, fs| {
            let line = format!("35 24 0:31 / {point} rw,nosuid - {fs} {fs} rw,mode=700");
            parse_mounts(line.as_bytes())
        };
        assert!(has_bpffs(&line("/sys/fs/bpf", "bpf")));
        assert!(!has_bpffs(&line("/mnt/bpf", "bpf")));
        assert!(!has_bpffs(&line("/sys/fs/bpf", "tmpfs")));
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_absent() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
        assert_eq!(listening(&path), Support::Present);
        drop(listener);
        assert_eq!(listening(&path), Support::Absent);
    }

    #[test]
    fn gathering_on_any_host_never_fails() {
        let facts = HostFacts::gather();
        assert!(facts.info.kernel.is_some());
        assert!(facts.info.memory_bytes.is_some_and(|bytes| bytes > 0));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let text = String::from_utf8_lossy(&bytes);
            let _ = parse_capabilities(&text);
            let _ = parse_lockdown(&text);
            let _ = count_cpus(&text);
            let _ = parse_cpu_model(&text);
        }
    }
}
