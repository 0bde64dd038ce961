//! The hash by which CatBoost knows a category: the low half of CityHash64 (version 1.0) of its text.
//!
//! The constants and the mixing are those of the published algorithm.

const K0: u64 = 0xc3a5_c85c_97cb_3127;
const K1: u64 = 0xb492_b66f_be98_f273;
const K2: u64 = 0x9ae1_6a3b_2f90_404f;
const K3: u64 = 0xc949_d7c7_509e_6557;
const MULTIPLIER: u64 = 0x9ddf_ea08_eb38_2d69;

/// The hash of a category.
pub(crate) fn category_hash(text: &str) -> u32 {
    #[allow(clippy::cast_possible_truncation)] // the low half is wanted
    let low = hash(text.as_bytes()) as u32;
    low
}

fn hash(text: &[u8]) -> u64 {
    match text.len() {
        0..=16 => hash_to_16(text),
        17..=32 => hash_to_32(text),
        33..=64 => hash_to_64(text),
        _ => hash_of_long(text),
    }
}

/// Eight bytes, little-endian.
fn word(text: &[u8], at: usize) -> u64 {
    half(text, at) | half(text, at + 4) << 32
}

/// Four bytes, little-endian.
fn half(text: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]))
}

fn shift_mix(value: u64) -> u64 {
    value ^ (value >> 47)
}

fn mix(low: u64, high: u64) -> u64 {
    let mixed = shift_mix((low ^ high).wrapping_mul(MULTIPLIER));
    shift_mix((high ^ mixed).wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER)
}

fn hash_to_16(text: &[u8]) -> u64 {
    let len = text.len() as u64;
    match text.len() {
        0 => K2,
        1..4 => {
            let byte = |at: usize| u64::from(text[at]);
            let (first, middle, last) = (byte(0), byte(text.len() / 2), byte(text.len() - 1));
            let mixed = (first + (middle << 8)).wrapping_mul(K2) ^ (len + (last << 2)).wrapping_mul(K3);
            shift_mix(mixed).wrapping_mul(K2)
        }
        4..=8 => mix(len + (half(text, 0) << 3), half(text, text.len() - 4)),
        _ => {
            let (first, last) = (word(text, 0), word(text, text.len() - 8));
            let turns = u32::try_from(text.len()).unwrap_or_default();
            mix(first, last.wrapping_add(len).rotate_right(turns)) ^ last
        }
    }
}

fn hash_to_32(text: &[u8]) -> u64 {
    let (len, end) = (text.len() as u64, text.len());
    let (a, b) = (word(text, 0).wrapping_mul(K1), word(text, 8));
    let (c, d) = (word(text, end - 8).wrapping_mul(K2), word(text, end - 16).wrapping_mul(K0));
    mix(
        a.wrapping_sub(b).rotate_right(43).wrapping_add(c.rotate_right(30)).wrapping_add(d),
        a.wrapping_add((b ^ K3).rotate_right(20)).wrapping_sub(c).wrapping_add(len),
    )
}

/// Two hashes of 32 bytes, of which the second begins as the first ends.
fn hash_to_64(text: &[u8]) -> u64 {
    let (len, end) = (text.len() as u64, text.len());
    let half_hash = |mut a: u64, z: u64, second: u64, third: u64| {
        let (mut b, mut c) = (a.wrapping_add(z).rotate_right(52), a.rotate_right(37));
        a = a.wrapping_add(second);
        c = c.wrapping_add(a.rotate_right(7));
        a = a.wrapping_add(third);
        b = b.wrapping_add(a.rotate_right(31)).wrapping_add(c);
        (a.wrapping_add(z), b)
    };
    let a = word(text, 0).wrapping_add(len.wrapping_add(word(text, end - 16)).wrapping_mul(K0));
    let (v_first, v_second) = half_hash(a, word(text, 24), word(text, 8), word(text, 16));
    let a = word(text, 16).wrapping_add(word(text, end - 32));
    let (w_first, w_second) = half_hash(a, word(text, end - 8), word(text, end - 24), word(text, end - 16));
    let one = v_first.wrapping_add(w_second).wrapping_mul(K2);
    let mixed = shift_mix(one.wrapping_add(w_first.wrapping_add(v_second).wrapping_mul(K0)));
    shift_mix(mixed.wrapping_mul(K0).wrapping_add(v_second)).wrapping_mul(K2)
}

