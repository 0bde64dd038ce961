//! `QuantileSketch` and `DistinctSketch`: the engine's sketches by themselves.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::{Outcome, guarded};

/// Approximate quantiles of many numbers; mergeable in any order.
#[pyclass(module = "headrace._native")]
#[derive(Debug)]
pub(crate) struct QuantileSketch {
    inner: headrace_stats::QuantileSketch,
}

#[pymethods]
impl QuantileSketch {
    #[new]
    #[pyo3(signature = (values=Vec::new()))]
    fn new(values: Vec<f64>) -> Self {
        let mut inner = headrace_stats::QuantileSketch::new();
        values.into_iter().for_each(|value| inner.add(value));
        Self { inner }
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> Outcome<Self> {
        Ok(Self { inner: guarded(|| headrace_stats::QuantileSketch::from_bytes(data))? })
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.to_bytes())
    }

    fn add(&mut self, value: f64) {
        self.inner.add(value);
    }

    fn merge(&mut self, other: PyRef<'_, Self>) {
        self.inner.merge(&other.inner);
    }

    /// How many values were added.
    #[getter]
    fn count(&self) -> u64 {
        self.inner.count()
    }

    /// The value of rank `floor(q * (count - 1))`, approximately.
    fn quantile(&self, q: f64) -> Option<f64> {
        self.inner.quantile(q)
    }
}

/// Approximate numbers of distinct values; mergeable in any order.
#[pyclass(module = "headrace._native")]
#[derive(Debug)]
pub(crate) struct DistinctSketch {
    inner: headrace_stats::DistinctSketch,
}

#[pymethods]
impl DistinctSketch {
    #[new]
    #[pyo3(signature = (values=Vec::new()))]
    fn new(values: Vec<Vec<u8>>) -> Self {
        let mut inner = headrace_stats::DistinctSketch::new();
        values.iter().for_each(|value| inner.add_bytes(value));
        Self { inner }
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> Outcome<Self> {
        Ok(Self { inner: guarded(|| headrace_stats::DistinctSketch::from_bytes(data))? })
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.to_bytes())
    }

    fn add(&mut self, value: &[u8]) {
        self.inner.add_bytes(value);
    }

    fn add_int(&mut self, value: i64) {
        self.inner.add_int(value);
    }

    fn add_float(&mut self, value: f64) {
        self.inner.add_float(value);
    }

    fn merge(&mut self, other: PyRef<'_, Self>) {
        self.inner.merge(&other.inner);
    }

    fn estimate(&self) -> f64 {
        self.inner.estimate()
    }
}
