//! The seqlock of a shard: readers never block and never write, a writer makes them look again.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use super::index::IndexRef;

/// Shards of a table: a power of two. Their states fill 4 KiB, which stays in the first cache.
pub(super) const SHARDS: usize = 64;

/// Looks at an odd sequence before the reader gives its processor away: a writer may have been suspended in the middle.
const SPINS_MAX: u32 = 64;

/// A shard's state, in a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Shard {
    /// Odd while a writer changes the shard's rows or index.
    sequence: AtomicU64,
    index: AtomicU64,
    pub(super) rows: AtomicUsize,
}

#[inline(always)]
pub(super) fn shard_of(hash: u64) -> usize {
    (hash >> 58) as usize % SHARDS
}

impl Shard {
    pub(super) fn new(index: IndexRef, rows: usize) -> Self {
        Self { sequence: AtomicU64::new(0), index: AtomicU64::new(index.0), rows: AtomicUsize::new(rows) }
    }

    #[inline(always)]
    pub(super) fn index(&self) -> IndexRef {
        IndexRef(self.index.load(Ordering::Acquire))
    }

    /// Runs a read until no writer has come between. `read` may see torn data: it must not act on what it saw.
    #[inline(always)]
    pub(super) fn read<T>(&self, mut read: impl FnMut(IndexRef) -> T) -> T {
        let mut spins = 0;
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            if before & 1 == 0 {
                let value = read(self.index());
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return value;
                }
            }
            spins += 1;
            if spins % SPINS_MAX == 0 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Opens the shard for changes until the answer is dropped. The caller holds the writer lock.
    pub(super) fn write(&self) -> ShardWrite<'_> {
        let odd = self.sequence.load(Ordering::Relaxed) + 1;
        self.sequence.store(odd, Ordering::Relaxed);
        fence(Ordering::Release);
        ShardWrite(self)
    }
}

/// A shard that is being changed.
pub(super) struct ShardWrite<'a>(&'a Shard);

impl ShardWrite<'_> {
    pub(super) fn set_index(&self, index: IndexRef) {
        self.0.index.store(index.0, Ordering::Release);
    }
}

impl Drop for ShardWrite<'_> {
    fn drop(&mut self) {
        let even = self.0.sequence.load(Ordering::Relaxed) + 1;
        self.0.sequence.store(even, Ordering::Release);
        // Space that this change freed may be written to next; whoever sees such a write must see the new sequence too.
        fence(Ordering::Release);
    }
}
