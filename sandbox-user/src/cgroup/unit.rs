//! A systemd unit that leaves could be in, and whether it is ours to arrange.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::CgroupError;
use super::files::Dir;
use super::mount::{Controller, Mount};
use super::orphans::is_gone;

/// The unit that holds the host's runs where it is started (`sandbox-runs.service`), as its cgroup. It has
/// nothing of the service's, so that runs outlive that.
pub(super) const HOLDING: &str = "/system.slice/sandbox-runs.service";

/// Whether systemd handed a unit's cgroup over (`Delegate=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delegation {
    /// It did: attribute `trusted.delegate` or `user.delegate` is 1.
    Delegated,
    /// It keeps it.
    Kept,
}

/// A systemd unit that leaves could be in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its cgroup.
    pub cgroup: String,
    /// Whether it is ours to arrange.
    pub delegation: Delegation,
    /// Processes in that very cgroup, not in its children (DelegateSubgroup= puts them there).
    pub processes: usize,
    /// What its `cgroup.controllers` offers.
    pub controllers: BTreeSet<Controller>,
}

impl Unit {
    /// The unit that holds the host's runs; `None` where it is not started.
    pub(super) fn holding(mount: &Mount) -> Result<Option<Self>, CgroupError> {
        match Self::gather(mount, HOLDING.to_owned()) {
            Err(CgroupError::Read { source, .. }) if is_gone(&source) => Ok(None),
            unit => unit.map(Some),
        }
    }

    pub(super) fn gather(mount: &Mount, cgroup: String) -> Result<Self, CgroupError> {
        let path = mount.dir(&cgroup)?;
        let dir = Dir::open(&path)?;
        Ok(Self {
            delegation: delegation_of(&path)?,
            processes: dir.procs()?.map_or(0, |pids| pids.len()),
            controllers: dir.controllers("cgroup.controllers")?,
            cgroup,
        })
    }

    /// Delegated, and its processes leave room for controllers: where some sit in the unit's own
    /// cgroup we would have to move them, `sandbox` and its caller among them, and after a SIGKILL
    /// the unit could not be started again (EBUSY). A scope of the run's own has no such trouble.
    pub(super) fn is_usable(&self) -> bool {
        self.delegation == Delegation::Delegated
            && self.processes == 0
            && Controller::missing_from(&self.controllers).is_empty()
    }
}

/// The nearest cgroup, upwards from this one, that is a systemd unit which can be delegated. A
/// user's manager (user@1000.service) far above is delegated to that manager, not to us.
pub(super) fn unit_of(cgroup: &str) -> Option<String> {
    Path::new(cgroup)
        .ancestors()
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "service" || extension == "scope")
        })
        .map(|path| path.to_string_lossy().into_owned())
}

fn delegation_of(path: &Path) -> Result<Delegation, CgroupError> {
    for name in ["trusted.delegate", "user.delegate"] {
        let mut value = [0_u8; 8];
        match rustix::fs::getxattr(path, name, &mut value) {
            Ok(1) if value[0] == b'1' => return Ok(Delegation::Delegated),
            Ok(_) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::RANGE) => {}
            Err(errno) => return Err(CgroupError::read(path, errno)),
        }
    }
    Ok(Delegation::Kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_nearest_service_or_scope_and_never_a_slice() {
        let table = [
            (
                "/system.slice/a.service/supervisor",
                Some("/system.slice/a.service"),
            ),
            (
                "/user.slice/user-1000.slice/session-3.scope",
                Some("/user.slice/user-1000.slice/session-3.scope"),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/vte.scope",
                Some("/user.slice/user-1000.slice/user@1000.service/app.slice/vte.scope"),
            ),
            ("/system.slice", None),
            ("/", None),
        ];
        for (cgroup, expected) in table {
            assert_eq!(unit_of(cgroup).as_deref(), expected, "{cgroup}");
        }
    }
}
