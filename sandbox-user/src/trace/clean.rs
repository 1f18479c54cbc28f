//! Removing pins that nothing uses any more (`sandbox check --clean`).
//!
//! A directory of pins is in use while one of the leaves that it watches is a live run's. That is
//! read from RINGS, whose layout is the same in every build; the other maps' may differ.

use aya::maps::{HashOfMaps, MapData, MapError, RingBuf};

use super::{
    TraceError, Tracer,
    object::{PinDir, PinLock, RINGS},
};

/// Removes every set of programs that watches none of `live`, and what the maps of the others hold
/// of leaves that are gone. Returns what was removed, by path.
///
/// # Errors
/// Where pins cannot be read or removed.
pub fn clean(live: &[u64]) -> Result<Vec<String>, TraceError> {
    let io_failed = |dir: &PinDir| {
        let path = dir.path().display().to_string();
        move |source| TraceError::Io { path, source }
    };
    let own = PinDir::own();
    let _lock = PinLock::take().map_err(io_failed(&own))?;
    let mut removed = Vec::new();
    for dir in PinDir::all().map_err(io_failed(&own))? {
        let watched = if dir.is_being_made() {
            continue;
        } else {
            watched(&dir).unwrap_or_default()
        };
        let (in_use, gone): (Vec<u64>, Vec<u64>) =
            watched.into_iter().partition(|leaf| live.contains(leaf));
        if in_use.is_empty() {
            dir.remove().map_err(io_failed(&dir))?;
            removed.push(dir.path().display().to_string());
        } else if dir == own {
            let mut tracer = Tracer::reopen(dir)?;
            for leaf in gone {
                tracer.forget(leaf)?;
            }
        }
    }
    Ok(removed)
}

/// The leaves that a set watches; an error where it has no readable RINGS, so that it is of no use.
fn watched(dir: &PinDir) -> Result<Vec<u64>, TraceError> {
    let rings: HashOfMaps<MapData, u64, RingBuf<MapData>> = super::open_map(dir, RINGS)?;
    rings
        .keys()
        .collect::<Result<Vec<u64>, MapError>>()
        .map_err(super::of(RINGS))
}
