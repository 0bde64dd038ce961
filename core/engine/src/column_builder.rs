//! Turns a caller's loosely typed values into a column of the type that a signature asks for.
//!
//! JSON, tensors and Python objects all come through here, so a value means the same on every transport. A value that does not
//! fit spoils its row only.

use headrace_types::{Column, ColumnData, DType, Error, ErrorCode, ScalarType, Value, parse_timestamp};

use crate::request::{RowError, RowErrors, shortened};

/// 2^63 and 2^64: the first floats beyond the integers.
const I64_END: f64 = 9_223_372_036_854_775_808.0;
const U64_END: f64 = 18_446_744_073_709_551_616.0;

/// Collects one column, value by value.
#[derive(Debug)]
pub struct ColumnBuilder {
    name: String,
    dtype: DType,
    data: ColumnData,
    validity: Option<Vec<bool>>,
    row_errors: RowErrors,
}

impl ColumnBuilder {
    pub fn new(name: impl Into<String>, dtype: DType, capacity: usize) -> Self {
        let data = ColumnData::with_capacity(dtype, capacity);
        Self { name: name.into(), dtype, data, validity: None, row_errors: RowErrors::default() }
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn len(&self) -> usize {
        self.data.len()
    }

    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Values of the list that came last; 0 of what is no list.
    pub fn last_list_len(&self) -> usize {
        match &self.data {
            ColumnData::List(_, lists) => lists.last().map_or(0, Vec::len),
            _ => 0,
        }
    }

    /// Values so far that cannot be used.
    pub fn errors_count(&self) -> usize {
        self.row_errors.len()
    }

    pub fn push_null(&mut self) {
        let row = self.data.len();
        self.push_zero();
        let validity = self.validity.get_or_insert_with(|| vec![true; row]);
        validity.push(false);
    }

    pub fn push_bool(&mut self, value: bool) {
        match &mut self.data {
            ColumnData::Bool(v) => v.push(value),
            _ => return self.push_mismatch(format_args!("{value}")),
        }
        self.mark_valid();
    }

    pub fn push_i64(&mut self, value: i64) {
        #[allow(clippy::cast_precision_loss)] // a float column takes the nearest float
        let fits = match &mut self.data {
            ColumnData::Int64(v) | ColumnData::Timestamp(v) => push_some(v, Some(value)),
            ColumnData::Float64(v) => push_some(v, Some(value as f64)),
            ColumnData::Float32(v) => push_some(v, Some(value as f32)),
            ColumnData::Int8(v) => push_some(v, i8::try_from(value).ok()),
            ColumnData::Int16(v) => push_some(v, i16::try_from(value).ok()),
            ColumnData::Int32(v) => push_some(v, i32::try_from(value).ok()),
            ColumnData::UInt8(v) => push_some(v, u8::try_from(value).ok()),
            ColumnData::UInt16(v) => push_some(v, u16::try_from(value).ok()),
            ColumnData::UInt32(v) => push_some(v, u32::try_from(value).ok()),
            ColumnData::UInt64(v) => push_some(v, u64::try_from(value).ok()),
            ColumnData::Bool(v) => push_some(v, (value == 0 || value == 1).then_some(value == 1)),
            ColumnData::String(_) | ColumnData::Bytes(_) | ColumnData::List(..) => false,
        };
        if fits { self.mark_valid() } else { self.push_mismatch(format_args!("{value}")) }
    }

    pub fn push_u64(&mut self, value: u64) {
        if let Ok(value) = i64::try_from(value) {
            return self.push_i64(value);
        }
        #[allow(clippy::cast_precision_loss)]
        let fits = match &mut self.data {
            ColumnData::UInt64(v) => push_some(v, Some(value)),
            ColumnData::Float64(v) => push_some(v, Some(value as f64)),
            ColumnData::Float32(v) => push_some(v, Some(value as f32)),
            _ => false,
        };
        if fits { self.mark_valid() } else { self.push_mismatch(format_args!("{value}")) }
    }

    /// A float goes into an integer column only if it is a whole number in range.
    pub fn push_f64(&mut self, value: f64) {
        match &mut self.data {
            ColumnData::Float64(v) => v.push(value),
            #[allow(clippy::cast_possible_truncation)] // checked: a finite value must stay finite
            ColumnData::Float32(v) if (value as f32).is_finite() || !value.is_finite() => v.push(value as f32),
            ColumnData::Float32(_) | ColumnData::String(_) | ColumnData::Bytes(_) | ColumnData::List(..) => {
                return self.push_mismatch(format_args!("{value}"));
            }
            #[allow(clippy::cast_possible_truncation)]
            _ if value.fract() == 0.0 && (-I64_END..I64_END).contains(&value) => return self.push_i64(value as i64),
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            _ if value.fract() == 0.0 && (I64_END..U64_END).contains(&value) => return self.push_u64(value as u64),
            _ => return self.push_mismatch(format_args!("{value}")),
        }
        self.mark_valid();
    }

    /// Text goes into a string column, into a timestamp column as RFC 3339, and into a bytes column as its UTF-8 bytes.
    pub fn push_str(&mut self, value: &str) {
        match &mut self.data {
            ColumnData::String(v) => v.push(value.to_owned()),
            ColumnData::Bytes(v) => v.push(value.as_bytes().to_vec()),
            ColumnData::Timestamp(v) => match parse_timestamp(value) {
                Ok(us) => v.push(us),
                Err(error) => return self.push_error(error),
            },
            _ => return self.push_mismatch(format_args!("'{}'", shortened(value))),
        }
        self.mark_valid();
    }

    pub fn push_bytes(&mut self, value: &[u8]) {
        if let ColumnData::Bytes(v) = &mut self.data {
            v.push(value.to_vec());
            return self.mark_valid();
        }
        match std::str::from_utf8(value) {
            Ok(text) => self.push_str(text),
            Err(_) => self.push_error(Error::new(
                ErrorCode::TypeMismatch,
                format!("{} bytes that are not UTF-8 text", value.len()),
                format!("this column holds {} values", self.dtype),
            )),
        }
    }

    /// Any value, coerced as the typed methods do; a list needs a list column of fitting elements.
    pub fn push_value(&mut self, value: Value) {
        match value {
            Value::Null => self.push_null(),
            Value::Bool(x) => self.push_bool(x),
            Value::Int(x) => self.push_i64(x),
            Value::UInt(x) => self.push_u64(x),
            Value::Float32(x) => self.push_f64(x.into()),
            Value::Float64(x) => self.push_f64(x),
            Value::String(x) => self.push_str(&x),
            Value::Bytes(x) => self.push_bytes(&x),
            Value::Timestamp(x) => match &mut self.data {
                ColumnData::Timestamp(v) | ColumnData::Int64(v) => {
                    v.push(x);
                    self.mark_valid();
                }
                _ => self.push_mismatch(format_args!("a timestamp")),
            },
            Value::List(items) => self.push_list(items),
        }
    }

    fn push_list(&mut self, items: Vec<Value>) {
        let DType::List(element) = self.dtype else { return self.push_mismatch(format_args!("a list")) };
        let mut elements = ColumnBuilder::new("", DType::Scalar(element), items.len());
        for item in items {
            elements.push_value(item);
        }
        let (column, errors) = elements.finish();
        if let Some(first) = errors.into_iter().next() {
            return self.push_error(Error::clone(&first.error));
        }
        if let ColumnData::List(_, v) = &mut self.data {
            v.push((0..column.len()).map(|index| column.value(index)).collect());
        }
        self.mark_valid();
    }

    /// Marks the next row as one whose value cannot be used, with the reason.
    pub fn push_error(&mut self, error: Error) {
        self.push_error_with(|_| error);
    }

    fn push_error_with(&mut self, error: impl FnOnce(DType) -> Error) {
        let row = self.data.len();
        let (name, dtype) = (&self.name, self.dtype);
        self.row_errors.note(row, || {
            let error = error(dtype);
            if name.is_empty() { error } else { error.within(format_args!("row {row} of '{name}'")) }
        });
        self.push_null();
    }

    /// The column, and the rows that have no usable value (null in the column).
    pub fn finish(self) -> (Column, Vec<RowError>) {
        (Column { data: self.data, validity: self.validity }, self.row_errors.into_vec())
    }

    fn push_mismatch(&mut self, value: std::fmt::Arguments<'_>) {
        self.push_error_with(|dtype| mismatch(value, dtype));
    }

    fn mark_valid(&mut self) {
        if let Some(validity) = &mut self.validity {
            validity.push(true);
        }
    }

    fn push_zero(&mut self) {
        match &mut self.data {
            ColumnData::Bool(v) => v.push(false),
            ColumnData::Int8(v) => v.push(0),
            ColumnData::Int16(v) => v.push(0),
            ColumnData::Int32(v) => v.push(0),
            ColumnData::Int64(v) | ColumnData::Timestamp(v) => v.push(0),
            ColumnData::UInt8(v) => v.push(0),
            ColumnData::UInt16(v) => v.push(0),
            ColumnData::UInt32(v) => v.push(0),
            ColumnData::UInt64(v) => v.push(0),
            ColumnData::Float32(v) => v.push(0.0),
            ColumnData::Float64(v) => v.push(0.0),
            ColumnData::String(v) => v.push(String::new()),
            ColumnData::Bytes(v) => v.push(Vec::new()),
            ColumnData::List(_, v) => v.push(Vec::new()),
        }
    }
}

/// The error for a value that a column of `dtype` cannot hold.
pub fn mismatch(value: impl std::fmt::Display, dtype: DType) -> Error {
    let hint = match dtype {
        DType::List(element) => format!("send a list of {} values, or null", DType::Scalar(element)),
        DType::Scalar(ScalarType::Timestamp) => "send RFC 3339 text such as 2013-01-31T10:00:00Z, or null".to_owned(),
        DType::Scalar(ScalarType::Bool) => "send true, false or null".to_owned(),
        DType::Scalar(ScalarType::String) => "send text in quotes, or null".to_owned(),
        DType::Scalar(ScalarType::Bytes) => "send text in quotes (base64 in JSON), or null".to_owned(),
        DType::Scalar(ScalarType::Float32 | ScalarType::Float64) => {
            format!("send a number without quotes, in the range of {dtype}, or null")
        }
        DType::Scalar(_) => format!("send a whole number without quotes, in the range of {dtype}, or null"),
    };
    Error::new(ErrorCode::TypeMismatch, format!("{value} is not {}", with_article(dtype)), hint)
}

/// `an int64`, `a float64`: the type with its article.
pub fn with_article(dtype: DType) -> String {
    let name = dtype.to_string();
    // "uint" begins with the sound of "you".
    let article = if name.starts_with('i') { "an" } else { "a" };
    format!("{article} {name}")
}

fn push_some<T>(values: &mut Vec<T>, value: Option<T>) -> bool {
    value.map(|value| values.push(value)).is_some()
}

/// A column of any type as a column of `dtype`, value by value as [`ColumnBuilder`] does.
pub fn coerce_column(name: &str, column: &Column, dtype: DType) -> (Column, Vec<RowError>) {
    let mut builder = ColumnBuilder::new(name, dtype, column.len());
    for row in 0..column.len() {
        builder.push_value(column.value(row));
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::request::ROW_ERRORS_TOLD;

    fn build(dtype: DType, values: Vec<Value>) -> (Vec<Value>, Vec<usize>) {
        let mut builder = ColumnBuilder::new("x", dtype, values.len());
        for value in values {
            builder.push_value(value);
        }
        let (column, errors) = builder.finish();
        assert!(column.validity.as_ref().is_none_or(|validity| validity.len() == column.len()));
        ((0..column.len()).map(|row| column.value(row)).collect(), errors.iter().map(|error| error.row).collect())
    }

    #[test]
    fn numbers_widen_and_whole_floats_narrow() {
        let (values, bad) =
            build(DType::FLOAT64, vec![Value::Int(3), Value::UInt(u64::MAX), Value::Float32(0.5), Value::Null]);
        assert_eq!(
            values,
            [Value::Float64(3.0), Value::Float64(18_446_744_073_709_551_615.0), Value::Float64(0.5), Value::Null]
        );
        assert!(bad.is_empty());
        let (values, bad) = build(
            DType::INT64,
            vec![Value::Float64(4.0), Value::Float64(4.5), Value::Float64(9.3e18), Value::Float64(f64::NAN)],
        );
        assert_eq!(values, [Value::Int(4), Value::Null, Value::Null, Value::Null]);
        assert_eq!(bad, [1, 2, 3]);
        let (values, bad) = build(
            DType::Scalar(ScalarType::UInt64),
            vec![Value::UInt(u64::MAX), Value::Float64(1.8e19), Value::Int(-1)],
        );
        assert_eq!(values[..2], [Value::UInt(u64::MAX), Value::UInt(18_000_000_000_000_000_000)]);
        assert_eq!(bad, [2]);
    }

    #[test]
    fn integers_out_of_range_spoil_their_row_only() {
        let (values, bad) =
            build(DType::Scalar(ScalarType::Int8), vec![Value::Int(127), Value::Int(128), Value::Int(-128)]);
        assert_eq!(values, [Value::Int(127), Value::Null, Value::Int(-128)]);
        assert_eq!(bad, [1]);
    }

    #[test]
    fn a_float32_column_refuses_what_would_become_infinite() {
        let (values, bad) =
            build(DType::FLOAT32, vec![Value::Float64(1e39), Value::Float64(f64::INFINITY), Value::Float64(0.25)]);
        assert_eq!(values, [Value::Null, Value::Float32(f32::INFINITY), Value::Float32(0.25)]);
        assert_eq!(bad, [0]);
    }

    #[test]
    fn text_is_not_a_number_and_a_bool_is_not_an_integer() {
        let (_, bad) = build(DType::INT64, vec![Value::String("4".into()), Value::Bool(true), Value::List(vec![])]);
        assert_eq!(bad, [0, 1, 2]);
        let (values, bad) = build(DType::BOOL, vec![Value::Int(1), Value::Int(2), Value::Bool(false)]);
        assert_eq!(values, [Value::Bool(true), Value::Null, Value::Bool(false)]);
        assert_eq!(bad, [1]);
    }

    #[test]
    fn timestamps_come_as_text_or_as_microseconds() {
        let (values, bad) = build(
            DType::TIMESTAMP,
            vec![
                Value::String("1970-01-01T00:00:01Z".into()),
                Value::Int(7),
                Value::Timestamp(8),
                Value::String("soon".into()),
                Value::Float64(9.0),
            ],
        );
        assert_eq!(
            values,
            [Value::Timestamp(1_000_000), Value::Timestamp(7), Value::Timestamp(8), Value::Null, Value::Timestamp(9)]
        );
        assert_eq!(bad, [3]);
    }

    #[test]
    fn lists_coerce_their_elements() {
        let dtype = DType::List(ScalarType::Float64);
        let (values, bad) = build(
            dtype,
            vec![
                Value::List(vec![Value::Int(1), Value::Null]),
                Value::List(vec![Value::String("x".into())]),
                Value::Int(1),
            ],
        );
        assert_eq!(values[0], Value::List(vec![Value::Float64(1.0), Value::Null]));
        assert_eq!(bad, [1, 2]);
    }

    #[test]
    fn many_wrong_values_share_one_text() {
        let mut builder = ColumnBuilder::new("x", DType::INT64, 0);
        for _ in 0..5 * ROW_ERRORS_TOLD {
            builder.push_str("seven");
        }
        let (column, errors) = builder.finish();
        assert_eq!((column.len(), errors.len()), (5 * ROW_ERRORS_TOLD, 5 * ROW_ERRORS_TOLD));
        let rest = &errors[ROW_ERRORS_TOLD..];
        assert!(rest.iter().all(|found| std::sync::Arc::ptr_eq(&found.error, &rest[0].error)));
        assert_eq!((rest[0].error.code, rest[0].row), (ErrorCode::TypeMismatch, ROW_ERRORS_TOLD));
        assert!(errors[ROW_ERRORS_TOLD - 1].error.message.contains("row 999 of 'x'"));
    }

    #[test]
    fn a_mismatch_has_its_article_and_a_hint_that_helps() {
        for (dtype, message, hint) in [
            (DType::STRING, "7 is not a string", "in quotes"),
            (DType::INT64, "7 is not an int64", "range of int64"),
            (DType::Scalar(ScalarType::UInt8), "7 is not a uint8", "whole number"),
            (DType::FLOAT32, "7 is not a float32", "range of float32"),
            (DType::TIMESTAMP, "7 is not a timestamp", "RFC 3339"),
            (DType::List(ScalarType::Int8), "7 is not a list<int8>", "list of int8"),
        ] {
            let error = mismatch(7, dtype);
            assert_eq!(error.message, message);
            assert!(error.hint.contains(hint) && !error.hint.contains("send a int"), "{error}");
        }
    }

    #[test]
    fn an_error_names_the_column_the_row_and_the_value() {
        let mut builder = ColumnBuilder::new("origin", DType::INT64, 2);
        builder.push_i64(1);
        builder.push_str("JFK");
        let (_, errors) = builder.finish();
        assert_eq!(errors[0].error.message, "row 1 of 'origin': 'JFK' is not an int64");
    }
}
