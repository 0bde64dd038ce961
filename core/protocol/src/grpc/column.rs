//! Columns of the Common API's messages: read by the type of their field, and written.

use headrace_engine::{RowError, coerce_column, shortened};
use headrace_types::{Column, ColumnData, DType, Error, ErrorCode, FeatureStatus, Field, Result};

use super::wire::{Fields, Wire, put_bytes, put_nested, put_varint};
use crate::json::{ELEMENTS_MAX, LIST_VALUES_MAX, WRONG_VALUES_MAX, too_many_values, too_many_wrong};

/// The places of a Column's values.
const BOOLS: u32 = 1;
const INT64S: u32 = 2;
const UINT64S: u32 = 3;
const FLOATS: u32 = 4;
const DOUBLES: u32 = 5;
const STRINGS: u32 = 6;
const BYTES: u32 = 7;
const TIMESTAMPS: u32 = 8;
const LISTS: u32 = 9;
const NULLS: u32 = 10;

/// An entry of `map<string, Column>`: the key, and the column's bytes.
pub(super) fn entry(bytes: &[u8]) -> Result<(&str, &[u8])> {
    let mut fields = Fields::of("map entry", bytes);
    let (mut key, mut column) = ("", &[][..]);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => key = fields.text(number, content)?,
            2 => column = fields.bytes(number, content)?,
            _ => {}
        }
    }
    Ok((key, column))
}

/// Reads a column in the type of its field. Values that do not fit fail their rows.
///
/// # Errors
/// `invalid_argument` for what is no Column; `type_mismatch` for a list, or too many wrong values; `too_large`.
pub(super) fn read_column(
    bytes: &[u8],
    field: &Field,
    rows_max: usize,
    row_errors: &mut Vec<RowError>,
) -> Result<Column> {
    let elements_max = rows_max.min(ELEMENTS_MAX);
    let mut fields = Fields::of("Column", bytes);
    let (mut data, mut nulls) = (None, Vec::new());
    while let Some((number, content)) = fields.next()? {
        match number {
            BOOLS..=TIMESTAMPS => {
                data = Some(read_values(number, fields.bytes(number, content)?, &field.name, elements_max)?);
            }
            LISTS => {
                let DType::List(element) = field.dtype else {
                    return Err(Error::new(
                        ErrorCode::TypeMismatch,
                        format!("column '{}' is sent as lists", field.name),
                        "send one value for each row",
                    ));
                };
                let items = Field::new(&*field.name, DType::Scalar(element));
                data = Some(read_lists(fields.bytes(number, content)?, &items, rows_max, row_errors)?);
            }
            NULLS => fields.varints(number, content, |row| {
                let row = usize::try_from(row).ok().filter(|row| nulls.last().is_none_or(|last| last < row));
                nulls.push(row.ok_or_else(|| wrong_nulls(&field.name))?);
                Ok(())
            })?,
            _ => {}
        }
    }
    // A column without values has none of any type.
    let data = data.unwrap_or_else(|| ColumnData::with_capacity(field.dtype, 0));
    let rows = data.len();
    if nulls.last().is_some_and(|last| *last >= rows) {
        return Err(wrong_nulls(&field.name));
    }
    let mut column = Column::new(data);
    if !nulls.is_empty() {
        let mut validity = vec![true; rows];
        nulls.into_iter().for_each(|row| validity[row] = false);
        column.validity = Some(validity);
    }
    if column.dtype() == field.dtype {
        return Ok(column);
    }
    let (column, errors) = match (column, field.dtype) {
        (Column { data: ColumnData::Int64(values), validity }, DType::TIMESTAMP) => {
            (Column { data: ColumnData::Timestamp(values), validity }, Vec::new())
        }
        (column, dtype) => coerce_column(&field.name, &column, dtype),
    };
    row_errors.extend(errors);
    if row_errors.len() > WRONG_VALUES_MAX { Err(too_many_wrong(row_errors)) } else { Ok(column) }
}

/// Reads columns of their own as the rows of a column. One wrong value fails its row.
fn read_lists(bytes: &[u8], items: &Field, rows_max: usize, row_errors: &mut Vec<RowError>) -> Result<ColumnData> {
    let mut fields = Fields::of("Lists", bytes);
    let (mut lists, mut values_left) = (Vec::new(), LIST_VALUES_MAX);
    while let Some((number, content)) = fields.next()? {
        if number != 1 {
            continue;
        }
        if lists.len() == rows_max {
            let message = format!("column '{}' has more than {rows_max} rows", items.name);
            return Err(Error::new(ErrorCode::TooLarge, message, "split the request into several"));
        }
        let mut wrong = Vec::new();
        let column = read_column(fields.bytes(number, content)?, items, LIST_VALUES_MAX, &mut wrong)?;
        values_left = values_left.checked_sub(column.len()).ok_or_else(|| too_many_values(&items.name))?;
        let mut list = Vec::new();
        match wrong.into_iter().next() {
            Some(RowError { error, .. }) => {
                let row = lists.len();
                let error = Error::clone(&error).within(format!("row {row}"));
                row_errors.push(RowError { row, error: error.into() });
            }
            None => list.extend((0..column.len()).map(|item| column.value(item))),
        }
        lists.push(list);
        if row_errors.len() > WRONG_VALUES_MAX {
            return Err(too_many_wrong(row_errors));
        }
    }
    Ok(ColumnData::List(items.dtype.element(), lists))
}

fn wrong_nulls(name: &str) -> Error {
    Error::new(
        ErrorCode::InvalidArgument,
        format!("the nulls of column '{}' are not rows of it in ascending order", shortened(name)),
        "send each row without a value once; something stands in its place among the values",
    )
}

