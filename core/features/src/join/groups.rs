//! Keys to dense group numbers, so that everything after works on integers.

use std::collections::HashMap;

use ahash::RandomState;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use headrace_types::{Error, Result};

/// The group of a row whose key is null or not known.
pub(super) const NO_GROUP: u32 = u32::MAX;

type Map<K> = HashMap<K, u32, RandomState>;

/// A table of numbers instead of a map, where the values of a key span at most so many times their rows.
const SPAN_PER_ROW_MAX: u64 = 8;

/// The distinct keys of the entity rows. A source row of any other key can match nothing.
///
/// Each part of a key gets a number, then the numbers of the parts so far and of the next part are paired to one number.
pub(super) struct Groups {
    parts: Vec<Part>,
    pairs: Vec<Map<u64>>,
    /// The number of groups.
    pub(super) count: usize,
    /// The group of each entity row.
    pub(super) of_entities: Vec<u32>,
}

enum Part {
    /// Values from `first` on have their numbers at consecutive places.
    Dense {
        first: u64,
        numbers: Vec<u32>,
    },
    Fixed(Map<u64>),
    Bytes(Map<Box<[u8]>>),
}

impl Groups {
    /// Numbers the keys of `rows` entity rows; plain arrays, one per join key. Without join keys all rows are of one group.
    pub(super) fn of_entities(keys: &[ArrayRef], rows: usize) -> Result<Self> {
        let mut groups = Self { parts: Vec::new(), pairs: Vec::new(), count: 1, of_entities: vec![0; rows] };
        for (index, key) in keys.iter().enumerate() {
            let mut numbers = vec![NO_GROUP; rows];
            let (part, count) = Part::of_entities(key, &mut numbers)?;
            groups.parts.push(part);
            if index == 0 {
                (groups.count, groups.of_entities) = (count, numbers);
                continue;
            }
            let mut map = Map::default();
            for (group, &part) in groups.of_entities.iter_mut().zip(&numbers) {
                *group = pair(*group, part).map_or(NO_GROUP, |pair| number(&mut map, pair));
            }
            groups.count = map.len();
            groups.pairs.push(map);
        }
        Ok(groups)
    }

    /// The groups of `rows` source rows.
    pub(super) fn of_sources(&self, keys: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let mut groups = vec![0; rows];
        for (index, (part, key)) in self.parts.iter().zip(keys).enumerate() {
            let numbers = part.of_sources(key)?;
            if index == 0 {
                groups = numbers;
                continue;
            }
            let map = &self.pairs[index - 1];
            for (group, &part) in groups.iter_mut().zip(&numbers) {
                *group = pair(*group, part).map_or(NO_GROUP, |pair| find(map, &pair));
            }
        }
        Ok(groups)
    }
}

impl Part {
    /// Numbers the values of one part of the entity rows' keys; null stays without. Returns the number of distinct values, too.
    fn of_entities(key: &ArrayRef, numbers: &mut [u32]) -> Result<(Self, usize)> {
        if is_bytes(key) {
            let mut map: Map<Box<[u8]>> = Map::default();
            each_bytes(key, |row, value| {
                numbers[row] = map.get(value).copied().unwrap_or_else(|| {
                    let next = map.len() as u32; // the number of rows is checked to fit
                    map.insert(value.into(), next);
                    next
                });
            });
            let count = map.len();
            return Ok((Self::Bytes(map), count));
        }
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        each_fixed(key, |_, value| (first, last) = (first.min(value.cast_signed()), last.max(value.cast_signed())))?;
        let span = last.wrapping_sub(first).cast_unsigned();
        if first <= last && span < SPAN_PER_ROW_MAX * numbers.len() as u64 {
            let first = first.cast_unsigned();
            let (mut dense, mut count) = (vec![NO_GROUP; span as usize + 1], 0);
            each_fixed(key, |row, value| {
                let number = &mut dense[value.wrapping_sub(first) as usize];
                if *number == NO_GROUP {
                    *number = count;
                    count += 1;
                }
                numbers[row] = *number;
            })?;
            return Ok((Self::Dense { first, numbers: dense }, count as usize));
        }
        let mut map = Map::default();
        each_fixed(key, |row, value| numbers[row] = number(&mut map, value))?;
        let count = map.len();
        Ok((Self::Fixed(map), count))
    }

