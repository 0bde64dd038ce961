//! Memory that a worker shares: a sealed memfd, mapped here as words that the other side may change at any time.

use std::ffi::{CStr, c_void};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn memfd(name: &CStr, flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string.
    let file = checked(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | flags) })?;
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

/// A file in memory that holds these bytes, to be read from its start. Unlike a pipe or a socket it takes any size at once.
pub(crate) fn file_of(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd(c"headrace-start", 0)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// A mapping whose size nobody can change: a worker that cut the file short would end this process with SIGBUS.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    start: NonNull<c_void>,
    bytes: usize,
    file: OwnedFd,
}

// SAFETY: the mapping is only touched through atomics.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr(), self.bytes) };
    }
}

macro_rules! access {
    ($($words:ident $atomic:ty;)*) => {$(
        /// `count` values from an offset on, which is a multiple of their size.
        pub(crate) fn $words(&self, offset: usize, count: usize) -> &[$atomic] {
            let start = self.at(offset, count, size_of::<$atomic>());
            // SAFETY: `at` has checked that the values are aligned and within the mapping, which lives as long as `self`; everybody in this
            // process goes through atomics.
            unsafe { std::slice::from_raw_parts(start.cast(), count) }
        }
    )*};
}

impl SharedMemory {
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let file = memfd(c"headrace-batch", libc::MFD_ALLOW_SEALING)?;
        let length = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open.
        checked(unsafe { libc::ftruncate(file.as_raw_fd(), length) })?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: the descriptor is open.
        checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping of the whole file, at a place that the kernel chooses.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start).ok_or_else(|| io::Error::other("mapped at null"))?;
        Ok(Self { start, bytes, file })
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    access! {
        words_u8 AtomicU8;
        words_u16 AtomicU16;
        words_u32 AtomicU32;
        words_u64 AtomicU64;
    }

    /// The address of `count` values of `size` bytes each.
    fn at(&self, offset: usize, count: usize, size: usize) -> *mut u8 {
        let is_within =
            count.checked_mul(size).is_some_and(|bytes| offset <= self.bytes && bytes <= self.bytes - offset);
        assert!(offset.is_multiple_of(size) && is_within, "outside the batch");
        // SAFETY: the offset is within the mapping.
        unsafe { self.start.as_ptr().cast::<u8>().add(offset) }
    }
}
