//! The canonical bytes of keys.
//!
//! A single integer, timestamp or bool key is its 8 bytes, little endian (signed ones sign-extended). Any other key is the
//! concatenation of its parts: 8 bytes for a number, u32 length and the bytes for a string or bytes. The lengths keep
//! `("1", "23")` and `("12", "3")` apart.

use std::borrow::Cow;

use headrace_types::{Column, ColumnData, DType, Error, ErrorCode, Field, Result, ScalarType, Value};

use super::hash::{hash_bytes, hash_u64};
use super::schema::VAR_INLINE_BYTES;

/// The keys of a call, one per row.
#[derive(Debug, Clone, Copy)]
pub enum KeysRef<'a> {
    /// Single-part keys of any integer type, timestamp or bool, none null.
    Int64(&'a [i64]),
    /// Canonical bytes: row `i` is `data[offsets[i]..offsets[i + 1]]`, null where `validity[i]` is false.
    Bytes { offsets: &'a [u32], data: &'a [u8], validity: Option<&'a [bool]> },
}

impl<'a> KeysRef<'a> {
    pub fn len(&self) -> usize {
        match self {
            KeysRef::Int64(keys) => keys.len(),
            KeysRef::Bytes { offsets, .. } => offsets.len().saturating_sub(1),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The canonical bytes of a row's key; `None` for a null key.
    pub fn canonical(&self, row: usize) -> Option<Cow<'a, [u8]>> {
        match *self {
            KeysRef::Int64(keys) => Some(Cow::Owned(keys[row].to_le_bytes().to_vec())),
            KeysRef::Bytes { offsets, data, validity } => validity
                .is_none_or(|validity| validity[row])
                .then(|| Cow::Borrowed(&data[offsets[row] as usize..offsets[row + 1] as usize])),
        }
    }

    /// # Errors
    /// `invalid_argument` when offsets run backwards or past the data; `length_mismatch` for a validity of another length.
    pub(super) fn check(&self) -> Result<()> {
        let KeysRef::Bytes { offsets, data, validity } = self else { return Ok(()) };
        let in_order = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
        if !in_order || offsets.last().is_some_and(|&last| last as usize > data.len()) {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                "the offsets of the keys run backwards or past their data",
                "give offsets as an Arrow binary array has them",
            ));
        }
        if validity.is_some_and(|validity| validity.len() != self.len()) {
            return Err(Error::new(
                ErrorCode::LengthMismatch,
                format!("there are {} keys and a validity of another length", self.len()),
                "give one validity flag a key",
            ));
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn probe(&self, row: usize, seed: u64) -> Option<Probe<'a>> {
        match *self {
            KeysRef::Int64(keys) => Some(Probe::from_word(keys[row] as u64, seed)),
            KeysRef::Bytes { offsets, data, validity } => {
                if validity.is_some_and(|validity| !validity[row]) {
                    return None;
                }
                Some(Probe::new(&data[offsets[row] as usize..offsets[row + 1] as usize], seed))
            }
        }
    }
}

/// A key as it is looked for: its hash and the two words of its slot.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Probe<'a> {
    pub(super) hash: u64,
    /// u32 length and the first 4 bytes.
    pub(super) word0: u64,
    /// Bytes 4..12 of a key that lies in its slot; of a longer one the slot holds its arena offset here.
    pub(super) word1: u64,
    /// The whole key where it does not fit its slot.
    pub(super) long: Option<&'a [u8]>,
}

impl<'a> Probe<'a> {
    #[inline(always)]
    fn from_word(key: u64, seed: u64) -> Self {
        Self { hash: hash_u64(seed, key), word0: 8 | key << 32, word1: key >> 32, long: None }
    }

    #[inline]
    pub(super) fn new(key: &'a [u8], seed: u64) -> Self {
        let hash = hash_bytes(seed, key);
        let mut slot = [0u8; 16];
        slot[..4].copy_from_slice(&(key.len() as u32).to_le_bytes());
        let inline = key.len() <= VAR_INLINE_BYTES;
        let count = if inline { key.len() } else { 4 };
        slot[4..4 + count].copy_from_slice(&key[..count]);
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&slot[at..at + 8]);
            u64::from_le_bytes(word)
        };
        Self { hash, word0: word(0), word1: word(8), long: (!inline).then_some(key) }
    }
}

/// Canonical keys in one buffer, reused from call to call.
#[derive(Debug, Clone)]
pub struct EncodedKeys {
    pub offsets: Vec<u32>,
    pub data: Vec<u8>,
    pub validity: Vec<bool>,
}

impl Default for EncodedKeys {
    fn default() -> Self {
        Self { offsets: vec![0], data: Vec::new(), validity: Vec::new() }
    }
}

impl EncodedKeys {
    pub fn clear(&mut self) {
        self.offsets.truncate(1);
        self.data.clear();
        self.validity.clear();
    }