/// A weak hash of 32 bytes from `at` on, and two seeds.
fn weak(text: &[u8], at: usize, a: u64, b: u64) -> (u64, u64) {
    let (w, x, y, z) = (word(text, at), word(text, at + 8), word(text, at + 16), word(text, at + 24));
    let start = a.wrapping_add(w);
    let b = b.wrapping_add(start).wrapping_add(z).rotate_right(21);
    let a = start.wrapping_add(x).wrapping_add(y);
    (a.wrapping_add(z), b.wrapping_add(a.rotate_right(44)).wrapping_add(start))
}

/// The end of the text is hashed first, then all blocks of 64 bytes.
fn hash_of_long(text: &[u8]) -> u64 {
    let (len, end) = (text.len() as u64, text.len());
    let (mut x, mut y, mut z) = (word(text, 0), word(text, end - 16) ^ K1, word(text, end - 56) ^ K0);
    let mut v = weak(text, end - 64, len, y);
    let mut w = weak(text, end - 32, len.wrapping_mul(K1), K0);
    z = z.wrapping_add(shift_mix(v.1).wrapping_mul(K1));
    x = z.wrapping_add(x).rotate_right(39).wrapping_mul(K1);
    y = y.rotate_right(33).wrapping_mul(K1);
    for at in (0..end - 1).step_by(64).take((end - 1) / 64) {
        let mixed = x.wrapping_add(y).wrapping_add(v.0).wrapping_add(word(text, at + 16));
        x = mixed.rotate_right(37).wrapping_mul(K1);
        let mixed = y.wrapping_add(v.1).wrapping_add(word(text, at + 48));
        y = mixed.rotate_right(42).wrapping_mul(K1);
        x ^= w.1;
        y ^= v.0;
        z = (z ^ w.0).rotate_right(33);
        v = weak(text, at, v.1.wrapping_mul(K1), x.wrapping_add(w.0));
        w = weak(text, at + 32, z.wrapping_add(w.1), y);
        std::mem::swap(&mut z, &mut x);
    }
    let high = mix(v.1, w.1).wrapping_add(x);
    mix(mix(v.0, w.0).wrapping_add(shift_mix(y).wrapping_mul(K1)).wrapping_add(z), high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_that_catboost_writes() {
        // From `features_info` of models trained on these categories by CatBoost 1.2.10.
        let signed = |text: &str| category_hash(text).cast_signed();
        assert_eq!(["0", "1", "2", "3"].map(signed), [-1_438_285_038, 1_121_341_681, -1_284_790_409, 593_172_586]);
        assert_eq!(["-3", "-1"].map(signed), [1_837_837_212, 288_298_918]);
        // Each length of text is hashed in another way: up to 16, 32 and 64 bytes, and more.
        assert_eq!(["", "Zürich"].map(signed), [797_982_799, -885_768_184]);
        assert_eq!([signed(&"a".repeat(9)), signed(&"b".repeat(16))], [106_375_146, 1_492_044_655]);
        assert_eq!(signed(&("c".repeat(17) + "x")), 1_980_525_775);
        assert_eq!(signed("New York, NY and more of it here"), 839_780_002);
        assert_eq!(
            [signed(&"e".repeat(33)), signed(&("f".repeat(40) + &"é".repeat(12)))],
            [-241_359_586, -535_523_941]
        );
        assert_eq!([signed(&"g".repeat(65)), signed(&("abc".repeat(50) + "z"))], [1_162_438_557, 230_914_704]);
    }
}
