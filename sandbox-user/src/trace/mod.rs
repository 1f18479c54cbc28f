//! The kernel side, seen from user space: load or reuse the programs, watch a leaf, read its facts.
//!
//! Facts lie in maps that outlive whoever watches; the ring carries detail for prompt reactions.
//! [`Tracer`] is a handle on the shared maps, [`Ring`] what one supervisor drains. Neither decides
//! anything.

mod btf;
mod clean;
mod counts;
mod decode;
#[cfg(test)]
mod decode_property;
mod log;
mod object;
mod offsets;
mod pins;
mod programs;
mod ring;

use std::{collections::BTreeMap, io};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use aya_log::EbpfLogger;
use sandbox_ebpf as wire;

use self::object::RINGS;
pub use self::{
    btf::BtfError,
    clean::{Cleaned, Unused, clean, forget_gone},
    counts::Misses,
    decode::{Argv, CpuTime, DecodeError, Event, EventKind, text as comm},
    pins::{PinDir, PinLock, remove_abandoned},
    ring::Ring,
};
use crate::{
    evidence::{Confidence, IntentReason, Process, Signal, WaitStatus},
    sys::bpf::HashOfRings,
};

/// Decodes one entry of a [`Ring`], which may be longer than the event: for those who have its
/// bytes from elsewhere.
///
/// # Errors
/// Where the bytes are too few or of an unknown kind.
pub fn decode_event(bytes: &[u8]) -> Result<Event, DecodeError> {
    decode::event(bytes)
}

/// Set to `error` … `trace` to have the eBPF programs log to stderr, from a set of their own.
pub const LOG_VARIABLE: &str = "SANDBOX_EBPF_LOG";

/// Why the kernel side is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The kernel's type information does not serve.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The kernel refused something; CAP_BPF, CAP_PERFMON and no lockdown are needed.
    #[error("the kernel refused {what}: {reason}")]
    Load {
        /// What.
        what: &'static str,
        /// In its words.
        reason: String,
    },
    /// A pinned map could not be opened.
    #[error("{path} cannot be opened: {source}; `sandbox check --clean` removes unused pins")]
    Pin {
        /// Where.
        path: String,
        /// Why.
        source: Box<MapError>,
    },
    /// A map operation failed.
    #[error("eBPF map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        source: MapError,
    },
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// On what.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// A handle on the maps of a loaded set of programs.
pub struct Tracer {
    dir: PinDir,
    mode: Confidence,
    facts: HashMap<MapData, u64, wire::Facts>,
    mains: HashMap<MapData, u64, wire::Main>,
    intents: HashMap<MapData, u64, wire::Intent>,
    victims: HashMap<MapData, wire::VictimKey, wire::Kill>,
    last_kills: HashMap<MapData, u64, wire::Kill>,
    fugitives: HashMap<MapData, wire::ProcessKey, wire::Fugitive>,
    members: HashMap<MapData, wire::ProcessKey, u64>,
    unmarked: Array<MapData, u64>,
    rings: HashOfRings,
    logging: Option<Logging>,
    /// Nobody removes the pins before the first leaf is watched.
    opening: Option<PinLock>,
}

struct Logging {
    logger: EbpfLogger<log::StderrLog>,
    dir: PinDir,
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.logger.flush();
        if let Err(error) = self.dir.remove() {
            eprintln!("sandbox: {}: {error}", self.dir.path().display());
        }
    }
}

/// What the kernel side knows of a leaf.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counters.
    pub facts: wire::Facts,
    /// The main process; `None` where nothing was born.
    pub main: Option<MainProcess>,
    /// Delivered signals that could be fatal, by time.
    pub signals: Vec<Signal>,
    /// Who left, and who was born of those.
    pub fugitives: Vec<(wire::ProcessKey, wire::Fugitive)>,
}

