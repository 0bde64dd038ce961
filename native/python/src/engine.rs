//! `Engine`: predictions inside this process, without a network or JSON between.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use headrace_engine::{
    BatchingOptions, Deployment, EngineOptions, Explain, FeatureRequest, Outputs, PayloadLog, PayloadOptions,
    PredictRequest, PredictResponse, RowError, Section,
};
use headrace_types::{Batch, Clock, Error, ErrorCode, SystemClock, VirtualClock};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::error::{Outcome, detached, guarded, type_mismatch};
use crate::fork::ForkGuard;
use crate::local_store::LocalStore;
use crate::plan::Plan;
use crate::response::{response_arrays, response_dict};
use crate::runtimes::runtimes_of;
use crate::sequences::sequences_dict;
use crate::values::{column_of, columns_of, list_of};

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
    /// With `clock_us` the engine's clock stands at that time until `set_clock`. `payload` has the keys folder, sample, salt,
    /// memory_bytes_max and segment_seconds of a payload log; `queue` has objective_seconds, objectives (by model), requests_max and
    /// calls_at_a_time of slow models.
    #[new]
    #[pyo3(signature = (plan=None, store=None, clock_us=None, payload=None, queue=None))]
    fn new(
        py: Python<'_>,
        plan: Option<&Plan>,
        store: Option<&LocalStore>,
        clock_us: Option<i64>,
        payload: Option<&Bound<'_, PyDict>>,
        queue: Option<QueueSettings>,
    ) -> Outcome<Self> {
        let batching = queue.map(QueueSettings::options).transpose()?.unwrap_or_default();
        let payload = payload.map(payload_options).transpose()?.map(PayloadLog::start).transpose()?.map(Arc::new);
        let virtual_clock = clock_us.map(|now_us| Arc::new(VirtualClock::new(now_us)));
        let clock: Arc<dyn Clock> = match &virtual_clock {
            Some(clock) => Arc::clone(clock) as Arc<dyn Clock>,
            None => Arc::new(SystemClock),
        };
        let inner = Arc::new(headrace_engine::Engine::new(EngineOptions {
            clock,
            payload,
            batching,
            ..EngineOptions::default()
        }));
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
    #[pyo3(signature = (path, runtimes=None))]
    fn add_model(&self, py: Python<'_>, path: PathBuf, runtimes: Option<&Bound<'_, PyDict>>) -> Outcome<(String, u32)> {
        let engine = self.checked()?;
        let runtimes = runtimes_of(py, runtimes)?;
        Ok(detached(py, || {
            let opened = headrace_models::ModelFolder::open_registered(&path, &runtimes);
            let added = opened.and_then(|loaded| engine.add_model(loaded));
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

    /// Adds Triton's example models: `simple`, `simple_string` and `simple_identity`.
    fn add_fixtures(&self) -> Outcome<()> {
        Ok(self.checked()?.add_fixtures()?)
    }

    /// Takes a model version out, whether it was loaded or not; requests that run on it end normally.
    fn forget_model(&self, name: &str, version: u32) -> Outcome<()> {
        self.checked()?.forget_model(name, version);
        Ok(())
    }

    /// Takes every version of a model out, which lists them as unavailable; requests that run on them end normally.
    fn unload_model(&self, name: &str) -> Outcome<()> {
        Ok(self.checked()?.unload_model(name)?)
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

    /// `{"features": {name: [values]}, "statuses": {name: [names]}}` of some keys; None where there is no value.
    #[pyo3(signature = (service, entities=None, request=None))]
    fn get_online_features<'py>(
        &self,
        py: Python<'py>,
        service: &str,
        entities: Option<&Bound<'py, PyAny>>,
        request: Option<&Bound<'py, PyAny>>,
    ) -> Outcome<Bound<'py, PyDict>> {
        let engine = self.checked()?;
        let service = engine.feature_service(service)?;
        let mut row_errors: Vec<RowError> = Vec::new();
        let mut batch = |section: Section, given: Option<&Bound<'py, PyAny>>| -> Outcome<Batch> {
            let Some(given) = given else { return Ok(Batch::default()) };
            let mut columns = Vec::new();
            for (name, values) in columns_of(section.name(), given)? {
                let dtype = service.field(&name)?.dtype;
                let column = column_of(&name, dtype, &values, &mut row_errors)?;
                columns.push((name, column));
            }
            Ok(Batch { rows: columns.first().map_or(0, |(_, column)| column.len()), columns })
        };
        let (entities, request) = (batch(Section::Entities, entities)?, batch(Section::Request, request)?);
        let ask = FeatureRequest { entities, request, row_errors };
        let found = detached(py, || engine.look_up(&service, &ask))?;
        let (features, statuses) = (PyDict::new(py), PyDict::new(py));
        for ((field, column), status) in found.features.iter().zip(&found.columns).zip(&found.statuses) {
            features.set_item(&field.name, list_of(py, column)?)?;
            statuses.set_item(&field.name, PyList::new(py, status.iter().map(|status| status.name()))?)?;
        }
        let answer = PyDict::new(py);
        answer.set_item("features", features)?;
        answer.set_item("statuses", statuses)?;
        Ok(answer)
    }

    /// Says how many rows the online store has applied; the payload log keeps it with each lookup.
    fn note_applied(&self, rows: u64) -> Outcome<()> {
        if let Some(payload) = self.checked()?.payload() {
            payload.note_applied(rows);
        }
        Ok(())
    }

    /// Writes the payloads that wait in memory; returns when they are on disk. In a forked process there is nothing to write.
    fn flush_payload(&self, py: Python<'_>) {
        if let Some(payload) = self.inner.payload() {
            py.detach(|| payload.flush());
        }
    }

    /// What has become of the sampled rows; None without a payload log.
    fn payload_stats<'py>(&self, py: Python<'py>) -> Outcome<Option<Bound<'py, PyDict>>> {
        let Some(payload) = self.checked()?.payload() else { return Ok(None) };
        let stats = payload.stats();
        let counts = PyDict::new(py);
        counts.set_item("written_rows", stats.written_rows)?;
        counts.set_item("written_segments", stats.written_segments)?;
        counts.set_item("dropped_memory_rows", stats.dropped_full_rows)?;
        counts.set_item("dropped_io_rows", stats.dropped_io_rows)?;
        counts.set_item("waiting_rows", stats.waiting_rows)?;
        counts.set_item("waiting_bytes", stats.waiting_bytes)?;
        Ok(Some(counts))
    }

    /// Takes the JSON of a verification's report for the metrics; None takes it away.
    fn set_consistency(&self, report: Option<&str>) -> Outcome<()> {
        let report = report.map(serde_json::from_str).transpose().map_err(|error| {
            Error::new(
                ErrorCode::InvalidJson,
                format!("the report of the last verification cannot be read: {error}"),
                "run `headrace verify consistency` again",
            )
        })?;
        self.checked()?.set_consistency(report);
        Ok(())
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
    #[pyo3(signature = (name, entities=None, request=None, features=None, outputs=None, version=None, id=None, explain=None))]
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
        explain: Option<&Bound<'py, PyAny>>,
    ) -> Outcome<Bound<'py, PyDict>> {
        let deployment = self.checked()?.deployment(name, version)?;
        let ask = PredictRequest {
            id,
            outputs: outputs_of(outputs)?,
            explain: explain.map(explain_of).transpose()?.flatten(),
            ..request_of(&deployment, entities, request, features)?
        };
        if deployment.sequences().is_some() {
            let response = detached(py, || self.inner.predict_sequences(&deployment, &ask))?;
            return sequences_dict(py, &deployment, &response);
        }
        let response = self.answered(py, &deployment, &ask)?;
        response_dict(py, &deployment, &response)
    }

    /// As `predict`, answered in arrays.
    #[pyo3(signature = (name, entities=None, request=None, features=None, outputs=None, version=None))]
    #[allow(clippy::too_many_arguments)] // as above
    fn predict_arrays<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        entities: Option<&Bound<'py, PyAny>>,
        request: Option<&Bound<'py, PyAny>>,
        features: Option<&Bound<'py, PyAny>>,
        outputs: Option<&Bound<'py, PyAny>>,
        version: Option<u32>,
    ) -> Outcome<Bound<'py, PyDict>> {
        let deployment = self.checked()?.deployment(name, version)?;
        let ask = PredictRequest {
            id: Some(String::new()),
            outputs: outputs_of(outputs)?,
            ..request_of(&deployment, entities, request, features)?
        };
        response_arrays(py, self.answered(py, &deployment, &ask)?)
    }
}

