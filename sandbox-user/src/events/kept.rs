//! Streams that are kept: a file each, in a directory of root's, compressed once nobody writes it any more.
//!
//! While a run goes on it is plain, so that it can be read as it grows and no more is lost with its writer than
//! what that had not written yet. Whoever writes it holds a lock on it: one that nobody holds was left by a
//! writer that was killed, and is compressed by whoever finds it. It is gzip, for zcat(1).

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use nix::libc;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{spec::RunId, sys::own_dir};

/// How the name of a plain one ends, and that of a compressed one.
const SUFFIXES: [&str; 2] = ["jsonl", "jsonl.gz"];

/// One that is being written.
#[derive(Debug)]
pub struct Kept {
    /// It, locked.
    file: File,
    path: PathBuf,
    /// It is to have so many bytes at most.
    pub most_bytes: u64,
}

/// What a file of one holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// The lines.
    Plain,
    /// The lines, compressed.
    Gzip,
}

impl Kept {
    /// Makes the file of a run's in a directory, which is made where it is not there.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn make(directory: &Path, run_id: RunId, most_bytes: u64) -> io::Result<Self> {
        own_dir::own(directory, 0o700)?;
        let path = path_of(directory, run_id, Form::Plain);
        let draft = draft_of(&path);
        let file = create(&draft)?;
        // In this order: under its own name it is never without a lock.
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        fs::rename(&draft, &path)?;
        Ok(Self {
            file,
            path,
            most_bytes,
        })
    }

    /// What the stream is to be written into.
    ///
    /// # Errors
    /// Where no descriptors are left.
    pub fn outlet(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Compresses what was written.
    ///
    /// # Errors
    /// Where that cannot be written; it stays as it is then, for the next who tries.
    pub fn compress(self) -> io::Result<()> {
        match File::open(&self.path) {
            Ok(file) => compress(file, &self.path),
            // It was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Opens that of a run to be read.
///
/// # Errors
/// NotFound where none is kept.
pub fn open(directory: &Path, run_id: RunId) -> io::Result<(File, Form)> {
    let open = |form| File::open(path_of(directory, run_id, form)).map(|file| (file, form));
    // In this order: the plain one goes when the other is there.
    match open(Form::Plain) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => open(Form::Gzip),
        opened => opened,
    }
}

/// Removes that of a run, where there is one.
pub fn remove(directory: &Path, run_id: RunId) {
    for form in [Form::Plain, Form::Gzip] {
        // There is one of them at most, but for a moment.
        let _ = fs::remove_file(path_of(directory, run_id, form));
    }
}

/// Compresses those that were left by writers that were killed. Gives what went wrong, one sentence each.
pub fn compress_left(directory: &Path) -> Vec<String> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        // None was ever kept.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return vec![format!("{}: {error}", directory.display())],
    };
    let plain = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension() == Some(OsStr::new(SUFFIXES[0])));
    plain
        .filter_map(|path| {
            let error = compress_where_left(&path).err()?;
            Some(format!("{}: {error}", path.display()))
        })
        .collect()
}

fn compress_where_left(path: &Path) -> io::Result<()> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if file.metadata()?.nlink() == 0 => Ok(()),
        Ok(()) => compress(file, path),
        // Its writer is there.
        Err(Errno::WOULDBLOCK) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Puts the compressed one in the place of the plain one, durably. To be called by who holds its lock.
