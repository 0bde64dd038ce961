//! `Engine`: predictions inside this process, without a network or JSON between.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use headrace_engine::{EngineOptions, Outputs, PredictRequest, RowError, Section};
use headrace_types::{Batch, Clock, Error, ErrorCode, SystemClock, VirtualClock};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::error::{Outcome, detached, guarded, type_mismatch};
use crate::fork::ForkGuard;
use crate::local_store::LocalStore;
use crate::plan::Plan;
use crate::response::response_dict;
use crate::values::{column_of, columns_of};

/// Rows from which on a prediction lets other Python threads run: below, handing the lock over costs more than the work.
const DETACH_ROWS_MIN: usize = 16;

/// Looks features up, computes on-demand features, runs models.
#[pyclass(frozen, module = "headrace._native")]
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) inner: Arc<headrace_engine::Engine>,
    clock: Option<Arc<VirtualClock>>,
    fork: ForkGuard,
}

impl Engine {
    pub(crate) fn checked(&self) -> Outcome<&Arc<headrace_engine::Engine>> {
        self.fork.check("Engine")?;
        Ok(&self.inner)
    }
}

#[pymethods]
impl Engine {
    /// With `clock_us` the engine's clock stands at that time until `set_clock`.
    #[new]
    #[pyo3(signature = (plan=None, store=None, clock_us=None))]
    fn new(py: Python<'_>, plan: Option<&Plan>, store: Option<&LocalStore>, clock_us: Option<i64>) -> Outcome<Self> {
        let virtual_clock = clock_us.map(|now_us| Arc::new(VirtualClock::new(now_us)));
        let clock: Arc<dyn Clock> = match &virtual_clock {
            Some(clock) => Arc::clone(clock) as Arc<dyn Clock>,
            None => Arc::new(SystemClock),
        };
        let inner = Arc::new(headrace_engine::Engine::new(EngineOptions { clock, ..EngineOptions::default() }));
        let engine = Self { inner, clock: virtual_clock, fork: ForkGuard::new() };
        match (plan, store) {
            (Some(plan), Some(store)) => engine.install(py, plan, store)?,
            (None, None) => {}
            _ => {
                return Err(type_mismatch("plan and store belong together", "give both, or neither"));
            }
        }
        Ok(engine)
    }

    /// Puts a plan and its store in force, for all requests from now on.
    fn install(&self, py: Python<'_>, plan: &Plan, store: &LocalStore) -> Outcome<()> {
        let engine = self.checked()?;
        let (plan, store) = (Arc::clone(&plan.inner), Arc::clone(store.checked()?));
        Ok(detached(py, || engine.install(store, plan))?)
    }

    /// Loads a model version's folder `NAME/VERSION`, replays its golden rows, and adds it. Returns its name and version. When it
    /// cannot be loaded it is listed as unavailable, with the reason.
    fn add_model(&self, py: Python<'_>, path: PathBuf) -> Outcome<(String, u32)> {
        let engine = self.checked()?;
        Ok(detached(py, || {
            let added =
                headrace_models::ModelFolder::open_registered(&path).and_then(|loaded| engine.add_model(loaded));
            match added {
                Ok(deployment) => Ok((deployment.name().to_owned(), deployment.version())),
                Err(error) => {
                    if let Some((name, version)) = place_of(&path) {
                        engine.note_unloaded(name, version, error.clone());
                    }
                    Err(error)
                }
            }
        })?)
    }

    /// Takes a model version out, whether it was loaded or not; requests that run on it end normally.
    fn forget_model(&self, name: &str, version: u32) -> Outcome<()> {
        self.checked()?.forget_model(name, version);
        Ok(())
    }

    /// Every model version: name, version, task, service, and why it cannot answer, if it cannot.
    fn models<'py>(&self, py: Python<'py>) -> Outcome<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for deployment in self.checked()?.models() {
            let model = PyDict::new(py);
            model.set_item("name", deployment.name())?;
            model.set_item("version", deployment.version())?;
            model.set_item("platform", deployment.platform())?;
            model.set_item("service", deployment.service())?;
            model.set_item("ready", deployment.fault().is_none())?;
            model.set_item("reason", deployment.fault().map(ToString::to_string))?;
            list.append(model)?;
        }
        Ok(list)
    }

    /// Sets the clock of an engine that was made with `clock_us`.
    fn set_clock(&self, now_us: i64) -> Outcome<()> {
        match &self.clock {
            Some(clock) => {
                clock.set(now_us);
                Ok(())
            }
            None => Err(Error::new(
                ErrorCode::InvalidArgument,
                "this Engine runs on the machine's clock",
                "make it with clock_us to set its clock",
            )
            .into()),
        }
    }

    /// Predicts some rows; the answer has the Common API's shape.
    #[pyo3(signature = (name, entities=None, request=None, features=None, outputs=None, version=None, id=None))]
    #[allow(clippy::too_many_arguments)] // the request's members, all of them optional keywords
    fn predict<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        entities: Option<&Bound<'py, PyAny>>,
        request: Option<&Bound<'py, PyAny>>,
        features: Option<&Bound<'py, PyAny>>,
        outputs: Option<&Bound<'py, PyAny>>,
        version: Option<u32>,
        id: Option<String>,
    ) -> Outcome<Bound<'py, PyDict>> {
        let engine = self.checked()?;
        let deployment = engine.deployment(name, version)?;
        let mut row_errors: Vec<RowError> = Vec::new();
        let mut batch = |section: Section, given: Option<&Bound<'py, PyAny>>| -> Outcome<Batch> {
            let Some(given) = given else { return Ok(Batch::default()) };
            let mut columns = Vec::new();
            for (name, values) in columns_of(section.name(), given)? {
                let field = deployment.field(section, &name)?;
                let column = column_of(&name, field.dtype, &values, &mut row_errors)?;
                columns.push((name, column));
            }
            Ok(Batch { rows: columns.first().map_or(0, |(_, column)| column.len()), columns })
        };
        let entities = batch(Section::Entities, entities)?;
        let fields = batch(Section::Request, request)?;
        let features = batch(Section::Features, features)?;
        let ask = PredictRequest {
            id,
            entities,
            features,
            request: fields,
            row_errors,
            outputs: outputs_of(outputs)?,
            ..PredictRequest::default()
        };
        let run = || engine.predict_on(&deployment, &ask);
        let response = if ask.rows() < DETACH_ROWS_MIN { guarded(run) } else { detached(py, run) }?;
        response_dict(py, &deployment, &response)
    }
}

/// The name and version that a folder `NAME/VERSION` stands for.
fn place_of(folder: &Path) -> Option<(&str, u32)> {
    let version = folder.file_name()?.to_str()?.parse().ok()?;
    Some((folder.parent()?.file_name()?.to_str()?, version))
}

fn outputs_of(names: Option<&Bound<'_, PyAny>>) -> Outcome<Outputs> {
    let Some(names) = names else { return Ok(Outputs::default()) };
    let mut outputs = Outputs::NONE;
    for name in names.try_iter()? {
        let name: String = name?.extract()?;
        outputs = outputs.with(&name).ok_or_else(|| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("there is no output '{name}'"),
                format!("use {}", Outputs::NAMES.join(", ")),
            )
        })?;
    }
    Ok(if outputs == Outputs::NONE { Outputs::default() } else { outputs })
}
