//! `LocalStore`: the online tables of a plan in this process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use headrace_cpu::OpenMode;
use headrace_features::{EncodeOptions, StoreOptions, encode_rows};
use headrace_types::Result;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::error::{Outcome, detached};
use crate::fork::ForkGuard;
use crate::frame::batch_of;
use crate::online_plan::OnlinePlan;
use crate::plan::Plan;

/// The online tables of a plan, in this process's memory. Reads never wait for writes.
#[pyclass(frozen, module = "headrace._native")]
#[derive(Debug)]
pub(crate) struct LocalStore {
    inner: Arc<headrace_features::LocalStore>,
    plan: Arc<headrace_features::Plan>,
    fork: ForkGuard,
}

impl LocalStore {
    pub(crate) fn checked(&self) -> Result<&Arc<headrace_features::LocalStore>> {
        self.fork.check("LocalStore")?;
        Ok(&self.inner)
    }

    fn of(plan: &Plan, inner: headrace_features::LocalStore) -> Self {
        Self { inner: Arc::new(inner), plan: Arc::clone(&plan.inner), fork: ForkGuard::new() }
    }
}

fn options(bytes_max: Option<u64>) -> StoreOptions {
    let defaults = StoreOptions::default();
    StoreOptions { bytes_max: bytes_max.unwrap_or(defaults.bytes_max), ..defaults }
}

#[pymethods]
impl LocalStore {
    /// Empty tables. `bytes_max` bounds what they may use together.
    #[new]
    #[pyo3(signature = (plan, bytes_max=None))]
    fn new(py: Python<'_>, plan: &Plan, bytes_max: Option<u64>) -> Outcome<Self> {
        let inner = detached(py, || headrace_features::LocalStore::create(&plan.inner, options(bytes_max)))?;
        Ok(Self::of(plan, inner))
    }

    /// Opens what `write_snapshot` wrote. A table that the plan has changed is made anew in memory, field by field.
    ///
    /// With `read_only` the file's pages are shared with every process that does the same; otherwise they are copied.
    #[staticmethod]
    #[pyo3(signature = (plan, folder, read_only=false, bytes_max=None))]
    fn open_snapshot(
        py: Python<'_>,
        plan: &Plan,
        folder: PathBuf,
        read_only: bool,
        bytes_max: Option<u64>,
    ) -> Outcome<Self> {
        let mode = if read_only { OpenMode::ReadOnlyShared } else { OpenMode::Private };
        let inner = detached(py, || {
            headrace_features::LocalStore::open_snapshot(&plan.inner, &folder, mode, options(bytes_max))
        })?;
        Ok(Self::of(plan, inner))
    }

    /// Writes all tables to a folder, complete or not at all.
    fn write_snapshot(&self, py: Python<'_>, folder: PathBuf) -> Outcome<()> {
        let store = self.checked()?;
        Ok(detached(py, || store.write_snapshot(&folder))?)
    }

    /// Rows of a view as one value of the log: (the value, its rows, rows refused by reason).
    #[pyo3(signature = (view, batch, first_sequence, now_us, max_future_skew_us, resets=false))]
    #[allow(clippy::too_many_arguments)] // as Python passes them
    fn encode<'py>(
        &self,
        py: Python<'py>,
        view: &str,
        batch: &Bound<'py, PyAny>,
        first_sequence: u64,
        now_us: i64,
        max_future_skew_us: i64,
        resets: bool,
    ) -> Outcome<(Bound<'py, PyBytes>, usize, Bound<'py, PyDict>)> {
        self.checked()?;
        let batch = batch_of(&format!("the rows of view '{view}'"), batch)?;
        let plan = &self.plan;
        let encoded = detached(py, || {
            let limits = EncodeOptions { first_sequence, now_us, max_future_skew_us, resets };
            encode_rows(plan.view(view)?, &batch, &limits)
        })?;
        let refused = PyDict::new(py);
        for (reason, count) in &encoded.refused {
            refused.set_item(*reason, *count)?;
        }
        Ok((PyBytes::new(py, &encoded.bytes), encoded.rows, refused))
    }

    /// Applies a value of the log; doing it again changes nothing.
    fn apply<'py>(&self, py: Python<'py>, data: &[u8]) -> Outcome<Bound<'py, PyDict>> {
        let store = self.checked()?;
        let counts = detached(py, || store.apply(data))?;
        let found = PyDict::new(py);
        found.set_item("rows", counts.rows())?;
        found.set_item("inserted", counts.inserted)?;
        found.set_item("replaced", counts.replaced)?;
        found.set_item("stale", counts.stale)?;
        found.set_item("deleted", counts.deleted)?;
        found.set_item("skipped", counts.skipped)?;
        Ok(found)
    }

    /// The same rows without those of some keys, and how many keys each table has lost. `keys` holds the canonical bytes of the
    /// values of `columns`, one after the other.
    fn without_keys(
        &self,
        py: Python<'_>,
        columns: Vec<String>,
        keys: Vec<Vec<u8>>,
    ) -> Outcome<(Self, BTreeMap<String, usize>)> {
        let store = self.checked()?;
        let erased = keys.into_iter().collect();
        let (inner, removed) = detached(py, || store.without_keys(&columns, &erased))?;
        Ok((Self { inner: Arc::new(inner), plan: Arc::clone(&self.plan), fork: ForkGuard::new() }, removed))
    }

    /// A feature service prepared for reading.
    fn online_plan(&self, py: Python<'_>, service: &str) -> Outcome<OnlinePlan> {
        let store = self.checked()?;
        let plan = &self.plan;
        Ok(detached(py, || OnlinePlan::compile(store, plan, service))?)
    }

    /// The sizes of each table, by its name (the join keys joined by commas).
    fn stats<'py>(&self, py: Python<'py>) -> Outcome<Bound<'py, PyDict>> {
        let tables = PyDict::new(py);
        for (name, stats) in self.checked()?.stats() {
            let table = PyDict::new(py);
            table.set_item("keys", stats.keys)?;
            table.set_item("row_bytes", stats.row_bytes)?;
            table.set_item("used_bytes", stats.used_bytes)?;
            table.set_item("index_bytes", stats.index_bytes)?;
            tables.set_item(name, table)?;
        }
        Ok(tables)
    }

    /// The keys and used bytes of each view of aggregates.
    fn windows_stats<'py>(&self, py: Python<'py>) -> Outcome<Bound<'py, PyDict>> {
        let views = PyDict::new(py);
        for (name, keys, used_bytes) in self.checked()?.windows_stats() {
            let view = PyDict::new(py);
            view.set_item("keys", keys)?;
            view.set_item("used_bytes", used_bytes)?;
            views.set_item(name, view)?;
        }
        Ok(views)
    }

    /// Keys of all tables together.
    fn __len__(&self) -> Outcome<usize> {
        Ok(self.checked()?.len())
    }
}
