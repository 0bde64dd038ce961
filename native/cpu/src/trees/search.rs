//! Where a value stands among the thresholds of its feature.

use super::number::Number;

/// Starts that are compared at once.
pub(super) const FANOUT: usize = 16;

/// Levels that hold as many starts as an ensemble may have nodes.
pub(super) const LEVELS_MAX: usize = 8;

/// A search tree over sorted starts: blocks of sixteen, each level holding the last start of each full block below it.
///
/// A block is compared as a whole and without branches, by a few vector instructions. 255 starts take two blocks, where
/// a binary search takes eight steps that wait for each other. Blocks are filled up with NaN, which compares false.
#[derive(Debug)]
pub(super) struct Levels {
    /// Where each level's blocks begin, from the top, of which there is one block, to the starts themselves.
    begins: [u32; LEVELS_MAX],
}

impl Levels {
    /// Levels that so many starts need.
    pub(super) fn depth(starts_count: usize) -> usize {
        let mut depth = 1;
        let mut count = starts_count;
        while count >= FANOUT {
            count /= FANOUT;
            depth += 1;
        }
        depth
    }

    /// Builds `depth` levels, which are enough for the starts, at the end of `blocks`. `starts` are sorted, distinct
    /// and not NaN.
    pub(super) fn new<T: Number>(starts: &[T], depth: usize, blocks: &mut Vec<[T; FANOUT]>) -> Self {
        let mut levels = vec![starts.to_vec()];
        for _ in 1..depth {
            let below = levels.last().map_or(&[][..], Vec::as_slice);
            levels.push(below.chunks_exact(FANOUT).map(|block| block[FANOUT - 1]).collect());
        }
        let mut begins = [0; LEVELS_MAX];
        for (level, begin) in levels.into_iter().rev().zip(&mut begins) {
            *begin = u32::try_from(blocks.len()).expect("an ensemble has fewer nodes");
            // One NaN at least, so that the block after the last full one exists.
            for block in 0..=level.len() / FANOUT {
                blocks.push(std::array::from_fn(|place| *level.get(block * FANOUT + place).unwrap_or(&T::NAN)));
            }
        }
        Self { begins }
    }

    /// How many of the starts are at most `value`; none for NaN. `depth` is that of `new`, and `DEPTH_MAX` no less.
    ///
    /// # Safety
    /// `blocks` and `depth` are those of `new`; with `AVX2` the processor has it.
    #[inline(always)]
    pub(super) unsafe fn search<T: Number, const DEPTH_MAX: usize, const AVX2: bool>(
        &self,
        blocks: &[[T; FANOUT]],
        depth: usize,
        value: T,
    ) -> usize {
        let depth = if DEPTH_MAX < LEVELS_MAX { DEPTH_MAX } else { depth };
        let mut place = 0;
        for begin in &self.begins[..depth] {
            // SAFETY: a level has a block for each place that the one above can lead to (see `new`).
            let block = unsafe { blocks.get_unchecked(*begin as usize + place) };
            place = place * FANOUT + T::count_at_most::<AVX2>(block, value);
        }
        place
    }
}

/// The plain twin of `Number::count_at_most`.
#[cfg(any(test, not(target_arch = "x86_64")))]
pub(super) fn count_at_most_plain<T: Number>(block: &[T; FANOUT], value: T) -> usize {
    block.iter().map(|&start| usize::from(start <= value)).sum()
}

/// The block is sorted, so the comparison's mask is a run of ones from the lowest bit.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn count_at_most_f32(block: &[f32; FANOUT], value: f32) -> usize {
    use std::arch::x86_64::*;
    // SAFETY: SSE2 is part of x86-64, and the loads stay inside the block's 16 values.
    unsafe {
        let value = _mm_set1_ps(value);
        let part = |at: usize| _mm_castps_si128(_mm_cmple_ps(_mm_loadu_ps(block.as_ptr().add(at)), value));
        let low = _mm_packs_epi32(part(0), part(4));
        let high = _mm_packs_epi32(part(8), part(12));
        (!_mm_movemask_epi8(_mm_packs_epi16(low, high))).trailing_zeros() as usize
    }
}

