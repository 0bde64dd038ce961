//! `OnlinePlan`: a feature service prepared for reading from the online store.

use std::sync::Arc;

use headrace_cpu::KeysRef;
use headrace_expr::{ColumnView, Scratch};
use headrace_features::{FeatureFrom, InputFrom, LocalStore, ServicePlan, StoredColumns};
use headrace_types::{Batch, Clock, Column, DType, Error, ErrorCode, FeatureStatus, Result, SystemClock};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::error::{Outcome, detached, guarded, type_mismatch};
use crate::fork::ForkGuard;
use crate::keys::{Keys, named_columns};
use crate::tensor::{Element, View};
use crate::values::list_of;

/// Values from which on a read lets other Python threads run: below, handing the lock over costs more than the work.
const DETACH_VALUES_MIN: usize = 16_384;

/// A feature service prepared for reading.
#[pyclass(frozen, module = "headrace._native")]
#[derive(Debug)]
pub(crate) struct OnlinePlan {
    service: ServicePlan,
    online: headrace_features::OnlinePlan,
    /// Whether the one table that is read has the one join key of the service.
    is_single_key: bool,
    /// Why the service cannot be read into an array, if it cannot.
    not_a_matrix: Option<Error>,
    fork: ForkGuard,
}

impl OnlinePlan {
    pub(crate) fn compile(store: &Arc<LocalStore>, plan: &headrace_features::Plan, service: &str) -> Result<Self> {
        let online = store.online_plan(plan, service)?;
        let service = plan.service(service)?.clone();
        let is_single_key = online.tables().map(|table| table.join_keys.len()).eq([1]);
        let not_a_matrix = not_a_matrix(&service);
        Ok(Self { service, online, is_single_key, not_a_matrix, fork: ForkGuard::new() })
    }
}

/// A matrix holds stored numbers: no text, and nothing that an on-demand view computes.
fn not_a_matrix(service: &ServicePlan) -> Option<Error> {
    let is_number = |dtype: DType| !dtype.is_list() && dtype.element().is_numeric();
    if let Some(computed) = service.features.iter().find(|feature| matches!(feature.from, FeatureFrom::OnDemand(_))) {
        return Some(Error::new(
            ErrorCode::InvalidArgument,
            format!(
                "feature '{}' of service '{}' is computed when it is read, not stored",
                computed.name, service.name
            ),
            "use OnlinePlan.read, or a service of stored features",
        ));
    }
    let other = service.features.iter().find(|feature| !is_number(feature.dtype))?;
    Some(Error::new(
        ErrorCode::TypeMismatch,
        format!("feature '{}' of service '{}' is a {}, not a number", other.name, service.name, other.dtype),
        "use OnlinePlan.read, or a service of numbers",
    ))
}

#[pymethods]
impl OnlinePlan {
    #[getter]
    fn service(&self) -> &str {
        &self.service.name
    }

    #[getter]
    fn feature_names(&self) -> Vec<&str> {
        self.service.features.iter().map(|feature| feature.name.as_str()).collect()
    }

    #[getter]
    fn dtypes(&self) -> Vec<String> {
        self.service.features.iter().map(|feature| feature.dtype.to_string()).collect()
    }

    #[getter]
    fn join_keys(&self) -> Vec<&str> {
        self.service.join_keys.iter().map(|field| field.name.as_str()).collect()
    }

