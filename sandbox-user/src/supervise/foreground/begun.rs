//! What a run has before there is an event loop, of which a forked guardian could have no other.

use std::{io, time::Instant};

use jiff::Timestamp;

use crate::{
    caller::Caller,
    spec::RunSpec,
    supervise::{
        guardian::Guardian,
        prepare::{self, RunError},
        record_file::RecordFile,
        signals,
    },
    sys::creds::FileIdentity,
};

/// A run that has begun.
pub(super) struct Begun {
    pub(super) accepted_at: Timestamp,
    pub(super) caller: Caller,
    /// With whose rights the record is written.
    pub(super) recorder: FileIdentity,
    pub(super) record_file: Option<RecordFile>,
    /// From where on there is something that could be left behind.
    pub(super) began: Instant,
    pub(super) guardian: io::Result<Guardian>,
}

impl Begun {
    /// Begins it.
    ///
    /// # Errors
    /// Where the request cannot be carried out on this host at all.
    pub(super) fn with(spec: &RunSpec) -> Result<Self, RunError> {
        let accepted_at = Timestamp::now();
        signals::block().map_err(RunError::system("blocking signals"))?;
        let caller = Caller::current()?;
        let recorder = prepare::recorder(&caller);
        let mut record_file = prepare::open_record(spec, &recorder)?;
        Ok(Self {
            accepted_at,
            caller,
            recorder,
            began: Instant::now(),
            guardian: Guardian::start(record_file.as_mut()),
            record_file,
        })
    }
}
