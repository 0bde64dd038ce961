use std::path::PathBuf;

use headrace_cpu::{Features, Forest, Precision, check_contributions_lengths, check_lengths, spread};
use headrace_types::{Error, ErrorCode, Model, Objective, Result, Vocabulary};

use crate::explained::{Explained, ExplainerFile};
use crate::linear::Linear;
use crate::link::Link;
use crate::network::Network;
use crate::parsed::{Body, Parsed};
use crate::pipeline::Preparation;
use crate::vocabularies::Vocabularies;

/// A further thread is started for each so many rows that are prepared, at most.
const ROWS_PER_THREAD_MIN: usize = 256;
/// As [`ROWS_PER_THREAD_MIN`], of rows that are explained.
const EXPLAINED_ROWS_PER_THREAD_MIN: usize = 16;
/// Contributions of prepared columns that are in memory together.
const PREPARED_CONTRIBUTIONS_MAX: usize = 1 << 20;
/// A further thread is started where each has so many products of a network to make, at least: about 0.1 ms.
const WEIGHTS_PER_THREAD_MIN: usize = 1 << 22;

/// A model that headrace evaluates itself.
#[derive(Debug)]
pub struct NativeModel {
    /// What is done to a row before `kind` sees it.
    preparation: Option<Preparation>,
    kind: Kind,
    link: Link,
    explained: Explained,
    vocabularies: Vocabularies,
}

#[derive(Debug)]
enum Kind {
    Trees(Forest),
    Linear(Linear),
    Network(Network),
}

impl NativeModel {
    /// Compiles what a loader gave. With the `file` that it came from, the explainer of trees is left to the first explanation.
    ///
    /// # Errors
    /// `corrupt_model` when the trees are none, layers do not fit each other, or an input that is not there is told to be text.
    pub(crate) fn compile(parsed: Parsed, file: Option<ExplainerFile>) -> Result<Self> {
        let Parsed { preparation, body, link, vocabularies } = parsed;
        let (kind, mut explained) = match body {
            Body::Trees(ensemble) => (Kind::Trees(Forest::new(&ensemble)?), Explained::trees(&ensemble, file)),
            Body::Linear(linear) => (Kind::Linear(linear), Explained::Linear),
            Body::Network { precision, layers } => {
                let explained = Explained::Not(Error::new(
                    ErrorCode::UnsupportedModel,
                    "a network cannot be explained exactly",
                    "explain a model of trees, or a linear one",
                ));
                (Kind::Network(Network::new(precision, layers)?), explained)
            }
        };
        if explained.check().is_ok()
            && let Some(Err(error)) = preparation.as_ref().map(Preparation::sources)
        {
            explained = Explained::Not(error);
        }
        let model = Self { preparation, kind, link, explained, vocabularies };
        model.vocabularies.check(model.features_count())?;
        Ok(model)
    }

    /// The inputs that may be given as text.
    pub fn text_inputs(&self) -> impl Iterator<Item = usize> {
        self.vocabularies.inputs()
    }

    /// Raw margins of `rows` rows of float32 or float64 features, spread over at most `threads` threads.
    ///
    /// # Errors
    /// `length_mismatch` when a slice does not fit `rows`.
    pub fn margins_of(&self, features: Features<'_>, rows: usize, margins: &mut [f64], threads: usize) -> Result<()> {
        check_lengths(self.features_count(), self.outputs_count(), features.len(), rows, margins.len())?;
        let Some(preparation) = &self.preparation else { return self.kind.margins(features, rows, margins, threads) };
        self.prepared_margins(preparation, features, margins, threads)
    }