impl Engine {
    fn answered(&self, py: Python<'_>, deployment: &Deployment, ask: &PredictRequest) -> Outcome<PredictResponse> {
        let run = || self.inner.predict_on(deployment, ask);
        let is_short = ask.rows() < DETACH_ROWS_MIN && !deployment.queues(ask);
        Ok(if is_short { guarded(run) } else { detached(py, run) }?)
    }
}

/// How slow models are asked.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct QueueSettings {
    objective_seconds: f64,
    objectives: HashMap<String, f64>,
    requests_max: usize,
    calls_at_a_time: usize,
}

impl QueueSettings {
    fn options(self) -> Outcome<BatchingOptions> {
        let time = |seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|_| type_mismatch(format!("an objective is {seconds} seconds"), "give a positive number"))
        };
        let objectives = self.objectives.into_iter().map(|(name, seconds)| Ok((name, time(seconds)?)));
        Ok(BatchingOptions {
            objective: time(self.objective_seconds)?,
            objectives: objectives.collect::<Outcome<_>>()?,
            requests_max: self.requests_max,
            calls_at_a_time: self.calls_at_a_time,
        })
    }
}

/// The rows of a request; everything else has its default.
fn request_of(
    deployment: &Deployment,
    entities: Option<&Bound<'_, PyAny>>,
    request: Option<&Bound<'_, PyAny>>,
    features: Option<&Bound<'_, PyAny>>,
) -> Outcome<PredictRequest> {
    let mut row_errors: Vec<RowError> = Vec::new();
    let mut batch = |section: Section, given: Option<&Bound<'_, PyAny>>| -> Outcome<Batch> {
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
    let request = batch(Section::Request, request)?;
    let features = batch(Section::Features, features)?;
    Ok(PredictRequest { entities, request, features, row_errors, ..PredictRequest::default() })
}

