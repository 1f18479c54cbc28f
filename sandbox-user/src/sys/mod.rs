//! System calls that no library offers safely: the only unsafe code of this crate.

pub mod bpf;
