//! Random numbers for ids of traces and spans: unique, and of no other use.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// 64 bits that no other call in any process is likely to give; never 0, which the protocols take for no id.
pub(crate) fn random_id() -> u64 {
    thread_local! {
        // The standard library seeds its hash maps from the operating system's random numbers.
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    mixed(state).max(1)
}

/// The output function of SplitMix64.
fn mixed(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

pub(crate) fn new_trace_id() -> [u8; 16] {
    // Two threads' sequences may meet in one word; both words come from sequences of their own.
    thread_local! {
        static OTHER: RandomState = RandomState::new();
    }
    let low = random_id();
    let high = OTHER.with(|other| other.hash_one(low)).max(1);
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}

pub(crate) fn new_span_id() -> [u8; 8] {
    random_id().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_differ_between_calls_and_threads() {
        let threads: Vec<_> =
            (0..4).map(|_| std::thread::spawn(|| (0..1000).map(|_| new_trace_id()).collect::<Vec<_>>())).collect();
        let ids: HashSet<[u8; 16]> = threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect();
        assert_eq!(ids.len(), 4000);
    }
}
