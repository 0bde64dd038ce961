//! From Arrow rows to the bytes of a batch.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow_buffer::ToByteSlice;
use headrace_cpu::{ImageLayout, encode_var};
use headrace_types::{DType, EVENT_TS_ALWAYS, Result, ScalarType, Value};

use super::batch::{BatchHeader, BatchParts, Images, offset};
use super::keys::KeyColumns;
use crate::arrow::plain_column;
use crate::join::{CREATED_TS_COLUMN, DELETED_COLUMN, EVENT_TS_COLUMN};
use crate::plan::ViewPlan;

/// A row whose event time is null.
pub const REFUSED_NULL_EVENT_TS: &str = "null_event_ts";
/// A row with a null in its key.
pub const REFUSED_NULL_KEY: &str = "null_key";
/// A row whose event time is too far after now: it would keep later rows out.
pub const REFUSED_FUTURE: &str = "future";

/// Rows whose fixed values are written column by column before the next rows: their images stay in the first cache.
const BLOCK_ROWS: usize = 64;

/// The bytes of a batch, and what was left out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedRows {
    /// A batch that describes itself: the value of the log.
    pub bytes: Vec<u8>,
    /// Rows in it. The next batch's first sequence is this one's plus this number.
    pub rows: usize,
    /// Rows that were refused, by reason; reasons that did not occur are absent.
    pub refused: BTreeMap<&'static str, u64>,
}

/// How rows are encoded.
#[derive(Debug, Clone, Copy, Default)]
pub struct EncodeOptions {
    /// The sequence number of the first row; the others follow by one.
    pub first_sequence: u64,
    /// The time of the ingest.
    pub now_us: i64,
    /// A row further ahead of it is refused.
    pub max_future_skew_us: i64,
    /// Whether what the view has aggregated so far is to be forgotten before these rows.
    pub resets: bool,
}

impl EncodeOptions {
    /// Of rows that add to what is there.
    pub fn new(first_sequence: u64, now_us: i64, max_future_skew_us: i64) -> Self {
        Self { first_sequence, now_us, max_future_skew_us, resets: false }
    }
}

/// Encodes rows of a view: its join keys and fields, and the columns `__event_ts`, `__created_ts` and `__deleted` as in
/// [`SourceRows`](crate::SourceRows). Rows that no store may take are left out and counted,
/// each under the first reason that applies: null key, null event time, future.
///
/// A null creation time becomes the event time plus `available_after`, where the source declares it; the event time, where
/// the source is a file that has no creation times at all; else `now_us`. Rows of a static view have neither time.
///
/// # Errors
/// `missing_column` or `type_mismatch` naming the column; `too_large` for a batch over 4 GiB.
pub fn encode_rows(view: &ViewPlan, batch: &RecordBatch, options: &EncodeOptions) -> Result<EncodedRows> {
    encode(view, batch, options).map_err(|error| error.within(format!("view '{}'", view.name)))
}

fn encode(view: &ViewPlan, batch: &RecordBatch, options: &EncodeOptions) -> Result<EncodedRows> {
    let EncodeOptions { first_sequence, now_us, max_future_skew_us, resets } = *options;
    let layout = ImageLayout::new(view.row_fields());
    let mut parts = BatchParts { key_offsets: vec![0], ..BatchParts::default() };
    let mut refused = BTreeMap::new();
    let times = RowTimes::new(view, batch, now_us)?;
    let latest_us = now_us.saturating_add(max_future_skew_us);
    let keys = KeyColumns::new(batch, &view.join_keys)?;
    let deleted = deleted(batch)?;
    let mut taken = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let key_at = parts.keys.len();
        let has_key = keys.push(row, &mut parts.keys)?;
        let (event_ts, created_ts) = match times.of(row) {
            Some(times) if has_key && times.0 <= latest_us => times,
            times => {
                let in_time = if times.is_none() { REFUSED_NULL_EVENT_TS } else { REFUSED_FUTURE };
                *refused.entry(if has_key { in_time } else { REFUSED_NULL_KEY }).or_default() += 1;
                parts.keys.truncate(key_at);
                continue;
            }
        };
        parts.event_ts.push(event_ts);
        parts.created_ts.push(created_ts);
        parts.key_offsets.push(offset(parts.keys.len())?);
        parts.tombstones.push(deleted.get(row).copied().unwrap_or_default().into());
        taken.push(row);
    }
    let columns = layout
        .fields()
        .iter()
        .map(|field| field_column(batch, &field.name, field.dtype, &parts.tombstones))
        .collect::<Result<Vec<_>>>()?;
    let header = BatchHeader {
        view: view.name.clone(),
        keys: view.join_keys.clone(),
        fields: view.row_fields().to_vec(),
        now_us: view.is_windowed().then_some(now_us),
        resets,
    };
    let bytes = parts.to_bytes(&header, first_sequence, taken.len() * layout.fixed_bytes(), |images| {
        write_images(&layout, &columns, &taken, &parts.tombstones, images)
    })?;
    Ok(EncodedRows { bytes, rows: taken.len(), refused })
}

