//! Where a run's leaf goes in the cgroup tree.
//!
//! The tree has an owner. On a systemd host that is PID 1, which may move processes that it did not
//! delegate, so a leaf goes into a unit that is delegated to us: our own, the one that holds the
//! host's runs, or a transient scope asked for over D-Bus. On a bare host it goes below the root. Facts are gathered, then [`decide`] says
//! where, then [`prepare`] does it; `sandbox` itself stays in its caller's cgroup, only the guardian
//! is moved (<https://systemd.io/CGROUP_DELEGATION/>).

use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::caller_limit::{CallerLimit, Room};
use super::error::CgroupError;
use super::mount::{Mount, NsDelegate};
use super::owner::{Mark, Proc};
use super::tree::Made;
use super::unit::{Unit, unit_of};
use super::{frame, systemd, tree};
use crate::policy::LimitedCallers;

/// The cgroup of a bare host that everything of ours is in.
pub(super) const BARE_BASE: &str = "/sandbox";
/// The slice that transient scopes are in, as its cgroup.
pub(super) const SLICE: &str = "/sandbox.slice";
/// The child of a base that holds the leaves.
pub(super) const RUNS: &str = "runs";
/// The child of a base that holds the guardian, and where the service does the run its supervisor.
pub(super) const SUPERVISOR: &str = "supervisor";

/// Who owns the cgroup tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manager {
    /// systemd is PID 1 (sd_booted(3)).
    Systemd,
    /// Nobody.
    None,
}

impl Manager {
    /// Asks as sd_booted(3) does.
    ///
    /// # Errors
    /// Where that cannot be told: systemd's tree is not to be arranged by somebody else.
    pub fn of_host() -> Result<Self, CgroupError> {
        let path = Path::new("/run/systemd/system");
        match path.try_exists() {
            Ok(true) => Ok(Self::Systemd),
            Ok(false) => Ok(Self::None),
            Err(source) => Err(CgroupError::read(path, source)),
        }
    }
}

/// All that the decision rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementFacts {
    /// Who owns the tree.
    pub manager: Manager,
    /// The unit that we run in, where there is one.
    pub unit: Option<Unit>,
    /// The unit that holds the host's runs, where it is started.
    pub holding: Option<Unit>,
    /// The leaf of another run that we run in, if any.
    pub inside_leaf: Option<String>,
    /// The limit that we are under, where we are the caller.
    pub caller_limit: Option<CallerLimit>,
    /// Whether a run may leave it where it has no room.
    pub limited_callers: LimitedCallers,
}

/// Where leaves are to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "cgroup")]
pub enum Placement {
    /// Into a unit that is delegated: our own, or the one that holds the host's runs.
    Unit(String),
    /// Into a transient scope of the run's own, in that slice.
    Scope(String),
    /// Below the root of a host without systemd.
    Bare(String),
    /// Into a cgroup of the run's own in that one, whose limit holds for the caller.
    Within(String),
}

/// A prepared place: leaves can be made in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The mount that it is on.
    pub mount: Mount,
    /// How it came about; for a scope, its base is the scope's cgroup.
    pub placement: Placement,
    /// The cgroup that holds `supervisor` and `runs`.
    pub base: String,
    /// What is not as it should be and does not keep the run from starting, one sentence each.
    pub degraded: Vec<String>,
}

impl Place {
    /// The cgroup that leaves are made in.
    pub fn runs(&self) -> String {
        child(&self.base, RUNS)
    }

    /// The cgroup of guardians; `None` where they stay in their callers': what ends that ends the run.
    fn supervisor(&self) -> Option<String> {
        match self.placement {
            Placement::Unit(_) | Placement::Scope(_) | Placement::Bare(_) => {
                Some(child(&self.base, SUPERVISOR))
            }
            Placement::Within(_) => None,
        }
    }

    /// Where a guardian goes that is not there from the start.
    pub fn home_of_guardian(&self) -> Option<String> {
        match self.placement {
            Placement::Unit(_) | Placement::Bare(_) => self.supervisor(),
            Placement::Scope(_) | Placement::Within(_) => None,
        }
    }
}

