//! Arrow arrays into summaries.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_cast::cast;
use arrow_schema::{DataType, TimeUnit};
use headrace_types::{DType, Error, ErrorCode, Result, ScalarType, Value};

use crate::numbers::{Number, hash_floats, hash_words};
use crate::quantile::Scratch;
use crate::top::{Counts, PART_VALUES};
use crate::{ColumnSummary, hash_bytes, hash_word};

/// Rows that are taken at once: their numbers stay in the second cache.
const CHUNK_ROWS: usize = 32_768;

/// What columns are read into: up to three megabytes that need not be made anew for each batch.
#[derive(Debug, Default)]
pub struct Buffers {
    singles: Vec<f32>,
    numbers: Vec<f64>,
    hashes: Vec<u64>,
    rows: Vec<usize>,
    scratch: Scratch,
    counts: Counts,
}

/// The Arrow type that an array is read as, and ours; neither for a type that we do not have.
fn plain_type(data_type: &DataType) -> Option<(DataType, DType)> {
    let scalar = |data_type: DataType, scalar: ScalarType| Some((data_type, DType::Scalar(scalar)));
    match data_type {
        DataType::Boolean => scalar(DataType::Boolean, ScalarType::Bool),
        DataType::Int8 => scalar(DataType::Int8, ScalarType::Int8),
        DataType::Int16 => scalar(DataType::Int16, ScalarType::Int16),
        DataType::Int32 => scalar(DataType::Int32, ScalarType::Int32),
        DataType::Int64 => scalar(DataType::Int64, ScalarType::Int64),
        DataType::UInt8 => scalar(DataType::UInt8, ScalarType::UInt8),
        DataType::UInt16 => scalar(DataType::UInt16, ScalarType::UInt16),
        DataType::UInt32 => scalar(DataType::UInt32, ScalarType::UInt32),
        DataType::UInt64 => scalar(DataType::UInt64, ScalarType::UInt64),
        DataType::Float32 => scalar(DataType::Float32, ScalarType::Float32),
        DataType::Float16 | DataType::Float64 | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            scalar(DataType::Float64, ScalarType::Float64)
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => scalar(DataType::Utf8, ScalarType::String),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            scalar(DataType::Binary, ScalarType::Bytes)
        }
        DataType::Timestamp(_, zone) => {
            scalar(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()), ScalarType::Timestamp)
        }
        DataType::Date32 | DataType::Date64 => {
            scalar(DataType::Timestamp(TimeUnit::Microsecond, None), ScalarType::Timestamp)
        }
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            let (_, element) = plain_type(field.data_type())?;
            (!element.is_list()).then(|| (DataType::List(Arc::clone(field)), DType::List(element.element())))
        }
        _ => None,
    }
}

/// The type of a column's summary.
pub(crate) fn dtype_of(data_type: &DataType) -> Option<DType> {
    plain_type(data_type).map(|(_, dtype)| dtype)
}

/// Adds an array of any type.
pub(crate) fn add_array(summary: &mut ColumnSummary, array: &ArrayRef, buffers: &mut Buffers) -> Result<()> {
    let plain = match plain_type(array.data_type()) {
        Some((data_type, _)) if data_type == *array.data_type() => Some(Arc::clone(array)),
        Some((data_type, _)) => Some(cast(array, &data_type).map_err(|error| {
            Error::new(ErrorCode::TypeMismatch, error.to_string(), "give the column a plainer type")
        })?),
        None => None,
    };
    let Some(plain) = plain else {
        summary.add_rows(array.len(), array.logical_null_count());
        return Ok(());
    };
    let mut start = 0;
    while start < plain.len() {
        let chunk = plain.slice(start, CHUNK_ROWS.min(plain.len() - start));
        add_chunk(summary, &chunk, buffers);
        start += CHUNK_ROWS;
    }
    Ok(())
}

