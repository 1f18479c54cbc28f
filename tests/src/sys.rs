//! The only unsafe code of the harness: bpf(2), which neither std nor nix has.
#![expect(
    unsafe_code,
    reason = "bpf(2) takes a pointer to a union, and there is no safe wrapper for it here"
)]

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

// enum bpf_cmd (include/uapi/linux/bpf.h).
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_GET_NEXT_KEY: libc::c_int = 4;
const OBJ_GET: libc::c_int = 7;
const MAP_GET_NEXT_ID: libc::c_int = 12;

/// The members of `union bpf_attr` for BPF_MAP_*_ELEM and BPF_MAP_GET_NEXT_KEY.
#[repr(C)]
struct Element {
    map_fd: u32,
    _pad: u32,
    key: u64,
    /// Or the next key.
    value: u64,
    flags: u64,
}

impl Element {
    fn of(map: BorrowedFd<'_>, key: Option<&[u8]>) -> Result<Self, Errno> {
        Ok(Self {
            map_fd: u32::try_from(map.as_raw_fd()).map_err(|_| Errno::EBADF)?,
            _pad: 0,
            key: key.map_or(0, |key| key.as_ptr() as u64),
            value: 0,
            flags: 0,
        })
    }
}

/// Those for BPF_OBJ_GET.
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Those for BPF_*_GET_NEXT_ID.
#[repr(C)]
struct NextId {
    start_id: u32,
    next_id: u32,
    open_flags: u32,
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> Result<libc::c_long, Errno> {
    let attr: *mut T = attr;
    // SAFETY: the kernel reads and writes no more than the size says, and what the members point to
    // is the callers' and outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    Errno::result(done)
}

/// Opens what is pinned at `path`.
pub(crate) fn open_pinned(path: &Path) -> Result<OwnedFd, Errno> {
    use std::os::unix::ffi::OsStrExt;
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let mut attr = ObjGet {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    let fd = bpf(OBJ_GET, &mut attr)?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The key after `key` in a map, or its first one; `None` after the last. `size` is that of the map's keys.
pub(crate) fn next_key(
    map: BorrowedFd<'_>,
    key: Option<&[u8]>,
    size: usize,
) -> Result<Option<Vec<u8>>, Errno> {
    assert!(key.is_none_or(|key| key.len() == size), "a key of the map");
    let mut next = vec![0_u8; size];
    let mut attr = Element {
        value: next.as_mut_ptr() as u64,
        ..Element::of(map, key)?
    };
    match bpf(MAP_GET_NEXT_KEY, &mut attr) {
        Ok(_) => Ok(Some(next)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives a key of a map a value, both as long as the map's are.
pub(crate) fn insert(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> Result<(), Errno> {
    let mut attr = Element {
        value: value.as_ptr() as u64,
        ..Element::of(map, Some(key))?
    };
    bpf(MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Takes a key out of a map.
pub(crate) fn remove(map: BorrowedFd<'_>, key: &[u8]) -> Result<(), Errno> {
    bpf(MAP_DELETE_ELEM, &mut Element::of(map, Some(key))?).map(drop)
}

/// The id after `id` of all maps in the kernel; `None` after the last.
pub(crate) fn next_map_id(id: u32) -> Result<Option<u32>, Errno> {
    let mut attr = NextId {
        start_id: id,
        next_id: 0,
        open_flags: 0,
    };
    match bpf(MAP_GET_NEXT_ID, &mut attr) {
        Ok(_) => Ok(Some(attr.next_id)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
