//! Files that are named after runs, and what is kept so beside the store: logs and event streams.

use std::{collections::HashMap, fs, io, os::unix::fs::MetadataExt as _, path::Path};

use super::{EVENTS, logs};
use crate::{events::kept, spec::RunId};

/// Of what stat(2) counts blocks.
const BLOCK_BYTES: u64 = 512;

/// Removes those of a run, where it has any.
pub(super) fn remove(run_id: RunId) {
    logs::remove(run_id);
    kept::remove(Path::new(EVENTS), run_id);
}

/// The runs that a directory has a file of with this ending behind their id.
///
/// # Errors
/// Where it cannot be read.
pub(super) fn runs_with(directory: &Path, ending: &str) -> io::Result<Vec<RunId>> {
    let run_id = |entry: fs::DirEntry| {
        let name = entry.file_name();
        RunId::parse_str(name.to_str()?.strip_suffix(ending)?).ok()
    };
    fs::read_dir(directory)?
        .filter_map(|entry| entry.map(run_id).transpose())
        .collect()
}

/// How much space those of each run take, bytes.
///
/// # Errors
/// Where they cannot be looked at.
pub(super) fn bytes() -> io::Result<HashMap<RunId, u64>> {
    bytes_in([Path::new(logs::DIRECTORY), Path::new(EVENTS)])
}

fn bytes_in<const N: usize>(directories: [&Path; N]) -> io::Result<HashMap<RunId, u64>> {
    let mut bytes = HashMap::new();
    for directory in directories {
        let entries = match fs::read_dir(directory) {
            // No run has had any.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Some(run_id) = run_of(&entry) else {
                continue;
            };
            match entry.metadata() {
                // Logs have holes.
                Ok(found) => *bytes.entry(run_id).or_default() += found.blocks() * BLOCK_BYTES,
                // It was removed just now, or is under another name.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(bytes)
}

/// Whose file this is: their names begin with the run's id.
fn run_of(entry: &fs::DirEntry) -> Option<RunId> {
    let name = entry.file_name();
    let (run_id, _) = name.to_str()?.split_once('.')?;
    RunId::parse_str(run_id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_run_are_added_up() {
        let temp = tempfile::tempdir().expect("temp dir");
        let directories = ["logs", "events"].map(|name| temp.path().join(name));
        let [some, others] = [RunId::now_v7(), RunId::now_v7()];
        let write = |directory: &Path, name: String, bytes: usize| {
            fs::write(directory.join(name), vec![b'x'; bytes]).expect("written");
        };
        let [logs, events] = &directories;
        fs::create_dir(logs).expect("made");
        write(logs, format!("{some}.stdout"), 64 << 10);
        write(logs, format!("{some}.stderr"), 0);
        let sum = || bytes_in([logs, events]).expect("looked at");
        let before = sum();
        assert!((64 << 10..128 << 10).contains(&before[&some]), "{before:?}");

        fs::create_dir(events).expect("made");
        write(events, format!("{some}.jsonl.gz"), 128 << 10);
        write(events, format!("{others}.jsonl"), 32 << 10);
        write(events, format!(".{others}.jsonl.gz.new"), 1 << 20);
        let all = sum();
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all[&some] >= before[&some] + (128 << 10), "{all:?}");
        assert!((32 << 10..64 << 10).contains(&all[&others]), "{all:?}");
    }
}
