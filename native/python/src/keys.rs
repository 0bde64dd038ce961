//! Join keys from Python, on their shortest way to the table.
//!
//! A service of one join key takes a NumPy int64 array as it is, and lists of integers, strings or bytes without a detour. Everything else
//! (several join keys, NumPy strings, pandas and Arrow columns) becomes columns first.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use headrace_cpu::{EncodedKeys, KeysRef};
use headrace_engine::RowError;
use headrace_types::{Batch, DType, Error, ErrorCode, Field, ScalarType};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList, PyMapping, PyString, PyTuple};
use pyo3_arrow::PyArray;

use crate::error::{Outcome, type_mismatch};
use crate::tensor::{Element, View};
use crate::values::{column_of, columns_of};

/// Keys of a call. A view borrows the caller's array, which the caller keeps alive.
#[derive(Debug)]
pub(crate) enum Keys {
    /// A NumPy int64 array.
    Array(View),
    /// Integers, copied.
    Words(Vec<i64>),
    /// Canonical bytes.
    Encoded(EncodedKeys),
    /// One column for each join key.
    Columns(Batch),
}

impl Keys {
    pub(crate) fn rows(&self) -> usize {
        match self {
            Keys::Array(view) => view.len(),
            Keys::Words(words) => words.len(),
            Keys::Encoded(keys) => keys.validity.len(),
            Keys::Columns(batch) => batch.rows,
        }
    }

    /// The keys of a service with a single join key; `None` for columns.
    pub(crate) fn single(&self) -> Option<KeysRef<'_>> {
        match self {
            // SAFETY: the element type was checked in `of_single`; the caller keeps the array alive and lets nobody write to it.
            Keys::Array(view) => Some(KeysRef::Int64(unsafe { view.slice() })),
            Keys::Words(words) => Some(KeysRef::Int64(words)),
            Keys::Encoded(keys) => Some(keys.as_ref()),
            Keys::Columns(_) => None,
        }
    }

    /// The keys of a service with one join key.
    pub(crate) fn of_single(field: &Field, keys: &Bound<'_, PyAny>) -> Outcome<Self> {
        let kind = KeyKind::of(field.dtype);
        if let Ok(list) = keys.cast::<PyList>() {
            // A list may be changed by the code that a key's own methods run; the fast types have none, so its length stays.
            return of_items(field, kind, keys, list.len(), list.iter());
        }
        if let Ok(tuple) = keys.cast::<PyTuple>() {
            return of_items(field, kind, keys, tuple.len(), tuple.iter());
        }
        if kind == KeyKind::Word
            && let Ok(view) = View::of("keys", keys)
            && view.element == Element::Int64
            && view.dimensions == 1
        {
            return Ok(Keys::Array(view));
        }
        if kind != KeyKind::Other
            && keys.hasattr(intern!(keys.py(), "__arrow_c_array__"))?
            && let Ok(array) = keys.extract::<PyArray>()
            && let Some(found) = of_arrow(kind, array.array())?
        {
            return Ok(found);
        }
        Self::columns(std::slice::from_ref(field), keys)
    }

    /// The keys of a service with any number of join keys: a mapping of columns, or a sequence of tuples.
    pub(crate) fn columns(fields: &[Field], keys: &Bound<'_, PyAny>) -> Outcome<Self> {
        if keys.cast::<PyMapping>().is_ok() {
            return Ok(Keys::Columns(named_columns("keys", ErrorCode::UnknownEntity, fields, keys)?));
        }
        if let [field] = fields {
            let mut errors = Vec::new();
            let column = column_of(&field.name, field.dtype, keys, &mut errors)?;
            no_row_errors(errors)?;
            return Ok(Keys::Columns(Batch::new(vec![(field.name.clone(), column)])?));
        }
        Ok(Keys::Columns(transposed(fields, keys)?))
    }
}

/// Which bytes a single join key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    /// 8 bytes: signed integers.
    Word,
    String,
    Bytes,
    /// Checked and converted as a column.
    Other,
}

impl KeyKind {
    fn of(dtype: DType) -> Self {
        match dtype {
            DType::Scalar(ScalarType::Int8 | ScalarType::Int16 | ScalarType::Int32 | ScalarType::Int64) => {
                KeyKind::Word
            }
            DType::Scalar(ScalarType::String) => KeyKind::String,
            DType::Scalar(ScalarType::Bytes) => KeyKind::Bytes,
            _ => KeyKind::Other,
        }
    }
}

fn of_items<'py>(
    field: &Field,
    kind: KeyKind,
    keys: &Bound<'py, PyAny>,
    count: usize,
    items: impl Iterator<Item = Bound<'py, PyAny>>,
) -> Outcome<Keys> {
    let found = match kind {
        KeyKind::Word => words_of(count, items),
        KeyKind::String | KeyKind::Bytes => encoded_of(kind, count, items)?,
        KeyKind::Other => None,
    };
    match found {
        Some(keys) => Ok(keys),
        None => Keys::columns(std::slice::from_ref(field), keys),
    }
}

/// Integers; `None` at the first item that is none (a null, a NumPy scalar, a wrong type).
fn words_of<'py>(count: usize, items: impl Iterator<Item = Bound<'py, PyAny>>) -> Option<Keys> {
    let mut words = Vec::with_capacity(count);
    for item in items {
        words.push(item.cast_exact::<PyInt>().ok()?.extract::<i64>().ok()?);
    }
    Some(Keys::Words(words))
}

