//! The host's configuration as it is in force: read when the service begins and on SIGHUP, and the same
//! for all that it does in between, whatever becomes of the file.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::fs::{MemfdFlags, memfd_create};

use super::queue::{Capacity, Need};
use crate::{
    audit::Hash,
    config::{self, Config, ConfigError},
    policy::Setting,
};

/// A configuration, or that there is none.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct InForce {
    /// What it says; the built-in defaults where there is none.
    pub(super) config: Config,
    text: Option<String>,
}

impl InForce {
    /// Reads the host's.
    ///
    /// # Errors
    /// [`ConfigError`] where it is not to be gone by.
    pub(super) fn read() -> Result<Self, ConfigError> {
        let path = Path::new(config::PATH);
        let text = Config::text(path)?;
        Ok(Self {
            config: Config::parse(text.as_deref().unwrap_or_default(), path)?,
            text,
        })
    }

    /// What tells it from others; `None` where there is none.
    pub(super) fn sha256(&self) -> Option<Hash> {
        self.text.as_ref().map(|text| Hash::of(text.as_bytes()))
    }

    /// Its text; `None` where there is none.
    pub(super) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Its text, for a process that is to go by it.
    ///
    /// # Errors
    /// EMFILE and the like.
    pub(super) fn to_file(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(memfd_create("sandbox-config", MemfdFlags::CLOEXEC)?);
        file.write_all(self.text.as_deref().unwrap_or_default().as_bytes())?;
        Ok(file.into())
    }

    /// How many runs there may be, and what they may have together.
    pub(super) fn capacity(&self) -> Capacity {
        let Config {
            service, budget, ..
        } = &self.config;
        Capacity {
            runs: service.runs,
            queue: service.queue,
            queue_per_user: service.queue_per_user,
            total: Need {
                memory_bytes: budget.memory_most_bytes(),
                cpus: budget.cpus.and_then(Setting::into_option),
                pids: budget.pids.and_then(Setting::into_option),
            },
        }
    }
}
