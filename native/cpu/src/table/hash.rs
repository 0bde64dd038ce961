//! The seeded 64-bit hash of keys, and the checksum of snapshots.
//!
//! Both fold 128-bit products, as wyhash and rapidhash do. The seed is drawn when a table is made, so that nobody can
//! choose keys that fall together.

use std::hash::{BuildHasher, Hasher};

const K0: u64 = 0x2d35_8dcc_aa6c_78a5;
const K1: u64 = 0x8bb8_4b93_962e_acc9;
const K2: u64 = 0x4b33_a62e_d433_d4a3;

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[inline(always)]
fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// The hash of a key of 8 bytes, equal to [`hash_bytes`] of them.
#[inline(always)]
pub(super) fn hash_u64(seed: u64, key: u64) -> u64 {
    finish(seed, key ^ K2, seed, 8)
}

#[inline(always)]
fn finish(state: u64, a: u64, b: u64, len: u64) -> u64 {
    let product = u128::from(a ^ state) * u128::from(b ^ K0 ^ len);
    fold(product as u64 ^ K0, (product >> 64) as u64 ^ K1 ^ state)
}

/// The hash of bytes of any length.
#[inline]
pub(super) fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let len = bytes.len();
    if len == 8 {
        return hash_u64(seed, read_u64(bytes, 0));
    }
    let mut state = seed;
    let mut at = 0;
    while len - at > 16 {
        state = fold(read_u64(bytes, at) ^ K1, read_u64(bytes, at + 8) ^ state);
        at += 16;
    }
    let mut tail = [0u8; 16];
    tail[..len - at].copy_from_slice(&bytes[at..]);
    finish(state, read_u64(&tail, 0) ^ K2, read_u64(&tail, 8) ^ seed, len as u64)
}

/// A seed that differs from process to process and table to table.
pub(super) fn random_seed() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish() | 1
}

/// A checksum over chunks: not against a forger, but against broken disks and cut files.
#[derive(Debug)]
pub(super) struct Checksum(u64);

impl Checksum {
    pub(super) fn new() -> Self {
        Self(K2)
    }

    /// Adds a chunk; the chunks' borders are part of the sum.
    pub(super) fn add(&mut self, chunk: &[u8]) {
        self.0 = hash_bytes(self.0, chunk);
    }

    pub(super) fn value(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn small_integers_spread_over_all_bits() {
        let mut ones = [0u32; 64];
        for key in 0..4096u64 {
            let hash = hash_u64(7, key);
            for (bit, count) in ones.iter_mut().enumerate() {
                *count += (hash >> bit) as u32 & 1;
            }
        }
        assert!(ones.iter().all(|&count| (1800..2300).contains(&count)), "{ones:?}");
    }

    #[test]
    fn length_is_part_of_the_hash() {
        let zeros = [0u8; 64];
        let hashes: HashSet<u64> = (0..64).map(|len| hash_bytes(1, &zeros[..len])).collect();
        assert_eq!(hashes.len(), 64);
    }

    #[test]
    fn one_flipped_bit_changes_the_checksum() {
        let bytes: Vec<u8> = (0..100u8).collect();
        let sum = |bytes: &[u8]| {
            let mut checksum = Checksum::new();
            checksum.add(bytes);
            checksum.value()
        };
        for bit in 0..800 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(sum(&changed), sum(&bytes), "bit {bit}");
        }
    }
}