/// Strings or bytes, and nulls; `None` at the first item of another type.
fn encoded_of<'py>(
    kind: KeyKind,
    count: usize,
    items: impl Iterator<Item = Bound<'py, PyAny>>,
) -> Outcome<Option<Keys>> {
    let mut encoded = with_capacity(count);
    for item in items {
        if item.is_none() {
            push(&mut encoded, None)?;
        } else if kind == KeyKind::String {
            let Ok(text) = item.cast::<PyString>() else { return Ok(None) };
            push(&mut encoded, Some(text.to_str()?.as_bytes()))?;
        } else {
            let Ok(bytes) = item.cast::<PyBytes>() else { return Ok(None) };
            push(&mut encoded, Some(bytes.as_bytes()))?;
        }
    }
    Ok(Some(Keys::Encoded(encoded)))
}

/// A column of strings or int64 of Arrow; `None` for other types, which go the long way.
fn of_arrow(kind: KeyKind, array: &ArrayRef) -> Outcome<Option<Keys>> {
    let mut encoded = with_capacity(array.len());
    match (kind, array.data_type()) {
        (KeyKind::Word, DataType::Int64) if array.null_count() == 0 => {
            return Ok(Some(Keys::Words(array.as_primitive::<arrow_array::types::Int64Type>().values().to_vec())));
        }
        (KeyKind::String, DataType::Utf8) => {
            for text in array.as_string::<i32>() {
                push(&mut encoded, text.map(str::as_bytes))?;
            }
        }
        (KeyKind::String, DataType::LargeUtf8) => {
            for text in array.as_string::<i64>() {
                push(&mut encoded, text.map(str::as_bytes))?;
            }
        }
        (KeyKind::String, DataType::Utf8View) => {
            for text in array.as_string_view() {
                push(&mut encoded, text.map(str::as_bytes))?;
            }
        }
        _ => return Ok(None),
    }
    Ok(Some(Keys::Encoded(encoded)))
}

fn with_capacity(count: usize) -> EncodedKeys {
    const KEY_BYTES_GUESSED: usize = 16;
    let mut offsets = Vec::with_capacity(count + 1);
    offsets.push(0);
    EncodedKeys { offsets, data: Vec::with_capacity(count * KEY_BYTES_GUESSED), validity: Vec::with_capacity(count) }
}

/// The canonical form of a single string or bytes key: u32 length, then the bytes.
fn push(keys: &mut EncodedKeys, part: Option<&[u8]>) -> Outcome<()> {
    let too_large =
        || Error::new(ErrorCode::TooLarge, "the keys of one call take over 4 GiB", "look up fewer keys at once");
    if let Some(part) = part {
        let length = u32::try_from(part.len()).map_err(|_| too_large())?;
        keys.data.extend_from_slice(&length.to_le_bytes());
        keys.data.extend_from_slice(part);
    }
    keys.offsets.push(u32::try_from(keys.data.len()).map_err(|_| too_large())?);
    keys.validity.push(part.is_some());
    Ok(())
}

/// A mapping of columns by the fields' names, each of the right type and all of one length.
pub(crate) fn named_columns(
    what: &str,
    unknown: ErrorCode,
    fields: &[Field],
    mapping: &Bound<'_, PyAny>,
) -> Outcome<Batch> {
    let mut columns = Vec::with_capacity(fields.len());
    let mut errors = Vec::new();
    for (name, values) in columns_of(what, mapping)? {
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            let known: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            let hint = if known.is_empty() { "give none".to_owned() } else { format!("use {}", known.join(", ")) };
            return Err(Error::new(unknown, format!("'{what}' has no column '{name}'"), hint).into());
        };
        columns.push((name, column_of(&field.name, field.dtype, &values, &mut errors)?));
    }
    no_row_errors(errors)?;
    if let Some(missing) = fields.iter().find(|field| columns.iter().all(|(name, _)| *name != field.name)) {
        return Err(Error::new(
            ErrorCode::MissingColumn,
            format!("'{what}' lacks the column '{}' ({})", missing.name, missing.dtype),
            "give one value for each row",
        )
        .into());
    }
    Ok(Batch::new(columns)?)
}

/// A sequence of tuples as columns.
fn transposed(fields: &[Field], keys: &Bound<'_, PyAny>) -> Outcome<Batch> {
    let expected = || {
        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        format!("give a sequence of tuples ({}), or a dict of columns", names.join(", "))
    };
    let py = keys.py();
    let columns: Vec<Bound<'_, PyList>> = fields.iter().map(|_| PyList::empty(py)).collect();
    let rows = keys.try_iter().map_err(|_| type_mismatch(format!("keys is a {}", keys.get_type()), expected()))?;
    let mut count = 0;
    for row in rows {
        let row = row?;
        let parts = match row.cast::<PyTuple>() {
            Ok(tuple) => tuple.clone(),
            Err(_) => match row.cast::<PyList>() {
                Ok(list) => list.to_tuple(),
                Err(_) => return Err(type_mismatch(format!("key {count} is {row}, not a tuple"), expected())),
            },
        };
        if parts.len() != fields.len() {
            return Err(Error::new(
                ErrorCode::LengthMismatch,
                format!("key {count} has {} parts, the service has {} join keys", parts.len(), fields.len()),
                expected(),
            )
            .into());
        }
        for (column, part) in columns.iter().zip(parts.iter()) {
            column.append(part)?;
        }
        count += 1;
    }
    let mut errors = Vec::new();
    let columns = fields
        .iter()
        .zip(&columns)
        .map(|(field, values)| Ok((field.name.clone(), column_of(&field.name, field.dtype, values, &mut errors)?)))
        .collect::<Outcome<Vec<_>>>()?;
    no_row_errors(errors)?;
    Ok(Batch { rows: count, columns })
}

/// A key that cannot be read is an error of the whole call: there is no row in a tensor to put it into.
fn no_row_errors(errors: Vec<RowError>) -> Outcome<()> {
    match errors.into_iter().next() {
        Some(first) => Err(Error::clone(&first.error).into()),
        None => Ok(()),
    }
}
