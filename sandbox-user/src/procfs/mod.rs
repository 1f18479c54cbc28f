//! What several parts read from /proc, with one reader for each file, and how its like is read.

mod mountinfo;
mod stat;
mod status;
mod text;

pub use mountinfo::{MountLine, mounts, parse_mounts};
pub use stat::Stat;
pub use status::status_field;
pub use text::{bytes, bytes_of, head, text};

/// Bytes of a page, by which the kernel counts memory.
pub fn page_size() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}
