//! Where cgroup2 is mounted, and whether the controllers that a leaf needs are there.
//!
//! A controller belongs either to a v1 hierarchy or to cgroup2, so on v1 and hybrid hosts a leaf
//! would exist and limit nothing: such hosts are told apart here and refused with the way to mend
//! them. Sources: proc_pid_mountinfo(5), Documentation/admin-guide/cgroup-v2.rst "Mounting".

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick};
use serde::{Deserialize, Serialize};

use super::error::CgroupError;
use crate::procfs::{self, MountLine, mounts};

/// A controller that a leaf uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Controller {
    /// Limits and statistics of memory.
    Memory,
    /// Limits and statistics of CPU time.
    Cpu,
    /// Limits the number of tasks.
    Pids,
    /// Statistics of block devices; nice to have.
    Io,
}

impl Controller {
    /// Those that must be there.
    pub const REQUIRED: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];
    /// Those that are used where they are there.
    pub const OPTIONAL: [Self; 1] = [Self::Io];

    /// The kernel's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
            Self::Io => "io",
        }
    }

    /// Those that a `cgroup.controllers` or `cgroup.subtree_control` lists; others are not ours.
    pub fn parse_list(text: &str) -> BTreeSet<Self> {
        let names: BTreeSet<&str> = text.split_whitespace().collect();
        Self::REQUIRED
            .into_iter()
            .chain(Self::OPTIONAL)
            .filter(|controller| names.contains(controller.name()))
            .collect()
    }

    /// Which of the required ones a set lacks.
    pub fn missing_from(set: &BTreeSet<Self>) -> Vec<Self> {
        Self::REQUIRED
            .into_iter()
            .filter(|controller| !set.contains(controller))
            .collect()
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names joined for a message.
pub(crate) fn join(controllers: &[Controller]) -> String {
    let names: Vec<&str> = controllers
        .iter()
        .map(|controller| controller.name())
        .collect();
    names.join(",")
}

/// Whether cgroup namespaces are borders of delegation (mount option `nsdelegate`): without it a
/// process in a namespace of its own may raise the limits of its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NsDelegate {
    /// They are.
    On,
    /// They are not.
    Off,
}

/// A cgroup2 mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where it is mounted, usually /sys/fs/cgroup.
    pub root: PathBuf,
    /// Which part of the tree (of this cgroup namespace) is mounted there, usually `/`.
    pub subtree: String,
    /// Options of the file system (`nsdelegate`, `memory_recursiveprot` …).
    pub options: Vec<String>,
    /// What its root's `cgroup.controllers` offers.
    pub controllers: BTreeSet<Controller>,
}

#[cfg(test)]
impl Mount {
    /// A directory of a test's as a mount of the whole tree.
    pub(super) fn of_test(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            subtree: "/".to_owned(),
            options: Vec::new(),
            controllers: BTreeSet::new(),
        }
    }
}

impl Mount {
    /// Finds this host's cgroup2 mount; once in a process, since it stays where it is, and a host's mounts can be many
    /// to read.
    ///
    /// # Errors
    /// On v1 and hybrid hosts and where a required controller is missing; each says how to mend it.
    pub fn find() -> Result<Self, CgroupError> {
        static FOUND: OnceLock<Mount> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(found.clone());
        }
        let found = Hierarchy::survey()?.into_mount()?;
        Ok(FOUND.get_or_init(|| found).clone())
    }

    /// The directory of a cgroup.
    ///
    /// # Errors
    /// When it lies outside of what is mounted.
    pub fn dir(&self, cgroup: &str) -> Result<PathBuf, CgroupError> {
        let relative = Path::new(cgroup)
            .strip_prefix(&self.subtree)
            .ok()
            .filter(|path| !path.components().any(|part| part.as_os_str() == ".."));
        match relative {
            Some(relative) if relative.as_os_str().is_empty() => Ok(self.root.clone()),
            Some(relative) => Ok(self.root.join(relative)),
            None => Err(CgroupError::OutsideMount {
                cgroup: cgroup.to_owned(),
                mount: self.root.clone(),
            }),
        }
    }

    /// The cgroups above one, nearest first, up to what is mounted.
    pub fn ancestors(&self, cgroup: &str) -> Vec<String> {
        Path::new(cgroup)
            .ancestors()
            .skip(1)
            .filter(|path| path.starts_with(&self.subtree))
            .map(|path| path.to_string_lossy().into_owned())
            .collect()
    }

    /// Whether it was mounted with `nsdelegate`.
    pub fn nsdelegate(&self) -> NsDelegate {
        if self.has_option("nsdelegate") {
            NsDelegate::On
        } else {
            NsDelegate::Off
        }
    }

    /// Whether it was mounted with that option. `memory_localevents` and `pids_localevents` change
    /// what `memory.events` and `pids.events` count.
    pub fn has_option(&self, name: &str) -> bool {
        self.options.iter().any(|option| option == name)
    }

    /// Switches `nsdelegate` on, for the whole host: only where no systemd owns the mount (which
    /// mounts it so by itself). The other options are said again, since a reconfiguration drops what
    /// it does not name.
    ///
    /// # Errors
    /// Outside of the initial cgroup namespace, or without CAP_SYS_ADMIN.
    pub fn switch_on_nsdelegate(&mut self) -> Result<(), CgroupError> {
        if self.nsdelegate() == NsDelegate::On {
            return Ok(());
        }
        let fail =
            |errno| CgroupError::write(&self.root, "nsdelegate", std::io::Error::from(errno));
        let fs = fspick(rustix::fs::CWD, &self.root, FsPickFlags::FSPICK_CLOEXEC).map_err(fail)?;
        for option in self
            .options
            .iter()
            .filter(|option| !matches!(option.as_str(), "rw" | "ro"))
        {
            fsconfig_set_flag(&fs, option.as_str()).map_err(fail)?;
        }
        fsconfig_set_flag(&fs, "nsdelegate").map_err(fail)?;
        fsconfig_reconfigure(&fs).map_err(fail)?;
        // Outside of the initial namespace the kernel ignores the option without an error.
        let again = Hierarchy::survey()?.into_mount()?;
        match again.nsdelegate() {
            NsDelegate::On => {
                *self = again;
                Ok(())
            }
            NsDelegate::Off => Err(fail(rustix::io::Errno::PERM)),
        }
    }
}