/// A field's column. A batch of nothing but tombstones need not have it.
fn field_column(batch: &RecordBatch, name: &str, dtype: DType, tombstones: &[u8]) -> Result<Option<ArrayRef>> {
    if batch.column_by_name(name).is_none() && tombstones.iter().all(|&tombstone| tombstone != 0) {
        return Ok(None);
    }
    plain_column(batch, name, dtype).map(Some)
}

/// The event and creation times of the rows of a batch.
struct RowTimes {
    is_static: bool,
    event_ts: Option<TimestampMicrosecondArray>,
    created_ts: Option<TimestampMicrosecondArray>,
    available_after_us: Option<i64>,
    /// What a null creation time is where no delay is declared; none for the event time itself.
    ingest_us: Option<i64>,
}

impl RowTimes {
    fn new(view: &ViewPlan, batch: &RecordBatch, now_us: i64) -> Result<Self> {
        let times = |name: &str| -> Result<TimestampMicrosecondArray> {
            Ok(plain_column(batch, name, DType::TIMESTAMP)?.as_primitive::<TimestampMicrosecondType>().clone())
        };
        let source = &view.source;
        let event_ts = if view.is_static() { None } else { Some(times(EVENT_TS_COLUMN)?) };
        let has_created = batch.schema_ref().column_with_name(CREATED_TS_COLUMN).is_some();
        let created_ts = if has_created { Some(times(CREATED_TS_COLUMN)?) } else { None };
        let is_plain_file = source.kind == "file" && source.created_ts.is_none();
        Ok(Self {
            is_static: view.is_static(),
            event_ts,
            created_ts,
            available_after_us: source.available_after_us,
            ingest_us: (!is_plain_file).then_some(now_us),
        })
    }

    /// None where the event time is null.
    fn of(&self, row: usize) -> Option<(i64, i64)> {
        let created_ts = self.created_ts.as_ref().filter(|times| times.is_valid(row)).map(|times| times.value(row));
        if self.is_static {
            return Some((EVENT_TS_ALWAYS, created_ts.unwrap_or(i64::MIN)));
        }
        let event_ts = self.event_ts.as_ref().filter(|times| times.is_valid(row)).map(|times| times.value(row))?;
        let stamped = || match self.available_after_us {
            Some(delay_us) => event_ts.saturating_add(delay_us),
            None => self.ingest_us.unwrap_or(event_ts),
        };
        Some((event_ts, created_ts.unwrap_or_else(stamped)))
    }
}

fn deleted(batch: &RecordBatch) -> Result<Vec<bool>> {
    if batch.schema_ref().column_with_name(DELETED_COLUMN).is_none() {
        return Ok(Vec::new());
    }
    let flags = plain_column(batch, DELETED_COLUMN, DType::BOOL)?;
    let flags = flags.as_boolean();
    Ok((0..flags.len()).map(|row| flags.is_valid(row) && flags.value(row)).collect())
}

/// Appends the images of the taken rows: fixed values column by column over a block of rows, then strings and lists row by row.
fn write_images(
    layout: &ImageLayout,
    columns: &[Option<ArrayRef>],
    taken: &[usize],
    tombstones: &[u8],
    images: &mut Images,
) -> Result<()> {
    let row_bytes = layout.fixed_bytes();
    let is_var = |field: &usize| {
        let dtype = layout.fields()[*field].dtype;
        dtype.is_list() || dtype.element().width_bytes().is_none()
    };
    let (var_fields, fixed_fields): (Vec<usize>, Vec<usize>) = (0..columns.len()).partition(is_var);
    let write_block = |rows: &[usize], block: &mut [u8]| {
        for &field in &fixed_fields {
            if let Some(column) = &columns[field] {
                write_fixed(layout, field, column, rows, block);
            }
        }
    };
    let mut block = Vec::new();
    for (rows, tombstones) in taken.chunks(BLOCK_ROWS).zip(tombstones.chunks(BLOCK_ROWS)) {
        if var_fields.is_empty() && tombstones.iter().all(|&tombstone| tombstone == 0) {
            let start = images.bytes.len();
            images.bytes.resize(start + rows.len() * row_bytes, 0);
            write_block(rows, &mut images.bytes[start..]);
            images.end_rows(start, rows.len(), row_bytes)?;
            continue;
        }
        block.clear();
        block.resize(rows.len() * row_bytes, 0);
        write_block(rows, &mut block);
        for (i, (&row, &tombstone)) in rows.iter().zip(tombstones).enumerate() {
            if tombstone == 0 {
                let start = images.bytes.len();
                images.bytes.extend_from_slice(&block[i * row_bytes..(i + 1) * row_bytes]);
                for &field in &var_fields {
                    if let Some(column) = &columns[field] {
                        write_var(layout, field, column, row, start, &mut images.bytes)?;
                    }
                }
            }
            images.end_row()?;
        }
    }
    Ok(())
}