/// The main process in the kernel's account.
#[derive(Clone, Debug)]
pub struct MainProcess {
    /// Who.
    pub process: Process,
    /// When its exec succeeded.
    pub exec_at_ns: Option<u64>,
    /// When its last task exited.
    pub exit_at_ns: Option<u64>,
    /// How it ended; `None` while it lives.
    pub status: Option<WaitStatus>,
}

impl Tracer {
    /// Opens the shared set of programs, loading it where no run on this host has yet; with
    /// [`LOG_VARIABLE`] set, a set of its own that logs.
    ///
    /// # Errors
    /// Why there is no kernel side: no BTF, no capability, refused by verifier or lockdown.
    pub fn open() -> Result<Self, TraceError> {
        let level = std::env::var(LOG_VARIABLE)
            .ok()
            .and_then(|text| log::level(&text));
        match level {
            None => {
                let dir = PinDir::own();
                let (mode, lock) = object::ensure_pinned(&dir)?;
                let opened = Self::with(dir, mode, None)?;
                Ok(Self {
                    opening: Some(lock),
                    ..opened
                })
            }
            Some(level) => {
                let dir = object::private_dir();
                let loaded = object::load_logging(&dir, level)?;
                let logging = Logging {
                    logger: loaded.1,
                    dir: dir.clone(),
                };
                Self::with(dir, loaded.0, Some(logging))
            }
        }
    }