impl PlacementFacts {
    /// Gathers them for this process. Its limits count where it is the caller, which is told what the host does with
    /// limited ones; a process of the service's is none.
    ///
    /// # Errors
    /// When /proc or cgroupfs cannot be read.
    pub fn gather(mount: &Mount, limited: Option<LimitedCallers>) -> Result<Self, CgroupError> {
        let own = Proc::default().cgroup("self")?;
        let manager = Manager::of_host()?;
        let (unit, holding) = match manager {
            Manager::Systemd => (
                unit_of(&own)
                    .map(|cgroup| Unit::gather(mount, cgroup))
                    .transpose()?,
                Unit::holding(mount)?,
            ),
            Manager::None => (None, None),
        };
        Ok(Self {
            manager,
            unit,
            holding,
            inside_leaf: leaf_around(mount, &own)?,
            caller_limit: match limited {
                Some(_) => CallerLimit::of(mount, &own)?,
                None => None,
            },
            limited_callers: limited.unwrap_or_default(),
        })
    }
}

/// Decides where leaves go. Pure.
///
/// # Errors
/// [`CgroupError::InsideLeaf`]: one leaf holds one run; [`CgroupError::CallerLimited`]: there is no place under the
/// caller's limit.
pub fn decide(facts: &PlacementFacts) -> Result<Placement, CgroupError> {
    if let Some(cgroup) = &facts.inside_leaf {
        return Err(CgroupError::InsideLeaf {
            cgroup: cgroup.clone(),
        });
    }
    let mut units = facts.unit.iter().chain(&facts.holding);
    let usual = match (facts.manager, units.find(|unit| unit.is_usable())) {
        (Manager::None, _) => Placement::Bare(BARE_BASE.to_owned()),
        (Manager::Systemd, Some(unit)) => Placement::Unit(unit.cgroup.clone()),
        (Manager::Systemd, None) => Placement::Scope(SLICE.to_owned()),
    };
    match &facts.caller_limit {
        Some(limit) if !limit.holds_for(usual.cgroup()) => {
            let cgroup = limit.cgroup.clone();
            match limit.room(facts.manager, facts.unit.as_ref()) {
                Ok(Room::Slice) => Ok(Placement::Scope(cgroup)),
                Ok(Room::Within) => Ok(Placement::Within(cgroup)),
                Err(_) if facts.limited_callers == LimitedCallers::Allow => Ok(usual),
                Err(error) => Err(error),
            }
        }
        Some(_) | None => Ok(usual),
    }
}

impl Placement {
    /// The cgroup that all of it is in.
    fn cgroup(&self) -> &str {
        match self {
            Self::Unit(cgroup)
            | Self::Scope(cgroup)
            | Self::Bare(cgroup)
            | Self::Within(cgroup) => cgroup,
        }
    }
}

