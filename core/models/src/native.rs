use headrace_cpu::{Ensemble, Features, Forest};
use headrace_types::{Model, Objective, Result};

use crate::linear::Linear;
use crate::link::Link;

/// A model that headrace evaluates itself.
#[derive(Debug)]
pub struct NativeModel {
    kind: Kind,
    link: Link,
}

#[derive(Debug)]
enum Kind {
    Trees(Forest),
    Linear(Linear),
}

impl NativeModel {
    pub(crate) fn trees(ensemble: &Ensemble, link: Link) -> Result<Self> {
        Ok(Self { kind: Kind::Trees(Forest::new(ensemble)?), link })
    }

    pub(crate) fn linear(linear: Linear, link: Link) -> Self {
        Self { kind: Kind::Linear(linear), link }
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
}
