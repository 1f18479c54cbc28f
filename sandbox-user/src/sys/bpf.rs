//! What aya does not do of bpf(2): making the two kinds of map that it can use but not make on their own (a ring
//! buffer, and a hash of ring buffers), and what is counted of a program. See `union bpf_attr` in
//! include/uapi/linux/bpf.h.

use std::{
    ffi::{CString, c_long},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{bpf_map_info, bpf_prog_info};

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_TYPE_HASH_OF_MAPS: u32 = 13;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;

/// The size of a key of a hash of rings.
const KEY_SIZE: u32 = 8;
/// The size of what is there for a key: a map's descriptor where it is written, its id where it is read.
const VALUE_SIZE: u32 = 4;

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

/// As BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM and BPF_MAP_DELETE_ELEM take it.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// As BPF_OBJ_GET takes it.
#[repr(C)]
struct PinAttr {
    path: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// As BPF_OBJ_GET_INFO_BY_FD takes it.
#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// Makes a ring buffer of this many bytes, a power of two and a multiple of the page size.
///
/// # Errors
/// What bpf(2) says: EPERM without CAP_BPF, EINVAL for a size that will not do, ENOMEM.
pub fn create_ring(bytes: u32) -> io::Result<OwnedFd> {
    create(CreateAttr {
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
    create(CreateAttr {
        map_type: BPF_MAP_TYPE_HASH_OF_MAPS,
        key_size: KEY_SIZE,
        value_size: VALUE_SIZE,
        max_entries,
        map_flags: 0,
        inner_map_fd: example.as_raw_fd().unsigned_abs(),
        numa_node: 0,
        map_name: *b"sandbox_rings\0\0\0",
    })
}

/// A hash from a `u64` to ring buffers.
#[derive(Debug)]
pub struct HashOfRings(OwnedFd);

impl HashOfRings {
    /// The one that is pinned at this path.
    ///
    /// # Errors
    /// Where there is none, or something else is pinned there; what bpf(2) says.
    pub fn pinned(path: &Path) -> io::Result<Self> {
        let map = pinned(path)?;
        // SAFETY: integers, of which none may be anything but zero.
        let mut info: bpf_map_info = unsafe { std::mem::zeroed() };
        // SAFETY: zeroes in it ask for no more to be written.
        unsafe { object_info(&map, &mut info) }?;
        // Its ring buffers are what the kernel checks.
        let found = (info.type_, info.key_size, info.value_size);
        if found != (BPF_MAP_TYPE_HASH_OF_MAPS, KEY_SIZE, VALUE_SIZE) {
            return Err(io::Error::other("it is another map than one of rings"));
        }
        Ok(Self(map))
    }

    /// Another handle of it.
    ///
    /// # Errors
    /// EMFILE.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Puts a ring there, and waits until no program is at work any more with what was there before: for a grace
    /// period of RCU, some 10 ms (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c). Others find it there at once.
    ///
    /// # Errors
    /// E2BIG where the hash is full, EINVAL for a ring of another kind.
    pub fn insert(&self, key: u64, ring: BorrowedFd<'_>) -> io::Result<()> {
        let ring = ring.as_raw_fd();
        let mut attr = self.element(&key, (&raw const ring).expose_provenance());
        // SAFETY: a key and a descriptor of the sizes that the hash was made with.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    /// Whether there is one.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn contains(&self, key: u64) -> io::Result<bool> {
        let mut id = 0_u32;
        let mut attr = self.element(&key, (&raw mut id).expose_provenance());
        // SAFETY: a key, and room for a map's id, of the sizes that the hash was made with.
        match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) } {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the one from there, and waits as [`Self::insert`] does.
    ///
    /// # Errors
    /// ENOENT where there is none.
    pub fn remove(&self, key: u64) -> io::Result<()> {
        let mut attr = self.element(&key, 0);
        // SAFETY: a key of the size that the hash was made with.
        unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attr) }.map(drop)
    }

    fn element(&self, key: &u64, value: usize) -> ElementAttr {
        ElementAttr {
            map_fd: self.0.as_raw_fd().unsigned_abs(),
            _pad: 0,
            key: std::ptr::from_ref(key).expose_provenance() as u64,
            value: value as u64,
            flags: 0,
        }
    }
}

/// What the kernel counts of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramCounts {
    /// How often it has run; counted under BPF_ENABLE_STATS alone.
    pub runs: u64,
    /// How long those took, ns.
    pub run_time_ns: u64,
    /// Runs that were skipped since it was loaded: it was at work on that processor already (Linux 5.12).
    pub recursion_misses: u64,
}

/// Those of a program that is pinned at this path.
///
/// # Errors
/// Where there is none; what bpf(2) says.
pub fn counts_of_pinned(path: &Path) -> io::Result<ProgramCounts> {
    let program = pinned(path)?;
    // SAFETY: integers and bytes, of which none may be anything but zero.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    // SAFETY: zeroes in it ask for no more to be written.
    unsafe { object_info(&program, &mut info) }?;
    Ok(ProgramCounts {
        runs: info.run_cnt,
        run_time_ns: info.run_time_ns,
        recursion_misses: info.recursion_misses,
    })
}

/// What the kernel says of an object of its eBPF.
///
/// # Safety
/// `info` is what it has of this kind of object, and addresses in it are of room for as much as is said there.
unsafe fn object_info<T>(object: &OwnedFd, info: &mut T) -> io::Result<()> {
    let mut attr = InfoAttr {
        bpf_fd: object.as_raw_fd().unsigned_abs(),
        info_len: u32::try_from(size_of::<T>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(info).expose_provenance() as u64,
    };
    // SAFETY: `info` is as large as is said, and nobody else has it; the rest is the caller's.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut pin = PinAttr {
        path: path.as_ptr().expose_provenance() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: `path` is a string with its NUL, and stays for the call.
    unsafe { descriptor(BPF_OBJ_GET, &mut pin) }
}

fn create(mut attr: CreateAttr) -> io::Result<OwnedFd> {
    // SAFETY: it points to nothing.
    unsafe { descriptor(BPF_MAP_CREATE, &mut attr) }
}

/// A command that gives a new descriptor (close-on-exec).
///
/// # Safety
/// As [`bpf`].
unsafe fn descriptor<T>(command: libc::c_int, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's.
    let fd = unsafe { bpf(command, attr) }?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Calls bpf(2).
///
/// # Safety
/// What `attr` points to is there, and as large as it says.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<c_long> {
    // SAFETY: the kernel reads `size_of::<T>()` initialised bytes behind the pointer, some commands write integers
    // there, and it keeps none of them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    super::check(result).map_err(io::Error::from_raw_os_error)
}
