use headrace_types::Result;

use super::plain::{Activation, DenseLayer, check_layers};
use crate::trees::{Features, Precision, check_lengths};

/// A network that evaluates rows in the precision of its trainer.
#[derive(Debug)]
pub struct Mlp {
    precision: Precision,
    layers: Vec<DenseLayer>,
}

impl Mlp {
    /// # Errors
    /// `corrupt_model` when layers do not fit each other.
    pub fn new(precision: Precision, layers: Vec<DenseLayer>) -> Result<Self> {
        check_layers(&layers)?;
        Ok(Self { precision, layers })
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub fn features_count(&self) -> usize {
        self.layers[0].inputs_count
    }

    pub fn outputs_count(&self) -> usize {
        self.layers[self.layers.len() - 1].outputs_count
    }

    /// The last layer's values of `rows` rows, row-major `[rows, outputs_count]`.
    ///
    /// # Errors
    /// `length_mismatch` when a slice does not fit `rows`.
    pub fn margins(&self, features: Features<'_>, rows: usize, margins: &mut [f64]) -> Result<()> {
        let (features_count, outputs_count) = (self.features_count(), self.outputs_count());
        check_lengths(features_count, outputs_count, features.len(), rows, margins.len())?;
        for row in 0..rows {
            let begin = row * features_count;
            let mut values: Vec<f64> = match features {
                Features::Float32(values) => {
                    values[begin..][..features_count].iter().map(|&value| value.into()).collect()
                }
                Features::Float64(values) => values[begin..][..features_count].to_vec(),
            };
            for layer in &self.layers {
                values = evaluate(layer, &values);
            }
            margins[row * outputs_count..][..outputs_count].copy_from_slice(&values);
        }
        Ok(())
    }
}

fn evaluate(layer: &DenseLayer, inputs: &[f64]) -> Vec<f64> {
    let mut sums = layer.bias.clone();
    for (input, weights) in inputs.iter().zip(layer.weights.chunks_exact(layer.outputs_count)) {
        sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += input * weight);
    }
    for sum in &mut sums {
        *sum = match layer.activation {
            Activation::Identity => *sum,
            Activation::Relu => sum.max(0.0),
            Activation::Logistic => 1.0 / (1.0 + (-*sum).exp()),
            Activation::Tanh => sum.tanh(),
        };
    }
    sums
}