    /// Opens a set that another process loaded: the guardian, or whoever finishes an orphan.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn reopen(dir: PinDir) -> Result<Self, TraceError> {
        let mode = dir.mode()?.ok_or_else(|| TraceError::Io {
            path: dir.path().display().to_string(),
            source: io::ErrorKind::NotFound.into(),
        })?;
        Self::with(dir, mode, None)
    }

    fn with(dir: PinDir, mode: Confidence, logging: Option<Logging>) -> Result<Self, TraceError> {
        Ok(Self {
            facts: open_map(&dir, "FACTS")?,
            mains: open_map(&dir, "MAINS")?,
            intents: open_map(&dir, "INTENTS")?,
            victims: open_map(&dir, "VICTIMS")?,
            last_kills: open_map(&dir, "LAST_KILLS")?,
            fugitives: open_map(&dir, "FUGITIVES")?,
            members: open_map(&dir, "MEMBERS")?,
            unmarked: open_map(&dir, "UNMARKED")?,
            rings: HashOfRings::pinned(&dir.path().join(RINGS)).map_err(at(&dir))?,
            dir,
            mode,
            logging,
            opening: None,
        })
    }

    /// How much this set sees.
    pub const fn mode(&self) -> Confidence {
        self.mode
    }

    /// Where its pins lie.
    pub const fn dir(&self) -> &PinDir {
        &self.dir
    }

    /// Begins to watch a leaf, before anything is born in it, with a ring of so many bytes: a power of
    /// two, at least a page.
    ///
    /// # Errors
    /// Where a map has no room (8192 leaves at once) or the ring cannot be made; the leaf is then
    /// not watched.
    pub fn watch(&mut self, leaf_id: u64, ring_bytes: u32) -> Result<Ring, TraceError> {
        let ring = Ring::new(ring_bytes)?;
        let watched = ring::enter(&self.rings, leaf_id, &ring)
            .map_err(at(&self.dir))
            .and_then(|()| {
                self.facts
                    .insert(leaf_id, wire::Facts::default(), 0)
                    .map_err(of("FACTS"))
            });
        if let Err(error) = watched {
            self.forget(leaf_id)?;
            return Err(error);
        }
        // From now on that leaf keeps them.
        self.opening = None;
        Ok(ring)
    }

    /// Declares why the runner is about to signal the leaf's members.
    ///
    /// # Errors
    /// Where the map has no room.
    pub fn declare(
        &mut self,
        leaf_id: u64,
        reason: IntentReason,
        at_ns: u64,
    ) -> Result<(), TraceError> {
        let intent = wire::Intent {
            at_ns,
            reason: reason.to_wire(),
            _pad: 0,
        };
        self.intents
            .insert(leaf_id, intent, 0)
            .map_err(of("INTENTS"))
    }

    /// Reads what is known of a leaf; `None` where it is not watched.
    ///
    /// # Errors
    /// Where a map cannot be read.
    pub fn snapshot(&self, leaf_id: u64) -> Result<Option<Snapshot>, TraceError> {
        let Some(mut facts) = get(&self.facts, "FACTS", &leaf_id)? else {
            return Ok(None);
        };
        let main = get(&self.mains, "MAINS", &leaf_id)?;
        let mut kills = match facts.victims + facts.main_victims {
            0 => Vec::new(),
            _ => self.kills_of(leaf_id)?,
        };
        if let Some(last) = get(&self.last_kills, "LAST_KILLS", &leaf_id)? {
            kills.push(last);
            facts.victims_left_out = facts.victims_left_out.saturating_sub(1);
        }
        kills.sort_by_key(|kill| kill.at_ns);
        Ok(Some(Snapshot {
            facts,
            main: main.as_ref().map(main_process),
            signals: kills.iter().map(decode::signal).collect(),
            fugitives: self.fugitives_of(leaf_id)?,
        }))
    }

    fn kills_of(&self, leaf_id: u64) -> Result<Vec<wire::Kill>, TraceError> {
        // By key: where another run forgets its own meanwhile, a walk may begin anew.
        let mut kills = BTreeMap::new();
        for entry in self.victims.iter() {
            let (key, kill) = entry.map_err(of("VICTIMS"))?;
            if key.cgroup_id == leaf_id {
                kills.insert(key, kill);
            }
        }
        Ok(kills.into_values().collect())
    }

    /// When a leaf's main process was executed, CLOCK_MONOTONIC, ns; `None` where that was not seen.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn executed_at_ns(&self, leaf_id: u64) -> Result<Option<u64>, TraceError> {
        let main = get(&self.mains, "MAINS", &leaf_id)?;
        Ok(main.as_ref().and_then(|main| main_process(main).exec_at_ns))
    }

    /// The counters of a leaf; `None` where it is not watched.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn facts(&self, leaf_id: u64) -> Result<Option<wire::Facts>, TraceError> {
        get(&self.facts, "FACTS", &leaf_id)
    }

    /// What was declared last for a leaf, and when.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn declared(&self, leaf_id: u64) -> Result<Option<(IntentReason, u64)>, TraceError> {
        let intent = get(&self.intents, "INTENTS", &leaf_id)?;
        Ok(intent.and_then(|intent| {
            IntentReason::from_wire(intent.reason).map(|reason| (reason, intent.at_ns))
        }))
    }

    /// Who left this leaf, and who was born of those.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn fugitives_of(
        &self,
        leaf_id: u64,
    ) -> Result<Vec<(wire::ProcessKey, wire::Fugitive)>, TraceError> {
        let facts = self.facts(leaf_id)?;
        if facts.is_some_and(|facts| facts.escapes == 0) {
            return Ok(Vec::new());
        }
        // By key, as in `kills_of`.
        let mut found = BTreeMap::new();
        for entry in self.fugitives.iter() {
            let (key, fugitive) = entry.map_err(of("FUGITIVES"))?;
            if fugitive.leaf_id == leaf_id {
                found.insert(key, fugitive);
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Ends the watch on a leaf and frees all that the maps hold of it. This process's end waits for a grace period of
    /// RCU from then on.
    ///
    /// # Errors
    /// Where a map cannot be changed.
    pub fn forget(&mut self, leaf_id: u64) -> Result<(), TraceError> {
        let known = self.facts(leaf_id)?;
        remove(&mut self.facts, "FACTS", &leaf_id)?;
        remove(&mut self.mains, "MAINS", &leaf_id)?;
        remove(&mut self.intents, "INTENTS", &leaf_id)?;
        remove(&mut self.last_kills, "LAST_KILLS", &leaf_id)?;
        // A walk takes longer the more runs there are.
        if known.is_none_or(|facts| facts.escapes > 0) {
            for (key, _) in self.fugitives_of(leaf_id)? {
                remove(&mut self.fugitives, "FUGITIVES", &key)?;
            }
        }
        if known.is_none_or(|facts| facts.victims + facts.main_victims > 0) {
            self.forget_victims(leaf_id)?;
        }
        let balance = |facts: wire::Facts| {
            let came = facts.births + facts.threads + facts.joined;
            came == facts.exits + facts.escapes
        };
        // Without fentry, moves are counted of processes, births and exits of tasks.
        if self.mode < Confidence::Exact || !known.is_some_and(balance) {
            self.forget_members(leaf_id)?;
        }
        // Last, since what is in there is known to be unfinished.
        ring::leave(&self.rings, leaf_id).map_err(at(&self.dir))
    }

    fn forget_victims(&mut self, leaf_id: u64) -> Result<(), TraceError> {
        let keys = self.victims.keys().filter_map(Result::ok);
        let its: Vec<wire::VictimKey> = keys.filter(|key| key.cgroup_id == leaf_id).collect();
        for key in its {
            remove(&mut self.victims, "VICTIMS", &key)?;
        }
        Ok(())
    }

    /// Those whose exit was not seen.
    fn forget_members(&mut self, leaf_id: u64) -> Result<(), TraceError> {
        let members = self.members.iter().filter_map(Result::ok);
        let its: Vec<wire::ProcessKey> = members
            .filter(|(_, leaf)| *leaf == leaf_id)
            .map(|(key, _)| key)
            .collect();
        for key in its {
            remove(&mut self.members, "MEMBERS", &key)?;
        }
        Ok(())
    }

    /// OOM kills and writes to `cgroup.kill`, on the whole host and since the programs were loaded,
    /// that the maps had no room to mark as such.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn unmarked(&self) -> Result<u64, TraceError> {
        self.unmarked.get(&0, 0).map_err(of("UNMARKED"))
    }

    /// The names of the programs at work.
    pub fn programs(&self) -> Vec<&'static str> {
        programs::of(self.mode)
            .iter()
            .map(|program| program.name)
            .collect()
    }

    /// Passes on what the programs logged, where they log.
    pub fn flush_log(&mut self) {
        if let Some(logging) = &mut self.logging {
            logging.logger.flush();
        }
    }
}

