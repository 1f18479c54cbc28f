//! What several parts read from /proc: one reader for each file.

mod mountinfo;
mod stat;

pub use mountinfo::{MountLine, mounts, parse_mounts};
pub use stat::Stat;
