//! The engine's pinned maps, from outside of it: which keys they have, what they weigh, and how to fill one.
//!
//! Through bpf(2) and `/proc`, not through the engine's own code, and without knowing what a value
//! means: a map that somebody adds is looked at too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use crate::sys;

/// Where each build of the engine has a folder of pins.
pub const PINS: &str = "/sys/fs/bpf/sandbox";

/// Removes all pins, so that the next run loads the programs anew.
///
/// # Panics
///
/// Where some cannot be removed.
#[track_caller]
pub fn unpin() {
    match fs::remove_dir_all(PINS) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{PINS}: {error}"),
        Ok(()) | Err(_) => {}
    }
}

/// `BPF_MAP_TYPE_HASH` and `BPF_MAP_TYPE_HASH_OF_MAPS`: the maps whose keys come and go.
const HASHES: &[u64] = &[1, 13];

/// All maps at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maps {
    /// Keys, by the name of the pinned map.
    pub keys: BTreeMap<String, BTreeSet<Vec<u8>>>,
    /// What the kernel says that each pinned map weighs, in bytes.
    pub bytes: BTreeMap<String, u64>,
    /// The ids of all maps in the kernel, the rings included, which are pinned nowhere.
    pub ids: BTreeSet<u32>,
}

impl Maps {
    /// Reads them.
    ///
    /// # Panics
    ///
    /// Where no run has loaded the programs yet, or somebody's maps cannot be read.
    #[must_use]
    #[track_caller]
    pub fn read() -> Self {
        let mut maps = Self {
            keys: BTreeMap::new(),
            bytes: BTreeMap::new(),
            ids: ids(),
        };
        let builds = fs::read_dir(PINS).unwrap_or_else(|error| panic!("{PINS}: {error}"));
        for build in builds {
            let folder = build.expect("bpffs can be listed").path();
            for pin in fs::read_dir(&folder).expect("a folder of pins").flatten() {
                let name = pin.file_name().to_string_lossy().into_owned();
                // Links and programs are named in small letters, maps in capitals.
                if name.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                    maps.add(name, &pin.path());
                }
            }
        }
        for known in ["FACTS", "MAINS", "INTENTS", "VICTIMS", "FUGITIVES", "RINGS"] {
            assert!(maps.keys.contains_key(known), "{known} is not pinned");
        }
        maps
    }

    #[track_caller]
    fn add(&mut self, name: String, path: &Path) {
        let map = open(path);
        self.bytes.insert(name.clone(), number(&map, "memlock:"));
        if HASHES.contains(&number(&map, "map_type:")) {
            let size = usize::try_from(number(&map, "key_size:")).expect("a key is small");
            let mut keys = BTreeSet::new();
            let mut key: Option<Vec<u8>> = None;
            while let Some(next) = sys::next_key(map.as_fd(), key.as_deref(), size)
                .unwrap_or_else(|error| panic!("the keys of {name}: {error}"))
            {
                keys.insert(next.clone());
                key = Some(next);
            }
            self.keys.insert(name, keys);
        }
    }

    /// How many keys a map has.
    ///
    /// # Panics
    ///
    /// Where there is no such map.
    #[must_use]
    #[track_caller]
    pub fn count(&self, name: &str) -> usize {
        self.keys[name].len()
    }

    /// The keys that were not there before, by the name of their map.
    #[must_use]
    pub fn keys_since(&self, before: &Self) -> BTreeMap<String, usize> {
        let new = self.keys.iter().map(|(name, keys)| {
            let old = before.keys.get(name);
            let is_new = |key: &&Vec<u8>| old.is_none_or(|old| !old.contains(*key));
            (name.clone(), keys.iter().filter(is_new).count())
        });
        new.filter(|(_, count)| *count > 0).collect()
    }

    /// How many maps the kernel holds that were not there before.
    #[must_use]
    pub fn maps_since(&self, before: &Self) -> usize {
        self.ids.difference(&before.ids).count()
    }
}

/// A pinned map without room for one more key, until this is dropped.
#[derive(Debug)]
pub struct FullMap {
    map: OwnedFd,
    keys: Vec<Vec<u8>>,
}

impl FullMap {
    /// Fills the map with keys that are nobody's. A run that starts clears away what belongs to no
    /// leaf, so this is for one that goes on.
    ///
    /// # Panics
    ///
    /// Where there is not exactly one map of this name, or it cannot be filled.
    #[must_use]
    #[track_caller]
    pub fn named(name: &str) -> Self {
        let builds = fs::read_dir(PINS).unwrap_or_else(|error| panic!("{PINS}: {error}"));
        let paths = builds.map(|build| build.expect("bpffs can be listed").path().join(name));
        let paths: Vec<_> = paths.filter(|path| path.exists()).collect();
        let [path] = &paths[..] else {
            panic!("one map {name} is pinned, not {paths:?}");
        };
        let map = open(path);
        let size = |field| usize::try_from(number(&map, field)).expect("they are small");
        let (key_size, value) = (size("key_size:"), vec![0; size("value_size:")]);
        let mut keys = Vec::new();
        loop {
            let mut key = vec![0xff; key_size];
            key[..4].copy_from_slice(&u32::try_from(keys.len()).expect("few").to_ne_bytes());
            match sys::insert(map.as_fd(), &key, &value) {
                Ok(()) => keys.push(key),
                Err(Errno::E2BIG) => break,
                Err(error) => panic!("{name} cannot be filled: {error}"),
            }
        }
        Self { map, keys }
    }
}

impl Drop for FullMap {
    fn drop(&mut self) {
        for key in &self.keys {
            // A run that started meanwhile may have cleared it away.
            let _or_gone = sys::remove(self.map.as_fd(), key);
        }
    }
}

#[track_caller]
pub(crate) fn open(path: &Path) -> OwnedFd {
    sys::open_pinned(path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// What the kernel says of an open map or program (`Documentation/filesystems/proc.rst`, fdinfo).
#[track_caller]
pub(crate) fn number(map: &OwnedFd, field: &str) -> u64 {
    let info = format!("/proc/self/fdinfo/{}", map.as_raw_fd());
    let info = fs::read_to_string(&info).unwrap_or_else(|error| panic!("{info}: {error}"));
    number_in(&info, field)
}

/// A field of what it says.
#[track_caller]
pub(crate) fn number_in(info: &str, field: &str) -> u64 {
    let text = info.lines().find_map(|line| line.strip_prefix(field));
    let number = text.and_then(|text| text.trim().parse().ok());
    number.unwrap_or_else(|| panic!("there is no {field} in:\n{info}"))
}

fn ids() -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    let mut id = 0;
    while let Some(next) = sys::next_map_id(id).expect("root may list the kernel's maps") {
        ids.insert(next);
        id = next;
    }
    ids
}
