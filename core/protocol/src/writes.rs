//! Rows to write: those of a view as JSON columns or as an Arrow stream, and the keys of rows to delete.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::{Field as ArrowField, Schema};
use arrow_select::concat::concat_batches;
use bytes::Bytes;
use headrace_engine::{RowError, shortened};
use headrace_features::{Plan, ViewPlan, column_array};
use headrace_types::{Column, ColumnData, DType, Error, ErrorCode, Field, Result, ScalarType};
use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use crate::json::{ColumnSeed, Fault, KeyHandler, ObjectSeed, WRONG_VALUES_MAX, parse};

/// The content type of an Arrow stream.
pub const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";
/// Rows that one request may write.
pub const WRITE_ROWS_MAX: usize = 1_000_000;

/// Rows of a view, in the columns that its source names.
#[derive(Debug)]
pub struct PushedRows {
    pub rows: RecordBatch,
    /// Rows with a value that is not of its type, and which; the value stands as null in `rows`.
    pub wrong: Vec<(usize, String)>,
}

/// Keys of a view's rows that are to be deleted.
#[derive(Debug)]
pub struct DeletedKeys {
    pub keys: RecordBatch,
    /// From when on, in microseconds UTC; none is now.
    pub event_ts_us: Option<i64>,
}

/// Reads `{"columns": {name: [..]}}`.
///
/// # Errors
/// `invalid_json`; `unknown_feature_view`; `length_mismatch`; `type_mismatch` for what is no list, or more than a thousand wrong
/// values; `too_large`.
pub fn decode_push_json(plan: &Plan, view: &str, body: &[u8]) -> Result<PushedRows> {
    let fields = source_fields(plan.view(view)?);
    let fault = Fault::default();
    let empty = Body { fault: &fault, what: "columns", content: None, event_ts: None };
    let parsed = parse(body, &fault, ObjectSeed { what: "the body", fault: Some(&fault), each: empty })?;
    let Some(json) = parsed.content else { return Err(missing("columns", "the view's keys, event time and features")) };
    let (rows, errors) = columns_of(json, "columns", &fields, &fault)?;
    let wrong = errors.into_iter().map(|wrong| (wrong.row, wrong.error.message.clone())).collect();
    Ok(PushedRows { rows, wrong })
}

/// Reads an Arrow stream: all its batches as one. The columns' types are the writer's to check.
///
/// # Errors
/// `unknown_feature_view`; `invalid_argument` for what is no Arrow stream; `too_large`.
pub fn decode_push_arrow(plan: &Plan, view: &str, body: Bytes) -> Result<PushedRows> {
    plan.view(view)?;
    // The decoder checks all that it takes, but some of it by panics.
    let decoded = catch_unwind(AssertUnwindSafe(|| arrow_batches(body)));
    let rows = decoded.unwrap_or_else(|_| Err(no_stream("its messages do not fit together")))?;
    Ok(PushedRows { rows, wrong: Vec::new() })
}

/// Reads `{"keys": {name: [..]}, "event_ts"?: time}`.
///
/// # Errors
/// As [`decode_push_json`]; a wrong key is `type_mismatch`, a missing one `missing_column`.
pub fn decode_delete(plan: &Plan, view: &str, body: &[u8]) -> Result<DeletedKeys> {
    let keys = &plan.view(view)?.join_keys;
    let fault = Fault::default();
    let empty = Body { fault: &fault, what: "keys", content: None, event_ts: None };
    let parsed = parse(body, &fault, ObjectSeed { what: "the body", fault: Some(&fault), each: empty })?;
    let Some(json) = parsed.content else { return Err(missing("keys", "the view's join keys")) };
    let (found, errors) = columns_of(json, "keys", keys, &fault)?;
    if let Some(wrong) = errors.into_iter().next() {
        return Err(wrong.error.as_ref().clone().within(format!("row {}", wrong.row)));
    }
    for key in keys {
        if found.column_by_name(&key.name).is_none() {
            return Err(Error::new(ErrorCode::MissingColumn, format!("key '{}' is missing", key.name), "send it"));
        }
    }
    let event_ts_us = parsed.event_ts.map(|json| time_of(json, &fault)).transpose()?;
    Ok(DeletedKeys { keys: found, event_ts_us })
}

struct Body<'de, 'f> {
    fault: &'f Fault,
    /// The key under which the columns stand.
    what: &'static str,
    content: Option<&'de RawValue>,
    event_ts: Option<&'de RawValue>,
}

impl<'de> KeyHandler<'de> for Body<'de, '_> {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            _ if key == self.what => self.content = map.next_value()?,
            "event_ts" if self.what == "keys" => self.event_ts = map.next_value()?,
            _ => {
                return Err(self.fault.raise(Error::new(
                    ErrorCode::InvalidArgument,
                    format!("the body has an unknown key '{}'", shortened(key)),
                    format!("use {}", self.what),
                )));
            }
        }
        Ok(())
    }
}

