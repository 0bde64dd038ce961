//! The engine: an immutable snapshot of models and features, swapped whole, so a request sees one generation from start to end.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use headrace_expr::did_you_mean;
use headrace_features::{LocalStore, Plan};
use headrace_types::{Clock, Error, ErrorCode, Result, SystemClock};

use crate::batching::{Batching, BatchingOptions};
use crate::consistency::ConsistencyReport;
use crate::deployment::{Core, Deployment, ModelSpec};
use crate::features::FeatureService;
use crate::payload::PayloadLog;
use crate::request::shortened;
use crate::settings::Settings;

/// Rows that one request may ask for, unless the options say otherwise.
pub const REQUEST_ROWS_MAX: usize = 1_000_000;

/// How an engine is set up.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Where "now" comes from; a replay sets its own.
    pub clock: Arc<dyn Clock>,
    /// Rows that one request may ask for.
    pub rows_max: usize,
    /// Where lookups are logged, if they are.
    pub payload: Option<Arc<PayloadLog>>,
    pub batching: BatchingOptions,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            rows_max: REQUEST_ROWS_MAX,
            payload: None,
            batching: BatchingOptions::default(),
        }
    }
}

/// Looks features up, computes on-demand features, runs models. Free to share between threads.
#[derive(Debug)]
pub struct Engine {
    pub(crate) options: EngineOptions,
    batching: Batching,
    snapshot: RwLock<Arc<Snapshot>>,
    /// Held while a new snapshot is made, so that two changes do not lose each other.
    changing: Mutex<()>,
    load_failures: AtomicU64,
    consistency: RwLock<Option<Arc<ConsistencyReport>>>,
    settings: Settings,
}

/// One generation of everything that requests read.
#[derive(Debug, Default, Clone)]
struct Snapshot {
    plan: Option<Arc<Plan>>,
    store: Option<Arc<LocalStore>>,
    services: HashMap<String, Arc<FeatureService>>,
    /// By name, then by version.
    models: BTreeMap<String, BTreeMap<u32, Arc<Deployment>>>,
    /// Versions that could not be loaded, and why. A version may be here and above: what was loaded before goes on answering.
    unloaded: BTreeMap<(String, u32), Error>,
}

impl Engine {
    pub fn new(options: EngineOptions) -> Self {
        Self {
            batching: Batching::new(options.batching.clone()),
            options,
            snapshot: RwLock::default(),
            changing: Mutex::new(()),
            load_failures: AtomicU64::new(0),
            consistency: RwLock::default(),
            settings: Settings::default(),
        }
    }

