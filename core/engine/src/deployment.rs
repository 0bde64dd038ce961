//! One model version, ready to be asked: its signature, its labels, and where its features come from.

use std::collections::HashMap;
use std::sync::Arc;

use headrace_models::{AnyModel, LoadedModel, SequenceLayout, check_type};
use headrace_types::{DType, Error, ErrorCode, Field, Model, Result, Task, TensorModel};

use crate::answer::AnswerKind;
use crate::batching::{Batcher, Batching, QueueStats};
use crate::features::FeatureService;
use crate::metrics::ModelMetrics;
use crate::request::PredictRequest;
use crate::scratch::ScratchPool;
use crate::sequences::field_of;
use crate::service::Binding;

/// What the engine needs to know of a model version.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    pub name: String,
    pub version: u32,
    pub task: Task,
    /// Names of the classes; empty for regression and ranking. A binary classifier without names gets `0` and `1`.
    pub labels: Vec<String>,
    /// The feature service that finds the features; `None` for a model that is given all of them.
    pub service: Option<String>,
    /// The features in the order in which the model takes them.
    pub features: Vec<Field>,
    pub join_keys: Vec<Field>,
    pub request_fields: Vec<Field>,
    /// The file format of the model, told in metadata.
    pub platform: String,
    pub model: ServedModel,
}

/// The two kinds of models that the engine serves.
#[derive(Debug, Clone)]
pub enum ServedModel {
    /// Rows of features to margins.
    Rows(Arc<dyn Model>),
    /// Named tensors to named tensors.
    Tensors(Arc<dyn TensorModel>),
}

impl<M: Model + 'static> From<M> for ServedModel {
    fn from(model: M) -> Self {
        Self::Rows(Arc::new(model))
    }
}

impl ModelSpec {
    /// A model of tensors: without features, labels and feature service.
    pub fn of_tensors(name: &str, version: u32, task: Task, platform: &str, model: Arc<dyn TensorModel>) -> Self {
        Self {
            name: name.to_owned(),
            version,
            task,
            labels: Vec::new(),
            service: None,
            features: Vec::new(),
            join_keys: Vec::new(),
            request_fields: Vec::new(),
            platform: platform.to_owned(),
            model: ServedModel::Tensors(model),
        }
    }
}

impl From<LoadedModel> for ModelSpec {
    fn from(loaded: LoadedModel) -> Self {
        let manifest = loaded.manifest;
        Self {
            name: manifest.name,
            version: manifest.version,
            task: manifest.task,
            labels: manifest.labels.unwrap_or_default(),
            service: manifest.signature.service,
            features: manifest.signature.features,
            join_keys: manifest.signature.join_keys,
            request_fields: manifest.signature.request_fields,
            platform: manifest.model.format.name().replace('-', "_"),
            model: match loaded.model {
                AnyModel::Tensors(model) => ServedModel::Tensors(model),
                model => ServedModel::Rows(model.as_model()),
            },
        }
    }
}

/// The part of a model version that stays when plans change.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) spec: ModelSpec,
    pub(crate) name: Arc<str>,
    pub(crate) classes: Arc<[String]>,
    pub(crate) kind: AnswerKind,
    /// Rows that one request may have: the engine's limit, here for decoders.
    pub(crate) rows_max: usize,
    pub(crate) metrics: ModelMetrics,
    /// Of a model of rows.
    pub(crate) batcher: Option<Batcher>,
    /// Whether a feature is given as text.
    takes_text: bool,
    /// Of a model of sequences.
    pub(crate) sequences: Option<SequenceLayout>,
}

impl Core {
    /// # Errors
    /// `unsupported_model` when task, labels, features and model do not fit each other.
    pub(crate) fn new(mut spec: ModelSpec, rows_max: usize, batching: &Batching) -> Result<Self> {
        let place = format!("model '{}' version {}", spec.name, spec.version);
        let mut sequences = None;
        let kind = match &spec.model {
            ServedModel::Rows(model) => {
                if spec.labels.is_empty() && spec.task == Task::Classification {
                    let classes = model.outputs_count().max(2);
                    spec.labels = (0..classes).map(|class| class.to_string()).collect();
                }
                check_features(&spec.features, &**model).map_err(|error| error.within(&place))?;
                AnswerKind::of(spec.task, spec.labels.len(), &**model).map_err(|error| error.within(&place))?
            }
            ServedModel::Tensors(model) => {
                model.signature().check().map_err(|error| error.within(&place))?;
                if spec.task == Task::Seq2seq {
                    let layout = SequenceLayout::of(model.signature()).map_err(|error| error.within(&place))?;
                    spec.features = vec![field_of(&layout)];
                    sequences = Some(layout);
                }
                AnswerKind::Tensors
            }
        };
        let name: Arc<str> = Arc::from(spec.name.as_str());
        let classes = Arc::from(std::mem::take(&mut spec.labels));
        let batcher = match &spec.model {
            ServedModel::Rows(model) => Some(batching.batcher(&name, model)),
            ServedModel::Tensors(_) => None,
        };
        let takes_text = spec.features.iter().any(|field| field.dtype == DType::STRING);
        let metrics = ModelMetrics::default();
        Ok(Self { spec, name, classes, kind, rows_max, metrics, batcher, takes_text, sequences })
    }
}

