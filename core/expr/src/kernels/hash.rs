//! XXH64, as its specification has it: a hash that never changes, for features that are made of one.

const PRIMES: [u64; 5] =
    [0x9e37_79b1_85eb_ca87, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9, 0x85eb_ca77_c2b2_ae63, 0x27d4_eb2f_1656_67c5];

fn round(lane: u64, input: u64) -> u64 {
    lane.wrapping_add(input.wrapping_mul(PRIMES[1])).rotate_left(31).wrapping_mul(PRIMES[0])
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap_or_default())
}

fn xxh64(mut input: &[u8], seed: u64) -> u64 {
    let length = input.len() as u64;
    let mut hash = if input.len() < 32 {
        seed.wrapping_add(PRIMES[4])
    } else {
        let mut lanes = [
            seed.wrapping_add(PRIMES[0]).wrapping_add(PRIMES[1]),
            seed.wrapping_add(PRIMES[1]),
            seed,
            seed.wrapping_sub(PRIMES[0]),
        ];
        while let Some((stripe, rest)) = input.split_at_checked(32) {
            for (lane, bytes) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
                *lane = round(*lane, word(bytes));
            }
            input = rest;
        }
        let turned = [1, 7, 12, 18].into_iter().zip(lanes).map(|(turn, lane)| lane.rotate_left(turn));
        let sum = turned.fold(0, u64::wrapping_add);
        lanes
            .into_iter()
            .fold(sum, |hash, lane| (hash ^ round(0, lane)).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]))
    }
    .wrapping_add(length);
    while let Some((bytes, rest)) = input.split_at_checked(8) {
        hash = (hash ^ round(0, word(bytes))).rotate_left(27).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]);
        input = rest;
    }
    if let Some((bytes, rest)) = input.split_at_checked(4) {
        let half = u64::from(u32::from_le_bytes(bytes.try_into().unwrap_or_default()));
        hash = (hash ^ half.wrapping_mul(PRIMES[0])).rotate_left(23).wrapping_mul(PRIMES[1]).wrapping_add(PRIMES[2]);
        input = rest;
    }
    for &byte in input {
        hash = (hash ^ u64::from(byte).wrapping_mul(PRIMES[4])).rotate_left(11).wrapping_mul(PRIMES[0]);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(PRIMES[1]);
    hash ^= hash >> 29;
    hash = hash.wrapping_mul(PRIMES[2]);
    hash ^ (hash >> 32)
}

/// A float counts by its bits; both zeros are one value, and so are all NaN.
fn float_bytes(x: f64) -> [u8; 8] {
    let x = if x.is_nan() { f64::NAN } else { x + 0.0 };
    x.to_le_bytes()
}

fn signed(hash: u64) -> i64 {
    hash as i64
}

#[inline]
pub(crate) fn bytes(x: &[u8], seed: i64) -> i64 {
    signed(xxh64(x, seed as u64))
}

/// The remainder of a hash, read as unsigned.
#[inline]
pub(crate) fn bucket(hash: i64, buckets: u32) -> i64 {
    (hash as u64 % u64::from(buckets)) as i64
}

#[inline]
pub(crate) fn bools(x: &[bool], seeds: &[i64], out: &mut [i64]) {
    for ((out, &x), &seed) in out.iter_mut().zip(x).zip(seeds) {
        *out = bytes(&[u8::from(x)], seed);
    }
}

#[inline]
pub(crate) fn ints(x: &[i64], seeds: &[i64], out: &mut [i64]) {
    for ((out, x), &seed) in out.iter_mut().zip(x).zip(seeds) {
        *out = bytes(&x.to_le_bytes(), seed);
    }
}

#[inline]
pub(crate) fn floats(x: &[f64], seeds: &[i64], out: &mut [i64]) {
    for ((out, &x), &seed) in out.iter_mut().zip(x).zip(seeds) {
        *out = bytes(&float_bytes(x), seed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_values() {
        assert_eq!(xxh64(b"", 0), 0xef46_db37_51d8_e999);
        assert_eq!(xxh64(b"a", 0), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(xxh64(b"abc", 0), 0x44bc_2cf5_ad77_0999);
        assert_eq!(xxh64(b"Nobody inspects the spammish repetition", 0), 0xfbce_a83c_8a37_8bf1);
    }
}
