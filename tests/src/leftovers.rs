//! What a test may leave behind, found and removed: leaves, processes, pins, what was kept of runs.
//!
//! Found by comparison with what was there when the test began, so that one untidy test is blamed
//! once and not again in every test after it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

use crate::wait;

/// Folders whose sub-folders are leaves: on a bare host, and below systemd's slice for us.
const HOLD_LEAVES: &[&str] = &[
    "/sys/fs/cgroup/sandbox/runs",
    "/sys/fs/cgroup/sandbox.slice",
];

/// What is kept of runs that go on.
const STATES: &str = "/run/sandbox/runs";

/// Where eBPF objects are pinned.
const PINS: &str = "/sys/fs/bpf";

/// How long the kernel may take to account for what has ended.
pub(crate) const SETTLING: Duration = Duration::from_secs(5);

/// Leaves, processes, pins and states of runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    leaves: BTreeSet<PathBuf>,
    processes: BTreeSet<Process>,
    pins: BTreeSet<PathBuf>,
    states: BTreeSet<PathBuf>,
}

/// A process, by what does not come back: its pid together with its start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    pid: i32,
    start_time: u64,
    name: String,
    cgroup: String,
}

impl Leftovers {
    /// All that there is now.
    #[must_use]
    pub fn find() -> Self {
        let mut found = Self {
            processes: processes(),
            states: entries(Path::new(STATES)).into_iter().collect(),
            ..Self::default()
        };
        for folder in HOLD_LEAVES {
            found.leaves.extend(
                entries(Path::new(folder))
                    .into_iter()
                    .filter(|path| path.is_dir()),
            );
        }
        walk(Path::new(PINS), &mut found.pins);
        found.pins.retain(|pin| !is_shared(pin));
        found
    }

    /// What there is now and was not then; looks again for so long before it finds fault.
    #[must_use]
    pub fn new_ones(&self, settling: Duration) -> Option<Self> {
        let mut left = Self::default();
        let clean = wait::within(settling, || {
            left = Self::find();
            left.leaves.retain(|leaf| !self.leaves.contains(leaf));
            left.processes
                .retain(|process| !self.processes.contains(process));
            left.pins.retain(|pin| !self.pins.contains(pin));
            left.states.retain(|state| !self.states.contains(state));
            (left == Self::default()).then_some(())
        });
        clean.is_none().then_some(left)
    }

    /// Removes what can be removed, for the sake of the next test.
    pub fn remove(&self) {
        for process in &self.processes {
            // It may have ended by now; then there is nothing to do.
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        for leaf in &self.leaves {
            drop(fs::write(leaf.join("cgroup.kill"), "1"));
            wait::within(SETTLING, || {
                remove_cgroup(leaf);
                (!leaf.exists()).then_some(())
            });
        }
        for pin in self.pins.iter().rev() {
            drop(fs::remove_file(pin).or_else(|_| fs::remove_dir(pin)));
        }
        for state in &self.states {
            drop(fs::remove_file(state));
        }
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for leaf in &self.leaves {
            writeln!(formatter, "  leaf {}", leaf.display())?;
        }
        for process in &self.processes {
            writeln!(
                formatter,
                "  process {} ({}) in {}",
                process.pid, process.name, process.cgroup
            )?;
        }
        for pin in &self.pins {
            writeln!(formatter, "  pin {}", pin.display())?;
        }
        for state in &self.states {
            writeln!(formatter, "  state {}", state.display())?;
        }
        Ok(())
    }
}

/// The programs and maps that all runs share stay pinned: `sandbox/<16 hex digits>/<object>`, with a
/// folder `untraced` where they were loaded while fentry was off.
fn is_shared(pin: &Path) -> bool {
    let Ok(inside) = pin.strip_prefix(PINS) else {
        return false;
    };
    let names: Vec<&str> = inside.iter().filter_map(|name| name.to_str()).collect();
    let is_stamp =
        |name: &str| name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    match names[..] {
        ["sandbox"] => true,
        ["sandbox", stamp] => is_stamp(stamp),
        ["sandbox", stamp, object] => is_stamp(stamp) && (!pin.is_dir() || object == "untraced"),
        _ => false,
    }
}

/// Processes that could be ours. On a systemd guest the manager starts some of its own at any time,
/// so there only those count that run our programs or sit in our cgroups.
fn processes() -> BTreeSet<Process> {
    let systemd = Path::new("/run/systemd/system").exists();
    let own_cgroup = cgroup_of(getpid().as_raw()).unwrap_or_default();
    entries(Path::new("/proc"))
        .iter()
        .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
        .filter_map(process)
        .filter(|process| {
            let ours = || {
                let exe = fs::read_link(format!("/proc/{}/exe", process.pid)).unwrap_or_default();
                exe.starts_with("/payload")
                    || process.cgroup.contains("/sandbox")
                    || process.cgroup == own_cgroup
            };
            !systemd || ours()
        })
        .collect()
}

fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let number = |field: usize| fields.get(field)?.parse::<u64>().ok();
    // After the name (proc(5)): state, parent, … ; kernel threads are children of kthreadd, pid 2.
    let (parent, start_time) = (number(1)?, number(19)?);
    if pid == 2 || parent == 2 {
        return None;
    }
    Some(Process {
        pid,
        start_time,
        name,
        cgroup: cgroup_of(pid).unwrap_or_default(),
    })
}

fn cgroup_of(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    // A folder that is not there holds nothing: the first run makes it.
    fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

fn walk(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for path in entries(folder) {
        if path.is_dir() {
            walk(&path, found);
        }
        found.insert(path);
    }
}

fn remove_cgroup(cgroup: &Path) {
    for child in entries(cgroup).iter().filter(|path| path.is_dir()) {
        remove_cgroup(child);
    }
    drop(fs::remove_dir(cgroup));
}