fn check_features(features: &[Field], model: &dyn Model) -> Result<()> {
    if features.len() != model.features_count() {
        return Err(Error::new(
            ErrorCode::UnsupportedModel,
            format!("the signature lists {} features, the model takes {}", features.len(), model.features_count()),
            "export the model with the features it was trained on",
        ));
    }
    for (input, field) in features.iter().enumerate() {
        check_type(model.vocabulary(input), field)?;
    }
    Ok(())
}

/// A model version inside the engine, tied to one generation of the plan: a request that holds it sees no change.
#[derive(Debug)]
pub struct Deployment {
    pub(crate) core: Arc<Core>,
    pub(crate) features_from: FeaturesFrom,
    pub(crate) scratches: ScratchPool,
}

/// Where the features of a model come from.
#[derive(Debug)]
pub(crate) enum FeaturesFrom {
    /// The request brings all of them.
    Request,
    Service(Box<Binding>),
    /// The model's service is not there, or does not fit.
    Nowhere(Error),
}

impl Deployment {
    /// Ties a model version to the services in force.
    pub(crate) fn bind(core: &Arc<Core>, services: &HashMap<String, Arc<FeatureService>>) -> Self {
        let spec = &core.spec;
        let features_from = match &spec.service {
            None => FeaturesFrom::Request,
            Some(name) => match services.get(name) {
                None => FeaturesFrom::Nowhere(Error::new(
                    ErrorCode::Unavailable,
                    format!("model '{}' needs the feature service '{name}', which is not applied", core.name),
                    "apply the definitions that it was trained with",
                )),
                Some(service) => {
                    let binding = Binding::new(
                        service.compiled(),
                        &core.name,
                        Some(spec.version),
                        &spec.features,
                        &spec.join_keys,
                        &spec.request_fields,
                    );
                    binding.map_or_else(FeaturesFrom::Nowhere, |binding| FeaturesFrom::Service(Box::new(binding)))
                }
            },
        };
        Self { core: Arc::clone(core), features_from, scratches: ScratchPool::default() }
    }

    /// Why this version cannot answer, if it cannot.
    pub fn fault(&self) -> Option<&Error> {
        match &self.features_from {
            FeaturesFrom::Nowhere(fault) => Some(fault),
            FeaturesFrom::Request | FeaturesFrom::Service(_) => None,
        }
    }

    pub fn name(&self) -> &str {
        &self.core.name
    }

    pub fn version(&self) -> u32 {
        self.core.spec.version
    }

    pub fn task(&self) -> Task {
        self.core.spec.task
    }

    /// Names of the classes, in the order of scores; empty for regression and ranking.
    pub fn classes(&self) -> &Arc<[String]> {
        &self.core.classes
    }

    pub fn platform(&self) -> &str {
        &self.core.spec.platform
    }

    pub fn service(&self) -> Option<&str> {
        self.core.spec.service.as_deref()
    }

    /// The columns that `entities` may hold.
    pub fn entity_fields(&self) -> &[Field] {
        &self.core.spec.join_keys
    }

    /// The columns that `request` may hold.
    pub fn request_fields(&self) -> &[Field] {
        &self.core.spec.request_fields
    }

    /// The model's features in its order; all of them are also columns that `features` may hold.
    pub fn features(&self) -> &[Field] {
        &self.core.spec.features
    }

    /// Whether a feature is given as text.
    pub fn takes_text(&self) -> bool {
        self.core.takes_text
    }

    /// Margins a row gets.
    pub fn margins_count(&self) -> usize {
        match &self.core.spec.model {
            ServedModel::Rows(model) => model.outputs_count(),
            ServedModel::Tensors(_) => 0,
        }
    }

    /// Values that the contributions of so many rows have; none where that overflows.
    pub(crate) fn explained_values(&self, rows: usize) -> Option<usize> {
        rows.checked_mul(self.margins_count())?.checked_mul(self.features().len() + 1)
    }

    /// Whether the request will wait in the model's queue: a call of the model waits for another process, or takes long. Explanations are
    /// made outside the queue.
    pub fn queues(&self, request: &PredictRequest) -> bool {
        request.explain.is_none() && self.core.batcher.as_ref().is_some_and(Batcher::is_worth_it)
    }

    /// What the model's queue has counted.
    pub fn queue_stats(&self) -> QueueStats {
        self.core.batcher.as_ref().map(Batcher::stats).unwrap_or_default()
    }

    /// Whether a call of a model of tensors may take so long, or waits so long for others, that the calling thread's other work should not
    /// stand behind it.
    pub fn takes_long(&self) -> bool {
        match &self.core.spec.model {
            ServedModel::Rows(_) => false,
            ServedModel::Tensors(model) => model.waits() || model.takes_long(),
        }
    }

    /// The model of tensors, if it is one.
    pub fn tensor_model(&self) -> Option<&Arc<dyn TensorModel>> {
        match &self.core.spec.model {
            ServedModel::Rows(_) => None,
            ServedModel::Tensors(model) => Some(model),
        }
    }

