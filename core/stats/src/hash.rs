//! The hash that all distinct counts share. It is part of their format and never changes.

/// The bits of a word, spread evenly: the output function of splitmix64 (Steele, Lea and Flood, 2014) after one step.
#[inline(always)]
pub fn hash_word(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Of a float: its bits as a float64, with one zero and one NaN.
#[inline(always)]
pub fn hash_float(value: f64) -> u64 {
    const NAN_BITS: u64 = 0x7FF8_0000_0000_0000;
    let bits = (value + 0.0).to_bits(); // -0.0 + 0.0 is 0.0
    hash_word(if value.is_nan() { NAN_BITS } else { bits })
}

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

/// XXH64 with seed 0 (Collet's specification of xxHash): of strings as UTF-8, and of bytes.
pub fn hash_bytes(data: &[u8]) -> u64 {
    let (stripes, mut tail) = data.as_chunks::<32>();
    let mut hash = P5;
    if !stripes.is_empty() {
        let mut lanes = [P1.wrapping_add(P2), P2, 0, P1.wrapping_neg()];
        for stripe in stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks::<8>().0) {
                *lane = round(*lane, u64::from_le_bytes(*word));
            }
        }
        hash = lanes[0].rotate_left(1).wrapping_add(lanes[1].rotate_left(7));
        hash = hash.wrapping_add(lanes[2].rotate_left(12)).wrapping_add(lanes[3].rotate_left(18));
        for lane in lanes {
            hash = (hash ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4);
        }
    }
    hash = hash.wrapping_add(data.len() as u64);
    while let Some((word, rest)) = tail.split_first_chunk::<8>() {
        hash = (hash ^ round(0, u64::from_le_bytes(*word))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        tail = rest;
    }
    if let Some((word, rest)) = tail.split_first_chunk::<4>() {
        let word = u64::from(u32::from_le_bytes(*word));
        hash = (hash ^ word.wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        tail = rest;
    }
    for byte in tail {
        hash = (hash ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(P2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P3);
    hash ^ (hash >> 32)
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of the published XXH64 for these inputs.
    #[test]
    fn bytes_hash_as_xxh64() {
        assert_eq!(hash_bytes(b""), 0xEF46_DB37_51D8_E999);
        assert_eq!(hash_bytes(b"a"), 0xD24E_C4F1_A98C_6E5B);
        assert_eq!(hash_bytes(b"abc"), 0x44BC_2CF5_AD77_0999);
        assert_eq!(hash_bytes(b"Nobody inspects the spammish repetition"), 0xFBCE_A83C_8A37_8BF1);
    }

    /// The first two outputs of splitmix64 from seed 0.
    #[test]
    fn words_hash_as_splitmix64() {
        assert_eq!(hash_word(0), 0xE220_A839_7B1D_CDAF);
        assert_eq!(hash_word(0x9E37_79B9_7F4A_7C15), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn zeros_and_nans_are_one_value_each() {
        assert_eq!(hash_float(-0.0), hash_float(0.0));
        assert_eq!(hash_float(-f64::NAN), hash_float(f64::from_bits(0x7FF0_0000_0000_0001)));
        assert_ne!(hash_float(1.0), hash_float(-1.0));
    }
}
