//! The ring buffer of one supervisor: detail, as it happens.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Map, MapData, RingBuf};

use super::{
    TraceError, decode,
    decode::{DecodeError, Event},
    of,
};
use crate::sys;

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

impl AsFd for Ring {
    /// Readable when events wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