fn main_process(main: &wire::Main) -> MainProcess {
    MainProcess {
        process: decode::process(&main.task),
        exec_at_ns: (main.exec_at_ns != 0).then_some(main.exec_at_ns),
        exit_at_ns: (main.exit_at_ns != 0).then_some(main.exit_at_ns),
        status: decode::main_status(main),
    }
}

fn of(map: &'static str) -> impl Fn(MapError) -> TraceError {
    move |source| TraceError::Map { map, source }
}

/// What went wrong with the rings that are pinned there.
fn at(dir: &PinDir) -> impl Fn(io::Error) -> TraceError {
    let path = dir.path().join(RINGS).display().to_string();
    move |source| TraceError::Io {
        path: path.clone(),
        source,
    }
}

fn open_map<T>(dir: &PinDir, name: &'static str) -> Result<T, TraceError>
where
    T: TryFrom<Map, Error = MapError>,
{
    dir.map(name)?.try_into().map_err(of(name))
}

fn get<K: Pod, V: Pod>(
    map: &HashMap<MapData, K, V>,
    name: &'static str,
    key: &K,
) -> Result<Option<V>, TraceError> {
    match map.get(key, 0) {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(of(name)(error)),
    }
}

fn remove<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &'static str,
    key: &K,
) -> Result<(), TraceError> {
    match map.remove(key) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(nix::libc::ENOENT) =>
        {
            Ok(())
        }
        Err(error) => Err(of(name)(error)),
    }
}
