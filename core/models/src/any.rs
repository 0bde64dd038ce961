//! A loaded model of any kind, and what the golden gate asks of each.

use std::path::Path;
use std::sync::Arc;

use headrace_cpu::Features;
use headrace_types::{Error, ErrorCode, Field, Model, Result, Task, TensorModel, TensorSignature, Vocabulary};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::document::{corrupt, unsupported};
use crate::explained::ExplainerFile;
use crate::format::{ModelFormat, load_explained};
use crate::function::FunctionModel;
use crate::manifest::ModelFile;
use crate::native::NativeModel;
use crate::onnx::OnnxModel;
use crate::python::PythonModel;
use crate::runtimes::Runtimes;
use crate::sequences::SequenceLayout;
use crate::tensors::OnnxTensors;

/// By how much an ONNX model's outputs may differ from the golden rows, relative to the largest golden value of the same output: another
/// processor sums float32 in another order.
const ONNX_BOUND: f64 = 1e-5;
/// The same of a compiled function, whose `exp` and `sin` are the platform's.
const FUNCTION_BOUND: f64 = 1e-12;

/// A model that has been loaded.
#[derive(Debug, Clone)]
pub enum AnyModel {
    Native(Arc<NativeModel>),
    Onnx(Arc<OnnxModel>),
    Python(Arc<PythonModel>),
    Function(Arc<FunctionModel>),
    /// It has no rows: its methods for them answer nothing.
    Tensors(Arc<OnnxTensors>),
}

impl AnyModel {
    /// Loads a model of a version's manifest from the bytes of its file.
    ///
    /// # Errors
    /// `corrupt_model`, `unsupported_model`, `newer_format`, or `unavailable` when its runtime is not there.
    pub(crate) fn load(file: &ModelFile, bytes: &[u8], source: &Source<'_>) -> Result<Self> {
        match file.format {
            ModelFormat::Onnx if matches!(source.task, Task::Tensors | Task::Seq2seq) => {
                if !file.settings.is_null() {
                    return Err(unsupported("a model of tensors has no settings", "leave them out"));
                }
                let model = OnnxTensors::load(bytes, source.tensors, &source.runtimes.onnx);
                let model = model.map_err(|error| error.within("onnx model"))?;
                if source.task == Task::Seq2seq {
                    SequenceLayout::of(TensorModel::signature(&model))?;
                }
                Ok(Self::Tensors(Arc::new(model)))
            }
            ModelFormat::Onnx => {
                let settings = settings(&file.settings)?;
                let (task, features) = (source.task, source.features_count);
                let model = OnnxModel::load(bytes, &settings, task, features, &source.runtimes.onnx);
                Ok(Self::Onnx(Arc::new(model.map_err(|error| error.within("onnx model"))?)))
            }
            ModelFormat::PythonClass => {
                let place = source
                    .place
                    .as_ref()
                    .ok_or_else(|| unsupported("a class is no single file", "open its model folder"))?;
                let settings = serde_json::from_value(file.settings.clone())
                    .map_err(|error| corrupt(format!("'settings': {error}")))?;
                let python = &source.runtimes.python;
                let (name, task) = (place.name, source.task);
                PythonModel::start(name, place.folder, file, &settings, task, place.features, python)
                    .map(|model| Self::Python(Arc::new(model)))
            }
            ModelFormat::NumbaFunction => {
                let settings = settings(&file.settings)?;
                let features = source.place.as_ref().map(|place| place.features);
                let compiler = source.runtimes.functions.as_ref();
                FunctionModel::load(bytes, &settings, source.task, features, compiler)
                    .map(|model| Self::Function(Arc::new(model)))
                    .map_err(|error| error.within("numba-function model"))
            }
            format => {
                if !file.settings.is_null() {
                    return Err(unsupported(format!("a {format} model has no settings"), "leave them out"));
                }
                let place = source.place.as_ref();
                let explained = place.map(|place| ExplainerFile {
                    path: place.folder.join(&file.file),
                    format,
                    digest: file.digest.clone(),
                });
                Ok(Self::Native(Arc::new(load_explained(format, bytes, explained)?)))
            }
        }
    }

    /// Loads a model of one file by itself. Task and settings (JSON) are those of a manifest; by default regression and none.
    ///
    /// # Errors
    /// As a model folder's, and `invalid_argument` for a task or settings that are none.
    pub fn from_bytes(
        format: ModelFormat,
        bytes: &[u8],
        task: Option<&str>,
        settings: Option<&str>,
        runtimes: &Runtimes,
    ) -> Result<Self> {
        let invalid = |what: &str, error: serde_json::Error| {
            Error::new(ErrorCode::InvalidArgument, format!("{what}: {error}"), "give it as in a model's manifest")
        };
        let task = task.map_or(Ok(Task::Regression), |name| {
            serde_json::from_value(Value::from(name)).map_err(|error| invalid("the task", error))
        })?;
        let settings =
            settings.map_or(Ok(Value::Null), serde_json::from_str).map_err(|e| invalid("the settings", e))?;
        let file = ModelFile { file: String::new(), format, digest: String::new(), files: Vec::new(), settings };
        Self::load(&file, bytes, &Source { task, features_count: None, tensors: None, place: None, runtimes })
    }

