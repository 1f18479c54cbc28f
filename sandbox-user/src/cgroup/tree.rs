//! Changing the tree around a leaf: directories, enabled controllers, moved processes.
//!
//! The kernel's rule behind most failures here is "no internal processes": a cgroup other than the
//! root has either processes or controllers enabled for its children
//! (Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint").

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use rustix::io::Errno;

use super::error::CgroupError;
use super::files::Dir;
use super::mount::{Controller, join};

/// What became of a mkdir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// It is ours.
    New,
    /// Somebody made it before.
    Existed,
}

/// What became of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// EBUSY: a process is in it, or its last exit is not accounted for yet (up to 1 s): try again.
    Busy,
}

/// Makes one directory; its parent must be there.
pub(super) fn make(path: &Path) -> Result<Made, CgroupError> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(Made::New),
        Err(Errno::EXIST) => Ok(Made::Existed),
        Err(errno) => Err(CgroupError::write(path, "mkdir", errno)),
    }
}

/// Enables, for the children of a cgroup, the required controllers and those optional ones that it
/// has. Does nothing where they are enabled already; reads back what it wrote.
pub(super) fn enable_controllers(path: &Path) -> Result<(), CgroupError> {
    let dir = Dir::open(path)?;
    let offered = dir.controllers("cgroup.controllers")?;
    let missing = Controller::missing_from(&offered);
    if !missing.is_empty() {
        return Err(CgroupError::ControllersMissing {
            path: dir.file_path("cgroup.controllers"),
            missing: join(&missing),
        });
    }
    let enabled = dir.controllers("cgroup.subtree_control")?;
    if Controller::REQUIRED
        .iter()
        .chain(&Controller::OPTIONAL)
        .all(|controller| enabled.contains(controller) || !offered.contains(controller))
    {
        return Ok(());
    }
    for controller in Controller::missing_from(&enabled) {
        enable(&dir, controller)?;
    }
    for controller in Controller::OPTIONAL {
        if offered.contains(&controller) && !enabled.contains(&controller) {
            // Statistics depend on it, which are null without it, and who goes first where I/O is short.
            let _ = enable(&dir, controller);
        }
    }
    let enabled = dir.controllers("cgroup.subtree_control")?;
    match Controller::missing_from(&enabled).first() {
        Some(controller) => Err(CgroupError::ControllerRefused {
            path: path.to_owned(),
            controller: controller.name(),
            reason: "it was written to cgroup.subtree_control and is not there".to_owned(),
        }),
        None => Ok(()),
    }
}

fn enable(dir: &Dir, controller: Controller) -> Result<(), CgroupError> {
    match dir.write("cgroup.subtree_control", &format!("+{controller}")) {
        Ok(()) => Ok(()),
        Err(CgroupError::Write { source, .. }) if is(&source, Errno::BUSY) => {
            let pids = dir.procs()?.unwrap_or_default();
            let shown: Vec<String> = pids.iter().take(8).map(u32::to_string).collect();
            let more = if pids.len() > shown.len() { " …" } else { "" };
            Err(CgroupError::InternalProcesses {
                path: dir.path().to_owned(),
                controllers: controller.to_string(),
                pids: format!("{}{more}", shown.join(" ")),
            })
        }
        Err(CgroupError::Write { source, .. }) => Err(CgroupError::ControllerRefused {
            path: dir.path().to_owned(),
            controller: controller.name(),
            reason: source.to_string(),
        }),
        Err(error) => Err(error),
    }
}

/// Has all in a cgroup together get a fifth of what others beside it do, where CPU or I/O is short.
pub(super) fn let_others_go_first(path: &Path) -> Result<(), CgroupError> {
    let dir = Dir::open(path)?;
    dir.write("cpu.weight", "20")?;
    match dir.write("io.weight", "default 20") {
        // The controller is optional.
        Err(CgroupError::Write { source, .. }) if is(&source, Errno::NOENT) => Ok(()),
        written => written,
    }
}

/// Tries once to remove a cgroup; one that is gone already counts as removed.
pub(super) fn try_remove(path: &Path) -> Result<Removal, CgroupError> {
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(Removal::Removed),
        Err(Errno::BUSY) => Ok(Removal::Busy),
        Err(errno) => Err(CgroupError::Remove {
            path: path.to_owned(),
            source: errno.into(),
        }),
    }
}

/// Removes one, trying again for so long while the kernel says EBUSY.
pub(super) fn remove(path: &Path, within: Duration) -> Result<(), CgroupError> {
    let deadline = Instant::now() + within;
    let mut pause = Duration::from_millis(1);
    loop {
        match try_remove(path)? {
            Removal::Removed => return Ok(()),
            Removal::Busy if Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Removal::Busy => {
                let (path, source) = (path.to_owned(), Errno::BUSY.into());
                return Err(CgroupError::Remove { path, source });
            }
        }
    }
}

/// Moves a process, with all its threads, into a cgroup.
pub(super) fn move_process(path: &Path, pid: u32) -> Result<(), CgroupError> {
    match Dir::open(path)?.write("cgroup.procs", &pid.to_string()) {
        Err(CgroupError::Write { source, .. }) if is(&source, Errno::SRCH) => {
            Err(CgroupError::ProcessGone { pid })
        }
        result => result,
    }
}

/// Whether an I/O error is that errno.
pub(super) fn is(error: &std::io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_that_are_enabled_already_are_left_alone() {
        let temp = tempfile::tempdir().expect("temp dir");
        std::fs::write(
            temp.path().join("cgroup.controllers"),
            "cpu io memory pids\n",
        )
        .expect("write");
        let control = temp.path().join("cgroup.subtree_control");
        std::fs::write(&control, "cpu io memory pids\n").expect("write");
        enable_controllers(temp.path()).expect("nothing to do");
        assert_eq!(
            std::fs::read_to_string(control).expect("read"),
            "cpu io memory pids\n"
        );
    }

    #[test]
    fn a_cgroup_that_was_not_given_a_controller_is_named() {
        let temp = tempfile::tempdir().expect("temp dir");
        std::fs::write(temp.path().join("cgroup.controllers"), "cpu pids\n").expect("write");
        let error = enable_controllers(temp.path())
            .expect_err("no memory")
            .to_string();
        assert!(error.contains("lacks memory"), "{error}");
    }

    #[test]
    fn a_controller_that_is_written_and_not_there_is_an_error() {
        let temp = tempfile::tempdir().expect("temp dir");
        std::fs::write(temp.path().join("cgroup.controllers"), "cpu memory pids\n").expect("write");
        std::fs::write(temp.path().join("cgroup.subtree_control"), "").expect("write");
        let error = enable_controllers(temp.path()).expect_err("a plain file enables nothing");
        assert!(
            matches!(error, CgroupError::ControllerRefused { .. }),
            "{error}"
        );
    }
}
