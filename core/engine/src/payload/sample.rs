//! Which entities are sampled: a salted hash of the key against a threshold.

use headrace_types::{Column, ColumnData};

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
/// Stands for a null in a key.
const NULL: u64 = 0x6e75_6c6c;

/// A share of all keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    seed: u64,
    /// Hashes up to this one are sampled.
    last: u64,
}

impl Sample {
    /// `share` is in (0, 1]; another salt samples other keys.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 0 to 2^64, where `as` saturates
    pub(super) fn new(share: f64, salt: &str) -> Self {
        let last = (share * (u64::MAX as f64)) as u64;
        Self { seed: hash_bytes(MULTIPLIER, salt.as_bytes()), last }
    }

    /// Whether the key in a row of these columns is sampled; an absent column is null.
    pub(super) fn takes<'a>(&self, keys: impl Iterator<Item = Option<&'a Column>>, row: usize) -> bool {
        let hash = keys.fold(self.seed, |hash, column| match column {
            Some(column) if !column.is_null(row) => hash_value(hash, &column.data, row),
            _ => mix(hash, NULL),
        });
        finished(hash) <= self.last
    }
}

fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_mul(MULTIPLIER);
    mixed ^ (mixed >> 32)
}

/// SplitMix64's last steps: every bit of the hash depends on every bit of the key.
fn finished(hash: u64) -> u64 {
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn hash_bytes(hash: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(mix(hash, bytes.len() as u64), |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(hash, u64::from_le_bytes(last))
}

#[allow(clippy::cast_sign_loss)] // only the bits matter
fn hash_value(hash: u64, data: &ColumnData, row: usize) -> u64 {
    match data {
        ColumnData::Bool(v) => mix(hash, u64::from(v[row])),
        ColumnData::Int8(v) => mix(hash, i64::from(v[row]) as u64),
        ColumnData::Int16(v) => mix(hash, i64::from(v[row]) as u64),
        ColumnData::Int32(v) => mix(hash, i64::from(v[row]) as u64),
        ColumnData::Int64(v) | ColumnData::Timestamp(v) => mix(hash, v[row] as u64),
        ColumnData::UInt8(v) => mix(hash, u64::from(v[row])),
        ColumnData::UInt16(v) => mix(hash, u64::from(v[row])),
        ColumnData::UInt32(v) => mix(hash, u64::from(v[row])),
        ColumnData::UInt64(v) => mix(hash, v[row]),
        ColumnData::Float32(v) => mix(hash, float_bits(v[row].into())),
        ColumnData::Float64(v) => mix(hash, float_bits(v[row])),
        ColumnData::String(v) => hash_bytes(hash, v[row].as_bytes()),
        ColumnData::Bytes(v) => hash_bytes(hash, &v[row]),
        // No entity has a list for a key; all of them count as one.
        ColumnData::List(..) => mix(hash, NULL),
    }
}

/// Equal floats hash equally, and so do all NaN.
fn float_bits(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { (value + 0.0).to_bits() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(share: f64, salt: &str, column: &Column) -> Vec<usize> {
        let sample = Sample::new(share, salt);
        (0..column.len()).filter(|&row| sample.takes(std::iter::once(Some(column)), row)).collect()
    }

    #[test]
    fn about_the_share_is_taken_and_always_the_same() {
        let ints = Column::new(ColumnData::Int64((0..100_000).collect()));
        let texts = Column::new(ColumnData::String((0..100_000).map(|n| format!("user {n}")).collect()));
        for column in [&ints, &texts] {
            let rows = taken(0.01, "a", column);
            assert!((900..1_100).contains(&rows.len()), "{}", rows.len());
            assert_eq!(rows, taken(0.01, "a", column));
            assert_ne!(rows, taken(0.01, "b", column));
            let more = taken(0.02, "a", column);
            assert!(rows.iter().all(|row| more.contains(row)), "a larger share adds keys only");
            assert_eq!(taken(1.0, "a", column).len(), 100_000);
        }
    }

    #[test]
    fn odd_keys_are_keys() {
        let floats = Column::new(ColumnData::Float64(vec![f64::NAN, -f64::NAN, 0.0, -0.0]));
        for share in [0.25, 0.5, 0.75] {
            let rows = taken(share, "x", &floats);
            assert_eq!((rows.contains(&0), rows.contains(&2)), (rows.contains(&1), rows.contains(&3)));
        }
        let nulls = Column { data: ColumnData::Int64(vec![0, 0]), validity: Some(vec![false, false]) };
        assert_eq!(taken(1.0, "x", &nulls), [0, 1]);
        let sample = Sample::new(1.0, "");
        assert!(sample.takes(std::iter::empty(), 0) && sample.takes(std::iter::once(None), 0));
    }
}
