//! What an analysis sees of the host: the caller's mounts, but for the ways out of its leaf.
//!
//! Every cgroup2 mount is replaced by one that is rooted at the leaf and read-only; /dev/shm and /dev/mqueue are
//! its own, since what is left there would outlive the leaf; D-Bus, systemd, user sessions and the BPF file system are
//! hidden (kernel-facts.md, 'Ways out of a leaf that worked'). /run/systemd/resolve stays, because
//! /etc/resolv.conf points into it on hosts with systemd-resolved.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::procfs::{self, MountLine, mounts};
use crate::sys::step::{Filesystem, Step};

/// Hidden where they exist. /var/run is a symlink to /run on most hosts.
const HIDDEN: [&str; 7] = [
    "/run/dbus",
    "/run/systemd",
    "/run/user",
    "/var/run/dbus",
    "/var/run/systemd",
    "/var/run/user",
    "/sys/fs/bpf",
];

/// What stays visible inside `systemd`.
const KEPT: &str = "resolve";

/// What is to be replaced and hidden on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Mount points of cgroup2, in mount order, each as often as it is mounted there.
    cgroups: Vec<PathBuf>,
    /// Fresh ones of the analysis's own.
    shm: Option<PathBuf>,
    mqueue: Option<PathBuf>,
    /// Hidden directories, each with what stays visible in it.
    hidden: BTreeMap<PathBuf, Option<PathBuf>>,
}

impl View {
    /// Looks at this process's mounts. What cannot be looked at is not taken to be absent: it would
    /// stay a way out.
    pub(super) fn gather() -> io::Result<Self> {
        let lines = mounts()?;
        let mut hidden = BTreeMap::new();
        for path in HIDDEN {
            // The same directory by two names is hidden once.
            let Some(path) = unless_absent(fs::canonicalize(path))? else {
                continue;
            };
            if let Some(path) = directory(&path)? {
                let kept = match path.ends_with("systemd") {
                    true => directory(&path.join(KEPT))?,
                    false => None,
                };
                hidden.insert(path, kept);
            }
        }
        Ok(Self {
            cgroups: reachable(&lines, "cgroup2", mount_id)?,
            shm: directory(Path::new("/dev/shm"))?,
            mqueue: reachable(&lines, "mqueue", mount_id)?.into_iter().next(),
            hidden,
        })
    }

    /// Whether a path leads, or may lead, to what the analysis does not see.
    pub(super) fn replaces(&self, path: &Path) -> bool {
        self.cgroups
            .iter()
            .chain(&self.shm)
            .chain(&self.mqueue)
            .chain(self.hidden.keys())
            .any(|replaced| path.starts_with(replaced))
    }

    /// The steps that make this view, in a mount namespace of the child's own.
    pub(super) fn steps(&self) -> Vec<Step> {
        let safe = libc::MS_NOSUID | libc::MS_NODEV;
        let inert = safe | libc::MS_NOEXEC;
        let mount = |filesystem, at: &Path, flags, options: &CString| Step::Mount {
            filesystem,
            at: c_path(at),
            flags,
            options: options.clone(),
        };
        let none = CString::default();

        let mut steps = vec![Step::NewNamespaces, Step::MakeSlave];
        // The last mounted lies on top. Mounting over the old one is EBUSY, so it goes first.
        steps.extend(
            self.cgroups
                .iter()
                .rev()
                .map(|at| Step::Detach { at: c_path(at) }),
        );
        let mut fresh: Vec<&PathBuf> = Vec::new();
        for at in &self.cgroups {
            // One below another cgroup2 mount went with it, mount point and all.
            if !fresh.iter().any(|above| at.starts_with(above)) {
                fresh.push(at);
                steps.push(mount(Filesystem::Cgroup2, at, inert, &none));
                steps.push(Step::MakeReadOnly {
                    at: c_path(at),
                    flags: inert,
                });
            }
        }
        steps.extend(
            self.shm
                .iter()
                .map(|at| mount(Filesystem::Tmpfs, at, safe, &c_text("mode=1777"))),
        );
        steps.extend(
            self.mqueue
                .iter()
                .map(|at| mount(Filesystem::Mqueue, at, inert, &none)),
        );
        for (at, kept) in &self.hidden {
            steps.push(match kept {
                Some(kept) => Step::CoverAllBut {
                    at: c_path(at),
                    kept: c_path(kept),
                },
                None => mount(
                    Filesystem::Tmpfs,
                    at,
                    inert | libc::MS_RDONLY,
                    &c_text("mode=0755"),
                ),
            });
        }
        steps
    }
}

