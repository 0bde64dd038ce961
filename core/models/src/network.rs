use headrace_cpu::{Activation, DenseLayer, Features, Mlp, Precision};
use headrace_types::Result;

/// A multi-layer perceptron, and what its rounding error is in proportion to.
#[derive(Debug)]
pub(crate) struct Network {
    mlp: Mlp,
    layers: Vec<DenseLayer>,
}

impl Network {
    /// # Errors
    /// `corrupt_model` when layers do not fit each other.
    pub(crate) fn new(precision: Precision, layers: Vec<DenseLayer>) -> Result<Self> {
        Ok(Self { mlp: Mlp::new(precision, layers.clone())?, layers })
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
        self.layers.iter().map(|layer| layer.weights.len()).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        let numbers = |layer: &DenseLayer| layer.weights.len() + layer.bias.len();
        let count: usize = self.layers.iter().map(numbers).sum();
        count * size_of::<f64>() + self.mlp.bytes()
    }

    /// By how much a margin may differ from the trainer's, relative to [`magnitudes`](Self::magnitudes).
    pub(crate) fn tolerance(&self) -> f64 {
        match self.mlp.precision() {
            Precision::Float32 => 2e-6,
            Precision::Float64 => 1e-12,
        }
    }

    /// What each margin would be were no weight, bias or feature negative and each activation the identity. No activation
    /// is steeper than that, so rounding errors grow by no more.
    pub(crate) fn magnitudes(&self, features: &[f64]) -> Vec<f64> {
        let mut values: Vec<f64> = features.iter().map(|value| value.abs()).collect();
        for layer in &self.layers {
            let mut sums: Vec<f64> = layer.bias.iter().map(|bias| bias.abs()).collect();
            for (value, weights) in values.iter().zip(layer.weights.chunks_exact(layer.outputs_count)) {
                sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += value * weight.abs());
            }
            if matches!(layer.activation, Activation::Logistic | Activation::Tanh) {
                // Such a unit may give up to 1 for any sum.
                sums.iter_mut().for_each(|sum| *sum = sum.max(1.0));
            }
            values = sums;
        }
        values
    }
}