fn payload_options<'py>(given: &Bound<'py, PyDict>) -> Outcome<PayloadOptions> {
    let item = |name: &str| -> Outcome<Bound<'py, PyAny>> {
        given.get_item(name)?.ok_or_else(|| type_mismatch(format!("payload lacks '{name}'"), "give it"))
    };
    let seconds: f64 = item("segment_seconds")?.extract()?;
    let segment_age = Duration::try_from_secs_f64(seconds).map_err(|_| {
        Error::new(
            ErrorCode::InvalidArgument,
            format!("payload.segment_seconds is {seconds}"),
            "give a number of seconds that is not negative",
        )
    })?;
    let folder: PathBuf = item("folder")?.extract()?;
    Ok(PayloadOptions {
        sample: item("sample")?.extract()?,
        salt: item("salt")?.extract()?,
        memory_bytes_max: item("memory_bytes_max")?.extract()?,
        segment_age,
        ..PayloadOptions::new(folder)
    })
}

/// The name and version that a folder `NAME/VERSION` stands for; `007` stands for none.
fn place_of(folder: &Path) -> Option<(&str, u32)> {
    let version = headrace_models::version_of(folder.file_name()?.to_str()?)?;
    Some((folder.parent()?.file_name()?.to_str()?, version))
}

/// `True`, or `{"top": n}`; False asks for nothing.
fn explain_of(asked: &Bound<'_, PyAny>) -> Outcome<Option<Explain>> {
    if let Ok(flag) = asked.extract::<bool>() {
        return Ok(flag.then(Explain::default));
    }
    if let Ok(members) = asked.cast::<PyDict>()
        && members.len() == 1
        && let Some(top) = members.get_item("top")?
        && let Ok(top) = top.extract::<NonZeroUsize>()
    {
        return Ok(Some(Explain { top: Some(top) }));
    }
    Err(Error::new(
        ErrorCode::InvalidArgument,
        format!("explain is {}", asked.repr()?),
        "use True, or {'top': 5} for the five features that count most",
    )
    .into())
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