    pub fn as_model(&self) -> Arc<dyn Model> {
        match self {
            AnyModel::Native(model) => Arc::clone(model) as Arc<dyn Model>,
            AnyModel::Onnx(model) => Arc::clone(model) as Arc<dyn Model>,
            AnyModel::Python(model) => Arc::clone(model) as Arc<dyn Model>,
            AnyModel::Function(model) => Arc::clone(model) as Arc<dyn Model>,
            AnyModel::Tensors(model) => Arc::clone(model) as Arc<dyn Model>,
        }
    }

    /// The model that headrace evaluates itself, if it is one.
    pub fn native(&self) -> Option<&Arc<NativeModel>> {
        match self {
            AnyModel::Native(model) => Some(model),
            AnyModel::Onnx(_) | AnyModel::Python(_) | AnyModel::Function(_) | AnyModel::Tensors(_) => None,
        }
    }

    /// Whether a call waits for another process.
    pub fn waits(&self) -> bool {
        self.model().waits()
    }

    /// As [`Model::takes_long`].
    pub fn takes_long(&self) -> bool {
        self.model().takes_long()
    }

    pub fn features_count(&self) -> usize {
        self.model().features_count()
    }

    pub fn outputs_count(&self) -> usize {
        self.model().outputs_count()
    }

    /// As [`Model::vocabulary`].
    pub fn vocabulary(&self, input: usize) -> Option<&Vocabulary> {
        self.model().vocabulary(input)
    }

    /// As [`NativeModel::margins_of`]; the margins of a model that is run by somebody else are its outputs.
    ///
    /// # Errors
    /// `length_mismatch`; `model_failed`.
    pub fn margins_of(&self, features: Features<'_>, rows: usize, margins: &mut [f64], threads: usize) -> Result<()> {
        match self {
            AnyModel::Native(model) => model.margins_of(features, rows, margins, threads),
            AnyModel::Onnx(model) => model.margins_of(features, rows, margins, threads),
            AnyModel::Python(model) => model.margins_of(features, rows, margins),
            AnyModel::Function(model) => model.margins_of(features, rows, margins, threads),
            AnyModel::Tensors(model) => model.margins(&[], rows, margins),
        }
    }

    /// Margins of the golden rows, the first rows that a model sees.
    pub(crate) fn golden_margins(&self, features: &[f64], rows: usize, margins: &mut [f64]) -> Result<()> {
        match self {
            AnyModel::Python(model) => model.first_margins(features, rows, margins),
            other => other.margins_of(Features::Float64(features), rows, margins, 1),
        }
    }

    pub fn scores(&self, margins: &mut [f64]) {
        self.model().scores(margins);
    }

    /// As [`NativeModel::contributions_of`].
    ///
    /// # Errors
    /// `unsupported_model` for a model that is run by somebody else, and as [`Model::contributions`].
    pub fn contributions_of(
        &self,
        features: Features<'_>,
        rows: usize,
        contributions: &mut [f64],
        threads: usize,
    ) -> Result<()> {
        match self.native() {
            Some(model) => model.contributions_of(features, rows, contributions, threads),
            None => self.check_explainable(),
        }
    }

    /// # Errors
    /// As [`Model::check_explainable`].
    pub fn check_explainable(&self) -> Result<()> {
        self.model().check_explainable()
    }

    /// Memory that explanations take now.
    pub fn explainer_bytes(&self) -> usize {
        self.native().map_or(0, |model| model.explainer_bytes())
    }

    /// Memory that the compiled model takes; 0 for a model that is run by somebody else, which does not tell.
    pub fn bytes(&self) -> usize {
        self.native().map_or(0, |model| model.bytes())
    }

    /// By how much each margin of a row may differ from the trainer's.
    pub(crate) fn margin_tolerances(&self, features: &[f64]) -> Result<Vec<f64>> {
        self.native().map_or_else(|| Ok(vec![0.0; self.outputs_count()]), |model| model.margin_tolerances(features))
    }

    /// The unit of the last place of a score, relative to it.
    pub(crate) fn score_epsilon(&self) -> f64 {
        self.native().map_or(0.0, |model| model.score_epsilon())
    }

    /// What a golden value may be off, relative to the largest of its output.
    pub(crate) fn golden_bound(&self) -> f64 {
        match self {
            AnyModel::Native(_) | AnyModel::Tensors(_) => 0.0,
            AnyModel::Onnx(_) => ONNX_BOUND,
            AnyModel::Python(model) => model.tolerance,
            AnyModel::Function(_) => FUNCTION_BOUND,
        }
    }

    fn model(&self) -> &dyn Model {
        match self {
            AnyModel::Native(model) => &**model,
            AnyModel::Onnx(model) => &**model,
            AnyModel::Python(model) => &**model,
            AnyModel::Function(model) => &**model,
            AnyModel::Tensors(model) => &**model,
        }
    }
}

impl From<NativeModel> for AnyModel {
    fn from(model: NativeModel) -> Self {
        Self::Native(Arc::new(model))
    }
}

/// What is known of a model beside its file.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) task: Task,
    pub(crate) features_count: Option<usize>,
    pub(crate) tensors: Option<&'a TensorSignature>,
    pub(crate) place: Option<Place<'a>>,
    pub(crate) runtimes: &'a Runtimes,
}

/// The version folder that a model is in.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// What messages call the model.
    pub(crate) name: &'a str,
    pub(crate) folder: &'a Path,
    pub(crate) features: &'a [Field],
}

fn settings<T: DeserializeOwned + Default>(given: &Value) -> Result<T> {
    if given.is_null() {
        return Ok(T::default());
    }
    serde_json::from_value(given.clone()).map_err(|error| corrupt(format!("'settings': {error}")))
}
