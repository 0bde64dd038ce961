use headrace_cpu::{DenseLayer, Features, Mlp, Precision};
use headrace_types::Result;

/// A multi-layer perceptron, and what its rounding error is in proportion to.
#[derive(Debug)]
pub(crate) struct Network {
    mlp: Mlp,
    weights_count: usize,
}

impl Network {
    /// # Errors
    /// `corrupt_model` when layers do not fit each other.
    pub(crate) fn new(precision: Precision, layers: Vec<DenseLayer>) -> Result<Self> {
        let weights_count = layers.iter().map(|layer| layer.weights.len()).sum();
        Ok(Self { mlp: Mlp::new(precision, layers)?, weights_count })
    }

    pub(crate) fn features_count(&self) -> usize {
        self.mlp.features_count()
    }

    pub(crate) fn outputs_count(&self) -> usize {
        self.mlp.outputs_count()
    }

    pub(crate) fn margins(&self, features: Features<'_>, rows: usize, margins: &mut [f64]) -> Result<()> {
        self.mlp.margins(features, rows, margins)
    }

    pub(crate) fn weights_count(&self) -> usize {
        self.weights_count
    }

    pub(crate) fn bytes(&self) -> usize {
        self.mlp.bytes()
    }

    /// By how much a margin may differ from the trainer's, relative to its [magnitude](Mlp::magnitudes).
    pub(crate) fn tolerance(&self) -> f64 {
        match self.mlp.precision() {
            Precision::Float32 => 2e-6,
            Precision::Float64 => 1e-12,
        }
    }

    /// By how much each margin of a row may differ from the trainer's.
    ///
    /// # Errors
    /// `length_mismatch` when `features` is no row.
    pub(crate) fn tolerances(&self, features: &[f64]) -> Result<Vec<f64>> {
        let mut tolerances = self.mlp.magnitudes(features)?;
        tolerances.iter_mut().for_each(|magnitude| *magnitude *= self.tolerance());
        Ok(tolerances)
    }
}