    pub fn as_ref(&self) -> KeysRef<'_> {
        KeysRef::Bytes { offsets: &self.offsets, data: &self.data, validity: Some(&self.validity) }
    }

    /// The canonical bytes of a row; `None` for a null key.
    pub fn key(&self, row: usize) -> Option<&[u8]> {
        self.validity[row].then(|| &self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize])
    }

    fn end_row(&mut self, valid: bool) -> Result<()> {
        let end = u32::try_from(self.data.len()).map_err(|_| {
            Error::new(ErrorCode::TooLarge, "the keys of one call take over 4 GiB", "look up fewer keys at once")
        })?;
        self.offsets.push(end);
        self.validity.push(valid);
        Ok(())
    }
}

/// Turns key columns into canonical bytes.
#[derive(Debug, Clone)]
pub struct KeyEncoder {
    fields: Vec<Field>,
    is_word: bool,
}

impl KeyEncoder {
    pub fn new(fields: &[Field]) -> Self {
        let is_word = matches!(fields, [only] if !super::schema::is_var(only.dtype));
        Self { fields: fields.to_vec(), is_word }
    }

    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Whether a key is one number, so that [`KeysRef::Int64`] may be used.
    pub fn is_word(&self) -> bool {
        self.is_word
    }

    /// Encodes one key. Nothing is appended, and false returned, when a part is null.
    ///
    /// # Errors
    /// `type_mismatch` naming the part whose value is not of its type; `length_mismatch` for another number of parts.
    pub fn encode_values(&self, values: &[Value], key: &mut Vec<u8>) -> Result<bool> {
        if values.len() != self.fields.len() {
            return Err(Error::new(
                ErrorCode::LengthMismatch,
                format!("a key of {} parts was given, the join keys are {}", values.len(), self.fields.len()),
                "give one value for each join key",
            ));
        }
        let start = key.len();
        for (field, value) in self.fields.iter().zip(values) {
            if value.is_null() {
                key.truncate(start);
                return Ok(false);
            }
            match key_word(field.dtype, value) {
                Some(word) => key.extend_from_slice(&word.to_le_bytes()),
                None => match (field.dtype.element(), value) {
                    (ScalarType::String, Value::String(text)) => push_part(key, text.as_bytes())?,
                    (ScalarType::Bytes, Value::Bytes(bytes)) => push_part(key, bytes)?,
                    _ => {
                        key.truncate(start);
                        return Err(wrong_type(field, &format!("{value:?}")));
                    }
                },
            }
        }
        Ok(true)
    }

    /// The keys of some columns, in the order of the join keys. An int64 column without nulls is used as it is.
    ///
    /// # Errors
    /// `type_mismatch` naming the key; `length_mismatch` for another number of columns.
    pub fn keys<'a>(&self, columns: &[&'a Column], rows: usize, buffer: &'a mut EncodedKeys) -> Result<KeysRef<'a>> {
        if let ([column], [field]) = (columns, self.fields.as_slice())
            && column.validity.is_none()
        {
            match (&column.data, field.dtype) {
                (ColumnData::Int64(keys), DType::INT64) | (ColumnData::Timestamp(keys), DType::TIMESTAMP) => {
                    return Ok(KeysRef::Int64(keys));
                }
                _ => {}
            }
        }
        self.encode_columns(columns, rows, buffer)?;
        Ok(buffer.as_ref())
    }

    fn encode_columns(&self, columns: &[&Column], rows: usize, buffer: &mut EncodedKeys) -> Result<()> {
        if columns.len() != self.fields.len() {
            return Err(Error::new(
                ErrorCode::LengthMismatch,
                format!("{} key columns were given, the join keys are {}", columns.len(), self.fields.len()),
                "give one column for each join key",
            ));
        }
        for (field, column) in self.fields.iter().zip(columns) {
            if column.len() != rows {
                return Err(Error::new(
                    ErrorCode::LengthMismatch,
                    format!("key column '{}' has {} rows, expected {rows}", field.name, column.len()),
                    "give every key column the same number of rows",
                ));
            }
        }
        buffer.clear();
        for row in 0..rows {
            let valid = columns.iter().all(|column| !column.is_null(row));
            if valid {
                for (field, column) in self.fields.iter().zip(columns) {
                    push_cell(field, &column.data, row, &mut buffer.data)
                        .map_err(|error| error.within(format!("row {row}")))?;
                }
            }
            buffer.end_row(valid)?;
        }
        Ok(())
    }

    /// Appends one row of canonical bytes made elsewhere (an ingest path with its own columns).
    ///
    /// # Errors
    /// `too_large` past 4 GiB of keys.
    pub fn push_row(&self, buffer: &mut EncodedKeys, key: Option<&[u8]>) -> Result<()> {
        buffer.data.extend_from_slice(key.unwrap_or_default());
        buffer.end_row(key.is_some())
    }
}

