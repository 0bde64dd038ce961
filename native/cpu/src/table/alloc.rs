//! Space in the region: a mark that only rises, and free lists of power-of-two blocks for what comes and goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use headrace_types::{Error, ErrorCode, Result};

use super::region::Region;

/// Row references are u32 in units of 64 bytes.
pub const REGION_BYTES_MAX: u64 = 1 << 38;

/// Block sizes are 16 << class bytes.
pub(super) const CLASSES: usize = 32;
const CLASS_0_BYTES: usize = 16;
/// Small blocks are cut from pieces of this size.
const PIECE_BYTES: usize = 4096;

/// A bound on the bytes of one or several tables together.
#[derive(Debug)]
pub struct MemoryBudget {
    bytes_max: u64,
    used: AtomicU64,
}

impl MemoryBudget {
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes_max, used: AtomicU64::new(0) })
    }

    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Notes that what took `before` bytes takes `after`, even beyond the bound: for what is measured once it is there.
    pub fn change(&self, before: u64, after: u64) {
        self.used.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    pub(super) fn take(&self, bytes: u64) -> Result<()> {
        let take = |used: u64| used.checked_add(bytes).filter(|&total| total <= self.bytes_max);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(used) => Err(store_full(used, self.bytes_max)),
        }
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn store_full(used: u64, bytes_max: u64) -> Error {
    Error::new(
        ErrorCode::StoreFull,
        format!("the online store holds {used} bytes, its bound is {bytes_max}"),
        "raise bytes_max of the online store, or store fewer keys or features",
    )
}

/// What only the writer knows about the region's space.
#[derive(Debug)]
pub(super) struct Allocator {
    pub(super) used: usize,
    /// First free block of each class, 0 for none; a free block's first word is the next one.
    pub(super) free: [u64; CLASSES],
    budget: Arc<MemoryBudget>,
}

impl Drop for Allocator {
    fn drop(&mut self) {
        self.budget.give_back(self.used as u64);
    }
}

impl Allocator {
    /// # Errors
    /// `store_full` when `used` alone is over the budget.
    pub(super) fn new(used: usize, free: [u64; CLASSES], budget: Arc<MemoryBudget>) -> Result<Self> {
        budget.take(used as u64)?;
        Ok(Self { used, free, budget })
    }

    fn raise(&mut self, region: &Region, bytes: usize) -> Result<usize> {
        if !region.contains(self.used, bytes) {
            return Err(store_full(self.used as u64, region.len() as u64));
        }
        self.budget.take(bytes as u64)?;
        let offset = self.used;
        self.used += bytes;
        Ok(offset)
    }

    /// A row of zeros.
    pub(super) fn row(&mut self, region: &Region, row_bytes: usize) -> Result<usize> {
        self.raise(region, row_bytes)
    }

    /// A block of at least `bytes`, its content unspecified.
    pub(super) fn block(&mut self, region: &Region, bytes: usize) -> Result<usize> {
        let class = class_of(bytes)?;
        let size = CLASS_0_BYTES << class;
        let head = self.free[class];
        if head != 0 {
            let offset = head as usize;
            if !offset.is_multiple_of(CLASS_0_BYTES) || offset + size > self.used {
                return Err(Error::new(
                    ErrorCode::CorruptStore,
                    "the list of free space points outside the table",
                    "restore the store from its log",
                ));
            }
            self.free[class] = region.load(offset);
            return Ok(offset);
        }
        if size >= PIECE_BYTES {
            return self.raise(region, size);
        }
        let piece = self.raise(region, PIECE_BYTES)?;
        for offset in (piece + size..piece + PIECE_BYTES).step_by(size).rev() {
            self.push_free(region, class, offset);
        }
        Ok(piece)
    }

    /// Takes a block back. A range that cannot be a block (from a damaged row) is left alone.
    pub(super) fn free_block(&mut self, region: &Region, offset: usize, bytes: usize) {
        let Ok(class) = class_of(bytes) else { return };
        let is_block = offset != 0
            && offset.is_multiple_of(CLASS_0_BYTES)
            && offset.checked_add(CLASS_0_BYTES << class).is_some_and(|end| end <= self.used);
        if is_block {
            self.push_free(region, class, offset);
        }
    }

    fn push_free(&mut self, region: &Region, class: usize, offset: usize) {
        region.store(offset, self.free[class]);
        self.free[class] = offset as u64;
    }
}

fn class_of(bytes: usize) -> Result<usize> {
    let class = bytes.div_ceil(CLASS_0_BYTES).next_power_of_two().trailing_zeros() as usize;
    if class >= CLASSES {
        return Err(Error::new(
            ErrorCode::TooLarge,
            format!("a value of {bytes} bytes does not fit the online table"),
            "store shorter values",
        ));
    }
    Ok(class)
}
