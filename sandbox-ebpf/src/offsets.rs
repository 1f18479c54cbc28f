//! Offsets of the running kernel's structs: constants to the verifier.
//!
//! Rust emits no CO-RE relocations, so user space reads the offsets from the kernel's BTF and
//! patches this static before loading. aya freezes the section it lies in, so the verifier takes
//! each value for a constant and a load at `pointer + offset` for a typed one.

use sandbox_ebpf::Offsets;

/// Patched by the loader (`EbpfLoader::override_global`).
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Offsets = Offsets::NONE;

/// Reads one offset. Volatile, or the compiler would fold in the value before the patch.
macro_rules! offset {
    ($field:ident) => {
        unsafe { core::ptr::read_volatile(&raw const $crate::offsets::OFFSETS.$field) }
    };
}
pub(crate) use offset;