    /// Fills `out` with the features of some keys, row by row; what is missing is NaN.
    #[pyo3(signature = (keys, out, status=None, now_us=None))]
    fn read_into(
        &self,
        keys: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
        status: Option<&Bound<'_, PyAny>>,
        now_us: Option<i64>,
    ) -> Outcome<()> {
        self.fork.check("OnlinePlan")?;
        if let Some(error) = &self.not_a_matrix {
            return Err(error.clone().into());
        }
        let keys = match self.service.join_keys.as_slice() {
            [field] if self.is_single_key => Keys::of_single(field, keys)?,
            fields => Keys::columns(fields, keys)?,
        };
        let (rows, width) = (keys.rows(), self.online.width());
        let mut out = View::of("out", out)?;
        out.check_shape("out", rows, width)?;
        out.check_writable("out")?;
        let mut status = match status {
            Some(status) => Some(status_view(status, rows, width)?),
            None => None,
        };
        check_apart(&keys, &out, status.as_ref())?;
        let now_us = now_us.unwrap_or_else(|| SystemClock.now_us());
        // SAFETY: type, writability and distinctness were checked; the arguments keep the arrays alive to the end of the call.
        let status_values = status.as_mut().map(|view| unsafe { view.slice_mut::<u8>() });
        // SAFETY: as above; the element type is matched.
        let target = unsafe {
            match out.element {
                Element::Float32 => Target::Float32(out.slice_mut()),
                Element::Float64 => Target::Float64(out.slice_mut()),
                _ => return Err(type_mismatch("out does not hold floats", "give a float32 or float64 array")),
            }
        };
        let source = match &keys {
            Keys::Columns(batch) => KeySource::Columns(batch),
            keys => KeySource::Single(keys.single().ok_or_else(|| Error::internal("keys without a form"))?),
        };
        let found = Lookup { keys: source, now_us, target, status: status_values };
        if rows * width < DETACH_VALUES_MIN {
            Ok(guarded(|| self.fill(found))?)
        } else {
            Python::attach(|py| Ok(detached(py, || self.fill(found))?))
        }
    }

    /// `{"features": {name: [values]}, "statuses": {name: [names]}}` of some rows; None where there is no value.
    #[pyo3(signature = (entities, request=None, now_us=None))]
    fn read<'py>(
        &self,
        py: Python<'py>,
        entities: &Bound<'py, PyAny>,
        request: Option<&Bound<'py, PyAny>>,
        now_us: Option<i64>,
    ) -> Outcome<Bound<'py, PyDict>> {
        self.fork.check("OnlinePlan")?;
        let keys = named_columns("entities", ErrorCode::UnknownEntity, &self.service.join_keys, entities)?;
        let no_request = PyDict::new(py).into_any();
        let request = request.unwrap_or(&no_request);
        let request = named_columns("request", ErrorCode::InvalidArgument, &self.service.request_fields, request)?;
        let rows = self.rows_of(&keys, &request)?;
        let keys = Batch { rows, columns: keys.columns };
        let now_us = now_us.unwrap_or_else(|| SystemClock.now_us());
        let (stored, computed) = detached(py, || {
            let stored = self.online.read_columns(&keys, now_us)?;
            let computed = self.compute(&stored, &request, rows)?;
            Ok((stored, computed))
        })?;
        self.answer(py, &stored, &computed)
    }

    fn __repr__(&self) -> String {
        format!("OnlinePlan('{}', {} features)", self.service.name, self.service.features.len())
    }
}