fn push_cell(field: &Field, data: &ColumnData, row: usize, key: &mut Vec<u8>) -> Result<()> {
    match (field.dtype.element(), data) {
        (ScalarType::String, ColumnData::String(texts)) => push_part(key, texts[row].as_bytes()),
        (ScalarType::Bytes, ColumnData::Bytes(parts)) => push_part(key, &parts[row]),
        _ => match key_word(field.dtype, &data.get(row)) {
            Some(word) => {
                key.extend_from_slice(&word.to_le_bytes());
                Ok(())
            }
            None => Err(wrong_type(field, &format!("a {}", data.dtype()))),
        },
    }
}

fn push_part(key: &mut Vec<u8>, part: &[u8]) -> Result<()> {
    let len = u32::try_from(part.len())
        .map_err(|_| Error::new(ErrorCode::TooLarge, "a key part takes over 4 GiB", "use a shorter key"))?;
    key.extend_from_slice(&len.to_le_bytes());
    key.extend_from_slice(part);
    Ok(())
}

/// The 8 bytes of a numeric part. Any integer that fits the declared type is taken, whatever width it came in.
fn key_word(dtype: DType, value: &Value) -> Option<u64> {
    let value = match (dtype.element(), value) {
        (ScalarType::UInt8 | ScalarType::UInt16 | ScalarType::UInt32 | ScalarType::UInt64, Value::Int(v)) => {
            Value::UInt(u64::try_from(*v).ok()?)
        }
        (ScalarType::Int8 | ScalarType::Int16 | ScalarType::Int32 | ScalarType::Int64, Value::UInt(v)) => {
            Value::Int(i64::try_from(*v).ok()?)
        }
        _ => value.clone(),
    };
    if !value.fits(dtype) {
        return None;
    }
    match value {
        Value::Bool(v) => Some(v.into()),
        Value::Int(v) | Value::Timestamp(v) => Some(v as u64),
        Value::UInt(v) => Some(v),
        _ => None,
    }
}

fn wrong_type(field: &Field, found: &str) -> Error {
    Error::new(
        ErrorCode::TypeMismatch,
        format!("join key '{}' is a {}, {found} was given", field.name, field.dtype),
        format!("give {} values", field.dtype),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn encode(fields: &[(&str, DType)], values: &[Value]) -> Option<Vec<u8>> {
        let fields: Vec<Field> = fields.iter().map(|&(name, dtype)| Field::new(name, dtype)).collect();
        let mut key = Vec::new();
        KeyEncoder::new(&fields).encode_values(values, &mut key).unwrap().then_some(key)
    }

    #[test]
    fn parts_that_concatenate_alike_are_different_keys() {
        let fields = [("a", DType::STRING), ("b", DType::STRING)];
        let one = encode(&fields, &[Value::String("1".into()), Value::String("23".into())]);
        let two = encode(&fields, &[Value::String("12".into()), Value::String("3".into())]);
        assert_ne!(one, two);
    }

    #[test]
    fn a_large_integer_keeps_its_last_bit() {
        let fields = [("a", DType::INT64)];
        let large = (1i64 << 53) + 1;
        assert_eq!(encode(&fields, &[Value::Int(large)]), Some(large.to_le_bytes().to_vec()));
        assert_ne!(encode(&fields, &[Value::Int(large)]), encode(&fields, &[Value::Int(large - 1)]));
        assert_eq!(encode(&fields, &[Value::Int(-1)]), Some(vec![255; 8]));
    }

    #[test]
    fn a_null_part_makes_a_null_key() {
        assert_eq!(encode(&[("a", DType::INT64), ("b", DType::STRING)], &[Value::Int(1), Value::Null]), None);
    }

    #[test]
    fn an_integer_of_another_width_is_taken_when_it_fits() {
        let encoder = KeyEncoder::new(&[Field::new("a", DType::INT32)]);
        let mut buffer = EncodedKeys::default();
        let column = Column::new(ColumnData::Int64(vec![7]));
        let KeysRef::Bytes { data, .. } = encoder.keys(&[&column], 1, &mut buffer).unwrap() else { panic!() };
        assert_eq!(data, 7i64.to_le_bytes());
        let too_large = Column::new(ColumnData::Int64(vec![1 << 40]));
        assert_eq!(encoder.keys(&[&too_large], 1, &mut buffer).unwrap_err().code, ErrorCode::TypeMismatch);
    }

    #[test]
    fn the_word_form_and_the_bytes_form_are_one_key() {
        for key in [0, 1, -1, i64::MAX, i64::MIN] {
            let (words, bytes) = ([key], key.to_le_bytes());
            let word = KeysRef::Int64(&words).probe(0, 99).unwrap();
            let bytes = Probe::new(&bytes, 99);
            assert_eq!((word.hash, word.word0, word.word1), (bytes.hash, bytes.word0, bytes.word1));
        }
    }
}