    /// As [`Model::contributions`], of float32 or float64 features and spread over at most `threads` threads.
    ///
    /// # Errors
    /// As [`Model::contributions`].
    pub fn contributions_of(
        &self,
        features: Features<'_>,
        rows: usize,
        contributions: &mut [f64],
        threads: usize,
    ) -> Result<()> {
        self.check_explainable()?;
        let (features_count, outputs_count) = (self.features_count(), self.outputs_count());
        check_contributions_lengths(features_count, outputs_count, features.len(), rows, contributions.len())?;
        let Some(preparation) = &self.preparation else {
            return self.contributions_of_kind(features, rows, contributions, threads);
        };
        let sources = preparation.sources()?;
        if let Kind::Trees(_) = self.kind {
            // Made here, so that no thread makes its own.
            self.explained.explainer()?;
        }
        let width = outputs_count * (features_count + 1);
        let threads = threads.min(rows / EXPLAINED_ROWS_PER_THREAD_MIN);
        spread(features, features_count, contributions, width, threads, 1, |features, contributions| {
            self.prepared_contributions(preparation, &sources, features, contributions)
        })
    }

    fn contributions_of_kind(
        &self,
        features: Features<'_>,
        rows: usize,
        contributions: &mut [f64],
        threads: usize,
    ) -> Result<()> {
        match &self.kind {
            Kind::Linear(linear) => {
                linear.contributions(features, contributions);
                Ok(())
            }
            _ => self.explained.explainer()?.contributions(features, rows, contributions, threads),
        }
    }

    /// A feature adds what all columns that are made of it add; `sources` has the feature of each. Lengths were checked by the caller.
    fn prepared_contributions(
        &self,
        preparation: &Preparation,
        sources: &[usize],
        features: Features<'_>,
        contributions: &mut [f64],
    ) -> Result<()> {
        let (width, columns, outputs_count) = (self.features_count() + 1, sources.len(), self.outputs_count());
        // Columns may be many where features are few.
        let rows_max = (PREPARED_CONTRIBUTIONS_MAX / (outputs_count * (columns + 1))).max(1);
        let mut of_columns = Vec::new();
        let mut rest = contributions;
        preparation.prepare(features, |prepared, _| {
            for prepared in prepared.chunks(rows_max * columns) {
                let rows = prepared.len() / columns;
                of_columns.resize(rows * outputs_count * (columns + 1), 0.0);
                self.contributions_of_kind(Features::Float64(prepared), rows, &mut of_columns, 1)?;
                let (block, after) = std::mem::take(&mut rest).split_at_mut(rows * outputs_count * width);
                rest = after;
                block.fill(0.0);
                let outputs = block.chunks_exact_mut(width).zip(of_columns.chunks_exact(columns + 1));
                for (of_features, of_columns) in outputs {
                    sources.iter().zip(of_columns).for_each(|(&source, value)| of_features[source] += value);
                    of_features[width - 1] = of_columns[columns];
                }
            }
            Ok(())
        })
    }

    /// Memory that explanations take now: none before the first one where the model's file can be read again.
    pub fn explainer_bytes(&self) -> usize {
        self.explained.bytes()
    }

    /// Memory that the compiled model takes, without that of explanations.
    pub fn bytes(&self) -> usize {
        let kind = match &self.kind {
            Kind::Trees(forest) => forest.bytes(),
            Kind::Linear(linear) => linear.bytes(),
            Kind::Network(network) => network.bytes(),
        };
        kind + self.vocabularies.bytes()
    }

    /// Tells where the file is now that explanations are made of.
    pub(crate) fn explain_from(&mut self, path: PathBuf) {
        self.explained.moved_to(path);
    }

    /// Lengths were checked by the caller.
    fn prepared_margins(
        &self,
        preparation: &Preparation,
        features: Features<'_>,
        margins: &mut [f64],
        threads: usize,
    ) -> Result<()> {
        let (features_count, outputs_count) = (self.features_count(), self.outputs_count());
        let threads = threads.min(margins.len() / outputs_count / ROWS_PER_THREAD_MIN);
        spread(features, features_count, margins, outputs_count, threads, 1, |features, margins| {
            let mut rest = margins;
            preparation.prepare(features, |prepared, rows| {
                let (block, after) = std::mem::take(&mut rest).split_at_mut(rows * outputs_count);
                rest = after;
                self.kind.margins(Features::Float64(prepared), rows, block, 1)
            })
        })
    }