/// What a lookup reads its keys from.
enum KeySource<'a> {
    Single(KeysRef<'a>),
    Columns(&'a Batch),
}

/// Where a lookup writes.
enum Target<'a> {
    Float32(&'a mut [f32]),
    Float64(&'a mut [f64]),
}

struct Lookup<'a> {
    keys: KeySource<'a>,
    now_us: i64,
    target: Target<'a>,
    status: Option<&'a mut [u8]>,
}

impl OnlinePlan {
    fn fill(&self, lookup: Lookup<'_>) -> Result<()> {
        match lookup.keys {
            // A service of one join key that is in every table's key reads a single table.
            KeySource::Single(keys) => self.fill_from(&[keys], lookup),
            KeySource::Columns(batch) => {
                let mut buffers = Vec::new();
                let keys = self.online.encode_keys(batch, &mut buffers)?;
                self.fill_from(&keys, lookup)
            }
        }
    }

    fn fill_from(&self, keys: &[KeysRef<'_>], lookup: Lookup<'_>) -> Result<()> {
        match lookup.target {
            Target::Float32(out) => self.online.read_f32(keys, lookup.now_us, out, lookup.status),
            Target::Float64(out) => self.online.read_f64(keys, lookup.now_us, out, lookup.status),
        }
    }

    fn rows_of(&self, keys: &Batch, request: &Batch) -> Outcome<usize> {
        let rows = if keys.columns.is_empty() { request.rows } else { keys.rows };
        let global_row = keys.columns.is_empty() && request.columns.is_empty();
        if !request.columns.is_empty() && request.rows != rows {
            return Err(Error::new(
                ErrorCode::LengthMismatch,
                format!("'entities' has {rows} rows, 'request' has {}", request.rows),
                "give one request row for each entity row",
            )
            .into());
        }
        Ok(if global_row { 1 } else { rows })
    }

    /// The on-demand features, in the order of the program's outputs.
    fn compute(&self, stored: &StoredColumns, request: &Batch, rows: usize) -> Result<Vec<Column>> {
        let Some(program) = &self.service.program else { return Ok(Vec::new()) };
        let inputs: Vec<ColumnView<'_>> = self
            .service
            .program_inputs
            .iter()
            .map(|from| match *from {
                InputFrom::Stored(index) => Ok(ColumnView::from(&stored.columns[index])),
                InputFrom::Request(index) => {
                    let name = &self.service.request_fields[index].name;
                    let column = request.column(name).ok_or_else(|| Error::internal("a request field went missing"))?;
                    Ok(ColumnView::from(column))
                }
            })
            .collect::<Result<_>>()?;
        let mut scratch = Scratch::new();
        program.run(&inputs, rows, &mut scratch)?;
        Ok(scratch.outputs().iter().map(headrace_expr::Output::to_column).collect())
    }

    fn answer<'py>(&self, py: Python<'py>, stored: &StoredColumns, computed: &[Column]) -> Outcome<Bound<'py, PyDict>> {
        let (features, statuses) = (PyDict::new(py), PyDict::new(py));
        let names: Vec<Bound<'py, PyString>> =
            FeatureStatus::ALL.iter().map(|status| PyString::intern(py, status.name())).collect();
        let width = self.online.width();
        for feature in &self.service.features {
            let column = match feature.from {
                FeatureFrom::Stored(index) => &stored.columns[index],
                FeatureFrom::OnDemand(index) => &computed[index],
            };
            let status_at = |row: usize| match feature.from {
                FeatureFrom::Stored(index) => usize::from(stored.status[row * width + index]),
                FeatureFrom::OnDemand(_) if column.is_null(row) => FeatureStatus::NullValue as usize,
                FeatureFrom::OnDemand(_) => FeatureStatus::Present as usize,
            };
            features.set_item(&feature.name, list_of(py, column)?)?;
            let found = (0..stored.rows).map(|row| &names[status_at(row)]).collect::<Vec<_>>();
            statuses.set_item(&feature.name, PyList::new(py, found)?)?;
        }
        let answer = PyDict::new(py);
        answer.set_item(intern!(py, "features"), features)?;
        answer.set_item(intern!(py, "statuses"), statuses)?;
        Ok(answer)
    }
}

fn status_view(status: &Bound<'_, PyAny>, rows: usize, width: usize) -> Outcome<View> {
    let view = View::of("status", status)?;
    if view.element != Element::UInt8 {
        return Err(type_mismatch("status does not hold uint8", "give a uint8 array of the shape of out"));
    }
    view.check_shape("status", rows, width)?;
    view.check_writable("status")?;
    Ok(view)
}

/// The arrays of one call must not share memory: each is read or written as if it were alone.
fn check_apart(keys: &Keys, out: &View, status: Option<&View>) -> Outcome<()> {
    let keys = if let Keys::Array(view) = keys { Some(view) } else { None };
    let pairs = [(keys, Some(out)), (keys, status), (Some(out), status)];
    if pairs.iter().any(|pair| matches!(pair, (Some(a), Some(b)) if a.overlaps(b))) {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            "two of keys, out and status share memory",
            "give arrays of their own",
        )
        .into());
    }
    Ok(())
}
