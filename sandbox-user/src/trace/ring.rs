//! The ring buffer of one supervisor: detail, as it happens.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    thread,
};

use aya::maps::{Map, MapData, RingBuf};

use super::{
    TraceError, decode,
    decode::{DecodeError, Event},
    of,
};
use crate::sys::{self, bpf::HashOfRings};

/// The ring of one supervisor.
pub struct Ring {
    pub(super) ring: RingBuf<MapData>,
}

impl Ring {
    pub(super) fn new(bytes: u32) -> Result<Self, TraceError> {
        let fd = sys::bpf::create_ring(bytes).map_err(|error| TraceError::Load {
            what: "a ring buffer of this size (--ring-size)",
            reason: error.to_string(),
        })?;
        let ring = MapData::from_fd(fd)
            .and_then(Map::from_map_data)
            .and_then(RingBuf::try_from)
            .map_err(of("ring"))?;
        Ok(Self { ring })
    }

    /// Hands on at most this many events; returns whether more may be waiting.
    pub fn drain(
        &mut self,
        at_most: usize,
        mut take: impl FnMut(Result<Event, DecodeError>),
    ) -> bool {
        for _ in 0..at_most {
            match self.ring.next() {
                Some(bytes) => take(decode::event(&bytes)),
                None => return false,
            }
        }
        true
    }
}

/// Puts a leaf's ring where the programs look for it, and comes back when it is there. The kernel waits for a grace
/// period of RCU after that, which a thread sees through.
pub(super) fn enter(rings: &HashOfRings, leaf_id: u64, ring: &Ring) -> io::Result<()> {
    let (own, its) = (rings.try_clone()?, ring.as_fd().try_clone_to_owned()?);
    let entering = thread::Builder::new().spawn(move || own.insert(leaf_id, its.as_fd()));
    let Ok(entering) = entering else {
        return rings.insert(leaf_id, ring.as_fd());
    };
    while !entering.is_finished() {
        // Where that cannot be told, how the thread fares tells.
        if matches!(rings.contains(leaf_id), Ok(true)) {
            return Ok(());
        }
        thread::yield_now();
    }
    entering
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")))
}

impl AsFd for Ring {
    /// Readable when events wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
