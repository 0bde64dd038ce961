//! The engine: an immutable snapshot of models and features, swapped whole, so a request sees one generation from start to end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use headrace_types::{Clock, Error, ErrorCode, Result, SystemClock};

use crate::deployment::{Deployment, ModelSpec};

/// Rows that one request may ask for, unless the options say otherwise.
pub const REQUEST_ROWS_MAX: usize = 1_000_000;

/// How an engine is set up.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Where "now" comes from; a replay sets its own.
    pub clock: Arc<dyn Clock>,
    /// Rows that one request may ask for.
    pub rows_max: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), rows_max: REQUEST_ROWS_MAX }
    }
}

/// Looks features up, computes on-demand features, runs models. Free to share between threads.
#[derive(Debug)]
pub struct Engine {
    pub(crate) options: EngineOptions,
    snapshot: RwLock<Arc<Snapshot>>,
    /// Held while a new snapshot is made, so that two changes do not lose each other.
    changing: Mutex<()>,
}

/// One generation of everything that requests read.
#[derive(Debug, Default, Clone)]
pub(crate) struct Snapshot {
    /// By name, then by version.
    models: BTreeMap<String, BTreeMap<u32, Version>>,
}

#[derive(Debug, Clone)]
struct Version {
    deployment: Arc<Deployment>,
    /// Why it cannot answer now, if it cannot.
    fault: Option<Error>,
}

/// A model version as the repository index lists it.
#[derive(Debug, Clone)]
pub struct ModelState {
    pub deployment: Arc<Deployment>,
    /// `None` when the version is ready.
    pub fault: Option<Error>,
}

impl Engine {
    pub fn new(options: EngineOptions) -> Self {
        Self { options, snapshot: RwLock::default(), changing: Mutex::new(()) }
    }

    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.options.clock
    }

    /// Adds a model version, or replaces the one of the same name and number. Without a number, requests get the highest one.
    ///
    /// A version whose feature service is not in the plan, or differs from the model's signature, is listed as unavailable until a
    /// fitting plan is installed.
    ///
    /// # Errors
    /// `unsupported_model` when task, labels, signature and model do not fit each other; nothing has changed then.
    pub fn add_model(&self, spec: impl Into<ModelSpec>) -> Result<Arc<Deployment>> {
        let deployment = Arc::new(Deployment::new(spec.into())?);
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.snapshot());
        let versions = next.models.entry(deployment.name().to_owned()).or_default();
        versions.insert(deployment.version(), Version { deployment: Arc::clone(&deployment), fault: None });
        next.bind();
        self.swap(next);
        Ok(deployment)
    }

    /// Takes a model version out; requests that already run on it end normally.
    ///
    /// # Errors
    /// `unknown_model` or `unknown_model_version`.
    pub fn remove_model(&self, name: &str, version: u32) -> Result<()> {
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.snapshot());
        let versions = next.models.get_mut(name).ok_or_else(|| unknown_model(name))?;
        if versions.remove(&version).is_none() {
            return Err(unknown_version(name, version, versions.keys()));
        }
        if versions.is_empty() {
            next.models.remove(name);
        }
        self.swap(next);
        Ok(())
    }

    /// Every model version, ready or not, by name and number.
    pub fn models(&self) -> Vec<ModelState> {
        let snapshot = self.snapshot();
        let versions = snapshot.models.values().flat_map(BTreeMap::values);
        versions.map(|v| ModelState { deployment: Arc::clone(&v.deployment), fault: v.fault.clone() }).collect()
    }

    /// The named model version, or the highest one, ready to answer.
    ///
    /// # Errors
    /// `unknown_model`, `unknown_model_version`, or `unavailable` with the reason.
    pub fn deployment(&self, name: &str, version: Option<u32>) -> Result<Arc<Deployment>> {
        let snapshot = self.snapshot();
        let found = snapshot.version(name, version)?;
        match &found.fault {
            None => Ok(Arc::clone(&found.deployment)),
            Some(fault) => Err(fault.clone()),
        }
    }

    /// The named version, or the highest one, whether it is ready or not.
    ///
    /// # Errors
    /// `unknown_model` or `unknown_model_version`.
    pub fn model_state(&self, name: &str, version: Option<u32>) -> Result<ModelState> {
        let snapshot = self.snapshot();
        let found = snapshot.version(name, version)?;
        Ok(ModelState { deployment: Arc::clone(&found.deployment), fault: found.fault.clone() })
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn swap(&self, next: Snapshot) {
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
    }
}

impl Snapshot {
    /// Connects each model to the service of its signature, or notes why that cannot be.
    fn bind(&mut self) {
        for version in self.models.values_mut().flat_map(BTreeMap::values_mut) {
            let Some(name) = version.deployment.service() else { continue };
            let _ = name;
        }
    }

    fn version(&self, name: &str, version: Option<u32>) -> Result<&Version> {
        let versions = self.models.get(name).ok_or_else(|| unknown_model(name))?;
        match version {
            None => versions.values().next_back().ok_or_else(|| unknown_model(name)),
            Some(number) => versions.get(&number).ok_or_else(|| unknown_version(name, number, versions.keys())),
        }
    }
}

fn unknown_model(name: &str) -> Error {
    Error::new(
        ErrorCode::UnknownModel,
        format!("there is no model '{name}'"),
        "list the loaded models with POST /v2/repository/index or `headrace status`",
    )
}

fn unknown_version<'a>(name: &str, version: u32, known: impl Iterator<Item = &'a u32>) -> Error {
    let known: Vec<String> = known.map(u32::to_string).collect();
    Error::new(
        ErrorCode::UnknownModelVersion,
        format!("model '{name}' has no version {version}"),
        format!("loaded versions: {}", known.join(", ")),
    )
}
