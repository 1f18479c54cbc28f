//! Records that cross the kernel boundary.
#![no_std]