/// Makes a place for a run's leaf. A guardian that is in its way is moved out of it; any other one has yet to go
/// where it belongs ([`enter`]).
///
/// # Errors
/// When the host cannot have leaves (each error says how to mend that), when systemd refuses, when
/// the guardian is gone. What was made so far needs no undoing: a scope goes with its guardian, the cgroups of
/// a bare host are shared by all runs, and a frame of the run's own is removed.
pub async fn prepare(
    guardian_pid: u32,
    run_id: Uuid,
    limited: Option<LimitedCallers>,
) -> Result<Place, CgroupError> {
    let mut mount = Mount::find()?;
    let facts = PlacementFacts::gather(&mount, limited)?;
    let placement = decide(&facts)?;
    let mut degraded = Vec::new();
    if let Some(limit) = &facts.caller_limit
        && !limit.holds_for(placement.cgroup())
    {
        degraded.push(format!(
            "the run is free of the limit of {} that its caller is under by the cgroup {}: limited-callers allows it",
            limit.limited, limit.cgroup
        ));
    }
    // A host without systemd is ours to mend, wherever the leaf goes.
    let switched = match facts.manager {
        Manager::None => mount.switch_on_nsdelegate(),
        Manager::Systemd => Ok(()),
    };
    if mount.nsdelegate() == NsDelegate::Off {
        let why = switched.map_or_else(|error| format!(": {error}"), |()| String::new());
        degraded.push(format!(
            "cgroup2 is mounted without nsdelegate, so cgroup namespaces are no borders{why}"
        ));
    }
    let base = match &placement {
        Placement::Unit(cgroup) => cgroup.clone(),
        Placement::Scope(slice) => systemd::start_scope(guardian_pid, run_id, slice).await?,
        Placement::Within(cgroup) => {
            tree::enable_controllers(&mount.dir(cgroup)?)?;
            let base = child(cgroup, &frame::name(run_id));
            tree::make(&mount.dir(&base)?)?;
            base
        }
        Placement::Bare(cgroup) => {
            tree::enable_controllers(&mount.root)?;
            let path = mount.dir(cgroup)?;
            if tree::make(&path)? == Made::New
                && let Err(error) = tree::let_others_go_first(&path)
            {
                degraded.push(format!("runs compete with what serves the host: {error}"));
            }
            cgroup.clone()
        }
    };
    let place = Place {
        mount,
        placement,
        base,
        degraded,
    };
    let furnished = place.furnish(guardian_pid);
    if furnished.is_err() && matches!(place.placement, Placement::Within(_)) {
        frame::remove(&place.mount.dir(&place.base)?);
    }
    furnished.map(|()| place)
}

impl Place {
    /// Makes `supervisor` and `runs`, with controllers down to the leaves.
    fn furnish(&self, guardian_pid: u32) -> Result<(), CgroupError> {
        if let Some(cgroup) = self.supervisor() {
            let supervisor = self.mount.dir(&cgroup)?;
            tree::make(&supervisor)?;
            if matches!(self.placement, Placement::Scope(_)) {
                // It starts with it inside.
                tree::move_process(&supervisor, guardian_pid)?;
            }
        }
        tree::enable_controllers(&self.mount.dir(&self.base)?)?;
        let runs = self.mount.dir(&self.runs())?;
        tree::make(&runs)?;
        tree::enable_controllers(&runs)
    }
}

/// Moves this process to a cgroup, where it is not there yet. Takes its time where nobody was moved on this host for a
/// while: a grace period of RCU, some 10 ms (`cgroup_attach_lock` in kernel/cgroup/cgroup.c).
///
/// # Errors
/// When it is not there, or the kernel refuses.
pub fn enter(cgroup: &str) -> Result<(), CgroupError> {
    if Proc::default().cgroup("self")? == cgroup {
        return Ok(());
    }
    let mount = Mount::find()?;
    tree::move_process(&mount.dir(cgroup)?, std::process::id())
}

/// Has this process, which becomes the supervisor of a run of the service's, go with the unit that holds the
/// host's runs, where there is one: the service can then be stopped without it.
///
/// # Errors
/// When cgroupfs cannot be read, or refuses.
pub fn leave_the_service() -> Result<(), CgroupError> {
    if Manager::of_host()? == Manager::None {
        return Ok(());
    }
    let mount = Mount::find()?;
    match Unit::holding(&mount)? {
        Some(unit) if unit.is_usable() => {
            let supervisor = mount.dir(&child(&unit.cgroup, SUPERVISOR))?;
            tree::make(&supervisor)?;
            tree::move_process(&supervisor, std::process::id())
        }
        Some(_) | None => Ok(()),
    }
}

/// The path of a child cgroup.
pub(super) fn child(cgroup: &str, name: &str) -> String {
    format!("{}/{name}", cgroup.trim_end_matches('/'))
}

