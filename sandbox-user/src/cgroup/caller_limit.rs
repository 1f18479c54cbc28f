//! The limit that a caller's own cgroup is under (a Slurm step, a container, a slice for users): a run of the
//! caller's is not to leave it.
//!
//! Memory and CPU count, also as a threshold (`memory.high`) or a set of cores (`cpuset.cpus`, as Slurm confines them); a
//! limit of tasks does not, since systemd sets one on every unit and user, and swap is 0 for a run anyway.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::above::Above;
use super::error::CgroupError;
use super::hooks;
use super::mount::{Controller, Mount, join};
use super::placement::{Manager, child};
use super::unit::{Delegation, Unit};

/// What a cgroup limits; by how much is the kernel's to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limited {
    /// `memory.max` or `memory.high`.
    Memory,
    /// `cpu.max` or `cpuset.cpus`.
    Cpu,
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Cpu => "CPU",
        })
    }
}

/// The nearest cgroup, upwards from the caller's own, that is limited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerLimit {
    /// What it limits.
    pub limited: Limited,
    /// It.
    pub cgroup: String,
    /// Processes in that very cgroup, not in its children.
    pub processes: usize,
    /// What its `cgroup.controllers` offers.
    pub controllers: BTreeSet<Controller>,
}

/// What a run that is to stay under the limit can be placed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// A scope in that slice of systemd's.
    Slice,
    /// A cgroup of its own in it.
    Within,
}

impl CallerLimit {
    /// Looks for it from that cgroup on. The limits of a completion hook are ours and do not count, nor, in one of the
    /// host's own bases, those above.
    ///
    /// # Errors
    /// When the cgroups above cannot be read.
    pub fn of(mount: &Mount, cgroup: &str) -> Result<Option<Self>, CgroupError> {
        if hooks::is_hooks(cgroup) {
            return Ok(None);
        }
        let from = hooks::base_around(cgroup).unwrap_or(cgroup);
        let above = Above::open(mount, &child(from, "member"))?;
        let Some((limited, cgroup, dir)) = above.nearest_limit()? else {
            return Ok(None);
        };
        Ok(Some(Self {
            limited,
            cgroup: cgroup.to_owned(),
            processes: dir.procs()?.map_or(0, |pids| pids.len()),
            controllers: dir.controllers("cgroup.controllers")?,
        }))
    }

    /// Whether a place is under it.
    pub(super) fn holds_for(&self, place: &str) -> bool {
        Path::new(place).starts_with(&self.cgroup)
    }

    /// What there is for a run elsewhere than in our own places, given the systemd unit that the caller is in.
    ///
    /// # Errors
    /// [`CgroupError::CallerLimited`] where there is nothing.
    pub(super) fn room(&self, manager: Manager, unit: Option<&Unit>) -> Result<Room, CgroupError> {
        let is_ours = |unit: &Unit| {
            unit.delegation == Delegation::Delegated
                && Path::new(&self.cgroup).starts_with(&unit.cgroup)
        };
        let why = match manager {
            Manager::None => self.obstacle(),
            Manager::Systemd if is_systemds_slice(&self.cgroup) => return Ok(Room::Slice),
            Manager::Systemd if unit.is_some_and(is_ours) => self.obstacle(),
            Manager::Systemd => Some(
                "systemd keeps it to itself (Delegate=yes and DelegateSubgroup= in its unit hand it over)"
                    .to_owned(),
            ),
        };
        match why {
            None => Ok(Room::Within),
            Some(why) => Err(CgroupError::CallerLimited {
                limited: self.limited,
                cgroup: self.cgroup.clone(),
                why,
            }),
        }
    }

    /// What keeps it from having cgroups with controllers in it.
    fn obstacle(&self) -> Option<String> {
        let missing = Controller::missing_from(&self.controllers);
        if !missing.is_empty() {
            return Some(format!("it was not given {}", join(&missing)));
        }
        (self.processes > 0).then(|| {
            format!(
                "processes sit in it ({}), and cgroup v2 allows a cgroup either processes or controlled children (move them into a child)",
                self.processes
            )
        })
    }
}

/// Whether a cgroup is a slice of the system's manager; a user's manager has slices below its service.
fn is_systemds_slice(cgroup: &str) -> bool {
    let mut parts = cgroup.trim_start_matches('/').split('/');
    parts.all(|part| part.ends_with(".slice"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(cgroup: &str, processes: usize, controllers: &str) -> CallerLimit {
        CallerLimit {
            limited: Limited::Memory,
            cgroup: cgroup.to_owned(),
            processes,
            controllers: Controller::parse_list(controllers),
        }
    }

    fn unit(cgroup: &str, delegation: Delegation) -> Unit {
        Unit {
            cgroup: cgroup.to_owned(),
            delegation,
            processes: 0,
            controllers: Controller::parse_list("cpu io memory pids"),
        }
    }

    #[test]
    fn a_run_stays_under_its_callers_limit_where_there_is_room_and_else_it_is_said_why_not() {
        use Delegation::{Delegated, Kept};
        use Manager::{None as Nobody, Systemd};
        let all = "cpu io memory pids";
        let step = "/system.slice/slurmstepd.scope/job_7/step_0/user";
        let slurm = unit("/system.slice/slurmstepd.scope", Delegated);
        let session = unit("/user.slice/user-1000.slice/session-3.scope", Kept);
        let app = "/user.slice/user-1000.slice/user@1000.service/app.slice";
        let table = [
            (limit("/limited", 0, all), Nobody, None, Ok(Room::Within)),
            (
                limit("/limited", 1, all),
                Nobody,
                None,
                Err("processes sit in it (1)"),
            ),
            (
                limit("/limited", 0, "memory"),
                Nobody,
                None,
                Err("not given cpu,pids"),
            ),
            (limit(step, 0, all), Systemd, Some(&slurm), Ok(Room::Within)),
            (
                limit(step, 2, all),
                Systemd,
                Some(&slurm),
                Err("processes sit in it (2)"),
            ),
            (
                limit(&session.cgroup, 0, all),
                Systemd,
                Some(&session),
                Err("Delegate=yes"),
            ),
            (
                limit("/user.slice/user-1000.slice", 0, all),
                Systemd,
                Some(&session),
                Ok(Room::Slice),
            ),
            (limit(app, 0, all), Systemd, None, Err("Delegate=yes")),
        ];
        for (limit, manager, unit, expected) in table {
            match (limit.room(manager, unit), expected) {
                (Ok(room), Ok(expected)) => assert_eq!(room, expected, "{limit:?}"),
                (Err(error), Err(part)) => {
                    let said = error.to_string();
                    assert!(
                        said.contains(part) && said.contains(&limit.cgroup),
                        "{said}"
                    );
                }
                (found, _) => panic!("{limit:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_limit_holds_for_what_is_in_its_cgroup_and_not_for_a_name_that_begins_like_it() {
        let limit = limit("/sand", 0, "memory");
        assert!(limit.holds_for("/sand") && limit.holds_for("/sand/box"));
        assert!(!limit.holds_for("/sandbox"));
    }
}
