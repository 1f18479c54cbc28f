//! The cgroups around the leaf of a run that is under its caller's limit: they are the run's own, and go with it.
//!
//! The caller's cgroup is somebody else's (Slurm's, a container's), who removes it when the caller is done, which
//! takes that nothing is in it any more.

use std::path::Path;

use uuid::Uuid;

use super::hooks::HOOKS;
use super::placement::RUNS;
use super::systemd;

/// The name of a run's frame.
pub(super) fn name(run_id: Uuid) -> String {
    format!("sandbox-{run_id}")
}

/// Whose frame a cgroup of that name is; `None` where it is none.
pub(super) fn run_of(cgroup: &str) -> Option<Uuid> {
    Uuid::parse_str(cgroup.strip_prefix("sandbox-")?).ok()
}

/// Whether a base is the run's own: its frame, or its scope of systemd's.
pub(super) fn is_of(base: &str, run: &str) -> bool {
    let Ok(run_id) = Uuid::parse_str(run) else {
        return false;
    };
    let last = base.rsplit_once('/').map_or(base, |(_, last)| last);
    last == name(run_id) || last == systemd::scope_name(run_id)
}

/// Removes the frame around a leaf, or a hook's cgroup, that was just removed; nothing where that had none of its own,
/// or another is in it still. A scope of systemd's is systemd's to remove.
pub(super) fn remove_around(removed: &Path) {
    let run_id = removed.file_name().and_then(|name| name.to_str());
    let run_id = run_id.and_then(|run| Uuid::parse_str(run).ok());
    let (Some(run_id), Some(frame)) = (run_id, removed.ancestors().nth(2)) else {
        return;
    };
    if frame
        .file_name()
        .is_some_and(|last| last == name(run_id).as_str())
    {
        remove(frame);
    }
}

/// Removes a frame as far as nobody is in it.
pub(super) fn remove(frame: &Path) {
    // Whoever is removed last removes the rest.
    for below in [RUNS, HOOKS] {
        let _ = rustix::fs::rmdir(frame.join(below));
    }
    let _ = rustix::fs::rmdir(frame);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_goes_with_the_last_that_is_in_it_and_others_stay() {
        let temp = tempfile::tempdir().expect("temp dir");
        let run_id = Uuid::now_v7();
        let make = |path: String| {
            let path = temp.path().join(path);
            std::fs::create_dir_all(&path).expect("mkdir");
            path
        };
        let remove = |path: &Path| {
            std::fs::remove_dir(path).expect("it is empty");
            remove_around(path);
        };
        let frame = format!("user/{}", name(run_id));
        let leaf = make(format!("{frame}/runs/{run_id}"));
        let hook = make(format!("{frame}/hooks/{run_id}"));
        remove(&leaf);
        assert!(hook.exists() && !temp.path().join(&frame).join("runs").exists());
        make(format!("{frame}/runs"));
        remove(&hook);
        assert!(!temp.path().join(&frame).exists() && temp.path().join("user").exists());

        let shared = make(format!("sandbox/runs/{run_id}"));
        remove(&shared);
        assert!(temp.path().join("sandbox/runs").exists());
    }

    #[test]
    fn a_base_is_a_runs_own_by_its_name() {
        let run = Uuid::now_v7().to_string();
        for base in [
            format!("/a/sandbox-{run}"),
            format!("/b.slice/sandbox-{run}.scope"),
        ] {
            assert!(is_of(&base, &run), "{base}");
            assert!(!is_of(&base, "build") && !is_of(&base, &Uuid::now_v7().to_string()));
        }
        assert!(!is_of("/sandbox", &run));
    }
}
