//! The point-in-time join over Arrow frames.

use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::RecordBatch;
use headrace_features::{AsKnownAt, JoinOptions, JoinOutput};
use headrace_types::{Error, ErrorCode};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};

use crate::error::{Outcome, detached, type_mismatch};
use crate::frame::{batch_of, batches_of, stream_capsule};
use crate::interrupt::interruptible;
use crate::plan::Plan;

/// The result of a join; any Arrow library can take it over without a copy.
#[pyclass(frozen, module = "headrace._native")]
#[derive(Debug)]
pub(crate) struct JoinedTable {
    output: JoinOutput,
}

#[pymethods]
impl JoinedTable {
    /// What the join has seen: `rows`, and for each view how many rows were found, missing, expired or left out.
    #[getter]
    fn counts<'py>(&self, py: Python<'py>) -> Outcome<Bound<'py, PyDict>> {
        let counts = PyDict::new(py);
        counts.set_item("rows", self.output.counts.rows)?;
        let views = PyDict::new(py);
        for (name, count) in &self.output.counts.views {
            let view = PyDict::new(py);
            view.set_item("source_rows", count.source_rows)?;
            view.set_item("null_event_ts", count.null_event_ts)?;
            view.set_item("null_created_ts", count.null_created_ts)?;
            view.set_item("null_keys", count.null_keys)?;
            view.set_item("found", count.found)?;
            view.set_item("not_found", count.not_found)?;
            view.set_item("outside_max_age", count.outside_max_age)?;
            views.set_item(name, view)?;
        }
        counts.set_item("views", views)?;
        Ok(counts)
    }

    #[getter]
    fn num_rows(&self) -> usize {
        self.output.batch.num_rows()
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> Outcome<Bound<'py, PyCapsule>> {
        stream_capsule(py, &self.output.batch, requested_schema)
    }
}

/// A join whose source rows are given as they are read.
#[pyclass(frozen, module = "headrace._native")]
#[derive(Debug)]
pub(crate) struct PointInTimeJoin {
    /// None once it has been finished.
    inner: Mutex<Option<headrace_features::PointInTimeJoin<Arc<headrace_features::Plan>>>>,
}

#[pymethods]
impl PointInTimeJoin {
    /// Takes the entity rows. With `views` it is one partition of a join, of those views only.
    #[new]
    #[pyo3(signature = (
        plan, service, entities, event_ts_column, as_known_at=None, threads=None, statuses=false, held_bytes_max=0, views=None
    ))]
    #[allow(clippy::too_many_arguments)] // the parts of a join, the later ones optional keywords
    fn new(
        py: Python<'_>,
        plan: &Plan,
        service: &str,
        entities: &Bound<'_, PyAny>,
        event_ts_column: String,
        as_known_at: Option<&Bound<'_, PyAny>>,
        threads: Option<usize>,
        statuses: bool,
        held_bytes_max: usize,
        views: Option<Vec<String>>,
    ) -> Outcome<Self> {
        let entities = batch_of("the entity frame", entities)?;
        let as_known_at = cutoff_of(as_known_at)?;
        let plan = Arc::clone(&plan.inner);
        let join = interruptible(py, |cancel| {
            let threads = threads.unwrap_or(0);
            let options =
                JoinOptions { event_ts_column, as_known_at, threads, statuses, held_bytes_max, cancel: Some(cancel) };
            headrace_features::PointInTimeJoin::new(plan, service, entities, options, views.as_deref())
        })?;
        Ok(Self { inner: Mutex::new(Some(join)) })
    }

    /// The views whose source rows are wanted.
    fn views(&self) -> Outcome<Vec<String>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(inner.as_ref().ok_or_else(finished)?.views())
    }

    /// Whether all source rows of a view are kept until the end, rather than the newest.
    fn keeps_all(&self, view: &str) -> Outcome<bool> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(inner.as_ref().ok_or_else(finished)?.keeps_all(view))
    }

    /// Takes the next source rows of a view. Ctrl-C ends it.
    fn add(&self, py: Python<'_>, view: &str, rows: &Bound<'_, PyAny>) -> Outcome<()> {
        let (batches, _) = batches_of(&format!("the source of view '{view}'"), rows)?;
        interruptible(py, |cancel| {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let join = inner.as_mut().ok_or_else(finished)?;
            join.cancel_by(cancel);
            join.add(view, &batches)
        })
    }

    /// The training set. Ctrl-C ends it.
    fn finish(&self, py: Python<'_>) -> Outcome<JoinedTable> {
        let output = interruptible(py, |cancel| {
            let mut join = self.take()?;
            join.cancel_by(cancel);
            join.finish()
        })?;
        Ok(JoinedTable { output })
    }

    /// What was found, in the form that `complete_join` takes. Ctrl-C ends it.
    fn finish_stored(&self, py: Python<'_>) -> Outcome<JoinedTable> {
        let output = interruptible(py, |cancel| {
            let mut join = self.take()?;
            join.cancel_by(cancel);
            join.finish_stored()
        })?;
        Ok(JoinedTable { output })
    }
}

