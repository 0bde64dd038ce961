//! Whole frames, in and out, as Arrow: through the PyCapsule interface, so no library is imported and no value is copied.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StructArray};
use arrow_schema::{Field, SchemaRef};
use arrow_select::concat::concat_batches;
use headrace_types::{Error, ErrorCode};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use pyo3_arrow::ffi::{ArrayIterator, to_stream_pycapsule};
use pyo3_arrow::input::AnyRecordBatch;

use crate::error::{Outcome, text_of};

/// The record batches of anything with `__arrow_c_stream__` or `__arrow_c_array__`; `what` names it in messages.
pub(crate) fn batches_of(what: &str, frame: &Bound<'_, PyAny>) -> Outcome<(Vec<RecordBatch>, SchemaRef)> {
    let py = frame.py();
    let table = frame.extract::<AnyRecordBatch>().and_then(|any| any.into_table().map_err(PyErr::from));
    match table {
        Ok(table) => Ok(table.into_inner()),
        Err(error) => Err(Error::new(
            ErrorCode::TypeMismatch,
            format!("{what} is not an Arrow frame: {}", text_of(py, &error)),
            "give a pyarrow or Polars frame",
        )
        .into()),
    }
}

/// As [`batches_of`], in one record batch.
pub(crate) fn batch_of(what: &str, frame: &Bound<'_, PyAny>) -> Outcome<RecordBatch> {
    let (mut batches, schema) = batches_of(what, frame)?;
    if batches.len() == 1 {
        return Ok(batches.swap_remove(0));
    }
    let joined = concat_batches(&schema, &batches)
        .map_err(|error| Error::new(ErrorCode::TooLarge, format!("{what}: {error}"), "give it in smaller pieces"))?;
    Ok(joined)
}

/// A record batch as the capsule of an Arrow stream.
pub(crate) fn stream_capsule<'py>(
    py: Python<'py>,
    batch: &RecordBatch,
    requested_schema: Option<Bound<'py, PyCapsule>>,
) -> Outcome<Bound<'py, PyCapsule>> {
    let schema = batch.schema();
    let field = Field::new_struct("", schema.fields().clone(), false).with_metadata(schema.metadata().clone());
    let array: ArrayRef = Arc::new(StructArray::from(batch.clone()));
    let reader = Box::new(ArrayIterator::new(vec![Ok(array)], Arc::new(field)));
    Ok(to_stream_pycapsule(py, reader, requested_schema).map_err(PyErr::from)?)
}
