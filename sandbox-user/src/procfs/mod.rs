//! What several parts read from /proc: one reader for each file.

mod mountinfo;
mod stat;
mod status;

pub use mountinfo::{MountLine, mounts, parse_mounts};
pub use stat::Stat;
pub use status::status_field;

/// Bytes of a page, by which the kernel counts memory.
pub fn page_size() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}