impl PointInTimeJoin {
    fn take(&self) -> Result<headrace_features::PointInTimeJoin<Arc<headrace_features::Plan>>, Error> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(finished)
    }
}

fn finished() -> Error {
    Error::new(ErrorCode::InvalidArgument, "the join is finished", "begin another one")
}

/// Completes a join that was run in partitions: `stored` is what they found for these entity rows, in their order.
#[pyfunction]
#[pyo3(signature = (plan, service, entities, stored, event_ts_column, threads=None, statuses=false))]
#[allow(clippy::too_many_arguments)] // the parts of a join, the last two optional keywords
pub(crate) fn complete_join(
    py: Python<'_>,
    plan: &Plan,
    service: &str,
    entities: &Bound<'_, PyAny>,
    stored: &Bound<'_, PyAny>,
    event_ts_column: String,
    threads: Option<usize>,
    statuses: bool,
) -> Outcome<JoinedTable> {
    let entities = batch_of("the entity frame", entities)?;
    let stored = batch_of("the features found", stored)?;
    let plan = &plan.inner;
    let batch = interruptible(py, |cancel| {
        let options = JoinOptions {
            event_ts_column,
            threads: threads.unwrap_or(0),
            statuses,
            cancel: Some(cancel),
            ..JoinOptions::default()
        };
        headrace_features::complete_join(plan, service, &entities, &options, &stored)
    })?;
    Ok(JoinedTable { output: JoinOutput { batch, counts: headrace_features::JoinCounts::default() } })
}

/// The rows of a frame in `count` parts by the hash of their key, which is the same everywhere.
#[pyfunction]
pub(crate) fn partition_rows(
    py: Python<'_>,
    rows: &Bound<'_, PyAny>,
    keys: Vec<String>,
    count: u32,
) -> Outcome<Vec<RecordRows>> {
    let batch: RecordBatch = batch_of("the rows to partition", rows)?;
    let parts = detached(py, || headrace_features::partition_rows(&batch, &keys, count))?;
    Ok(parts.into_iter().map(RecordRows::new).collect())
}

/// Some rows; any Arrow library can take them over without a copy.
#[pyclass(frozen, module = "headrace._native")]
#[derive(Debug)]
pub(crate) struct RecordRows {
    batch: RecordBatch,
}

impl RecordRows {
    pub(crate) fn new(batch: RecordBatch) -> Self {
        Self { batch }
    }
}

#[pymethods]
impl RecordRows {
    #[getter]
    fn num_rows(&self) -> usize {
        self.batch.num_rows()
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> Outcome<Bound<'py, PyCapsule>> {
        stream_capsule(py, &self.batch, requested_schema)
    }
}

fn cutoff_of(value: Option<&Bound<'_, PyAny>>) -> Outcome<AsKnownAt> {
    let Some(value) = value else { return Ok(AsKnownAt::Off) };
    if let Ok(is_on) = value.extract::<bool>() {
        return Ok(if is_on { AsKnownAt::EventTime } else { AsKnownAt::Off });
    }
    match value.extract::<String>() {
        Ok(column) => Ok(AsKnownAt::Column(column)),
        Err(_) => Err(type_mismatch(format!("as_known_at is {value}"), "give True, the name of a column, or None")),
    }
}