/// How this host's cgroups are set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hierarchy {
    /// cgroup2 with all that is needed.
    Unified(Mount),
    /// cgroup2 is there, but v1 hierarchies hold what is needed.
    Hybrid {
        /// The cgroup2 mount.
        mount: Mount,
        /// Who holds what.
        taken: Vec<(Controller, PathBuf)>,
    },
    /// cgroup2 lacks controllers that no v1 hierarchy holds either.
    Lacking {
        /// The cgroup2 mount.
        mount: Mount,
        /// What it lacks.
        missing: Vec<Controller>,
    },
    /// v1 only.
    V1Only {
        /// One of its mounts.
        v1_mount: PathBuf,
    },
    /// None is mounted.
    NotMounted,
}

impl Hierarchy {
    /// Looks at this host.
    ///
    /// # Errors
    /// When /proc/self/mountinfo or the root's `cgroup.controllers` cannot be read.
    pub fn survey() -> Result<Self, CgroupError> {
        let mounts = mounts().map_err(|error| CgroupError::read("/proc/self/mountinfo", error))?;
        Self::from_mounts(&mounts, |root| {
            let path = root.join("cgroup.controllers");
            procfs::text(&path).map_err(|error| CgroupError::read(path, error))
        })
    }

    /// Decides from the mounts; `controllers` reads a mount's `cgroup.controllers`.
    ///
    /// # Errors
    /// Only those of `controllers`.
    pub fn from_mounts(
        lines: &[MountLine],
        controllers: impl Fn(&Path) -> Result<String, CgroupError>,
    ) -> Result<Self, CgroupError> {
        let v1 = lines.iter().filter(|line| line.filesystem == "cgroup");
        let whole_first = |line: &&MountLine| usize::from(line.root != Path::new("/"));
        let Some(v2) = lines
            .iter()
            .filter(|line| line.filesystem == "cgroup2")
            .min_by_key(whole_first)
        else {
            return Ok(match v1.map(|line| &line.at).next() {
                Some(root) => Self::V1Only {
                    v1_mount: root.clone(),
                },
                None => Self::NotMounted,
            });
        };
        let mount = Mount {
            root: v2.at.clone(),
            subtree: v2.root.to_string_lossy().into_owned(),
            options: v2.options.clone(),
            controllers: Controller::parse_list(&controllers(&v2.at)?),
        };
        let missing = Controller::missing_from(&mount.controllers);
        if missing.is_empty() {
            return Ok(Self::Unified(mount));
        }
        let taken: Vec<(Controller, PathBuf)> = v1
            .flat_map(|line| {
                let held = |controller: &&Controller| {
                    line.options
                        .iter()
                        .any(|option| option == controller.name())
                };
                missing
                    .iter()
                    .filter(held)
                    .map(|controller| (*controller, line.at.clone()))
            })
            .collect();
        Ok(if taken.is_empty() {
            Self::Lacking { mount, missing }
        } else {
            Self::Hybrid { mount, taken }
        })
    }

