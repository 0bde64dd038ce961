//! The index of one shard: open addressing over lines of exactly one cache line.
//!
//! ```text
//! bytes  0..12  a one-byte tag of each of 12 slots, 0 = empty
//! bytes 12..16  bit 0: a key whose home is this line, or a line before it, lies in a later one
//! bytes 16..64  a u32 row reference of each slot, in units of 64 bytes
//! ```
//! Keys are never removed (a deleted row is a tombstone), so a line is filled from its first slot and a search ends at the
//! first line without the overflow bit.

use headrace_types::Result;

use super::key::Probe;
use super::prefetch::prefetch;
use super::region::{Region, Window};
use super::snapshot::corrupt;

pub(super) const LINE_BYTES: usize = 64;
pub(super) const LINE_SLOTS: usize = 12;

/// Most slots in use, of 16, before the index doubles: at 12 of 16 one key in twenty-five lies outside its home line.
pub(super) const FULL_16THS: usize = 12;

const OVERFLOW: u64 = 1 << 32;
const TAGS_1: u64 = 0xffff_ffff;

/// Where a shard's lines begin, and how many there are: a power of two. One word, so that it is read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexRef(pub(super) u64);

impl IndexRef {
    pub(super) fn new(offset: usize, lines_log2: u32) -> Self {
        Self((offset as u64 / LINE_BYTES as u64) << 8 | u64::from(lines_log2))
    }

    #[inline(always)]
    pub(super) fn offset(self) -> usize {
        (self.0 >> 8) as usize * LINE_BYTES
    }

    #[inline(always)]
    pub(super) fn mask(self) -> usize {
        (1usize << (self.0 & 63)) - 1
    }

    pub(super) fn lines(self) -> usize {
        self.mask() + 1
    }

    pub(super) fn bytes(self) -> usize {
        self.lines() * LINE_BYTES
    }

    #[inline(always)]
    fn line(self, hash: u64) -> usize {
        self.offset() + (hash as usize & self.mask()) * LINE_BYTES
    }

    #[inline(always)]
    fn next(self, line: usize) -> usize {
        self.offset() + ((line - self.offset() + LINE_BYTES) & (self.bytes() - 1))
    }
}

#[inline(always)]
fn tag_of(hash: u64) -> u8 {
    ((hash >> 48) as u8).max(1)
}

/// Bit i of the answer is set where slot i has the tag.
#[inline(always)]
fn match_tags(word0: u64, word1: u64, tag: u8) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
        // SAFETY: SSE2 is part of x86-64.
        let mask = unsafe {
            let tags = _mm_set_epi64x(word1 as i64, word0 as i64);
            _mm_movemask_epi8(_mm_cmpeq_epi8(tags, _mm_set1_epi8(tag as i8)))
        };
        mask as u32 & 0xfff
    }
    #[cfg(any(miri, not(target_arch = "x86_64")))]
    match_tags_plain(word0, word1, tag)
}

/// The plain twin of [`match_tags`].
#[cfg_attr(all(target_arch = "x86_64", not(miri), not(test)), allow(dead_code))]
fn match_tags_plain(word0: u64, word1: u64, tag: u8) -> u32 {
    let mut mask = 0;
    for (i, byte) in word0.to_le_bytes().into_iter().chain(word1.to_le_bytes()).take(LINE_SLOTS).enumerate() {
        mask |= u32::from(byte == tag) << i;
    }
    mask
}

#[inline(always)]
fn row_offset(region: &Region, line: usize, slot: usize) -> usize {
    let pair = region.load(line + 16 + slot / 2 * 8);
    ((pair >> (slot % 2 * 32)) as u32) as usize * LINE_BYTES
}

/// Brings the line in which a hash has its home.
#[inline(always)]
pub(super) fn prefetch_line(region: &Region, index: IndexRef, hash: u64) {
    prefetch(region.hint_address(index.line(hash)));
}

/// The row that the home line proposes for a hash, without looking at the row: right nearly always, to be verified.
#[inline(always)]
pub(super) fn propose(region: &Region, index: IndexRef, hash: u64) -> Option<usize> {
    let line = index.line(hash);
    let matches = match_tags(region.load(line), region.load(line + 8), tag_of(hash));
    (matches != 0).then(|| row_offset(region, line, matches.trailing_zeros() as usize))
}