    /// By how much each margin of a row may differ from the trainer's: nothing for trees and XGBoost's linear models,
    /// 1e-12 of the summands for others (2e-6 for networks of float32).
    pub(crate) fn margin_tolerances(&self, features: &[f64]) -> Result<Vec<f64>> {
        let mut tolerances = vec![0.0; self.outputs_count()];
        match &self.preparation {
            _ if self.kind.is_exact() => {}
            None => self.kind.margin_tolerances(features, &mut tolerances)?,
            Some(preparation) => preparation.prepare(Features::Float64(features), |prepared, _| {
                self.kind.margin_tolerances(prepared, &mut tolerances)
            })?,
        }
        Ok(tolerances)
    }

    /// The trainer's precision: the unit of the last place of its scores, relative to a score.
    pub(crate) fn score_epsilon(&self) -> f64 {
        let (precision, float64_epsilon) = match &self.kind {
            Kind::Trees(forest) => (forest.precision(), f64::EPSILON),
            Kind::Linear(linear) => (linear.precision(), 1e-12),
            Kind::Network(network) => return network.tolerance(),
        };
        match precision {
            Precision::Float32 => f32::EPSILON.into(),
            Precision::Float64 => float64_epsilon,
        }
    }
}

impl Kind {
    /// Lengths were checked by the caller.
    fn margins(&self, features: Features<'_>, rows: usize, margins: &mut [f64], threads: usize) -> Result<()> {
        match self {
            Kind::Trees(forest) => forest.margins_threads(features, rows, margins, threads),
            Kind::Linear(linear) => linear.margins(features, rows, margins),
            Kind::Network(network) => {
                let threads = threads.min(rows.saturating_mul(network.weights_count()) / WEIGHTS_PER_THREAD_MIN);
                let (features_count, outputs_count) = (network.features_count(), network.outputs_count());
                spread(features, features_count, margins, outputs_count, threads, 1, |features, margins| {
                    network.margins(features, margins.len() / outputs_count, margins)
                })
            }
        }
    }

    /// Whether margins have the trainer's bits.
    fn is_exact(&self) -> bool {
        match self {
            Kind::Trees(_) => true,
            Kind::Linear(linear) => linear.precision() == Precision::Float32,
            Kind::Network(_) => false,
        }
    }

    fn margin_tolerances(&self, features: &[f64], tolerances: &mut [f64]) -> Result<()> {
        match self {
            Kind::Trees(_) => {}
            Kind::Linear(linear) => {
                for (output, tolerance) in tolerances.iter_mut().enumerate() {
                    *tolerance = 1e-12 * linear.magnitude(features, output);
                }
            }
            Kind::Network(network) => tolerances.copy_from_slice(&network.tolerances(features)?),
        }
        Ok(())
    }
}

impl Model for NativeModel {
    fn features_count(&self) -> usize {
        if let Some(preparation) = &self.preparation {
            return preparation.inputs_count();
        }
        match &self.kind {
            Kind::Trees(forest) => forest.features_count(),
            Kind::Linear(linear) => linear.features_count(),
            Kind::Network(network) => network.features_count(),
        }
    }

    fn outputs_count(&self) -> usize {
        match &self.kind {
            Kind::Trees(forest) => forest.outputs_count(),
            Kind::Linear(linear) => linear.outputs_count(),
            Kind::Network(network) => network.outputs_count(),
        }
    }

    fn objective(&self) -> Objective {
        self.link.objective()
    }

    fn vocabulary(&self, input: usize) -> Option<&Vocabulary> {
        self.vocabularies.of(input)
    }

    fn margins(&self, features: &[f64], rows: usize, margins: &mut [f64]) -> Result<()> {
        self.margins_of(Features::Float64(features), rows, margins, 1)
    }

    fn margins_of_float32(&self, features: &[f32], rows: usize, margins: &mut [f64]) -> Result<()> {
        self.margins_of(Features::Float32(features), rows, margins, 1)
    }

    fn scores(&self, margins: &mut [f64]) {
        self.link.apply(margins, self.outputs_count());
    }

    fn check_explainable(&self) -> Result<()> {
        self.explained.check()
    }

    fn contributions(&self, features: &[f64], rows: usize, contributions: &mut [f64]) -> Result<()> {
        self.contributions_of(Features::Float64(features), rows, contributions, 1)
    }
}
