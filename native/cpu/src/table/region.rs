//! The mapped memory of a table: a bounded range of bytes addressed by offset, each access checked against the bound.

use std::fs::File;
use std::io::Read;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use headrace_types::{Error, ErrorCode, Result};
use memmap2::{Mmap, MmapMut, MmapOptions};

use super::cut::Cut;
use super::racy;

/// Bytes of a huge page; a region begins at a multiple of it so that the kernel can use them from the first byte.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A region's length is a multiple of this, so that the whole word around any byte of it is in range too.
const LINE_BYTES: usize = 64;

#[derive(Debug)]
enum Mapping {
    /// Held for its memory, which is reached through `Region::base`.
    Anonymous(#[allow(dead_code)] MmapMut),
    File(#[allow(dead_code)] Mmap),
}

/// A mapping shared by many readers and one writer (whoever holds the table's writer lock).
///
/// No reference to the memory is ever formed except by [`Region::bytes`]; all other access goes through `racy`.
#[derive(Debug)]
pub(super) struct Region {
    base: *mut u8,
    len: usize,
    writable: bool,
    /// What has to be copied before it changes, while a snapshot is written; else null. Set under the writer lock only.
    cut: AtomicPtr<Cut>,
    _mapping: Mapping,
}

// SAFETY: the mapping lives as long as the region, and its memory is reached only by atomic words and by racy copies whose
// results the seqlock confirms. Writes are promised to come from one thread at a time by the table's writer lock.
unsafe impl Send for Region {}
// SAFETY: as for Send.
unsafe impl Sync for Region {}

impl Region {
    /// Reserves `len` bytes of address space that take memory only when touched.
    pub(super) fn anonymous(len: usize, huge_pages: bool) -> Result<Self> {
        let len = len & !(LINE_BYTES - 1);
        let reserved = len.checked_add(HUGE_PAGE_BYTES).ok_or_else(|| reservation_failed(len, "overflow"))?;
        let mut options = MmapOptions::new();
        options.len(reserved).no_reserve_swap();
        let mut map = options.map_anon().map_err(|error| reservation_failed(len, &error.to_string()))?;
        #[cfg(target_os = "linux")]
        if huge_pages {
            // A kernel without transparent huge pages refuses; the table then works on small ones.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = huge_pages;
        let start = map.as_mut_ptr();
        let base = start.wrapping_add(start.align_offset(HUGE_PAGE_BYTES));
        Ok(Self { base, len, writable: true, cut: AtomicPtr::default(), _mapping: Mapping::Anonymous(map) })
    }

    /// Maps a whole file for reading; its pages are shared with every process that maps it.
    pub(super) fn read_only(file: &File, len: usize) -> Result<Self> {
        // SAFETY: the file is a finished snapshot. It is replaced by rename and never rewritten in place (native/README.md),
        // so the mapped bytes stay valid and constant for the life of the mapping.
        let map = unsafe { MmapOptions::new().len(len).map(file) }?;
        let base = map.as_ptr().cast_mut();
        Ok(Self {
            base,
            len: len & !(LINE_BYTES - 1),
            writable: false,
            cut: AtomicPtr::default(),
            _mapping: Mapping::File(map),
        })
    }

    /// Fills the start of a new region from a reader, before anyone shares it.
    pub(super) fn fill(&mut self, source: &mut impl Read, len: usize) -> Result<()> {
        assert!(self.writable && len <= self.len, "a region is filled within its bound");
        // SAFETY: `len` bytes from `base` are mapped and writable, and `&mut self` means that no one else uses them.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.base, len) };
        Ok(source.read_exact(bytes)?)
    }

    /// Whether a snapshot is being written. The caller holds the writer lock.
    pub(super) fn has_cut(&self) -> bool {
        !self.cut.load(Ordering::Relaxed).is_null()
    }

    /// From now on, what the cut covers is copied before it changes. The caller holds the writer lock, and keeps the cut until
    /// it has ended it.
    pub(super) fn begin_cut(&self, cut: &Arc<Cut>) {
        self.cut.store(Arc::as_ptr(cut).cast_mut(), Ordering::Relaxed);
    }

    /// Ends this cut, if it has not ended. The caller holds the writer lock.
    pub(super) fn end_cut(&self, cut: &Arc<Cut>) {
        if ptr::eq(self.cut.load(Ordering::Relaxed), Arc::as_ptr(cut)) {
            self.cut.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }

    #[inline]
    fn before_change(&self, offset: usize, len: usize) {
        let cut = self.cut.load(Ordering::Relaxed);
        if !cut.is_null() {
            // SAFETY: a cut is begun and ended under the writer lock, which the caller holds, and its owner keeps it until it
            // has ended it.
            unsafe { &*cut }.keep(self, offset, len);
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    #[inline]
    pub(super) fn contains(&self, offset: usize, len: usize) -> bool {
        offset <= self.len && len <= self.len - offset
    }

    /// The address of an offset, only to be handed to a prefetch.
    #[inline]
    pub(super) fn hint_address(&self, offset: usize) -> *const u8 {
        self.base.wrapping_add(offset)
    }

    /// The word at an offset; 0 where the offset is outside the region or not aligned.
    #[inline]
    pub(super) fn load(&self, offset: usize) -> u64 {
        if offset & 7 != 0 || !self.contains(offset, 8) {
            return 0;
        }
        // SAFETY: aligned (the base is page aligned) and within the mapping.
        unsafe { racy::load_word(self.base.add(offset)) }
    }

    /// Writes a word. The caller holds the writer lock.
    ///
    /// # Panics
    /// When the offset is not aligned or outside the region: the allocator never hands out such a one.
    pub(super) fn store(&self, offset: usize, word: u64) {
        assert!(self.writable && offset & 7 == 0 && self.contains(offset, 8), "word at {offset} of {}", self.len);
        self.before_change(offset, 8);
        // SAFETY: aligned, within the mapping and writable.
        unsafe { racy::store_word(self.base.add(offset), word) }
    }

    /// Copies bytes out; false, and nothing copied, where they are not all in the region.
    #[inline]
    pub(super) fn copy_out(&self, offset: usize, destination: &mut [u8]) -> bool {
        if !self.contains(offset, destination.len()) {
            return false;
        }
        // SAFETY: the source is within the mapping, and so are the whole words around it; the destination is ours.
        unsafe { racy::copy_out(self.base.add(offset), destination.as_mut_ptr(), destination.len()) };
        true
    }

    /// Writes bytes. The caller holds the writer lock.
    ///
    /// # Panics
    /// When they do not fit the region: the allocator never hands out such a range.
    pub(super) fn copy_in(&self, offset: usize, source: &[u8]) {
        assert!(
            self.writable && self.contains(offset, source.len()),
            "{} bytes at {offset} of {}",
            source.len(),
            self.len
        );
        self.before_change(offset, source.len());
        // SAFETY: the destination is within the mapping and writable, the caller is the only writer, the source is private.
        unsafe { racy::copy_in(self.base.add(offset), source.as_ptr(), source.len()) }
    }

    /// A window of `len` bytes, checked once so that reads within it need not be.
    #[inline]
    pub(super) fn window(&self, offset: usize, len: usize) -> Option<Window<'_>> {
        if offset & 63 != 0 || !self.contains(offset, len) {
            return None;
        }
        Some(Window { base: self.base.wrapping_add(offset), len, _region: self })
    }

    /// The bytes as a slice, for writing a snapshot.
    ///
    /// # Safety
    /// No one may write to them while the slice lives: writers wait for the caller, or the region is a read-only file.
    pub(super) unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        assert!(self.contains(offset, len), "{len} bytes at {offset} of {}", self.len);
        // SAFETY: within the mapping, and not written to by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.base.add(offset), len) }
    }
}

/// A range of the region that is known to be mapped, aligned to 64 bytes.
#[derive(Clone, Copy)]
pub(super) struct Window<'a> {
    base: *const u8,
    len: usize,
    _region: &'a Region,
}

impl Window<'_> {
    /// The word at an aligned offset within the window.
    ///
    /// # Safety
    /// `offset` is a multiple of 8 and `offset + 8` is at most the window's length.
    #[inline(always)]
    pub(super) unsafe fn load(&self, offset: usize) -> u64 {
        debug_assert!(offset & 7 == 0 && offset + 8 <= self.len);
        // SAFETY: aligned and mapped by the caller's promise and `Region::window`.
        unsafe { racy::load_word(self.base.add(offset)) }
    }

    /// Copies `len` bytes of the window to a private place.
    ///
    /// # Safety
    /// `offset + len` is at most the window's length; `destination` is valid for writes of `len` bytes.
    #[inline(always)]
    pub(super) unsafe fn copy_out(&self, offset: usize, destination: *mut u8, len: usize) {
        debug_assert!(offset + len <= self.len);
        // SAFETY: in range by the caller's promise, and so are the whole words around it.
        unsafe { racy::copy_out(self.base.add(offset), destination, len) }
    }
}

fn reservation_failed(len: usize, cause: &str) -> Error {
    Error::new(
        ErrorCode::StoreFull,
        format!("cannot reserve {len} bytes of address space for the online table: {cause}"),
        "lower bytes_max of the online store, or raise the process's limit of virtual memory (ulimit -v)",
    )
}
