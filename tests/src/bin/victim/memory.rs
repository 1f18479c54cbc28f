//! Memory that is really used: every page is written to.

use std::io::Write;
use std::str::FromStr;

use anyhow::{Context, Result};

const PAGE: usize = 4096;

/// An amount of memory: `64MiB`, `2G`, or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(usize);

impl Size {
    /// One part of so many.
    pub(crate) fn share(self, parts: usize) -> Self {
        Self(self.0 / parts.max(1))
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match &text[digits.len()..] {
            "" => 0,
            "K" | "KiB" => 10,
            "M" | "MiB" => 20,
            "G" | "GiB" => 30,
            unit => return Err(format!("the unit {unit:?} is none of KiB, MiB, GiB")),
        };
        let number: usize = digits
            .parse()
            .map_err(|error| format!("{digits:?}: {error}"))?;
        number
            .checked_mul(1 << shift)
            .map(Self)
            .ok_or_else(|| format!("{text} is too much"))
    }
}

/// Touches memory page by page and gives it, to be held.
pub(crate) fn touch(size: Size) -> Vec<u8> {
    // Zeroed memory costs nothing until it is written to.
    let mut memory = vec![0_u8; size.0];
    for page in memory.chunks_mut(PAGE) {
        page[0] = 1;
    }
    std::hint::black_box(memory)
}

/// Touches memory until somebody puts an end to it.
pub(crate) fn devour() -> ! {
    // In pieces: a single piece larger than the machine would be refused.
    let mut held = Vec::new();
    loop {
        held.push(touch(Size(16 << 20)));
    }
}

/// Touches so much memory in all, in threads at once.
pub(crate) fn touch_in_threads(threads: usize, size: Size) -> Result<Vec<Vec<u8>>> {
    let share = size.share(threads);
    let handles: Vec<_> = (0..threads)
        .map(|_| std::thread::spawn(move || touch(share)))
        .collect();
    let join =
        |handle: std::thread::JoinHandle<Vec<u8>>| handle.join().ok().context("a thread panicked");
    handles.into_iter().map(join).collect()
}

/// Writes a file of this size to `/dev/shm`.
pub(crate) fn fill_shm(size: Size) -> Result<()> {
    let path = format!("/dev/shm/victim-{}", std::process::id());
    let mut file =
        std::fs::File::create(&path).with_context(|| format!("could not make {path}"))?;
    let block = vec![1_u8; 1 << 20];
    let mut left = size.0;
    while left > 0 {
        let count = left.min(block.len());
        file.write_all(&block[..count])
            .with_context(|| format!("could not write {path}"))?;
        left -= count;
    }
    Ok(())
}
