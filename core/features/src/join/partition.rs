//! Rows by the hash of their key: what a join of one partition finds depends on no row of another.

use arrow_array::{Array, RecordBatch, UInt32Array};
use arrow_select::take::take_record_batch;
use headrace_types::{Error, ErrorCode, Result};

use super::entities::check_rows;
use super::groups::{each_bytes, each_fixed, is_bytes};

/// Cuts a batch into `count` parts by the hash of its columns `keys`; rows keep their order. Rows with a null in their key, which find
/// nothing, are in the first part.
///
/// The hash is the same in every process and on every machine.
///
/// # Errors
/// `missing_column`, `invalid_argument` for a count of 0, `too_large`.
pub fn partition_rows(batch: &RecordBatch, keys: &[String], count: u32) -> Result<Vec<RecordBatch>> {
    check_rows(batch.num_rows())?;
    if count == 0 {
        return Err(Error::new(ErrorCode::InvalidArgument, "rows are cut into 0 partitions", "give 1 or more"));
    }
    let mut hashes = vec![0u64; batch.num_rows()];
    let mut is_null = vec![false; batch.num_rows()];
    for name in keys {
        let column = batch.column_by_name(name).ok_or_else(|| {
            Error::new(ErrorCode::MissingColumn, format!("there is no column '{name}'"), "give the columns of the key")
        })?;
        if is_bytes(column) {
            each_bytes(column, |row, value| hashes[row] = mixed(hashes[row] ^ bytes_hash(value)));
        } else {
            each_fixed(column, |row, value| hashes[row] = mixed(hashes[row] ^ value))?;
        }
        if column.null_count() > 0 {
            (0..column.len()).filter(|&row| column.is_null(row)).for_each(|row| is_null[row] = true);
        }
    }
    let partition =
        |row: usize| if is_null[row] { 0 } else { (((hashes[row] >> 32) * u64::from(count)) >> 32) as usize };
    let mut starts = vec![0usize; count as usize + 1];
    for row in 0..batch.num_rows() {
        starts[partition(row) + 1] += 1;
    }
    for number in 0..count as usize {
        starts[number + 1] += starts[number];
    }
    let mut next = starts.clone();
    let mut order = vec![0u32; batch.num_rows()];
    for row in 0..batch.num_rows() {
        let place = &mut next[partition(row)];
        order[*place] = row as u32; // the number of rows is checked to fit
        *place += 1;
    }
    let sorted = take_record_batch(batch, &UInt32Array::from(order)).map_err(|error| {
        Error::new(ErrorCode::TooLarge, format!("rows cannot be partitioned: {error}"), "give them in smaller batches")
    })?;
    Ok(starts.windows(2).map(|bounds| sorted.slice(bounds[0], bounds[1] - bounds[0])).collect())
}

/// Every bit of the input moves about half the bits of the output (the finalizer of SplitMix64).
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// FNV-1a.
fn bytes_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use arrow_array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn batch() -> RecordBatch {
        let number = |row: i64| (row % 7 != 0).then_some(row % 13);
        let keys: ArrayRef = Arc::new((0..200).map(number).collect::<Int64Array>());
        let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..200).map(|row| format!("{}", row % 3))));
        let row: ArrayRef = Arc::new(Int64Array::from_iter_values(0..200));
        RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("s", text, true), ("row", row, true)]).unwrap()
    }

    #[test]
    fn each_key_is_in_one_part_and_rows_keep_their_order() {
        let parts = partition_rows(&batch(), &["k".into(), "s".into()], 5).unwrap();
        assert_eq!(parts.iter().map(RecordBatch::num_rows).sum::<usize>(), 200);
        let mut part_of_key = std::collections::HashMap::new();
        for (number, part) in parts.iter().enumerate() {
            let rows = part["row"].as_primitive::<Int64Type>().values();
            assert!(rows.is_sorted());
            let (keys, text) = (part["k"].as_primitive::<Int64Type>(), part["s"].as_string::<i32>());
            for row in 0..part.num_rows() {
                let key = keys.is_valid(row).then(|| (keys.value(row), text.value(row).to_owned()));
                let expected = if key.is_none() { 0 } else { number };
                assert_eq!(*part_of_key.entry(key).or_insert(expected), number);
            }
        }
        assert!(parts.iter().filter(|part| part.num_rows() > 0).count() > 3);
    }

    #[test]
    fn the_parts_never_change() {
        let sizes: Vec<usize> =
            partition_rows(&batch(), &["k".into()], 4).unwrap().iter().map(RecordBatch::num_rows).collect();
        assert_eq!(sizes, SIZES);
        assert_eq!(partition_rows(&batch(), &["x".into()], 4).unwrap_err().code, ErrorCode::MissingColumn);
        assert_eq!(partition_rows(&batch(), &[], 0).unwrap_err().code, ErrorCode::InvalidArgument);
    }

    /// Files on disk and partitions on other machines depend on it.
    const SIZES: [usize; 4] = [56, 52, 79, 13];
}
