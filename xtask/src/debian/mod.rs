//! Debian as a source of programs, kernels and a root image: what several tasks need of it.

mod archive;
pub(crate) mod host;
mod mirror;

pub(crate) use self::archive::Archive;
