//! The ring buffer of one supervisor: detail, as it happens.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    thread,
};

use aya::maps::{Map, MapData, RingBuf};

use super::{
    TraceError, decode,
    decode::{DecodeError, Event},
    object::RINGS_MAX,
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
    let ring = Arc::new(ring.as_fd().try_clone_to_owned()?);
    let entered = in_thread(
        rings,
        move |rings| rings.insert(leaf_id, ring.as_fd()),
        |rings| matches!(rings.contains(leaf_id), Ok(true)),
    );
    match entered {
        // E2BIG.
        Err(error) if error.kind() == io::ErrorKind::ArgumentListTooLong => Err(io::Error::other(
            format!("{RINGS_MAX} leaves are watched on this host, as many as can be"),
        )),
        entered => entered,
    }
}

/// Takes it away from there, where it is, as [`enter`] puts it.
pub(super) fn leave(rings: &HashOfRings, leaf_id: u64) -> io::Result<()> {
    let is_away = |rings: &HashOfRings| matches!(rings.contains(leaf_id), Ok(false));
    // A thread would come too late, and take the next one away.
    if is_away(rings) {
        return Ok(());
    }
    match in_thread(rings, move |rings| rings.remove(leaf_id), is_away) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Has a thread change them, and comes back when the change is there.
fn in_thread(
    rings: &HashOfRings,
    change: impl Fn(&HashOfRings) -> io::Result<()> + Clone + Send + 'static,
    is_there: impl Fn(&HashOfRings) -> bool,
) -> io::Result<()> {
    let (its_rings, its_change) = (rings.try_clone()?, change.clone());
    let Ok(changing) = thread::Builder::new().spawn(move || its_change(&its_rings)) else {
        return change(rings);
    };
    while !changing.is_finished() {
        // Where that cannot be told, how the thread fares tells.
        if is_there(rings) {
            return Ok(());
        }
        thread::yield_now();
    }
    changing
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")))
}

impl AsFd for Ring {
    /// Readable when events wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
