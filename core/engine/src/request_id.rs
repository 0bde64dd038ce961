//! Request ids: UUID version 7, so that they sort by time and need no coordination.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

use headrace_types::TimestampUs;

thread_local! {
    static RANDOM: Cell<u64> = Cell::new(seed());
}

/// Unpredictability is not needed, only that two threads or processes do not repeat each other.
fn seed() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

/// SplitMix64.
fn next_random() -> u64 {
    RANDOM.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// A new id for a request that came at `now_us`.
pub(crate) fn new_request_id(now_us: TimestampUs) -> String {
    let ms = u128::try_from(now_us / 1000).unwrap_or(0) & 0xffff_ffff_ffff;
    let random = (u128::from(next_random()) << 64) | u128::from(next_random());
    const VERSION_AND_VARIANT_BITS: u128 = (0xf << 76) | (0x3 << 62);
    let bits = (ms << 80) | (random & ((1 << 80) - 1) & !VERSION_AND_VARIANT_BITS) | (0x7 << 76) | (0x2 << 62);
    // Where the two digits of each byte stand.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    for (byte, place) in bits.to_be_bytes().into_iter().zip(PLACES) {
        text[place] = DIGITS[usize::from(byte >> 4)];
        text[place + 1] = DIGITS[usize::from(byte & 0xf)];
    }
    String::from_utf8(text.to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid7_of_its_time_and_unique() {
        let now_us = 0x0123_4567_89ab_i64 * 1000;
        let ids: std::collections::BTreeSet<String> = (0..1000).map(|_| new_request_id(now_us)).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            assert!(id.starts_with("01234567-89ab-7"), "{id}");
            assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{id}");
            assert_eq!(id.len(), 36);
        }
    }
}