    /// Where the tensors of a model of sequences stand, if it is one: requests give its `features` as texts or tokens.
    pub fn sequences(&self) -> Option<&SequenceLayout> {
        self.core.sequences.as_ref()
    }

    /// The model of rows.
    ///
    /// # Errors
    /// `invalid_argument` of a model of tensors.
    pub(crate) fn row_model(&self) -> Result<&dyn Model> {
        match &self.core.spec.model {
            ServedModel::Rows(model) => Ok(&**model),
            ServedModel::Tensors(_) => Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("model '{}' takes tensors, not rows of features", self.core.name),
                format!("POST /v2/models/{}/infer", self.core.name),
            )),
        }
    }

    /// Rows that one request may have.
    pub fn rows_max(&self) -> usize {
        self.core.rows_max
    }

    pub fn metrics(&self) -> &ModelMetrics {
        &self.core.metrics
    }

    /// Whether a multi-label score chooses its label.
    pub fn chooses(&self, score: f64) -> bool {
        self.core.kind.chooses(score)
    }

    /// The column of `section` with that name.
    ///
    /// # Errors
    /// `unknown_entity`, `unknown_feature` or `invalid_argument`, naming what the section may hold.
    pub fn field(&self, section: Section, name: &str) -> Result<&Field> {
        let fields = self.fields(section);
        fields.iter().find(|field| field.name == name).ok_or_else(|| {
            let code = match section {
                Section::Entities => ErrorCode::UnknownEntity,
                Section::Features => ErrorCode::UnknownFeature,
                Section::Request => ErrorCode::InvalidArgument,
            };
            let known: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            let hint = match (known.is_empty(), self.section_of(name)) {
                (_, Some(right)) => format!("it belongs into '{}'", right.name()),
                (true, None) => format!("leave '{}' out: this model has none", section.name()),
                (false, None) => format!("use only: {}", known.join(", ")),
            };
            let message = format!("model '{}' has no column '{name}' in '{}'", self.core.name, section.name());
            Error::new(code, message, hint)
        })
    }

    pub fn fields(&self, section: Section) -> &[Field] {
        match section {
            Section::Entities => &self.core.spec.join_keys,
            Section::Features => &self.core.spec.features,
            Section::Request => &self.core.spec.request_fields,
        }
    }

    fn section_of(&self, name: &str) -> Option<Section> {
        Section::ALL.into_iter().find(|section| self.fields(*section).iter().any(|field| field.name == name))
    }
}

/// The three groups of columns in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Entities,
    Request,
    Features,
}

impl Section {
    pub const ALL: [Section; 3] = [Section::Entities, Section::Request, Section::Features];

    pub fn name(self) -> &'static str {
        match self {
            Section::Entities => "entities",
            Section::Request => "request",
            Section::Features => "features",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::batching::BatchingOptions;
    use crate::testing::{SumModel, sum_classifier};
    use headrace_types::Vocabulary;

    fn added(spec: ModelSpec) -> Result<Deployment> {
        let batching = Batching::new(BatchingOptions::default());
        Ok(Deployment::bind(&Arc::new(Core::new(spec, 1_000, &batching)?), &HashMap::new()))
    }

    #[test]
    fn a_column_in_the_wrong_section_is_told_its_right_one() {
        let mut spec = sum_classifier("m", 1, &["a", "b"]);
        spec.join_keys = vec![Field::new("origin", DType::STRING)];
        let deployment = added(spec).unwrap();
        let error = deployment.field(Section::Request, "origin").unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
        assert!(error.hint.contains("'entities'"), "{}", error.hint);
        let error = deployment.field(Section::Features, "c").unwrap_err();
        assert_eq!(error.code, ErrorCode::UnknownFeature);
        assert!(error.message.contains("'c'") && error.hint.contains("a, b"), "{error}");
    }

    #[test]
    fn a_signature_that_does_not_fit_the_model_is_refused() {
        let mut spec = sum_classifier("m", 1, &["a", "b"]);
        spec.model = SumModel::logistic(3).into();
        assert_eq!(added(spec).unwrap_err().code, ErrorCode::UnsupportedModel);
        let mut spec = sum_classifier("m", 1, &["a"]);
        spec.features[0].dtype = DType::STRING;
        assert!(added(spec).unwrap_err().message.contains("'a' is a string, the model takes a number there"));
        let mut vocabulary = Vocabulary::of_words(["x"]).unwrap();
        vocabulary.takes_codes = false;
        let mut spec = sum_classifier("m", 1, &["a"]);
        spec.model = SumModel::logistic(1).of_text(vocabulary).into();
        assert!(added(spec.clone()).unwrap_err().message.contains("'a' is a float64, the model takes text there"));
        spec.features[0].dtype = DType::STRING;
        assert!(added(spec).unwrap().takes_text());
    }

    #[test]
    fn a_binary_classifier_without_names_gets_zero_and_one() {
        let mut spec = sum_classifier("m", 1, &["a"]);
        spec.labels.clear();
        assert_eq!(**added(spec).unwrap().classes(), ["0".to_owned(), "1".to_owned()]);
    }
}
