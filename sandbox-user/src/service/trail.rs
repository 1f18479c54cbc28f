//! What the service enters in the audit log.

use std::{cell::RefCell, path::Path};

use crate::{
    audit::{AuditError, AuditLog, Event, Opened, announce},
    say::say,
};

/// The open log.
#[derive(Debug)]
pub(super) struct Trail(RefCell<AuditLog>);

impl Trail {
    /// Opens it, and says where a torn line was put.
    ///
    /// # Errors
    /// Where there is no log to go on with.
    pub(super) fn open(directory: &Path) -> Result<Self, AuditError> {
        let Opened { log, torn } = AuditLog::open(directory)?;
        if let Some(torn) = torn {
            say(format_args!(
                "a crash had torn the audit log's last line, which is kept as {}",
                torn.display()
            ));
        }
        Ok(Self(RefCell::new(log)))
    }

    /// Enters something, and has the journal keep the new head.
    ///
    /// # Errors
    /// Where it is not in the log, or might not last there.
    pub(super) fn enter(&self, event: &Event) -> Result<(), AuditError> {
        let head = self.0.borrow_mut().append(event)?;
        if let Err(error) = announce(head, event.run_id()) {
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
