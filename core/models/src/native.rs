use headrace_cpu::{Ensemble, Features, Forest};
use headrace_types::{Model, Objective, Result};

use crate::explained::{Explained, ExplainerFile};
use crate::linear::Linear;
use crate::link::Link;

/// A model that headrace evaluates itself.
#[derive(Debug)]
pub struct NativeModel {
    kind: Kind,
    link: Link,
    explained: Explained,
}

#[derive(Debug)]
enum Kind {
    Trees(Forest),
    Linear(Linear),
}

impl NativeModel {
    pub(crate) fn trees(ensemble: &Ensemble, link: Link) -> Result<Self> {
        let kind = Kind::Trees(Forest::new(ensemble)?);
        Ok(Self { kind, link, explained: Explained::trees(ensemble) })
    }

    pub(crate) fn linear(linear: Linear, link: Link) -> Self {
        Self { kind: Kind::Linear(linear), link, explained: Explained::Linear }
    }

    /// Raw margins of `rows` rows of float32 or float64 features, spread over at most `threads` threads.
    ///
    /// # Errors
    /// `length_mismatch` when a slice does not fit `rows`.
    pub fn margins_of(&self, features: Features<'_>, rows: usize, margins: &mut [f64], threads: usize) -> Result<()> {
        match &self.kind {
            Kind::Trees(forest) => forest.margins_threads(features, rows, margins, threads),
            Kind::Linear(linear) => linear.margins(features, rows, margins),
        }
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
        match (&self.kind, &self.explained) {
            (Kind::Linear(linear), _) => linear.contributions(features, rows, contributions),
            (_, explained) => explained.explainer()?.contributions(features, rows, contributions, threads),
        }
    }

    /// Memory that explanations take now: none before the first one where the model's file can be read again.
    pub fn explainer_bytes(&self) -> usize {
        self.explained.bytes()
    }

    /// Memory that the compiled model takes, without that of explanations.
    pub fn bytes(&self) -> usize {
        match &self.kind {
            Kind::Trees(forest) => forest.bytes(),
            Kind::Linear(linear) => linear.bytes(),
        }
    }

    /// Keeps no explainer in memory: at the first explanation it is made of the model's file.
    pub(crate) fn explain_from(&mut self, file: ExplainerFile) {
        self.explained.keep_in(file);
    }

    /// The explainer of a model that was just read.
    pub(crate) fn into_explained(self) -> Explained {
        self.explained
    }

    /// By how much a margin of this row may differ from the trainer's: nothing for trees, 1e-12 of the summands for
    /// linear models.
    pub(crate) fn margin_tolerance(&self, features: &[f64], output: usize) -> f64 {
        match &self.kind {
            Kind::Trees(_) => 0.0,
            Kind::Linear(linear) => 1e-12 * linear.magnitude(features, output),
        }
    }

    /// The trainer's precision: the unit of the last place of its scores, relative to a score.
    pub(crate) fn score_epsilon(&self) -> f64 {
        match &self.kind {
            Kind::Trees(forest) => match forest.precision() {
                headrace_cpu::Precision::Float32 => f32::EPSILON.into(),
                headrace_cpu::Precision::Float64 => f64::EPSILON,
            },
            Kind::Linear(_) => 1e-12,
        }
    }
}

impl Model for NativeModel {
    fn features_count(&self) -> usize {
        match &self.kind {
            Kind::Trees(forest) => forest.features_count(),
            Kind::Linear(linear) => linear.features_count(),
        }
    }

    fn outputs_count(&self) -> usize {
        match &self.kind {
            Kind::Trees(forest) => forest.outputs_count(),
            Kind::Linear(linear) => linear.outputs_count(),
        }
    }

    fn objective(&self) -> Objective {
        self.link.objective()
    }

    fn margins(&self, features: &[f64], rows: usize, margins: &mut [f64]) -> Result<()> {
        self.margins_of(Features::Float64(features), rows, margins, 1)
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
