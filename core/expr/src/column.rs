use std::ops::Range;

use headrace_types::{Column, ColumnData, DType, ScalarType, TimestampUs, Value};

/// The values of one input column, borrowed. The place of a null may hold anything.
#[derive(Debug, Clone, Copy)]
pub enum ColumnSlice<'a> {
    /// Booleans, one byte each.
    Bool(&'a [bool]),
    /// Signed integers of 8 bits.
    Int8(&'a [i8]),
    /// Signed integers of 16 bits.
    Int16(&'a [i16]),
    /// Signed integers of 32 bits.
    Int32(&'a [i32]),
    /// Signed integers of 64 bits.
    Int64(&'a [i64]),
    /// Unsigned integers of 8 bits.
    UInt8(&'a [u8]),
    /// Unsigned integers of 16 bits.
    UInt16(&'a [u16]),
    /// Unsigned integers of 32 bits.
    UInt32(&'a [u32]),
    /// Unsigned integers of 64 bits.
    UInt64(&'a [u64]),
    /// Floats of 32 bits.
    Float32(&'a [f32]),
    /// Floats of 64 bits.
    Float64(&'a [f64]),
    /// Microseconds UTC.
    Timestamp(&'a [TimestampUs]),
    /// Owned strings.
    String(&'a [String]),
    /// Borrowed strings, as an Arrow column lends them.
    Str(&'a [&'a str]),
    /// Owned bytes.
    Bytes(&'a [Vec<u8>]),
    /// Borrowed bytes.
    ByteSlice(&'a [&'a [u8]]),
    /// Lists of a type.
    List(ScalarType, &'a [Vec<Value>]),
}

impl ColumnSlice<'_> {
    /// The type of the column.
    pub fn dtype(&self) -> DType {
        DType::Scalar(match self {
            ColumnSlice::Bool(_) => ScalarType::Bool,
            ColumnSlice::Int8(_) => ScalarType::Int8,
            ColumnSlice::Int16(_) => ScalarType::Int16,
            ColumnSlice::Int32(_) => ScalarType::Int32,
            ColumnSlice::Int64(_) => ScalarType::Int64,
            ColumnSlice::UInt8(_) => ScalarType::UInt8,
            ColumnSlice::UInt16(_) => ScalarType::UInt16,
            ColumnSlice::UInt32(_) => ScalarType::UInt32,
            ColumnSlice::UInt64(_) => ScalarType::UInt64,
            ColumnSlice::Float32(_) => ScalarType::Float32,
            ColumnSlice::Float64(_) => ScalarType::Float64,
            ColumnSlice::Timestamp(_) => ScalarType::Timestamp,
            ColumnSlice::String(_) | ColumnSlice::Str(_) => ScalarType::String,
            ColumnSlice::Bytes(_) | ColumnSlice::ByteSlice(_) => ScalarType::Bytes,
            ColumnSlice::List(element, _) => return DType::List(*element),
        })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        match self {
            ColumnSlice::Bool(v) => v.len(),
            ColumnSlice::Int8(v) => v.len(),
            ColumnSlice::Int16(v) => v.len(),
            ColumnSlice::Int32(v) => v.len(),
            ColumnSlice::Int64(v) | ColumnSlice::Timestamp(v) => v.len(),
            ColumnSlice::UInt8(v) => v.len(),
            ColumnSlice::UInt16(v) => v.len(),
            ColumnSlice::UInt32(v) => v.len(),
            ColumnSlice::UInt64(v) => v.len(),
            ColumnSlice::Float32(v) => v.len(),
            ColumnSlice::Float64(v) => v.len(),
            ColumnSlice::String(v) => v.len(),
            ColumnSlice::Str(v) => v.len(),
            ColumnSlice::Bytes(v) => v.len(),
            ColumnSlice::ByteSlice(v) => v.len(),
            ColumnSlice::List(_, v) => v.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at a row that is not null.
    pub fn get(&self, row: usize) -> Value {
        match self {
            ColumnSlice::Bool(v) => Value::Bool(v[row]),
            ColumnSlice::Int8(v) => Value::Int(v[row].into()),
            ColumnSlice::Int16(v) => Value::Int(v[row].into()),
            ColumnSlice::Int32(v) => Value::Int(v[row].into()),
            ColumnSlice::Int64(v) => Value::Int(v[row]),
            ColumnSlice::UInt8(v) => Value::UInt(v[row].into()),
            ColumnSlice::UInt16(v) => Value::UInt(v[row].into()),
            ColumnSlice::UInt32(v) => Value::UInt(v[row].into()),
            ColumnSlice::UInt64(v) => Value::UInt(v[row]),
            ColumnSlice::Float32(v) => Value::Float32(v[row]),
            ColumnSlice::Float64(v) => Value::Float64(v[row]),
            ColumnSlice::Timestamp(v) => Value::Timestamp(v[row]),
            ColumnSlice::String(v) => Value::String(v[row].clone()),
            ColumnSlice::Str(v) => Value::String(v[row].to_owned()),
            ColumnSlice::Bytes(v) => Value::Bytes(v[row].clone()),
            ColumnSlice::ByteSlice(v) => Value::Bytes(v[row].to_vec()),
            ColumnSlice::List(_, v) => Value::List(v[row].clone()),
        }
    }

    /// The bytes of a string or bytes value; empty for the other types.
    pub(crate) fn text(&self, row: usize) -> &[u8] {
        match self {
            ColumnSlice::String(v) => v[row].as_bytes(),
            ColumnSlice::Str(v) => v[row].as_bytes(),
            ColumnSlice::Bytes(v) => &v[row],
            ColumnSlice::ByteSlice(v) => v[row],
            _ => &[],
        }
    }
}

/// An input column: its values, and which rows have one (all of them when `validity` is absent).
#[derive(Debug, Clone, Copy)]
pub struct ColumnView<'a> {
    /// The values.
    pub data: ColumnSlice<'a>,
    /// True where the row has a value.
    pub validity: Option<&'a [bool]>,
}

impl ColumnView<'_> {
    /// The same column, of some rows only.
    ///
    /// # Panics
    /// When the rows are not all there.
    #[must_use]
    pub fn slice(self, rows: Range<usize>) -> Self {
        let data = match self.data {
            ColumnSlice::Bool(v) => ColumnSlice::Bool(&v[rows.clone()]),
            ColumnSlice::Int8(v) => ColumnSlice::Int8(&v[rows.clone()]),
            ColumnSlice::Int16(v) => ColumnSlice::Int16(&v[rows.clone()]),
            ColumnSlice::Int32(v) => ColumnSlice::Int32(&v[rows.clone()]),
            ColumnSlice::Int64(v) => ColumnSlice::Int64(&v[rows.clone()]),
            ColumnSlice::UInt8(v) => ColumnSlice::UInt8(&v[rows.clone()]),
            ColumnSlice::UInt16(v) => ColumnSlice::UInt16(&v[rows.clone()]),
            ColumnSlice::UInt32(v) => ColumnSlice::UInt32(&v[rows.clone()]),
            ColumnSlice::UInt64(v) => ColumnSlice::UInt64(&v[rows.clone()]),
            ColumnSlice::Float32(v) => ColumnSlice::Float32(&v[rows.clone()]),
            ColumnSlice::Float64(v) => ColumnSlice::Float64(&v[rows.clone()]),
            ColumnSlice::Timestamp(v) => ColumnSlice::Timestamp(&v[rows.clone()]),
            ColumnSlice::String(v) => ColumnSlice::String(&v[rows.clone()]),
            ColumnSlice::Str(v) => ColumnSlice::Str(&v[rows.clone()]),
            ColumnSlice::Bytes(v) => ColumnSlice::Bytes(&v[rows.clone()]),
            ColumnSlice::ByteSlice(v) => ColumnSlice::ByteSlice(&v[rows.clone()]),
            ColumnSlice::List(element, v) => ColumnSlice::List(element, &v[rows.clone()]),
        };
        Self { data, validity: self.validity.map(|validity| &validity[rows]) }
    }
}

impl<'a> From<&'a Column> for ColumnView<'a> {
    fn from(column: &'a Column) -> Self {
        let data = match &column.data {
            ColumnData::Bool(v) => ColumnSlice::Bool(v),
            ColumnData::Int8(v) => ColumnSlice::Int8(v),
            ColumnData::Int16(v) => ColumnSlice::Int16(v),
            ColumnData::Int32(v) => ColumnSlice::Int32(v),
            ColumnData::Int64(v) => ColumnSlice::Int64(v),
            ColumnData::UInt8(v) => ColumnSlice::UInt8(v),
            ColumnData::UInt16(v) => ColumnSlice::UInt16(v),
            ColumnData::UInt32(v) => ColumnSlice::UInt32(v),
            ColumnData::UInt64(v) => ColumnSlice::UInt64(v),
            ColumnData::Float32(v) => ColumnSlice::Float32(v),
            ColumnData::Float64(v) => ColumnSlice::Float64(v),
            ColumnData::String(v) => ColumnSlice::String(v),
            ColumnData::Bytes(v) => ColumnSlice::Bytes(v),
            ColumnData::Timestamp(v) => ColumnSlice::Timestamp(v),
            ColumnData::List(element, v) => ColumnSlice::List(*element, v),
        };
        Self { data, validity: column.validity.as_deref() }
    }
}