    /// The numbers of one part of source rows' keys.
    fn of_sources(&self, key: &ArrayRef) -> Result<Vec<u32>> {
        let mut found = vec![NO_GROUP; key.len()];
        match self {
            Self::Bytes(map) => each_bytes(key, |row, value| found[row] = map.get(value).copied().unwrap_or(NO_GROUP)),
            Self::Fixed(map) => each_fixed(key, |row, value| found[row] = find(map, &value))?,
            Self::Dense { first, numbers } => each_fixed(key, |row, value| {
                let place = usize::try_from(value.wrapping_sub(*first)).unwrap_or(usize::MAX);
                found[row] = numbers.get(place).copied().unwrap_or(NO_GROUP);
            })?,
        }
        Ok(found)
    }
}

fn number<K: std::hash::Hash + Eq>(map: &mut Map<K>, key: K) -> u32 {
    let next = map.len() as u32; // the number of rows is checked to fit
    *map.entry(key).or_insert(next)
}

fn find<K: std::hash::Hash + Eq>(map: &Map<K>, key: &K) -> u32 {
    map.get(key).copied().unwrap_or(NO_GROUP)
}

fn pair(group: u32, part: u32) -> Option<u64> {
    (group != NO_GROUP && part != NO_GROUP).then_some(u64::from(group) << 32 | u64::from(part))
}

pub(super) fn is_bytes(key: &ArrayRef) -> bool {
    matches!(key.data_type(), DataType::Utf8 | DataType::Binary)
}

pub(super) fn each_bytes<'a>(key: &'a ArrayRef, mut visit: impl FnMut(usize, &'a [u8])) {
    macro_rules! each {
        ($array:expr, $as_bytes:expr) => {{
            let array = $array;
            for row in 0..array.len() {
                if array.is_valid(row) {
                    visit(row, $as_bytes(array.value(row)));
                }
            }
        }};
    }
    match key.data_type() {
        DataType::Utf8 => each!(key.as_string::<i32>(), str::as_bytes),
        _ => each!(key.as_binary::<i32>(), |value| value),
    }
}

/// Visits the values that are not null; within one type, equal numbers stand for equal values.
#[allow(clippy::cast_sign_loss)]
pub(super) fn each_fixed(key: &ArrayRef, mut visit: impl FnMut(usize, u64)) -> Result<()> {
    macro_rules! each {
        ($type:ty) => {{
            let array = key.as_primitive::<$type>();
            for (row, &value) in array.values().iter().enumerate() {
                if array.is_valid(row) {
                    visit(row, value as u64);
                }
            }
        }};
    }
    match key.data_type() {
        DataType::Int8 => each!(Int8Type),
        DataType::Int16 => each!(Int16Type),
        DataType::Int32 => each!(Int32Type),
        DataType::Int64 => each!(Int64Type),
        DataType::UInt8 => each!(UInt8Type),
        DataType::UInt16 => each!(UInt16Type),
        DataType::UInt32 => each!(UInt32Type),
        DataType::UInt64 => each!(UInt64Type),
        DataType::Timestamp(_, _) => each!(TimestampMicrosecondType),
        DataType::Boolean => {
            let array = key.as_boolean();
            for row in (0..array.len()).filter(|&row| array.is_valid(row)) {
                visit(row, u64::from(array.value(row)));
            }
        }
        other => return Err(Error::internal(format!("a join key has the type {other}"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use arrow_array::{Int64Array, StringArray};

    #[test]
    fn parts_of_a_key_do_not_run_together() {
        let entities: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from(vec!["1", "12", "1"])), Arc::new(StringArray::from(vec!["23", "3", "23"]))];
        let groups = Groups::of_entities(&entities, 3).unwrap();
        assert_eq!((groups.count, groups.of_entities.as_slice()), (2, [0, 1, 0].as_slice()));
    }

    #[test]
    fn a_null_in_any_part_finds_nothing() {
        let entities: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), None])),
            Arc::new(StringArray::from(vec![Some("a"), Some("a")])),
        ];
        let groups = Groups::of_entities(&entities, 2).unwrap();
        assert_eq!(groups.of_entities, [0, NO_GROUP]);
        let sources: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), Some(1), Some(2), None])),
            Arc::new(StringArray::from(vec![Some("a"), None, Some("a"), Some("a")])),
        ];
        assert_eq!(groups.of_sources(&sources, 4).unwrap(), [0, NO_GROUP, NO_GROUP, NO_GROUP]);
    }

    #[test]
    fn without_join_keys_there_is_one_group() {
        let groups = Groups::of_entities(&[], 3).unwrap();
        assert_eq!(groups.of_entities, [0, 0, 0]);
        assert_eq!(groups.of_sources(&[], 2).unwrap(), [0, 0]);
    }
}
