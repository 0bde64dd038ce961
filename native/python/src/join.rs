//! The point-in-time join over Arrow frames.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use headrace_features::{AsKnownAt, JoinOptions, JoinOutput, SourceRows};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};

use crate::error::{Outcome, type_mismatch};
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

/// Joins the features of a service to entity rows, as of each row's time. Ctrl-C ends it.
#[pyfunction]
#[pyo3(signature = (plan, service, entities, sources, event_ts_column, as_known_at=None, threads=None, statuses=false))]
#[allow(clippy::too_many_arguments)] // the parts of a join, the last three optional keywords
pub(crate) fn point_in_time_join(
    py: Python<'_>,
    plan: &Plan,
    service: &str,
    entities: &Bound<'_, PyAny>,
    sources: &Bound<'_, PyDict>,
    event_ts_column: String,
    as_known_at: Option<&Bound<'_, PyAny>>,
    threads: Option<usize>,
    statuses: bool,
) -> Outcome<JoinedTable> {
    let entities: RecordBatch = batch_of("the entity frame", entities)?;
    let mut rows: BTreeMap<String, SourceRows> = BTreeMap::new();
    for (view, frame) in sources.iter() {
        let view: String = view.extract()?;
        let (batches, _) = batches_of(&format!("the source of view '{view}'"), &frame)?;
        rows.insert(view, SourceRows { batches });
    }
    let as_known_at = cutoff_of(as_known_at)?;
    let plan = &plan.inner;
    let output = interruptible(py, |cancel| {
        let options =
            JoinOptions { event_ts_column, as_known_at, threads: threads.unwrap_or(0), statuses, cancel: Some(cancel) };
        headrace_features::point_in_time_join(plan, service, &entities, &options, &rows)
    })?;
    Ok(JoinedTable { output })
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