fn write_fixed(layout: &ImageLayout, field: usize, column: &ArrayRef, rows: &[usize], block: &mut [u8]) {
    macro_rules! primitive {
        ($type:ty) => {
            write_primitive::<$type>(layout, field, column, rows, block)
        };
    }
    match layout.fields()[field].dtype.element() {
        ScalarType::Bool => {
            let flags = column.as_boolean();
            let (row_bytes, at) = (layout.fixed_bytes(), layout.value_offset(field));
            for (image, &row) in block.chunks_exact_mut(row_bytes).zip(rows) {
                if flags.is_null(row) {
                    layout.set_null(image, field);
                } else {
                    image[at] = flags.value(row).into();
                }
            }
        }
        ScalarType::Int8 => primitive!(Int8Type),
        ScalarType::Int16 => primitive!(Int16Type),
        ScalarType::Int32 => primitive!(Int32Type),
        ScalarType::Int64 => primitive!(Int64Type),
        ScalarType::UInt8 => primitive!(UInt8Type),
        ScalarType::UInt16 => primitive!(UInt16Type),
        ScalarType::UInt32 => primitive!(UInt32Type),
        ScalarType::UInt64 => primitive!(UInt64Type),
        ScalarType::Float32 => primitive!(Float32Type),
        ScalarType::Float64 => primitive!(Float64Type),
        ScalarType::Timestamp => primitive!(TimestampMicrosecondType),
        // These have no fixed width, and `write_var` writes them.
        ScalarType::String | ScalarType::Bytes => {}
    }
}

fn write_primitive<T: ArrowPrimitiveType>(
    layout: &ImageLayout,
    field: usize,
    column: &ArrayRef,
    rows: &[usize],
    block: &mut [u8],
) {
    let array = column.as_primitive::<T>();
    let values = array.values();
    let (row_bytes, at) = (layout.fixed_bytes(), layout.value_offset(field));
    let width = size_of::<T::Native>();
    let mut images = block.chunks_exact_mut(row_bytes);
    let write = |image: &mut [u8], value: &T::Native| image[at..at + width].copy_from_slice(value.to_byte_slice());
    match rows {
        // Nothing between them was refused.
        [first, .., last] if last - first + 1 == rows.len() => {
            images.zip(&values[*first..=*last]).for_each(|(image, value)| write(image, value));
        }
        _ => rows.iter().zip(&mut images).for_each(|(&row, image)| write(image, &values[row])),
    }
    if array.null_count() > 0 {
        for (image, &row) in block.chunks_exact_mut(row_bytes).zip(rows) {
            if array.is_null(row) {
                layout.set_null(image, field);
            }
        }
    }
}

fn write_var(
    layout: &ImageLayout,
    field: usize,
    column: &ArrayRef,
    row: usize,
    start: usize,
    images: &mut Vec<u8>,
) -> Result<()> {
    if column.is_null(row) {
        layout.set_null(&mut images[start..], field);
        return Ok(());
    }
    match layout.fields()[field].dtype {
        DType::Scalar(ScalarType::String) => {
            layout.push_var(images, start, field, column.as_string::<i32>().value(row).as_bytes())
        }
        DType::Scalar(_) => layout.push_var(images, start, field, column.as_binary::<i32>().value(row)),
        dtype @ DType::List(element) => {
            let items = column.as_list::<i32>().value(row);
            let items = (0..items.len()).map(|i| item(&items, element, i)).collect();
            let mut bytes = Vec::new();
            encode_var(dtype, &Value::List(items), &mut bytes);
            layout.push_var(images, start, field, &bytes)
        }
    }
}

/// An item of a list.
fn item(items: &ArrayRef, element: ScalarType, i: usize) -> Value {
    macro_rules! value {
        ($type:ty, $variant:ident) => {
            Value::$variant(items.as_primitive::<$type>().value(i).into())
        };
    }
    if items.is_null(i) {
        return Value::Null;
    }
    match element {
        ScalarType::Bool => Value::Bool(items.as_boolean().value(i)),
        ScalarType::Int8 => value!(Int8Type, Int),
        ScalarType::Int16 => value!(Int16Type, Int),
        ScalarType::Int32 => value!(Int32Type, Int),
        ScalarType::Int64 => value!(Int64Type, Int),
        ScalarType::UInt8 => value!(UInt8Type, UInt),
        ScalarType::UInt16 => value!(UInt16Type, UInt),
        ScalarType::UInt32 => value!(UInt32Type, UInt),
        ScalarType::UInt64 => value!(UInt64Type, UInt),
        ScalarType::Float32 => value!(Float32Type, Float32),
        ScalarType::Float64 => value!(Float64Type, Float64),
        ScalarType::String => Value::String(items.as_string::<i32>().value(i).to_owned()),
        ScalarType::Bytes => Value::Bytes(items.as_binary::<i32>().value(i).to_vec()),
        ScalarType::Timestamp => value!(TimestampMicrosecondType, Timestamp),
    }
}