/// Mount points of a type that a path leads to; those that lie under another mount are left out,
/// since unmounting by path would hit the wrong one.
fn reachable(
    lines: &[MountLine],
    filesystem: &str,
    mount_id: impl Fn(&Path) -> io::Result<Option<u64>>,
) -> io::Result<Vec<PathBuf>> {
    let of_type = |line: &&MountLine| line.filesystem == filesystem;
    let mut found = Vec::new();
    for line in lines.iter().filter(of_type) {
        let on_top = mount_id(&line.at)?;
        if lines
            .iter()
            .filter(of_type)
            .any(|other| other.at == line.at && Some(other.id) == on_top)
        {
            found.push(line.at.clone());
        }
    }
    Ok(found)
}

/// A path, where it leads to a directory.
fn directory(path: &Path) -> io::Result<Option<PathBuf>> {
    let found = unless_absent(fs::metadata(path))?;
    Ok(found.filter(fs::Metadata::is_dir).map(|_| path.to_owned()))
}

/// `None` for what is not there, which is not what could not be looked at.
fn unless_absent<T>(looked: io::Result<T>) -> io::Result<Option<T>> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Which mount a path leads to (`mnt_id` of its fdinfo); `None` = it leads nowhere.
fn mount_id(path: &Path) -> io::Result<Option<u64>> {
    let opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path);
    let Some(file) = unless_absent(opened)? else {
        return Ok(None);
    };
    let info = procfs::text(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    Ok(info
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok()))
}

/// A path that the kernel gave us, or one of the constants: neither holds a NUL byte.
fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

fn c_text(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procfs::parse_mounts;

    const HOST: &str = "\
24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 master:2 - cgroup2 cgroup2 rw,nsdelegate
31 24 0:26 /a /mnt/with\\040space\\134x rw - cgroup2 none rw
32 24 0:26 / /mnt/covered rw - cgroup2 none rw
33 24 0:40 / /mnt/covered rw - tmpfs tmpfs rw
34 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
";

    fn lines() -> Vec<MountLine> {
        parse_mounts(HOST.as_bytes())
    }

    #[test]
    fn only_mounts_that_a_path_leads_to_are_replaced() -> io::Result<()> {
        let on_top = |path: &Path| {
            Ok(Some(match path.to_string_lossy().as_ref() {
                "/sys/fs/cgroup" => 34,
                "/mnt/covered" => 33,
                _ => 31,
            }))
        };
        let found = reachable(&lines(), "cgroup2", on_top)?;
        let expected = ["/sys/fs/cgroup", "/mnt/with space\\x", "/sys/fs/cgroup"];
        assert_eq!(found, expected.map(PathBuf::from));
        Ok(())
    }

    #[test]
    fn each_cgroup_mount_goes_before_a_fresh_one_comes() {
        let view = View {
            cgroups: ["/cg", "/mnt/cg", "/cg", "/cg/inner"]
                .map(PathBuf::from)
                .into(),
            ..View::default()
        };
        let steps: Vec<String> = view.steps().iter().map(ToString::to_string).collect();
        let steps: Vec<&str> = steps.iter().skip(2).map(String::as_str).collect();
        assert_eq!(
            steps,
            [
                "unmount the host's cgroup2 at /cg/inner",
                "unmount the host's cgroup2 at /cg",
                "unmount the host's cgroup2 at /mnt/cg",
                "unmount the host's cgroup2 at /cg",
                "mount cgroup2 on /cg",
                "remount /cg read-only",
                "mount cgroup2 on /mnt/cg",
                "remount /mnt/cg read-only",
            ]
        );
    }

    #[test]
    fn a_directory_inside_something_replaced_is_recognised() {
        let view = View {
            cgroups: vec!["/sys/fs/cgroup".into()],
            shm: Some("/dev/shm".into()),
            hidden: BTreeMap::from([("/run/user".into(), None)]),
            ..View::default()
        };
        for (path, replaced) in [
            ("/sys/fs/cgroup/a", true),
            ("/sys/fs/cgroupx", false),
            ("/dev/shm", true),
            ("/run/user/1000", true),
            ("/run", false),
        ] {
            assert_eq!(view.replaces(Path::new(path)), replaced, "{path}");
        }
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_taken_to_be_absent() -> io::Result<()> {
        assert_eq!(directory(Path::new("/nowhere"))?, None);
        assert_eq!(directory(Path::new("/proc/version/below"))?, None);
        assert_eq!(directory(Path::new("/proc/version"))?, None);
        assert_eq!(directory(Path::new("/proc"))?, Some("/proc".into()));
        let too_long = "x".repeat(300);
        assert!(directory(Path::new(&too_long)).is_err());
        Ok(())
    }

    #[test]
    fn this_hosts_mounts_can_be_read() -> io::Result<()> {
        let view = View::gather()?;
        assert!(view.steps().len() >= 2);
        Ok(())
    }
}