/// The columns of a view's rows as they are pushed, with their types.
fn source_fields(view: &ViewPlan) -> Vec<Field> {
    let mut fields: Vec<Field> = view.join_keys.iter().chain(view.row_fields()).cloned().collect();
    for name in [&view.source.event_ts, &view.source.created_ts].into_iter().flatten() {
        if !fields.iter().any(|field| field.name == *name) {
            fields.push(Field { name: name.clone(), dtype: DType::Scalar(ScalarType::Timestamp) });
        }
    }
    fields
}

struct Columns<'a> {
    fields: &'a [Field],
    fault: &'a Fault,
    given: Vec<(String, Column)>,
    row_errors: Vec<RowError>,
}

impl<'de> KeyHandler<'de> for Columns<'_> {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let Some(field) = self.fields.iter().find(|field| field.name == key) else {
            map.next_value::<IgnoredAny>()?; // as a column of a frame that the view does not have
            return Ok(());
        };
        let (column, errors) = map.next_value_seed(ColumnSeed {
            field,
            fault: self.fault,
            rows_max: WRITE_ROWS_MAX,
            wrong_max: WRONG_VALUES_MAX.saturating_sub(self.row_errors.len()),
        })?;
        self.row_errors.extend(errors);
        self.given.push((field.name.clone(), column));
        Ok(())
    }
}

fn columns_of(
    json: &RawValue,
    what: &'static str,
    fields: &[Field],
    fault: &Fault,
) -> Result<(RecordBatch, Vec<RowError>)> {
    let empty = Columns { fields, fault, given: Vec::new(), row_errors: Vec::new() };
    let parsed = parse(json.get().as_bytes(), fault, ObjectSeed { what, fault: Some(fault), each: empty })?;
    let rows = parsed.given.first().map_or(0, |(_, column)| column.len());
    let (mut of_schema, mut arrays): (Vec<ArrowField>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (name, column) in parsed.given {
        if column.len() != rows {
            return Err(Error::new(
                ErrorCode::LengthMismatch,
                format!("column '{name}' has {} rows, the first column has {rows}", column.len()),
                "send one value for each row in every column",
            ));
        }
        let array = column_array(column)?;
        of_schema.push(ArrowField::new(name, array.data_type().clone(), true));
        arrays.push(array);
    }
    let batch = if arrays.is_empty() {
        RecordBatch::new_empty(Arc::new(Schema::empty()))
    } else {
        RecordBatch::try_new(Arc::new(Schema::new(of_schema)), arrays)
            .map_err(|error| Error::internal(format!("columns of JSON: {error}")))?
    };
    Ok((batch, parsed.row_errors))
}

fn time_of(json: &RawValue, fault: &Fault) -> Result<i64> {
    let field = Field { name: "event_ts".to_owned(), dtype: DType::Scalar(ScalarType::Timestamp) };
    let list = format!("[{}]", json.get());
    let seed = ColumnSeed { field: &field, fault, rows_max: 1, wrong_max: WRONG_VALUES_MAX };
    let (column, errors) = parse(list.as_bytes(), fault, seed)?;
    if let Some(wrong) = errors.into_iter().next() {
        return Err(wrong.error.as_ref().clone());
    }
    match (&column.data, !column.is_null(0)) {
        (ColumnData::Timestamp(times), true) => Ok(times[0]),
        _ => Err(missing("event_ts", "a time, or leave it out for now")),
    }
}

fn arrow_batches(body: Bytes) -> Result<RecordBatch> {
    let mut rest = Buffer::from(body);
    let mut decoder = StreamDecoder::new();
    let mut batches = Vec::new();
    let mut rows = 0usize;
    while !rest.is_empty() {
        let Some(batch) = decoder.decode(&mut rest).map_err(no_stream)? else { continue };
        rows = rows.saturating_add(batch.num_rows());
        if rows > WRITE_ROWS_MAX {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("the stream has more than {WRITE_ROWS_MAX} rows, the limit"),
                "split the request into several",
            ));
        }
        batches.push(batch);
    }
    decoder.finish().map_err(no_stream)?;
    let schema = decoder.schema().ok_or_else(|| no_stream("it has no schema"))?;
    concat_batches(&schema, &batches).map_err(no_stream)
}

fn no_stream(reason: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorCode::InvalidArgument,
        format!("the body is not an Arrow stream: {reason}"),
        "send the Arrow IPC streaming format, uncompressed",
    )
}

