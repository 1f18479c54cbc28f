//! Reading files that the kernel makes as they are read (/proc, /sys, cgroupfs): they have no size to go by.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// More than most of these files hold, bytes: they are read at once, and the end is seen at the second read.
const ROOM_BYTES: usize = 8192;

/// All that a file holds.
///
/// # Errors
/// Where it cannot be opened or read.
pub fn bytes(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    bytes_of(File::open(path)?)
}

/// All that an open file holds.
///
/// # Errors
/// Where it cannot be read.
pub fn bytes_of(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(ROOM_BYTES);
    // As it is, a `File` first asks for its size and, finding none, begins with 32 bytes.
    file.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Its text.
///
/// # Errors
/// Where it cannot be read, or is no UTF-8 (InvalidData).
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(bytes(path)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The text at its beginning, decoded, some thousand bytes: /proc/cpuinfo says the same of each processor, and takes its time
/// to.
///
/// # Errors
/// Where it cannot be read.
pub fn head(path: impl AsRef<Path>) -> io::Result<String> {
    let mut head = vec![0; ROOM_BYTES];
    let length = File::open(path)?.read(&mut head)?;
    head.truncate(length);
    Ok(String::from_utf8_lossy(&head).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_size_is_read_to_its_end() -> io::Result<()> {
        let mounts = text("/proc/self/mountinfo")?;
        assert!(mounts.ends_with('\n'), "{mounts}");
        // Longer than there is room at first.
        let symbols = bytes("/proc/kallsyms")?;
        assert!(symbols.len() > 2 * ROOM_BYTES);
        assert_eq!(symbols.last(), Some(&b'\n'));
        Ok(())
    }

    #[test]
    fn the_head_of_a_file_is_its_beginning() -> io::Result<()> {
        let temp = tempfile::tempdir()?;
        let path = temp.path().join("long");
        std::fs::write(&path, "model name : x\n".repeat(ROOM_BYTES))?;
        let head = head(&path)?;
        assert!(head.starts_with("model name : x\n"));
        assert!(head.len() <= ROOM_BYTES);
        assert!(bytes("/nowhere").is_err());
        Ok(())
    }
}