fn read_values(kind: u32, bytes: &[u8], name: &str, elements_max: usize) -> Result<ColumnData> {
    let mut fields = Fields::of("list of values", bytes);
    let too_many = || {
        Error::new(
            ErrorCode::TooLarge,
            format!("column '{}' has more than {elements_max} rows", shortened(name)),
            "split the request into several",
        )
    };
    macro_rules! collected {
        ($variant:path, $number:ident, $content:ident, $values:ident, $read:expr) => {{
            let mut $values = Vec::new();
            while let Some(($number, $content)) = fields.next()? {
                if $number == 1 {
                    $read;
                    if $values.len() > elements_max {
                        return Err(too_many());
                    }
                }
            }
            Ok($variant($values))
        }};
    }
    macro_rules! varints {
        ($variant:path, $of:expr) => {
            collected!($variant, number, content, values, {
                fields.varints(number, content, |value| {
                    if values.len() == elements_max {
                        return Err(too_many());
                    }
                    values.push($of(value));
                    Ok(())
                })?;
            })
        };
    }
    macro_rules! fixed {
        ($variant:path, $type:ty, $alone:path) => {
            collected!($variant, number, content, values, {
                let packed: &[u8] = match &content {
                    $alone(bytes) => bytes,
                    Wire::Bytes(bytes) => bytes,
                    _ => return Err(fields.wrong_type(number)),
                };
                let (chunks, rest) = packed.as_chunks();
                if !rest.is_empty() {
                    return Err(fields.wrong_type(number));
                }
                if values.len() + chunks.len() > elements_max {
                    return Err(too_many());
                }
                values.extend(chunks.iter().map(|bytes| <$type>::from_le_bytes(*bytes)));
            })
        };
    }
    match kind {
        BOOLS => varints!(ColumnData::Bool, |value: u64| value != 0),
        INT64S => varints!(ColumnData::Int64, |value: u64| value.cast_signed()),
        TIMESTAMPS => varints!(ColumnData::Timestamp, |value: u64| value.cast_signed()),
        UINT64S => varints!(ColumnData::UInt64, |value: u64| value),
        FLOATS => fixed!(ColumnData::Float32, f32, Wire::Fixed32),
        DOUBLES => fixed!(ColumnData::Float64, f64, Wire::Fixed64),
        STRINGS => collected!(ColumnData::String, number, content, values, {
            values.push(fields.text(number, content)?.to_owned());
        }),
        _ => collected!(ColumnData::Bytes, number, content, values, {
            values.push(fields.bytes(number, content)?.to_vec());
        }),
    }
}

/// Writes a column as the message's content.
pub(super) fn put_column(out: &mut Vec<u8>, column: &Column) {
    macro_rules! packed {
        ($kind:expr, $values:expr, $varint:expr) => {
            put_nested(out, $kind, |out| {
                put_nested(out, 1, |out| $values.iter().for_each(|value| put_varint(out, $varint(*value))));
            })
        };
    }
    macro_rules! fixed {
        ($kind:expr, $values:expr) => {
            put_nested(out, $kind, |out| {
                put_nested(out, 1, |out| out.extend($values.iter().flat_map(|value| value.to_le_bytes())));
            })
        };
    }
    let signed = |value: i64| value.cast_unsigned();
    match &column.data {
        ColumnData::Bool(values) => packed!(BOOLS, values, u64::from),
        ColumnData::Int8(values) => packed!(INT64S, values, |value: i8| signed(value.into())),
        ColumnData::Int16(values) => packed!(INT64S, values, |value: i16| signed(value.into())),
        ColumnData::Int32(values) => packed!(INT64S, values, |value: i32| signed(value.into())),
        ColumnData::Int64(values) => packed!(INT64S, values, signed),
        ColumnData::UInt8(values) => packed!(UINT64S, values, u64::from),
        ColumnData::UInt16(values) => packed!(UINT64S, values, u64::from),
        ColumnData::UInt32(values) => packed!(UINT64S, values, u64::from),
        ColumnData::UInt64(values) => packed!(UINT64S, values, |value: u64| value),
        ColumnData::Float32(values) => fixed!(FLOATS, values),
        ColumnData::Float64(values) => fixed!(DOUBLES, values),
        ColumnData::String(values) => {
            put_nested(out, STRINGS, |out| values.iter().for_each(|text| put_bytes(out, 1, text.as_bytes())));
        }
        ColumnData::Bytes(values) => {
            put_nested(out, BYTES, |out| values.iter().for_each(|bytes| put_bytes(out, 1, bytes)));
        }
        ColumnData::Timestamp(values) => packed!(TIMESTAMPS, values, signed),
        ColumnData::List(element, values) => put_nested(out, LISTS, |out| {
            for items in values {
                // The engine's lists hold values of their element's type only.
                let items = Column::from_values(DType::Scalar(*element), items.iter().cloned());
                put_nested(out, 1, |out| items.iter().for_each(|items| put_column(out, items)));
            }
        }),
    }
    if let Some(validity) = column.validity.as_ref().filter(|validity| validity.contains(&false)) {
        let nulls = validity.iter().enumerate().filter(|(_, is_valid)| !**is_valid);
        put_nested(out, NULLS, |out| nulls.for_each(|(row, _)| put_varint(out, row as u64)));
    }
}

/// The number of a status in the message.
pub(super) fn status_number(status: FeatureStatus) -> u64 {
    match status {
        FeatureStatus::Invalid => 0,
        FeatureStatus::Present => 1,
        FeatureStatus::NullValue => 2,
        FeatureStatus::NotFound => 3,
        FeatureStatus::OutsideMaxAge => 4,
    }
}
