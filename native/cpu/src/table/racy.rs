//! Reads of memory that a writer may be changing, and the writes that they may meet.
//!
//! The row table is a seqlock: a reader copies bytes first and learns afterwards whether they were torn. Rust has no racy
//! memcpy, so the copy must not be an ordinary read. The portable form goes through relaxed `AtomicU64` words; on x86-64 a
//! 16-byte load in inline assembly, which the compiler may neither assume nor repeat anything about, makes a long copy
//! about as fast as `memcpy`. Writers always store relaxed `AtomicU64` words.

use std::sync::atomic::{AtomicU64, Ordering};

/// The word at an 8-byte aligned address.
///
/// # Safety
/// `address` is aligned to 8 and valid for reads of 8 bytes; every other access to them is one of this module's.
#[inline(always)]
pub(super) unsafe fn load_word(address: *const u8) -> u64 {
    // SAFETY: aligned and valid by the caller's promise; an atomic may be shared with writers.
    unsafe { AtomicU64::from_ptr(address.cast_mut().cast()) }.load(Ordering::Relaxed)
}

/// Writes the word at an 8-byte aligned address.
///
/// # Safety
/// `address` is aligned to 8 and valid for reads and writes of 8 bytes; every other access to them is one of this module's.
#[inline(always)]
pub(super) unsafe fn store_word(address: *mut u8, word: u64) {
    // SAFETY: aligned and valid by the caller's promise; an atomic may be shared with readers.
    unsafe { AtomicU64::from_ptr(address.cast()) }.store(word, Ordering::Relaxed);
}

