//! Has cgroups watched that nobody runs in: for `cargo xtask bench --suite scale`.
//!
//! They are made where they are not there yet, and stay watched when this process has ended, as long as they are
//! there. It needs root, and cgroup v2.

use std::{
    error::Error,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use clap::Parser;
use sandbox::trace::Tracer;

/// How large each one's ring is, bytes: the least there is.
const RING_BYTES: u32 = 4096;

/// Cgroups that are watched.
#[derive(Debug, Parser)]
struct Arguments {
    /// The cgroup in which they are made.
    #[arg(long)]
    folder: PathBuf,
    /// How many there are to be.
    #[arg(long)]
    count: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { folder, count } = Arguments::parse();
    make(&folder)?;
    let mut tracer = Tracer::open()?;
    for number in 0..count {
        let leaf = folder.join(number.to_string());
        if make(&leaf)? {
            // The kernel keeps the ring for as long as the leaf is watched.
            drop(tracer.watch(fs::metadata(&leaf)?.ino(), RING_BYTES)?);
        }
    }
    Ok(())
}

/// Whether it is new.
fn make(cgroup: &Path) -> io::Result<bool> {
    match fs::create_dir(cgroup) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}