fn missing(what: &str, hint: &str) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("'{what}' is missing"), format!("send {hint}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow_array::{Float64Array, Int64Array, NullArray};
    use arrow_ipc::writer::StreamWriter;

    use super::*;

    fn plan() -> Plan {
        let field = |name: &str, dtype: &str| format!(r#"{{"name": "{name}", "dtype": "{dtype}"}}"#);
        let source = r#"{"kind": "push", "event_ts": "at"}"#;
        let text = format!(
            r#"{{"format": 1, "project": "p", "entities": {{"item": {{"join_keys": [{}]}}}}, "views": {{"v": {{"entities":
            ["item"], "fields": [{}], "source": {source}, "online": true}}}}, "on_demand_views": {{}}, "services": {{}}}}"#,
            field("id", "int64"),
            field("x", "float64")
        );
        Plan::from_json(&text).unwrap()
    }

    #[test]
    fn columns_get_the_types_of_the_view() {
        let body =
            br#"{"columns": {"id": [1, 2], "at": ["2013-01-01T00:00:00Z", null], "x": [0.5, "no"], "other": {}}}"#;
        let pushed = decode_push_json(&plan(), "v", body).unwrap();
        assert_eq!(
            pushed.rows.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(),
            ["id", "at", "x"]
        );
        assert_eq!(pushed.rows.num_rows(), 2);
        assert_eq!(pushed.wrong.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn what_is_wrong_with_a_push_is_said() {
        for (body, code) in [
            (&b"{"[..], ErrorCode::InvalidJson),
            (b"{}", ErrorCode::InvalidArgument),
            (br#"{"columns": {}, "more": 1}"#, ErrorCode::InvalidArgument),
            (br#"{"columns": {"id": 1}}"#, ErrorCode::TypeMismatch),
            (br#"{"columns": {"id": [1], "x": [1.0, 2.0]}}"#, ErrorCode::LengthMismatch),
        ] {
            assert_eq!(decode_push_json(&plan(), "v", body).unwrap_err().code, code);
        }
        assert_eq!(decode_push_json(&plan(), "w", b"{}").unwrap_err().code, ErrorCode::UnknownFeatureView);
    }

    #[test]
    fn keys_and_the_time_of_a_deletion() {
        let deleted = decode_delete(&plan(), "v", br#"{"keys": {"id": [1, 2]}, "event_ts": "1970-01-01T00:00:01Z"}"#);
        let deleted = deleted.unwrap();
        assert_eq!((deleted.keys.num_rows(), deleted.event_ts_us), (2, Some(1_000_000)));
        assert_eq!(decode_delete(&plan(), "v", br#"{"keys": {"id": []}}"#).unwrap().event_ts_us, None);
        for (body, code) in [
            (&br#"{"keys": {}}"#[..], ErrorCode::MissingColumn),
            (br#"{"keys": {"id": ["a"]}}"#, ErrorCode::TypeMismatch),
            (br#"{"keys": {"id": [1]}, "event_ts": 5}"#, ErrorCode::TypeMismatch),
        ] {
            assert_eq!(decode_delete(&plan(), "v", body).unwrap_err().code, code);
        }
    }

    fn stream(batches: &[RecordBatch]) -> Vec<u8> {
        let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
        for batch in batches {
            writer.write(batch).unwrap();
        }
        writer.into_inner().unwrap()
    }

    fn rows(ids: &[i64]) -> RecordBatch {
        let x = Float64Array::from(vec![0.5; ids.len()]);
        RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef),
            ("x", Arc::new(x) as ArrayRef),
        ])
        .unwrap()
    }

    #[test]
    fn an_arrow_stream_is_read_whole_and_a_broken_one_refused() {
        let bytes = stream(&[rows(&[1, 2]), rows(&[3])]);
        let pushed = decode_push_arrow(&plan(), "v", bytes.clone().into()).unwrap();
        assert_eq!(pushed.rows, rows(&[1, 2, 3]));
        for end in 0..bytes.len() {
            // A stream may end without its end mark, at the end of a message.
            if let Err(error) = decode_push_arrow(&plan(), "v", Bytes::copy_from_slice(&bytes[..end])) {
                assert_eq!(error.code, ErrorCode::InvalidArgument);
            }
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x55;
            drop(decode_push_arrow(&plan(), "v", changed.into()));
        }
    }

    #[test]
    fn rows_that_take_no_bytes_are_limited_too() {
        let nothing = NullArray::new(WRITE_ROWS_MAX + 1);
        let batch = RecordBatch::try_from_iter([("id", Arc::new(nothing) as ArrayRef)]).unwrap();
        let error = decode_push_arrow(&plan(), "v", stream(&[batch]).into()).unwrap_err();
        assert_eq!(error.code, ErrorCode::TooLarge);
    }
}
