//! Removing pins that nothing uses any more (`sandbox check --clean`; of other builds, the service by itself).
//!
//! A directory of pins is in use while one of the leaves that it watches is a live run's. That is
//! read from RINGS, whose layout is the same in every build; the other maps' may differ.

use std::collections::BTreeSet;

use aya::maps::{HashMap, HashOfMaps, MapData, MapError, RingBuf};
use sandbox_ebpf as wire;

use super::{
    TraceError, Tracer,
    object::RINGS,
    pins::{PinDir, PinLock},
};

/// Of so many leaves that are gone at most what is known is forgotten at a time: each takes a thread for some 10 ms.
const FORGOTTEN_AT_ONCE: usize = 64;

/// Whose pins are removed, where nothing uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unused {
    /// Every build's.
    Any,
    /// Other builds': this one's are kept for the next run.
    OfOtherBuilds,
}

/// What cleaning came to.
#[derive(Debug, Default)]
pub struct Cleaned {
    /// What was removed, by path.
    pub removed: Vec<String>,
    /// What could not be judged, and so is left alone.
    pub problems: Vec<TraceError>,
}

/// Removes each set of programs that is meant and watches no live leaf. `live` is asked while no run can take
/// pins into use: the ids of the leaves that there are.
///
/// # Errors
/// Where the pins cannot be listed, or `live` fails.
pub fn clean<E: From<TraceError>>(
    unused: Unused,
    live: impl FnOnce() -> Result<Vec<u64>, E>,
) -> Result<Cleaned, E> {
    let failed = |dir: &PinDir| {
        let path = dir.path().display().to_string();
        move |source| TraceError::Io { path, source }
    };
    let own = PinDir::own();
    let is_meant = |dir: &PinDir| {
        let is_of_its_build = unused == Unused::Any || *dir != own;
        is_of_its_build && !dir.is_being_made()
    };
    let meant = || Ok(PinDir::all()?.into_iter().filter(is_meant));
    if meant().map_err(failed(&own))?.next().is_none() {
        return Ok(Cleaned::default());
    }
    let _lock = PinLock::take().map_err(failed(&own))?;
    let live = live()?;
    let mut cleaned = Cleaned::default();
    for dir in meant().map_err(failed(&own))? {
        let in_use = match watched(&dir) {
            Ok(leaves) => leaves.iter().any(|leaf| live.contains(leaf)),
            Err(problem) => {
                // Not known to be unused.
                cleaned.problems.push(problem);
                continue;
            }
        };
        if !in_use {
            match dir.remove() {
                Ok(()) => cleaned.removed.push(dir.path().display().to_string()),
                Err(error) => cleaned.problems.push(failed(&dir)(error)),
            }
        }
    }
    Ok(cleaned)
}

/// Forgets what this build's maps hold of leaves that are gone: their run lost supervisor and guardian. Where there are
/// very many, the next call goes on. `present` says which of some ids there are; it is asked after the maps were read, so
/// that a leaf that is made meanwhile is not taken for one that went.
///
/// # Errors
/// Where a map cannot be read or changed.
pub fn forget_gone(
    present: impl FnOnce(&BTreeSet<u64>) -> Option<BTreeSet<u64>>,
) -> Result<(), TraceError> {
    let own = PinDir::own();
    if own.mode()?.is_none() {
        return Ok(());
    }
    let mut known: BTreeSet<u64> = watched(&own)?.into_iter().collect();
    known.extend(with_facts(&own)?);
    if known.is_empty() {
        return Ok(());
    }
    let mut tracer = Tracer::reopen(own)?;
    let Some(present) = present(&known) else {
        return Ok(());
    };
    known
        .difference(&present)
        .take(FORGOTTEN_AT_ONCE)
        .try_for_each(|leaf| tracer.forget(*leaf))
}

/// The leaves that a set watches. A directory without RINGS was never whole, or is no more: none.
pub(super) fn watched(dir: &PinDir) -> Result<Vec<u64>, TraceError> {
    if dir
        .path()
        .join(RINGS)
        .try_exists()
        .is_ok_and(|there| !there)
    {
        return Ok(Vec::new());
    }
    let rings: HashOfMaps<MapData, u64, RingBuf<MapData>> = super::open_map(dir, RINGS)?;
    let known: Result<Vec<u64>, MapError> = rings.keys().collect();
    known.map_err(super::of(RINGS))
}

/// The leaves of which this build's maps hold facts.
fn with_facts(own: &PinDir) -> Result<Vec<u64>, TraceError> {
    let facts: HashMap<MapData, u64, wire::Facts> = super::open_map(own, "FACTS")?;
    let known: Result<Vec<u64>, MapError> = facts.keys().collect();
    known.map_err(super::of("FACTS"))
}
