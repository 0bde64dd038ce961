//! Canonical keys of Arrow columns.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, StringArray};
use headrace_types::{Error, ErrorCode, Field, Result, ScalarType};

use crate::arrow::plain_column;

/// A key column, ready to be written row by row.
#[derive(Debug)]
enum KeyColumn {
    /// Numbers in their 8 bytes.
    Words(Vec<u64>, ArrayRef),
    Strings(StringArray),
    Binary(BinaryArray),
}

/// The key columns of a batch.
#[derive(Debug)]
pub(super) struct KeyColumns {
    columns: Vec<KeyColumn>,
    /// A single number is its bytes; parts of longer keys have their length before them.
    has_parts: bool,
}

impl KeyColumns {
    pub(super) fn new(batch: &RecordBatch, join_keys: &[Field]) -> Result<Self> {
        let columns = join_keys
            .iter()
            .map(|field| KeyColumn::new(&plain_column(batch, &field.name, field.dtype)?, field))
            .collect::<Result<Vec<_>>>()?;
        let has_parts = !matches!(columns.as_slice(), [KeyColumn::Words(..)]);
        Ok(Self { columns, has_parts })
    }

    /// Appends the canonical key of a row; false, and nothing appended, where a part is null.
    pub(super) fn push(&self, row: usize, out: &mut Vec<u8>) -> Result<bool> {
        if self.columns.iter().any(|column| column.is_null(row)) {
            return Ok(false);
        }
        for column in &self.columns {
            match column {
                KeyColumn::Words(words, _) => out.extend_from_slice(&words[row].to_le_bytes()),
                KeyColumn::Strings(array) => push_part(out, array.value(row).as_bytes())?,
                KeyColumn::Binary(array) => push_part(out, array.value(row))?,
            }
        }
        debug_assert!(self.has_parts || self.columns.len() == 1);
        Ok(true)
    }
}

fn push_part(out: &mut Vec<u8>, part: &[u8]) -> Result<()> {
    let len = u32::try_from(part.len())
        .map_err(|_| Error::new(ErrorCode::TooLarge, "a key part takes over 4 GiB", "use a shorter key"))?;
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(part);
    Ok(())
}

impl KeyColumn {
    fn new(array: &ArrayRef, field: &Field) -> Result<Self> {
        macro_rules! words {
            ($type:ty) => {
                array.as_primitive::<$type>().values().iter().map(|&value| i64::from(value) as u64).collect()
            };
        }
        let words = match field.dtype.element() {
            ScalarType::String => return Ok(KeyColumn::Strings(array.as_string::<i32>().clone())),
            ScalarType::Bytes => return Ok(KeyColumn::Binary(array.as_binary::<i32>().clone())),
            ScalarType::Bool => {
                let flags = array.as_boolean();
                (0..flags.len()).map(|row| u64::from(flags.value(row))).collect()
            }
            ScalarType::Int8 => words!(Int8Type),
            ScalarType::Int16 => words!(Int16Type),
            ScalarType::Int32 => words!(Int32Type),
            ScalarType::Int64 => words!(Int64Type),
            ScalarType::UInt8 => words!(UInt8Type),
            ScalarType::UInt16 => words!(UInt16Type),
            ScalarType::UInt32 => words!(UInt32Type),
            ScalarType::UInt64 => array.as_primitive::<UInt64Type>().values().to_vec(),
            ScalarType::Timestamp => words!(TimestampMicrosecondType),
            ScalarType::Float32 | ScalarType::Float64 => {
                return Err(Error::new(
                    ErrorCode::InvalidDefinition,
                    format!("join key '{}' is a {}", field.name, field.dtype),
                    "use an integer, bool, timestamp, string or bytes key",
                ));
            }
        };
        Ok(KeyColumn::Words(words, array.clone()))
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            KeyColumn::Words(_, array) => array.is_null(row),
            KeyColumn::Strings(array) => array.is_null(row),
            KeyColumn::Binary(array) => array.is_null(row),
        }
    }
}