    /// The mount, if leaves can be made in it.
    ///
    /// # Errors
    /// Where they cannot, with the way to mend it.
    pub fn into_mount(self) -> Result<Mount, CgroupError> {
        match self {
            Self::Unified(mount) => Ok(mount),
            Self::Hybrid { mount, taken } => {
                let taken: Vec<String> = taken
                    .iter()
                    .map(|(controller, root)| format!("{controller} ({})", root.display()))
                    .collect();
                Err(CgroupError::Hybrid {
                    mount: mount.root,
                    taken: taken.join(", "),
                })
            }
            Self::Lacking { mount, missing } => Err(CgroupError::ControllersMissing {
                path: mount.root.join("cgroup.controllers"),
                missing: join(&missing),
            }),
            Self::V1Only { v1_mount } => Err(CgroupError::V1Only { v1_mount }),
            Self::NotMounted => Err(CgroupError::NoCgroup2),
        }
    }
}

/// The cgroup2 path of a process, from the text of its /proc/PID/cgroup (`0::PATH`); `None` where
/// it has none. A cgroup that was removed under it carries ` (deleted)`.
pub(super) fn parse_proc_cgroup(text: &str) -> Option<String> {
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::procfs::parse_mounts;

    use super::*;

    const UNIFIED: &str = "24 30 0:22 / /proc rw - proc proc rw\n\
        28 23 0:25 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
    const HYBRID: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    fn survey(mountinfo: &str, controllers: &str) -> Hierarchy {
        Hierarchy::from_mounts(&parse_mounts(mountinfo.as_bytes()), |_| {
            Ok(controllers.to_owned())
        })
        .expect("no reads")
    }

    fn unified() -> Mount {
        survey(UNIFIED, "cpuset cpu io memory hugetlb pids")
            .into_mount()
            .expect("unified")
    }

    #[test]
    fn a_unified_host_gives_its_mount_its_controllers_and_its_options() {
        let mount = unified();
        assert_eq!(mount.root, Path::new("/sys/fs/cgroup"));
        assert_eq!(mount.nsdelegate(), NsDelegate::On);
        assert_eq!(mount.controllers.len(), 4);
        assert!(!mount.has_option("memory_localevents"));
    }

    #[test]
    fn a_hybrid_host_is_refused_with_who_holds_what_and_how_to_mend_it() {
        let error = survey(HYBRID, "pids")
            .into_mount()
            .expect_err("hybrid")
            .to_string();
        for part in [
            "memory (/sys/fs/cgroup/memory)",
            "systemd.unified_cgroup_hierarchy=1",
            "cgroup_no_v1=all",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_v1_host_a_bare_one_and_one_with_memory_disabled_are_told_apart() {
        let v1 = HYBRID.lines().next().expect("a line");
        assert!(matches!(survey(v1, ""), Hierarchy::V1Only { .. }));
        assert_eq!(survey("", ""), Hierarchy::NotMounted);
        let error = survey(UNIFIED, "cpu io pids")
            .into_mount()
            .expect_err("no memory")
            .to_string();
        assert!(error.contains("cgroup_disable=memory"), "{error}");
    }

    #[test]
    fn the_whole_tree_is_preferred_to_a_part_of_it() {
        let part = "40 31 0:38 /docker/abc /mnt/part rw - cgroup2 none rw\n";
        let Hierarchy::Unified(mount) = survey(&format!("{part}{UNIFIED}"), "cpu memory pids")
        else {
            panic!("unified")
        };
        assert_eq!(mount.root, Path::new("/sys/fs/cgroup"));
        let Hierarchy::Unified(mount) = survey(part, "cpu memory pids") else {
            panic!("unified")
        };
        assert_eq!(
            mount.dir("/docker/abc/x").expect("inside"),
            Path::new("/mnt/part/x")
        );
        assert!(mount.dir("/system.slice").is_err());
        assert_eq!(
            mount.ancestors("/docker/abc/x/y"),
            ["/docker/abc/x", "/docker/abc"]
        );
    }

    #[test]
    fn cgroups_map_to_directories_and_never_out_of_the_mount() {
        let mount = unified();
        assert_eq!(mount.dir("/").expect("root"), Path::new("/sys/fs/cgroup"));
        assert_eq!(
            mount.dir("/a/b").expect("inside"),
            Path::new("/sys/fs/cgroup/a/b")
        );
        assert!(mount.dir("/../a").is_err());
        assert_eq!(mount.ancestors("/a/b/c"), ["/a/b", "/a", "/"]);
    }

    #[test]
    fn the_unified_line_of_proc_cgroup_is_the_one_with_id_zero() {
        let text = "4:memory:/x\n1:name=systemd:/y\n0::/user.slice/a:b.scope\n";
        assert_eq!(
            parse_proc_cgroup(text).as_deref(),
            Some("/user.slice/a:b.scope")
        );
        assert_eq!(parse_proc_cgroup("4:memory:/x\n"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_mountinfo_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let text = String::from_utf8_lossy(&bytes);
            let _ = survey(&text, &text);
            let _ = parse_proc_cgroup(&text);
        }
    }
}
