//! The caller's resource limits: the analysis's, and not those of `sandbox` itself.
//!
//! A `ulimit -t 1` or `ulimit -n 20` is meant for the analysis. Were the runner and its guardian under
//! it, they could be killed before it, or have no descriptor left to watch it with: they lift theirs
//! before anything else, and the child puts back what the caller had. See getrlimit(2).

use std::ptr::null_mut;

use serde::{Deserialize, Serialize};

use super::{Errno, check};
use crate::procfs;

/// What may keep the runner from its work. RLIMIT_NPROC and RLIMIT_MEMLOCK do not count for root.
const LIFTED: [u32; 6] = [
    libc::RLIMIT_CPU,
    libc::RLIMIT_FSIZE,
    libc::RLIMIT_DATA,
    libc::RLIMIT_STACK,
    libc::RLIMIT_NOFILE,
    libc::RLIMIT_AS,
];
/// As many descriptors as are had; it may not be without end (`fs.nr_open`).
const NOFILE: u64 = 65_536;
const INFINITY: u64 = u64::MAX;

/// One of the caller's limits: `struct rlimit64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    resource: u32,
    soft: u64,
    hard: u64,
}

/// The limits that the caller has for what is lifted here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallersLimits {
    found: Vec<ResourceLimit>,
    lifted: Vec<ResourceLimit>,
}

impl CallersLimits {
    /// Lifts this process's limits as far as it may, and says what they were.
    pub fn lift() -> Self {
        let mut limits = Self::default();
        for resource in LIFTED {
            let Ok(found) = ResourceLimit::get(resource) else {
                continue;
            };
            limits.found.push(found);
            let highest = match resource {
                libc::RLIMIT_NOFILE => found.hard.max(NOFILE),
                _ => INFINITY,
            };
            // Where the hard limit may not be raised, as far as that goes; where it is above what the
            // host allows by now, as far as the host goes.
            let candidates = [Some(highest), Some(found.hard), most_files(resource)];
            let lifted = candidates.into_iter().flatten().find(|most| {
                let lifted = ResourceLimit {
                    resource,
                    soft: *most,
                    hard: *most,
                };
                // SAFETY: changes this process's own limits, and the soft one upwards.
                *most >= found.soft && unsafe { lifted.set() }.is_ok()
            });
            if let Some(most) = lifted {
                limits.lifted.push(ResourceLimit {
                    // One that is above what the host allows cannot be had again.
                    hard: found.hard.min(most),
                    ..found
                });
            }
        }
        limits
    }

    /// Takes over the limits of a client that this process stands in for, and lifts them as its own.
    pub fn of_client(limits: &[ResourceLimit]) -> Self {
        for limit in limits {
            // SAFETY: they are lifted right below, as far as they could be in the way. One that the host
            // allows no more stays as it is.
            let _ = unsafe { limit.set() };
        }
        Self::lift()
    }

    /// Gives this process its limits back, for who looks at them from outside.
    pub fn put_back(&self) {
        for limit in &self.lifted {
            // SAFETY: they are what it was started with. One that the host allows no more stays lifted.
            let _ = unsafe { limit.set() };
        }
    }

    /// What a child of the analysis's has to be given back.
    pub fn to_restore(&self) -> &[ResourceLimit] {
        &self.lifted
    }

    /// RLIMIT_CPU, soft and hard, seconds; `None` = infinity.
    pub fn cpu_seconds(&self) -> (Option<u64>, Option<u64>) {
        let finite = |value| (value != INFINITY).then_some(value);
        self.found
            .iter()
            .find(|limit| limit.resource == libc::RLIMIT_CPU)
            .map_or((None, None), |limit| {
                (finite(limit.soft), finite(limit.hard))
            })
    }
}

/// `fs.nr_open`, above which no limit on descriptors can be set.
fn most_files(resource: u32) -> Option<u64> {
    if resource != libc::RLIMIT_NOFILE {
        return None;
    }
    let text = procfs::text("/proc/sys/fs/nr_open").ok()?;
    text.trim().parse().ok()
}

impl ResourceLimit {
    /// All limits of a process.
    ///
    /// # Errors
    /// ESRCH where it has gone; EPERM without CAP_SYS_RESOURCE.
    pub fn all_of(pid: i32) -> std::io::Result<Vec<Self>> {
        // RLIM_NLIMITS (include/uapi/asm-generic/resource.h).
        (0..16)
            .map(|resource| Self::get_of(pid, resource).map_err(std::io::Error::from_raw_os_error))
            .collect()
    }

    fn get(resource: u32) -> Result<Self, Errno> {
        Self::get_of(0, resource)
    }

    fn get_of(pid: i32, resource: u32) -> Result<Self, Errno> {
        let mut pair = [0_u64; 2];
        // SAFETY: the kernel writes a `struct rlimit64`, two u64, to `pair`; nothing is set.
        unsafe {
            check(libc::syscall(
                libc::SYS_prlimit64,
                pid,
                resource,
                null_mut::<u64>(),
                pair.as_mut_ptr(),
            ))?;
        }
        let [soft, hard] = pair;
        Ok(Self {
            resource,
            soft,
            hard,
        })
    }

    /// Gives the calling process this limit.
    ///
    /// # Safety
    /// A signal-safe system call; but what the process does next may fail, or end it.
    pub(super) unsafe fn set(&self) -> Result<(), Errno> {
        let pair = [self.soft, self.hard];
        // SAFETY: the kernel reads a `struct rlimit64`, two u64, from `pair`.
        unsafe {
            check(libc::syscall(
                libc::SYS_prlimit64,
                0,
                self.resource,
                pair.as_ptr(),
                null_mut::<u64>(),
            ))
            .map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_limit_is_told_in_seconds_and_infinity_is_none() {
        let of = |soft, hard| {
            CallersLimits {
                found: vec![ResourceLimit {
                    resource: libc::RLIMIT_CPU,
                    soft,
                    hard,
                }],
                lifted: Vec::new(),
            }
            .cpu_seconds()
        };
        assert_eq!(of(1, 2), (Some(1), Some(2)));
        assert_eq!(of(INFINITY, INFINITY), (None, None));
        assert_eq!(CallersLimits::default().cpu_seconds(), (None, None));
    }

    #[test]
    fn what_is_set_is_what_is_read_back() {
        let now = ResourceLimit::get(libc::RLIMIT_NOFILE).expect("it can be read");
        // SAFETY: it stays as it is.
        unsafe { now.set() }.expect("it may stay as it is");
        assert_eq!(ResourceLimit::get(libc::RLIMIT_NOFILE), Ok(now));
    }
}
