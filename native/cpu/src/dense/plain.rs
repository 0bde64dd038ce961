//! What a dense network means, and its plain twin: [`evaluate_plain`] is [`Mlp`](super::Mlp), written for reading.

use headrace_types::{Error, ErrorCode, Result};

use crate::trees::{Precision, round_to};

/// Weights that all layers of a network may have together.
const WEIGHTS_MAX: usize = 1 << 28;

/// What is applied to each value of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `1 / (1 + e^-x)`.
    Logistic,
    Tanh,
}

/// One layer: `activation(inputs . weights + bias)`. Public fields: a loader fills it, [`check_layers`] checks it.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseLayer {
    pub inputs_count: usize,
    pub outputs_count: usize,
    /// Row-major `[inputs, outputs]`.
    pub weights: Vec<f64>,
    /// One for each output.
    pub bias: Vec<f64>,
    pub activation: Activation,
}

/// Checks sizes, that weights are finite in the network's precision (a zero feature is then one that adds nothing), and that each layer takes what the one before gives.
///
/// # Errors
/// `corrupt_model` naming the layer.
pub(super) fn check_layers(layers: &[DenseLayer], precision: Precision) -> Result<()> {
    let corrupt =
        |message: String| Error::new(ErrorCode::CorruptModel, message, "export the model again from its library");
    if layers.is_empty() {
        return Err(corrupt("the network has no layers".into()));
    }
    let mut inputs_count = layers[0].inputs_count;
    let mut weights_count = 0usize;
    for (index, layer) in layers.iter().enumerate() {
        let (inputs, outputs) = (layer.inputs_count, layer.outputs_count);
        if inputs == 0 || outputs == 0 || inputs != inputs_count {
            return Err(corrupt(format!(
                "layer {index} takes {inputs} and gives {outputs}; it is given {inputs_count}"
            )));
        }
        if inputs.checked_mul(outputs) != Some(layer.weights.len()) || layer.bias.len() != outputs {
            return Err(corrupt(format!(
                "layer {index} of {inputs} x {outputs} has {} weights and {} biases",
                layer.weights.len(),
                layer.bias.len()
            )));
        }
        if layer.weights.iter().chain(&layer.bias).any(|&value| !round_to(precision, value).is_finite()) {
            return Err(corrupt(format!("layer {index} has a weight that is not finite")));
        }
        weights_count = weights_count.saturating_add(layer.weights.len());
        inputs_count = outputs;
    }
    if weights_count > WEIGHTS_MAX {
        return Err(corrupt(format!("the network has {weights_count} weights, at most {WEIGHTS_MAX} are read")));
    }
    Ok(())
}

/// The last layer's values of one row, in float64.
#[cfg(test)]
pub(super) fn evaluate_plain(layers: &[DenseLayer], row: &[f64]) -> Vec<f64> {
    let mut values = row.to_vec();
    for layer in layers {
        let mut sums = layer.bias.clone();
        for (input, weights) in values.iter().zip(layer.weights.chunks_exact(layer.outputs_count)) {
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
        values = sums;
    }
    values
}