/// The row at an offset, when it holds the key. Anything may be at the offset: a torn read gives no row or another's.
#[inline(always)]
pub(super) fn row_with_key<'a>(
    region: &'a Region,
    row: usize,
    row_bytes: usize,
    probe: &Probe<'_>,
) -> Option<Window<'a>> {
    if row == 0 {
        // No row is at the header; a reference of 0 is one that has not been written yet.
        return None;
    }
    let window = region.window(row, row_bytes)?;
    // SAFETY: every row has at least the 16 bytes of the key slot.
    let (word0, word1) = unsafe { (window.load(0), window.load(8)) };
    if word0 != probe.word0 {
        return None;
    }
    let found = match probe.long {
        None => word1 == probe.word1,
        Some(key) => usize::try_from(word1).is_ok_and(|offset| has_bytes(region, offset, key)),
    };
    found.then_some(window)
}

fn has_bytes(region: &Region, offset: usize, bytes: &[u8]) -> bool {
    let mut buffer = [0; 256];
    bytes.chunks(buffer.len()).enumerate().all(|(i, chunk)| {
        let buffer = &mut buffer[..chunk.len()];
        offset.checked_add(i * 256).is_some_and(|at| region.copy_out(at, buffer)) && buffer == chunk
    })
}

/// The row of a key.
#[inline]
pub(super) fn find<'a>(
    region: &'a Region,
    index: IndexRef,
    row_bytes: usize,
    probe: &Probe<'_>,
) -> Option<(usize, Window<'a>)> {
    let mut line = index.line(probe.hash);
    let tag = tag_of(probe.hash);
    for _ in 0..index.lines() {
        let (word0, word1) = (region.load(line), region.load(line + 8));
        let mut matches = match_tags(word0, word1, tag);
        while matches != 0 {
            let row = row_offset(region, line, matches.trailing_zeros() as usize);
            if let Some(window) = row_with_key(region, row, row_bytes, probe) {
                return Some((row, window));
            }
            matches &= matches - 1;
        }
        if word1 & OVERFLOW == 0 {
            return None;
        }
        line = index.next(line);
    }
    None
}

/// Adds a row that is not there yet. The caller holds the writer lock.
///
/// # Errors
/// `corrupt_store` without a free slot: an index doubles long before, so its row count or its lines were not what we wrote.
pub(super) fn insert(region: &Region, index: IndexRef, hash: u64, row: usize) -> Result<()> {
    let mut line = index.line(hash);
    for _ in 0..index.lines() {
        let (word0, word1) = (region.load(line), region.load(line + 8));
        let empty = match_tags(word0, word1, 0);
        if empty != 0 {
            let slot = empty.trailing_zeros() as usize;
            let pair_at = line + 16 + slot / 2 * 8;
            let shift = slot % 2 * 32;
            let pair = region.load(pair_at) & !(TAGS_1 << shift);
            region.store(pair_at, pair | (row as u64 / LINE_BYTES as u64) << shift);
            let tag_at = line + slot / 8 * 8;
            region.store(tag_at, region.load(tag_at) | u64::from(tag_of(hash)) << (slot % 8 * 8));
            return Ok(());
        }
        region.store(line + 8, word1 | OVERFLOW);
        line = index.next(line);
    }
    Err(corrupt("its index has more rows than it counts"))
}

/// Calls `visit` with the offset of every row, until it returns false.
pub(super) fn visit_rows(region: &Region, index: IndexRef, mut visit: impl FnMut(usize) -> bool) {
    for line in (index.offset()..index.offset() + index.bytes()).step_by(LINE_BYTES) {
        let used = LINE_SLOTS - match_tags(region.load(line), region.load(line + 8), 0).count_ones() as usize;
        for slot in 0..used {
            if !visit(row_offset(region, line, slot)) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_matching_and_its_plain_twin_agree() {
        let mut state = 1u64;
        for _ in 0..2000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (word0, word1) = (state & 0x0301_0203_0201_0003, state.rotate_left(23) & 0x0302_0103_0302_0001);
            for tag in 0..4 {
                assert_eq!(match_tags(word0, word1, tag), match_tags_plain(word0, word1, tag));
            }
        }
    }
}