fn compress(mut plain: File, path: &Path) -> io::Result<()> {
    let compressed = path.with_extension(SUFFIXES[1]);
    let draft = draft_of(&compressed);
    // Somebody waits for the end of the run.
    let mut encoder = GzEncoder::new(create(&draft)?, Compression::fast());
    io::copy(&mut plain, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&draft, &compressed)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    fs::remove_file(path)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

fn path_of(directory: &Path, run_id: RunId, form: Form) -> PathBuf {
    let [plain, gzip] = SUFFIXES;
    let suffix = match form {
        Form::Plain => plain,
        Form::Gzip => gzip,
    };
    directory.join(format!("{run_id}.{suffix}"))
}

/// A file under a name that nobody looks for; the next of this name takes its place.
fn draft_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// Reads one, also while it grows.
#[derive(Debug)]
pub enum Reader {
    /// Of which more may come.
    Plain(File),
    /// Which is whole.
    Gzip(Box<GzDecoder<File>>),
}

impl Reader {
    /// From its beginning.
    pub fn new(file: File, form: Form) -> Self {
        match form {
            Form::Plain => Self::Plain(file),
            Form::Gzip => Self::Gzip(Box::new(GzDecoder::new(file))),
        }
    }

    /// Copies what has come since.
    ///
    /// # Errors
    /// Where it cannot be read, or the copy not be written.
    pub fn copy_to(&mut self, copy: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Plain(file) => io::copy(file, copy),
            Self::Gzip(decoder) => io::copy(decoder, copy),
        }
        .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const LINE: &[u8] = b"{\"n\":1,\"type\":\"start\"}\n";

    fn read(directory: &Path, run_id: RunId) -> (Vec<u8>, Form) {
        let (file, form) = open(directory, run_id).expect("it is there");
        let mut text = Vec::new();
        let mut reader = Reader::new(file, form);
        reader.copy_to(&mut text).expect("it is read");
        (text, form)
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("it is there").flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn one_is_read_as_it_grows_and_once_it_is_compressed() {
        let temp = tempfile::tempdir().expect("temp dir");
        let run_id = RunId::now_v7();
        let kept = Kept::make(temp.path(), run_id, 1 << 20).expect("made");
        let mut outlet = kept.outlet().expect("a descriptor");
        let (file, form) = open(temp.path(), run_id).expect("it is there");
        let mut reader = Reader::new(file, form);
        let mut text = Vec::new();
        for lines in 1..=2 {
            outlet.write_all(LINE).expect("written");
            reader.copy_to(&mut text).expect("read");
            assert_eq!(text, LINE.repeat(lines));
        }
        drop(outlet);
        kept.compress().expect("compressed");
        assert_eq!(names(temp.path()), [format!("{run_id}.jsonl.gz")]);
        let path = path_of(temp.path(), run_id, Form::Gzip);
        let mode = fs::metadata(path).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(read(temp.path(), run_id), (LINE.repeat(2), Form::Gzip));
        // Whoever had it open has it still.
        reader.copy_to(&mut text).expect("read");
        assert_eq!(text, LINE.repeat(2));
        remove(temp.path(), run_id);
        assert_eq!(names(temp.path()), [] as [String; 0]);
    }

    #[test]
    fn what_a_killed_writer_left_is_compressed_and_what_one_writes_is_left_alone() {
        let temp = tempfile::tempdir().expect("temp dir");
        let [left, written] = [RunId::now_v7(), RunId::now_v7()];
        let make = |run_id| {
            let kept = Kept::make(temp.path(), run_id, 1 << 20).expect("made");
            let mut outlet = kept.outlet().expect("a descriptor");
            outlet.write_all(LINE).expect("written");
            kept
        };
        drop(make(left));
        let kept = make(written);
        // What somebody left who was killed over the same.
        let torn = draft_of(&path_of(temp.path(), left, Form::Gzip));
        fs::write(torn, [0; 4096]).expect("written");
        assert_eq!(compress_left(temp.path()), [] as [String; 0]);
        assert_eq!(read(temp.path(), left), (LINE.to_vec(), Form::Gzip));
        assert_eq!(read(temp.path(), written), (LINE.to_vec(), Form::Plain));
        assert_eq!(names(temp.path()).len(), 2);

        // One that was removed with its run does not come back.
        remove(temp.path(), written);
        kept.compress().expect("nothing to do");
        assert_eq!(names(temp.path()), [format!("{left}.jsonl.gz")]);
        let none = temp.path().join("none");
        assert_eq!(compress_left(&none), [] as [String; 0]);
    }
}