/// The leaf that a cgroup is or is in; `None` where it is in none. Inside a cgroup namespace of the leaf's
/// own the leaf is `/`.
///
/// # Errors
/// When a mark cannot be read.
pub fn leaf_around(mount: &Mount, own: &str) -> Result<Option<String>, CgroupError> {
    let mut around = vec![own.to_owned()];
    around.extend(mount.ancestors(own));
    for cgroup in around {
        // A cgroup outside of what is mounted cannot be looked at; the decision fails on it later.
        let Ok(path) = mount.dir(&cgroup) else {
            continue;
        };
        let there = path
            .try_exists()
            .map_err(|source| CgroupError::read(path.clone(), source))?;
        if there && Mark::at(&path)? != Mark::Unmarked {
            return Ok(Some(cgroup));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::unit::HOLDING;
    use super::*;
    use crate::cgroup::{Controller, Delegation};

    fn unit(delegation: Delegation, processes: usize, controllers: &str) -> Option<Unit> {
        Some(Unit {
            cgroup: "/system.slice/sandbox.service".to_owned(),
            delegation,
            processes,
            controllers: Controller::parse_list(controllers),
        })
    }

    #[test]
    fn the_tree_s_owner_decides_where_leaves_go() {
        use Delegation::{Delegated, Kept};
        let own = Placement::Unit("/system.slice/sandbox.service".to_owned());
        let bare = Placement::Bare("/sandbox".to_owned());
        let scope = Placement::Scope(SLICE.to_owned());
        let all = "cpu io memory pids";
        let table = [
            (Manager::None, None, bare.clone()),
            (Manager::None, unit(Delegated, 0, all), bare),
            (Manager::Systemd, None, scope.clone()),
            (Manager::Systemd, unit(Kept, 0, all), scope.clone()),
            (Manager::Systemd, unit(Delegated, 0, all), own),
            // No DelegateSubgroup=: its processes are in the way.
            (Manager::Systemd, unit(Delegated, 2, all), scope.clone()),
            // Delegate=pids only.
            (Manager::Systemd, unit(Delegated, 0, "pids"), scope),
        ];
        for (manager, unit, expected) in table {
            let facts = PlacementFacts {
                manager,
                unit,
                holding: None,
                inside_leaf: None,
                caller_limit: None,
                limited_callers: LimitedCallers::Refuse,
            };
            assert_eq!(decide(&facts).expect("decided"), expected, "{facts:?}");
        }
    }

    #[test]
    fn a_unit_of_ones_own_goes_before_the_one_that_holds_the_hosts_runs_and_a_scope_after() {
        use Delegation::{Delegated, Kept};
        let all = "cpu io memory pids";
        let holding = |processes| {
            let mut unit = unit(Delegated, processes, all)?;
            unit.cgroup = HOLDING.to_owned();
            Some(unit)
        };
        let held = Placement::Unit(HOLDING.to_owned());
        let own = Placement::Unit("/system.slice/sandbox.service".to_owned());
        for (unit, holding, expected) in [
            (None, holding(0), held.clone()),
            (unit(Kept, 1, all), holding(0), held),
            (unit(Delegated, 0, all), holding(0), own),
            (None, holding(1), Placement::Scope(SLICE.to_owned())),
        ] {
            let facts = PlacementFacts {
                manager: Manager::Systemd,
                unit,
                holding,
                inside_leaf: None,
                caller_limit: None,
                limited_callers: LimitedCallers::Refuse,
            };
            assert_eq!(decide(&facts).expect("decided"), expected, "{facts:?}");
        }
    }

    #[test]
    fn a_caller_inside_a_leaf_is_refused() {
        let facts = PlacementFacts {
            manager: Manager::None,
            unit: None,
            holding: None,
            inside_leaf: Some("/sandbox/runs/x".to_owned()),
            caller_limit: None,
            limited_callers: LimitedCallers::Refuse,
        };
        let error = decide(&facts).expect_err("refused").to_string();
        assert!(error.contains("/sandbox/runs/x"), "{error}");
    }

    #[test]
    fn children_of_the_root_have_one_slash() {
        assert_eq!(child("/", RUNS), "/runs");
        assert_eq!(child(BARE_BASE, RUNS), "/sandbox/runs");
    }
}