    /// What operators set of traces and logs while it runs.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.options.clock
    }

    /// Rows that one request may ask for.
    pub fn rows_max(&self) -> usize {
        self.options.rows_max
    }

    /// The payload log, if there is one.
    pub fn payload(&self) -> Option<&PayloadLog> {
        self.options.payload.as_deref()
    }

    /// What the last verification of online against offline found, if there was one.
    pub fn consistency(&self) -> Option<Arc<ConsistencyReport>> {
        self.consistency.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what a verification has found.
    pub fn set_consistency(&self, report: Option<ConsistencyReport>) {
        *self.consistency.write().unwrap_or_else(PoisonError::into_inner) = report.map(Arc::new);
    }

    /// The digest of the installed plan.
    pub fn plan_digest(&self) -> Option<String> {
        self.snapshot().plan.as_ref().map(|plan| plan.digest().to_owned())
    }

    /// The installed plan.
    ///
    /// # Errors
    /// `unavailable`, there is none yet.
    pub fn plan(&self) -> Result<Arc<Plan>> {
        self.snapshot().plan.clone().ok_or_else(|| {
            Error::new(ErrorCode::Unavailable, "no definitions have been applied", "run `headrace apply`")
        })
    }

    /// The installed store.
    pub fn store(&self) -> Option<Arc<LocalStore>> {
        self.snapshot().store.clone()
    }

    /// Serves the features of `plan` from `store` from now on. Models bind to the plan's services anew; a request that already runs
    /// ends on the old ones.
    ///
    /// # Errors
    /// As [`LocalStore::online_plan`], naming the service; nothing has changed then.
    pub fn install(&self, store: Arc<LocalStore>, plan: Arc<Plan>) -> Result<()> {
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut services = HashMap::new();
        for name in plan.services().keys() {
            services.insert(name.clone(), Arc::new(FeatureService::new(&store, &plan, name)?));
        }
        let unloaded = self.snapshot().unloaded.clone();
        let mut models = self.snapshot().models.clone();
        for deployment in models.values_mut().flat_map(BTreeMap::values_mut) {
            *deployment = Arc::new(Deployment::bind(&deployment.core, &services));
        }
        self.swap(Snapshot { plan: Some(plan), store: Some(store), services, models, unloaded });
        Ok(())
    }

    /// A feature service of the installed plan.
    ///
    /// # Errors
    /// `unknown_feature_service`.
    pub fn feature_service(&self, name: &str) -> Result<Arc<FeatureService>> {
        self.snapshot().service(name).cloned()
    }

    /// Adds a model version, or replaces the one of the same name and number. Without a number, requests get the highest one
    /// that is ready.
    ///
    /// A version whose feature service is not in the plan, or differs from the model's signature, is listed as unavailable until a
    /// fitting plan is installed.
    ///
    /// # Errors
    /// `unsupported_model` when task, labels, signature and model do not fit each other; nothing has changed then.
    pub fn add_model(&self, spec: impl Into<ModelSpec>) -> Result<Arc<Deployment>> {
        let core = Arc::new(Core::new(spec.into(), self.options.rows_max, &self.batching)?);
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.snapshot());
        let deployment = Arc::new(Deployment::bind(&core, &next.services));
        let versions = next.models.entry(deployment.name().to_owned()).or_default();
        versions.insert(deployment.version(), Arc::clone(&deployment));
        next.unloaded.remove(&(deployment.name().to_owned(), deployment.version()));
        self.swap(next);
        Ok(deployment)
    }

    /// Notes that a model version could not be loaded; it is listed with the reason until it is added or forgotten.
    pub fn note_unloaded(&self, name: &str, version: u32, error: Error) {
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.snapshot());
        next.unloaded.insert((name.to_owned(), version), error);
        self.load_failures.fetch_add(1, Ordering::Relaxed);
        self.swap(next);
    }

    /// Takes a model version out, whether it was loaded or not, or is not known at all.
    pub fn forget_model(&self, name: &str, version: u32) {
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.snapshot());
        next.unloaded.remove(&(name.to_owned(), version));
        if let Some(versions) = next.models.get_mut(name) {
            versions.remove(&version);
            if versions.is_empty() {
                next.models.remove(name);
            }
        }
        self.swap(next);
    }

    /// Takes every version of a model out and lists them as unavailable for that reason, until they are added or forgotten. Requests that
    /// already run on them end normally.
    ///
    /// # Errors
    /// `unknown_model`.
    pub fn unload_model(&self, name: &str) -> Result<()> {
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.snapshot());
        let is_known = next.models.contains_key(name) || next.unloaded.keys().any(|(known, _)| known == name);
        if !is_known {
            return Err(unknown_model(name, next.models.keys()));
        }
        for version in next.models.remove(name).into_iter().flat_map(BTreeMap::into_keys) {
            let error = Error::new(ErrorCode::Unavailable, "it was unloaded on request", "load it again");
            next.unloaded.insert((name.to_owned(), version), error);
        }
        self.swap(next);
        Ok(())
    }

    /// The versions that could not be loaded and are not served from before, by name and number, with the reason.
    pub fn unloaded_models(&self) -> Vec<(String, u32, Error)> {
        let snapshot = self.snapshot();
        let is_served = |name: &str, version: &u32| {
            snapshot.models.get(name).is_some_and(|versions| versions.contains_key(version))
        };
        let unloaded = snapshot.unloaded.iter().filter(|((name, version), _)| !is_served(name, version));
        unloaded.map(|((name, version), error)| (name.clone(), *version, error.clone())).collect()
    }

    /// How often a model version could not be loaded.
    pub fn load_failures(&self) -> u64 {
        self.load_failures.load(Ordering::Relaxed)
    }

    /// Takes a model version out; requests that already run on it end normally.
    ///
    /// # Errors
    /// `unknown_model` or `unknown_model_version`.
    pub fn remove_model(&self, name: &str, version: u32) -> Result<()> {
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.snapshot());
        let versions = next.models.get_mut(name).ok_or_else(|| unknown_model(name, self.snapshot().models.keys()))?;
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
    pub fn models(&self) -> Vec<Arc<Deployment>> {
        self.snapshot().models.values().flat_map(BTreeMap::values).cloned().collect()
    }

    /// The named model version, or the highest one that is ready to answer.
    ///
    /// # Errors
    /// `unknown_model`, `unknown_model_version`, or `unavailable` with the reason.
    pub fn deployment(&self, name: &str, version: Option<u32>) -> Result<Arc<Deployment>> {
        let found = self.find_model(name, version)?;
        match found.fault() {
            None => Ok(found),
            Some(fault) => Err(fault.clone()),
        }
    }

    /// The named version, whether it is ready or not, or the highest one that is ready, or the highest one if none is.
    ///
    /// # Errors
    /// `unknown_model` or `unknown_model_version`.
    pub fn find_model(&self, name: &str, version: Option<u32>) -> Result<Arc<Deployment>> {
        self.snapshot().find(name, version).cloned()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn swap(&self, next: Snapshot) {
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
    }
}

impl Snapshot {
    fn service(&self, name: &str) -> Result<&Arc<FeatureService>> {
        self.services.get(name).ok_or_else(|| {
            let known = self.services.keys().map(String::as_str);
            Error::new(
                ErrorCode::UnknownFeatureService,
                format!("there is no feature service '{}'", shortened(name)),
                did_you_mean(&shortened(name), "feature services", known),
            )
        })
    }

    /// That a model is not served: it could not be loaded, was unloaded, or is not there at all.
    fn no_model(&self, name: &str) -> Error {
        match self.unloaded.iter().rfind(|((unloaded, _), _)| unloaded == name) {
            None => unknown_model(name, self.models.keys()),
            Some((_, cause)) => Error::new(
                ErrorCode::UnknownModel,
                format!("model '{name}' is not loaded: {}", cause.message),
                cause.hint.clone(),
            ),
        }
    }

    fn find(&self, name: &str, version: Option<u32>) -> Result<&Arc<Deployment>> {
        let versions = self.models.get(name).ok_or_else(|| self.no_model(name))?;
        match version {
            None => {
                let ready = versions.values().rev().find(|deployment| deployment.fault().is_none());
                ready.or_else(|| versions.values().next_back()).ok_or_else(|| unknown_model(name, self.models.keys()))
            }
            Some(number) => versions.get(&number).ok_or_else(|| unknown_version(name, number, versions.keys())),
        }
    }
}

fn unknown_model<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Error {
    Error::new(
        ErrorCode::UnknownModel,
        format!("there is no model '{}'", shortened(name)),
        did_you_mean(&shortened(name), "models", known.map(String::as_str)),
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