fn add_chunk(summary: &mut ColumnSummary, array: &ArrayRef, buffers: &mut Buffers) {
    summary.add_rows(array.len(), array.null_count());
    buffers.rows.clear();
    let is_float = matches!(array.data_type(), DataType::Float32 | DataType::Float64);
    if let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0 && !is_float) {
        buffers.rows.extend(nulls.valid_indices());
    }
    macro_rules! integers {
        ($kind:ty, $value:expr) => {
            add_integers::<$kind>(summary, array, buffers, |v| v as f64, |v| v as u64, $value)
        };
    }
    match array.data_type() {
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>().values();
            let Buffers { numbers, hashes, scratch, counts, .. } = buffers;
            add_floats(summary, valid(array, values, numbers), hashes, scratch, counts);
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>().values();
            let Buffers { singles, hashes, scratch, counts, .. } = buffers;
            add_floats(summary, valid(array, values, singles), hashes, scratch, counts);
        }
        DataType::Int8 => integers!(Int8Type, |v| Value::Int(i64::from(v))),
        DataType::Int16 => integers!(Int16Type, |v| Value::Int(i64::from(v))),
        DataType::Int32 => integers!(Int32Type, |v| Value::Int(i64::from(v))),
        DataType::Int64 => integers!(Int64Type, Value::Int),
        DataType::UInt8 => integers!(UInt8Type, |v| Value::UInt(u64::from(v))),
        DataType::UInt16 => integers!(UInt16Type, |v| Value::UInt(u64::from(v))),
        DataType::UInt32 => integers!(UInt32Type, |v| Value::UInt(u64::from(v))),
        DataType::UInt64 => integers!(UInt64Type, Value::UInt),
        DataType::Timestamp(..) => integers!(TimestampMicrosecondType, Value::Timestamp),
        DataType::Boolean => {
            let values = array.as_boolean();
            let measure = |row| (f64::from(u8::from(values.value(row))), hash_word(u64::from(values.value(row))));
            add_rows(summary, array, buffers, measure, |row| Value::Bool(values.value(row)));
        }
        DataType::Utf8 => {
            let values = array.as_string::<i32>();
            let measure = |row| (values.value(row).len() as f64, hash_bytes(values.value(row).as_bytes()));
            add_rows(summary, array, buffers, measure, |row| Value::String(values.value(row).to_owned()));
        }
        DataType::Binary => {
            let values = array.as_binary::<i32>();
            let measure = |row| (values.value(row).len() as f64, hash_bytes(values.value(row)));
            add_rows(summary, array, buffers, measure, |row| Value::Bytes(values.value(row).to_owned()));
        }
        _ => {
            let values = array.as_list::<i32>();
            let rows = rows_of(array, &buffers.rows);
            buffers.numbers.clear();
            buffers.numbers.extend(rows.map(|row| values.value_length(row) as f64));
            summary.add_numbers(&buffers.numbers, &mut buffers.scratch);
        }
    }
}

/// The rows that are not null.
fn rows_of<'a>(array: &ArrayRef, valid: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    let all = if array.null_count() > 0 { 0..0 } else { 0..array.len() };
    all.chain(valid.iter().copied())
}

/// The values that are not null, side by side.
fn valid<'a, T: Copy>(array: &ArrayRef, values: &'a [T], side_by_side: &'a mut Vec<T>) -> &'a [T] {
    let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) else { return values };
    side_by_side.clear();
    nulls.valid_slices().for_each(|(start, end)| side_by_side.extend_from_slice(&values[start..end]));
    side_by_side
}

fn add_floats<T: Number>(
    summary: &mut ColumnSummary,
    values: &[T],
    hashes: &mut Vec<u64>,
    scratch: &mut Scratch,
    counts: &mut Counts,
) {
    summary.add_numbers(values, scratch);
    for part in values.chunks(PART_VALUES) {
        hash_floats(part, hashes);
        summary.add_hashes(hashes, |place| Value::Float64(part[place].wide()), counts);
    }
}

fn add_integers<T: ArrowPrimitiveType>(
    summary: &mut ColumnSummary,
    array: &ArrayRef,
    buffers: &mut Buffers,
    number: impl Fn(T::Native) -> f64,
    word: impl Fn(T::Native) -> u64,
    value: impl Fn(T::Native) -> Value,
) {
    let values = array.as_primitive::<T>().values();
    let Buffers { numbers, hashes, rows, scratch, counts, .. } = buffers;
    numbers.clear();
    hashes.clear();
    if array.null_count() == 0 {
        numbers.extend(values.iter().map(|v| number(*v)));
        hashes.extend(values.iter().map(|v| word(*v)));
    } else {
        numbers.extend(rows.iter().map(|row| number(values[*row])));
        hashes.extend(rows.iter().map(|row| word(values[*row])));
    }
    hash_words(hashes);
    summary.add_numbers(numbers, scratch);
    add_hashes(summary, hashes, rows, |row| value(values[row]), counts);
}

/// Values that are read row by row: `measure` gives a row's number and hash, `value` what to show of it.
fn add_rows(
    summary: &mut ColumnSummary,
    array: &ArrayRef,
    buffers: &mut Buffers,
    measure: impl Fn(usize) -> (f64, u64),
    value: impl Fn(usize) -> Value,
) {
    let Buffers { numbers, hashes, rows, scratch, counts, .. } = buffers;
    numbers.clear();
    hashes.clear();
    for row in rows_of(array, rows) {
        let (number, hash) = measure(row);
        numbers.push(number);
        hashes.push(hash);
    }
    summary.add_numbers(numbers, scratch);
    add_hashes(summary, hashes, rows, value, counts);
}

/// Adds hashes part by part; `value` gives what to show of a row, `rows` those that are not null, or nothing when all are.
fn add_hashes(
    summary: &mut ColumnSummary,
    hashes: &[u64],
    rows: &[usize],
    value: impl Fn(usize) -> Value,
    counts: &mut Counts,
) {
    let row_of = |place: usize| rows.get(place).copied().unwrap_or(place);
    for (i, part) in hashes.chunks(PART_VALUES).enumerate() {
        summary.add_hashes(part, |place| value(row_of(i * PART_VALUES + place)), counts);
    }
}
