//! BPF_MAP_CREATE for the two kinds of map that aya can use but not make on their own: a ring
//! buffer, and a hash of ring buffers. See bpf(2) and `union bpf_attr` in include/uapi/linux/bpf.h.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_TYPE_HASH_OF_MAPS: u32 = 13;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;

/// The head of `union bpf_attr` as BPF_MAP_CREATE takes it; the kernel takes what follows for zero.
#[repr(C)]
struct CreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

/// Makes a ring buffer of this many bytes, a power of two and a multiple of the page size.
///
/// # Errors
/// What bpf(2) says: EPERM without CAP_BPF, EINVAL for a size that will not do, ENOMEM.
pub fn create_ring(bytes: u32) -> io::Result<OwnedFd> {
    create(&CreateAttr {
        map_type: BPF_MAP_TYPE_RINGBUF,
        key_size: 0,
        value_size: 0,
        max_entries: bytes,
        map_flags: 0,
        inner_map_fd: 0,
        numa_node: 0,
        map_name: *b"sandbox_ring\0\0\0\0",
    })
}

/// Makes a hash from a `u64` to ring buffers like `example`.
///
/// # Errors
/// What bpf(2) says.
pub fn create_hash_of_rings(max_entries: u32, example: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    create(&CreateAttr {
        map_type: BPF_MAP_TYPE_HASH_OF_MAPS,
        key_size: 8,
        value_size: 4,
        max_entries,
        map_flags: 0,
        inner_map_fd: example.as_raw_fd().unsigned_abs(),
        numa_node: 0,
        map_name: *b"sandbox_rings\0\0\0",
    })
}

fn create(attr: &CreateAttr) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<CreateAttr>()` initialised bytes behind the pointer and
    // keeps none of them.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_CREATE,
            std::ptr::from_ref(attr),
            size_of::<CreateAttr>(),
        )
    };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: BPF_MAP_CREATE returned a new descriptor (close-on-exec) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
