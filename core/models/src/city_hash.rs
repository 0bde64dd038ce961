//! The hash by which CatBoost knows a category: the low half of CityHash64 (version 1.0) of its text.
//!
//! The constants and the mixing are those of the published algorithm; only texts of up to 16 bytes are needed here.

const K2: u64 = 0x9ae1_6a3b_2f90_404f;
const K3: u64 = 0xc949_d7c7_509e_6557;
const MULTIPLIER: u64 = 0x9ddf_ea08_eb38_2d69;

/// The hash of a category of 1 to 8 bytes.
pub(crate) fn category_hash(text: &str) -> u32 {
    #[allow(clippy::cast_possible_truncation)] // the low half is wanted
    let low = hash(text.as_bytes()) as u32;
    low
}

fn hash(text: &[u8]) -> u64 {
    let word = |at: usize| u64::from(u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]));
    let len = text.len() as u64;
    match text.len() {
        0 => K2,
        1..4 => {
            let byte = |at: usize| u64::from(text[at]);
            let (first, middle, last) = (byte(0), byte(text.len() / 2), byte(text.len() - 1));
            let mixed = (first + (middle << 8)).wrapping_mul(K2) ^ (len + (last << 2)).wrapping_mul(K3);
            (mixed ^ (mixed >> 47)).wrapping_mul(K2)
        }
        _ => {
            let (one, other) = (len + (word(0) << 3), word(text.len() - 4));
            let mut mixed = (one ^ other).wrapping_mul(MULTIPLIER);
            mixed ^= mixed >> 47;
            let mut hash = (other ^ mixed).wrapping_mul(MULTIPLIER);
            hash ^= hash >> 47;
            hash.wrapping_mul(MULTIPLIER)
        }
    }
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
    }
}
