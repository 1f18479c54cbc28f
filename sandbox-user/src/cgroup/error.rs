//! What can go wrong with cgroups, each with the path it went wrong on and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use super::caller_limit::Limited;

/// A failure on cgroupfs, or of whoever owns it (systemd).
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file or directory could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A value could not be written.
    #[error("cannot write {value:?} to {path}: {source}")]
    Write {
        /// Where to.
        path: PathBuf,
        /// What.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// A file does not say what the kernel documents.
    #[error("{path} holds {text:?}, which is not {expected}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Its text.
        text: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A file that every supported kernel has is missing.
    #[error("{path} does not exist: {mend}")]
    Absent {
        /// Which.
        path: PathBuf,
        /// What to do.
        mend: &'static str,
    },
    /// No cgroup2 file system is mounted, and no v1 hierarchy either.
    #[error(
        "no cgroup2 file system is mounted: mount one with `mount -t cgroup2 -o nsdelegate none /sys/fs/cgroup`"
    )]
    NoCgroup2,
    /// Only cgroup v1 is mounted.
    #[error(
        "this host uses cgroup v1 ({v1_mount}): boot it with systemd.unified_cgroup_hierarchy=1, or without systemd with cgroup_no_v1=all and mount cgroup2 on /sys/fs/cgroup"
    )]
    V1Only {
        /// One of the v1 mounts.
        v1_mount: PathBuf,
    },
    /// cgroup2 is mounted, but v1 hierarchies hold controllers that a leaf needs.
    #[error(
        "this host is hybrid: cgroup2 is mounted on {mount}, but cgroup v1 holds {taken}: boot it with systemd.unified_cgroup_hierarchy=1, or without systemd with cgroup_no_v1=all"
    )]
    Hybrid {
        /// The cgroup2 mount.
        mount: PathBuf,
        /// Controllers and the v1 mounts that hold them.
        taken: String,
    },
    /// cgroup2 lacks controllers, and nobody else has them.
    #[error(
        "{path} lacks {missing}: remove cgroup_disable={missing} from the kernel command line (or add cgroup_enable={missing}), or use a kernel built with it; in a container, have it delegated to the container"
    )]
    ControllersMissing {
        /// The `cgroup.controllers` that was read.
        path: PathBuf,
        /// Their names, separated by commas.
        missing: String,
    },
    /// A cgroup lies outside the part of the tree that is mounted here.
    #[error(
        "cgroup {cgroup} is outside of what is mounted on {mount}: run sandbox in a cgroup namespace of its own or on the host"
    )]
    OutsideMount {
        /// That cgroup.
        cgroup: String,
        /// The mount.
        mount: PathBuf,
    },
    /// The caller is itself a member of a leaf.
    #[error(
        "sandbox was started inside the leaf {cgroup} of another run: one leaf holds one run, so start it from outside"
    )]
    InsideLeaf {
        /// That leaf.
        cgroup: String,
    },
    /// The caller is under a limit, and nothing under it can hold a leaf.
    #[error(
        "your {limited} is limited by the cgroup {cgroup}, in which no leaf can be made: {why}. Anywhere else the run would leave that limit; `limited-callers = \"allow\"` in /etc/sandbox/config.toml lets it"
    )]
    CallerLimited {
        /// What is limited.
        limited: Limited,
        /// By which cgroup.
        cgroup: String,
        /// What is in the way.
        why: String,
    },
    /// The unit that holds the host's runs is only started by systemd.
    #[error(
        "this process is in {found}, and would have to be in {wanted}: `systemctl start sandbox-runs.service` starts it there (with systemd 254 or later)"
    )]
    NotTheHolder {
        /// Where it belongs.
        wanted: String,
        /// Where it is.
        found: String,
    },
    /// Controllers cannot be enabled because processes sit in the cgroup itself.
    #[error(
        "cannot enable {controllers} below {path}, since processes sit in that cgroup ({pids}) and cgroup v2 allows a cgroup either processes or controlled children: move them into a child, for example {path}/init, and try again"
    )]
    InternalProcesses {
        /// Directory of that cgroup.
        path: PathBuf,
        /// What was to be enabled.
        controllers: String,
        /// Who sits there.
        pids: String,
    },
    /// Enabling a controller failed, or did nothing.
    #[error(
        "cannot enable the {controller} controller below {path}: {reason} (for cpu: no realtime process may run below it where the kernel has CONFIG_RT_GROUP_SCHED)"
    )]
    ControllerRefused {
        /// Directory of the cgroup.
        path: PathBuf,
        /// Which.
        controller: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// A leaf of that name is already there; leaves are never reused.
    #[error("the leaf {path} exists already, and a leaf is never reused: give the run another id")]
    LeafExists {
        /// Its directory.
        path: PathBuf,
    },
    /// The kernel took a limit and shows another.
    #[error(
        "{path} was set to {wanted} and reads {got}: the limit does not hold, so the run is not started"
    )]
    LimitDidNotStick {
        /// The control file.
        path: PathBuf,
        /// What was written.
        wanted: String,
        /// What the kernel shows.
        got: String,
    },
    /// A limit that no kernel can give.
    #[error("{limit} = {value} is out of range: {range}")]
    LimitOutOfRange {
        /// Which.
        limit: &'static str,
        /// What was asked for.
        value: String,
        /// What can be had.
        range: &'static str,
    },
    /// Swap is there but the kernel cannot limit it.
    #[error(
        "{path} does not exist, so swap cannot be limited, and the host has {swap_total_bytes} bytes of it: boot with swapaccount=1, switch swap off with `swapoff -a`, or lift the limit with --swap none"
    )]
    NoSwapControl {
        /// The control file that is missing.
        path: PathBuf,
        /// `SwapTotal` of /proc/meminfo.
        swap_total_bytes: u64,
    },
    /// A process was gone before it could be placed or named.
    #[error("process {pid} is gone: it ended while the run was being set up")]
    ProcessGone {
        /// Its pid.
        pid: u32,
    },
    /// systemd could not be reached on the system bus.
    #[error(
        "cannot reach systemd over D-Bus: {reason}. On a systemd host sandbox asks it for a cgroup: install and start the system bus (`systemctl start dbus.socket`)"
    )]
    SystemdUnreachable {
        /// What the system bus said.
        reason: String,
    },
    /// systemd refused the transient scope.
    #[error("systemd refused to start {unit}: {reason}. See `journalctl -b -t systemd`")]
    ScopeRefused {
        /// The scope.
        unit: String,
        /// What it said.
        reason: String,
    },
    /// systemd would not limit the slice of all runs.
    #[error(
        "systemd refused to limit {slice} to the host's budget: {reason}. See `journalctl -b -t systemd`"
    )]
    BudgetRefused {
        /// The slice.
        slice: String,
        /// What it said.
        reason: String,
    },
    /// systemd did not finish the job in time.
    #[error(
        "systemd did not finish starting {unit} within {seconds} s: it may be reloading or overloaded, see `systemctl list-jobs`"
    )]
    ScopeTimedOut {
        /// The scope.
        unit: String,
        /// The bound.
        seconds: u64,
    },
    /// The scope's job is done but the process is elsewhere.
    #[error(
        "systemd started {unit}, but process {pid} is in {cgroup}: something else moved it meanwhile"
    )]
    NotInScope {
        /// The scope.
        unit: String,
        /// The process that it was started for.
        pid: u32,
        /// Where that process is.
        cgroup: String,
    },
    /// The leaf could not be removed in time.
    #[error(
        "cannot remove {path}: {source}. It may still hold exiting processes; the next `sandbox run` or `sandbox check` removes it"
    )]
    Remove {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CgroupError {
    /// A failed read.
    pub(super) fn read(path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self::Read {
            path: path.as_ref().to_owned(),
            source: source.into(),
        }
    }

    /// A failed write.
    pub(super) fn write(
        path: impl AsRef<Path>,
        value: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Write {
            path: path.as_ref().to_owned(),
            value: value.into(),
            source: source.into(),
        }
    }
}
