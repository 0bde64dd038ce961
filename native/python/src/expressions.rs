//! `Expressions`: the on-demand features of a service over given columns, without a store.

use headrace_expr::{ColumnView, Program, Scratch};
use headrace_features::{FeatureFrom, InputFrom};
use headrace_types::{Batch, Error, ErrorCode};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{Outcome, detached, guarded};
use crate::keys::named_columns;
use crate::plan::Plan;
use crate::values::list_of;

/// Rows from which on a run lets other Python threads run.
const DETACH_ROWS_MIN: usize = 1_024;

/// A service's on-demand features bound to the columns of a request. One thread at a time may use it.
#[pyclass(module = "headrace._native")]
#[derive(Debug)]
pub(crate) struct Expressions {
    program: Program,
    request: Batch,
    /// For each input of the program, its column of the request.
    places: Vec<usize>,
    /// Names of the features, in the order of the program's outputs.
    names: Vec<String>,
    scratch: Scratch,
}

#[pymethods]
impl Expressions {
    #[new]
    fn new(plan: &Plan, service: &str, request: &Bound<'_, PyAny>) -> Outcome<Self> {
        let service = plan.inner.service(service)?;
        let Some(program) = &service.program else {
            return Err(unfit(&service.name, "has no on-demand feature").into());
        };
        let request = named_columns("request", ErrorCode::InvalidArgument, &service.request_fields, request)?;
        let place = |from: &InputFrom| match from {
            InputFrom::Request(index) => {
                let name = &service.request_fields[*index].name;
                request.columns.iter().position(|(column, _)| column == name)
            }
            InputFrom::Stored(_) => None,
        };
        let places = service.program_inputs.iter().map(place).collect::<Option<Vec<_>>>();
        let Some(places) = places else {
            return Err(unfit(&service.name, "computes from stored features").into());
        };
        let mut names = vec![String::new(); program.outputs().len()];
        for feature in &service.features {
            if let FeatureFrom::OnDemand(index) = feature.from {
                names[index].clone_from(&feature.name);
            }
        }
        Ok(Self { program: program.clone(), request, places, names, scratch: Scratch::new() })
    }

    /// Computes `rows` rows, the first of which is row `first` of the request.
    fn run(&mut self, py: Python<'_>, first: usize, rows: usize) -> Outcome<()> {
        let Self { program, request, places, scratch, .. } = self;
        let work = || {
            let views: Vec<ColumnView<'_>> =
                places.iter().map(|&place| ColumnView::from(&request.columns[place].1)).collect();
            program.run_rows(&views, first..first.saturating_add(rows), scratch)
        };
        if rows < DETACH_ROWS_MIN { Ok(guarded(work)?) } else { Ok(detached(py, work)?) }
    }

    /// The features of the last run as lists, None where there is no value.
    fn values<'py>(&self, py: Python<'py>) -> Outcome<Bound<'py, PyDict>> {
        let values = PyDict::new(py);
        for (name, output) in self.names.iter().zip(self.scratch.outputs()) {
            values.set_item(name, list_of(py, &output.to_column())?)?;
        }
        Ok(values)
    }
}

fn unfit(service: &str, what: &str) -> Error {
    Error::new(
        ErrorCode::InvalidArgument,
        format!("service '{service}' {what}"),
        "give a service whose on-demand features are computed from the request alone",
    )
}
