//! What the service enters in the audit log.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use super::in_force::InForce;
use crate::{
    audit::{AuditError, AuditLog, Event, Opened, announce, keep_policy},
    say::say,
};

/// The open log.
#[derive(Debug)]
pub(super) struct Trail {
    log: RefCell<AuditLog>,
    directory: PathBuf,
}

impl Trail {
    /// Opens it, and says where a torn line was put, or a log that was damaged.
    ///
    /// # Errors
    /// Where there is no log to go on with.
    pub(super) fn open(directory: &Path) -> Result<Self, AuditError> {
        let Opened { log, torn, damaged } = AuditLog::open(directory)?;
        if let Some(damaged) = damaged {
            say(format_args!(
                "the audit log is not what its writer had left: somebody changed it, or the disk did. It is kept as {}, \
                 and a new one is begun, of which `sandbox audit verify` will say so",
                damaged.display()
            ));
        }
        if let Some(torn) = torn {
            say(format_args!(
                "a crash had torn the audit log's last line, which is kept as {}",
                torn.display()
            ));
        }
        let directory = directory.to_owned();
        Ok(Self {
            log: RefCell::new(log),
            directory,
        })
    }

    /// Keeps the text of a configuration before the entry that names it.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(super) fn keep_policy(&self, in_force: &InForce) -> Result<(), AuditError> {
        in_force
            .text()
            .map_or(Ok(()), |text| keep_policy(&self.directory, text))
    }

    /// Enters something, and has the journal keep the new head.
    ///
    /// # Errors
    /// Where it is not in the log, or might not last there.
    pub(super) fn enter(&self, event: &Event) -> Result<(), AuditError> {
        let mut log = self.log.borrow_mut();
        if !log.is_in_place() {
            let kept = log.begin_anew()?;
            say(format_args!(
                "the audit log was taken away under its writer: what was in it is kept as {}, of which \
                 `sandbox audit verify` will say so",
                kept.display()
            ));
        }
        let head = log.append(event)?;
        if let Err(error) = announce(head, event) {
            say(format_args!(
                "the journal does not take the audit log's head: {error}"
            ));
        }
        Ok(())
    }

    /// Enters what has happened already, so that nothing can be made of its failing but to say it.
    pub(super) fn tell(&self, event: &Event) {
        if let Err(error) = self.enter(event) {
            say(error);
        }
    }
}
