//! `Profile`: statistics of frames.

use arrow_array::RecordBatch;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::{Outcome, detached, guarded};
use crate::frame::batches_of;

/// The statistics of named columns, gathered in one pass; mergeable.
#[pyclass(module = "headrace._native")]
#[derive(Debug)]
pub(crate) struct Profile {
    inner: headrace_stats::Profile,
    buffers: headrace_stats::Buffers,
}

#[pymethods]
impl Profile {
    #[new]
    fn new() -> Self {
        Self { inner: headrace_stats::Profile::new(), buffers: headrace_stats::Buffers::default() }
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> Outcome<Self> {
        let inner = guarded(|| headrace_stats::Profile::from_bytes(data))?;
        Ok(Self { inner, buffers: headrace_stats::Buffers::default() })
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.to_bytes())
    }

    /// Adds the rows of a frame.
    fn add(&mut self, py: Python<'_>, frame: &Bound<'_, PyAny>) -> Outcome<()> {
        let (mut batches, schema) = batches_of("the frame to describe", frame)?;
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(schema)); // its columns are known all the same
        }
        let Self { inner: profile, buffers } = self;
        Ok(detached(py, || batches.iter().try_for_each(|batch| profile.add_batch_with(batch, buffers)))?)
    }

    fn merge(&mut self, other: PyRef<'_, Self>) -> Outcome<()> {
        let profile = &mut self.inner;
        Ok(guarded(|| profile.merge(&other.inner))?)
    }

    #[getter]
    fn rows(&self) -> u64 {
        self.inner.rows()
    }

    /// `{"rows", "columns": {name: {..}}}` as JSON.
    fn describe(&self) -> String {
        self.inner.to_json().to_string()
    }
}