/// As [`count_at_most_f32`].
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn count_at_most_f64(block: &[f64; FANOUT], value: f64) -> usize {
    use std::arch::x86_64::*;
    // SAFETY: SSE2 is part of x86-64, and the loads stay inside the block's 16 values.
    unsafe {
        let value = _mm_set1_pd(value);
        let part = |at: usize| _mm_castpd_ps(_mm_cmple_pd(_mm_loadu_pd(block.as_ptr().add(at)), value));
        // Two comparisons of 64 bits narrowed to four of 32: the low halves of each.
        let narrow = |at: usize| _mm_castps_si128(_mm_shuffle_ps::<0b10_00_10_00>(part(at), part(at + 2)));
        let low = _mm_packs_epi32(narrow(0), narrow(4));
        let high = _mm_packs_epi32(narrow(8), narrow(12));
        (!_mm_movemask_epi8(_mm_packs_epi16(low, high))).trailing_zeros() as usize
    }
}

/// As [`count_at_most_f32`]; the halves of the masks change places, which their number does not depend on.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn count_at_most_f32_avx2(block: &[f32; FANOUT], value: f32) -> usize {
    use std::arch::x86_64::*;
    let value = _mm256_set1_ps(value);
    // SAFETY: the loads stay inside the block's 16 values.
    let part = |at: usize| unsafe { _mm256_loadu_ps(block.as_ptr().add(at)) };
    let part = |at: usize| _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LE_OQ>(part(at), value));
    let bytes = _mm256_movemask_epi8(_mm256_packs_epi32(part(0), part(8)));
    bytes.count_ones() as usize / 2
}

/// As [`count_at_most_f32_avx2`].
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn count_at_most_f64_avx2(block: &[f64; FANOUT], value: f64) -> usize {
    use std::arch::x86_64::*;
    let value = _mm256_set1_pd(value);
    // SAFETY: the loads stay inside the block's 16 values.
    let part = |at: usize| unsafe { _mm256_loadu_pd(block.as_ptr().add(at)) };
    let part = |at: usize| _mm256_castpd_si256(_mm256_cmp_pd::<_CMP_LE_OQ>(part(at), value));
    let low = _mm256_packs_epi32(part(0), part(4));
    let high = _mm256_packs_epi32(part(8), part(12));
    let bytes = _mm256_movemask_epi8(_mm256_packs_epi16(low, high));
    bytes.count_ones() as usize / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_counts_what_is_at_most_the_value() {
        for count in [0, 1, 15, 16, 17, 31, 32, 255, 256, 257, 4095, 4096, 5000] {
            let starts: Vec<f64> = (0..count).map(f64::from).collect();
            let mut blocks = vec![[0.0; FANOUT]; 3];
            let depth = Levels::depth(starts.len());
            let levels = Levels::new(&starts, depth, &mut blocks);
            // SAFETY: the levels' own blocks and depth.
            let found = |value| unsafe { levels.search::<_, LEVELS_MAX, false>(&blocks, depth, value) };
            let narrow: Vec<f32> = starts.iter().map(|&start| start as f32).collect();
            let mut narrow_blocks = Vec::new();
            let narrow_levels = Levels::new(&narrow, depth + 1, &mut narrow_blocks);
            // SAFETY: as above.
            let found_narrow =
                |value| unsafe { narrow_levels.search::<_, LEVELS_MAX, false>(&narrow_blocks, depth + 1, value) };
            for half in -2..2 * count + 3 {
                let value = f64::from(half) / 2.0;
                let expected = starts.iter().filter(|&&start| start <= value).count();
                assert_eq!(found(value), expected, "{value} in {count}");
                assert_eq!(found_narrow(value as f32), expected, "{value} in {count}");
            }
            assert_eq!(found(f64::NAN), 0);
            assert_eq!(found(f64::INFINITY), starts.len());
        }
    }

    #[test]
    fn a_block_and_its_plain_twin_agree() {
        let special = [f64::NEG_INFINITY, -1.0, -0.0, 5e-324, 1.0, f64::MAX, f64::INFINITY, f64::NAN];
        for length in 0..=special.len() {
            let block = std::array::from_fn(|place| if place < length { special[place] } else { f64::NAN });
            let narrow = block.map(|start| start as f32);
            for value in special.into_iter().chain([0.0, -5e-324, 0.5]) {
                assert_eq!(f64::count_at_most::<false>(&block, value), count_at_most_plain(&block, value));
                if crate::vectorized::has_avx2() {
                    assert_eq!(f64::count_at_most::<true>(&block, value), count_at_most_plain(&block, value));
                }
                let value = value as f32;
                assert_eq!(f32::count_at_most::<false>(&narrow, value), count_at_most_plain(&narrow, value));
                if crate::vectorized::has_avx2() {
                    assert_eq!(f32::count_at_most::<true>(&narrow, value), count_at_most_plain(&narrow, value));
                }
            }
        }
    }
}