/// Copies `len` bytes out of shared memory, from any address.
///
/// # Safety
/// The aligned 8-byte words that hold `source..source + len` are valid for reads, and every other access to them is one of
/// this module's. `destination..destination + len` is valid for writes, private to the caller and does not overlap.
#[inline(always)]
pub(super) unsafe fn copy_out(source: *const u8, destination: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len >= 16 {
        // SAFETY: the caller's promise, and `len >= 16`.
        unsafe { x86::copy_out_16(source, destination, len) };
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { copy_out_words(source, destination, len) };
}

/// The plain twin of [`copy_out`]: aligned words, of which the first and the last may be used in part.
///
/// # Safety
/// As [`copy_out`].
#[inline]
pub(super) unsafe fn copy_out_words(source: *const u8, destination: *mut u8, len: usize) {
    let skew = source as usize & 7;
    let mut word_address = source.wrapping_sub(skew);
    let mut done = 0;
    if skew != 0 && len != 0 {
        // SAFETY: this word holds the first byte of the source.
        let word = unsafe { load_word(word_address) }.to_le_bytes();
        done = len.min(8 - skew);
        // SAFETY: `done <= len` bytes of the destination are writable.
        unsafe { std::ptr::copy_nonoverlapping(word.as_ptr().add(skew), destination, done) };
        word_address = word_address.wrapping_add(8);
    }
    while len - done >= 8 {
        // SAFETY: this word lies within the source, and its 8 bytes within the destination.
        unsafe {
            let word = load_word(word_address);
            destination.add(done).cast::<u64>().write_unaligned(word);
        }
        word_address = word_address.wrapping_add(8);
        done += 8;
    }
    if done < len {
        // SAFETY: this word holds the last bytes of the source; the destination has `len - done` bytes left.
        unsafe {
            let word = load_word(word_address).to_le_bytes();
            std::ptr::copy_nonoverlapping(word.as_ptr(), destination.add(done), len - done);
        }
    }
}

/// Copies `len` bytes into shared memory, to any address. Only the one writer may call it.
///
/// # Safety
/// The aligned 8-byte words that hold `destination..destination + len` are valid for reads and writes, no one else writes
/// to them, and every read of them is one of this module's. `source..source + len` is valid for reads and private.
pub(super) unsafe fn copy_in(destination: *mut u8, source: *const u8, len: usize) {
    let skew = destination as usize & 7;
    let mut done = 0;
    if skew != 0 {
        done = len.min(8 - skew);
        // SAFETY: this word holds the first bytes of the destination.
        unsafe { change_word(destination.sub(skew), skew, source, done) };
    }
    while len - done >= 8 {
        // SAFETY: this word lies within the destination, and its 8 bytes within the source.
        unsafe { store_word(destination.add(done), source.add(done).cast::<u64>().read_unaligned()) };
        done += 8;
    }
    if done < len {
        // SAFETY: this word holds the last bytes of the destination; the source has `len - done` bytes left.
        unsafe { change_word(destination.add(done), 0, source.add(done), len - done) };
    }
}

/// Replaces `len` bytes of a word, from byte `skew` on.
///
/// # Safety
/// As [`copy_in`], of the word at `address`; `skew + len` is at most 8.
unsafe fn change_word(address: *mut u8, skew: usize, source: *const u8, len: usize) {
    // SAFETY: the word is valid by the caller's promise, and `len` bytes from `skew` on lie within its 8.
    unsafe {
        let mut word = load_word(address).to_le_bytes();
        std::ptr::copy_nonoverlapping(source, word.as_mut_ptr().add(skew), len);
        store_word(address, u64::from_le_bytes(word));
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::{__m128i, _mm_storeu_si128};

    /// # Safety
    /// 16 bytes at `address` are valid for reads.
    #[inline(always)]
    unsafe fn load_16(address: *const u8) -> __m128i {
        let value: __m128i;
        // SAFETY: a plain load of 16 valid bytes, of any alignment, that touches nothing else.
        unsafe {
            asm!("movdqu {value}, xmmword ptr [{address}]", value = lateout(xmm_reg) value, address = in(reg) address,
                 options(nostack, preserves_flags, readonly));
        }
        value
    }

    /// # Safety
    /// As `copy_out`, with `len >= 16`.
    #[inline(always)]
    pub(super) unsafe fn copy_out_16(source: *const u8, destination: *mut u8, len: usize) {
        let last = len - 16;
        let mut done = 0;
        // SAFETY: every load and store is of the 16 bytes at `done <= last`, thus within `len`.
        unsafe {
            while done + 48 <= last {
                let a = load_16(source.add(done));
                let b = load_16(source.add(done + 16));
                let c = load_16(source.add(done + 32));
                let d = load_16(source.add(done + 48));
                _mm_storeu_si128(destination.add(done).cast(), a);
                _mm_storeu_si128(destination.add(done + 16).cast(), b);
                _mm_storeu_si128(destination.add(done + 32).cast(), c);
                _mm_storeu_si128(destination.add(done + 48).cast(), d);
                done += 64;
            }
            while done < last {
                _mm_storeu_si128(destination.add(done).cast(), load_16(source.add(done)));
                done += 16;
            }
            _mm_storeu_si128(destination.add(last).cast(), load_16(source.add(last)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_alignment_is_copied_alike_by_both_twins() {
        let words: Vec<u64> = (0..64u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let shared = words.as_ptr().cast::<u8>();
        let plain: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        for start in 0..24 {
            for len in 0..300 {
                let (mut fast, mut twin) = (vec![0u8; len], vec![0u8; len]);
                // SAFETY: `start + len` is within the 512 bytes of `words`, which nobody writes to.
                unsafe {
                    copy_out(shared.add(start), fast.as_mut_ptr(), len);
                    copy_out_words(shared.add(start), twin.as_mut_ptr(), len);
                }
                assert_eq!(fast, &plain[start..start + len]);
                assert_eq!(twin, &plain[start..start + len]);
            }
        }
    }

    #[test]
    fn a_write_changes_its_bytes_and_no_others() {
        for start in 0..17 {
            for len in 0..40 {
                let mut words = vec![u64::MAX; 16];
                let source: Vec<u8> = (0..len).map(|i| i as u8).collect();
                // SAFETY: `start + len` is within the 128 bytes of `words`, which no one else uses.
                unsafe { copy_in(words.as_mut_ptr().cast::<u8>().add(start), source.as_ptr(), len) };
                let mut expected = vec![255u8; 128];
                expected[start..start + len].copy_from_slice(&source);
                let found: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                assert_eq!(found, expected, "start {start}, len {len}");
            }
        }
    }
}
