//! Looking at a leaf's use again and again: its files are opened once, and each look is one pread(2)
//! a file.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::PathBuf};

use rustix::{fs::OFlags, io::Errno};

use super::{
    error::CgroupError,
    files::Dir,
    stats::{self, Files, LeafStats, Reading},
};

/// What a sample reads.
const SAMPLED: [&str; 9] = [
    "memory.current",
    "memory.stat",
    "memory.swap.current",
    "cpu.stat",
    "pids.current",
    "io.stat",
    "cpu.pressure",
    "memory.pressure",
    "io.pressure",
];

/// Bytes asked for at a time; memory.stat takes some 1,500.
const AT_A_TIME: usize = 8192;

/// The open files of a leaf.
#[derive(Debug)]
pub struct Sampler {
    dir: PathBuf,
    files: Vec<(&'static str, File)>,
}

impl Sampler {
    /// Opens what this kernel has of them.
    ///
    /// # Errors
    /// When one is there and cannot be opened.
    pub(super) fn open(dir: &Dir) -> Result<Self, CgroupError> {
        let mut files = Vec::with_capacity(SAMPLED.len());
        for name in SAMPLED {
            match dir.open_file(name, OFlags::RDONLY) {
                Ok(fd) => files.push((name, File::from(fd))),
                // Absent, or a feature that this kernel has but does not run (PSI without psi=1).
                Err(Errno::NOENT | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(CgroupError::read(dir.file_path(name), errno)),
            }
        }
        Ok(Self {
            dir: dir.path().to_owned(),
            files,
        })
    }

    /// Looks once. Peaks are not among it: they are read in the end.
    pub fn sample(&self) -> Reading<LeafStats> {
        stats::stats(self)
    }
}

impl Files for Sampler {
    fn text(&self, name: &str) -> Result<Option<String>, CgroupError> {
        let Some((_, file)) = self.files.iter().find(|(known, _)| *known == name) else {
            return Ok(None);
        };
        match read_whole(file) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => Ok(None),
            Err(error) => Err(CgroupError::read(self.path_of(name), error)),
        }
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// From its beginning, where each read makes the text anew.
fn read_whole(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let filled = bytes.len();
        bytes.resize(filled + AT_A_TIME, 0);
        let read = file.read_at(&mut bytes[filled..], filled as u64)?;
        bytes.truncate(filled + read);
        if read < AT_A_TIME {
            return Ok(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_look_reads_the_same_open_files_anew() {
        let temp = tempfile::tempdir().expect("temp dir");
        let current = temp.path().join("memory.current");
        std::fs::write(&current, "4096\n").expect("write");
        std::fs::write(temp.path().join("memory.stat"), "anon 7\n".repeat(3000)).expect("write");
        let sampler = Sampler::open(&Dir::open(temp.path()).expect("open")).expect("open");
        assert_eq!(sampler.sample().value.memory_current_bytes, Some(4096));
        assert_eq!(sampler.sample().value.memory_anon_bytes, Some(7));
        std::fs::write(&current, "8192\n").expect("write");
        let again = sampler.sample();
        assert_eq!(again.value.memory_current_bytes, Some(8192));
        assert_eq!(again.value.pids_current, None, "it was not there");
        assert!(again.failures.is_empty());
        std::fs::write(&current, "many\n").expect("write");
        let broken = sampler.sample();
        assert_eq!(broken.value.memory_current_bytes, None);
        assert!(broken.failures[0].to_string().contains("memory.current"));
    }
}
