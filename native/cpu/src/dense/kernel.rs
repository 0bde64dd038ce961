//! One layer over a block of rows: `activation(inputs . weights + bias)`.
//!
//! Outputs are taken 16 at a time (8 of float64), two vector registers: the weights of such a *panel* lie together, one line of
//! them for each input. Six rows times a panel stay in registers while the inputs go by, so that a line of weights is read once
//! for six rows, and twelve sums do not wait for each other. For one row the weights are the work: four panels go on together,
//! and an input that is zero, as half of a ReLU's are, costs nothing.
//!
//! Sums begin with the bias and add the inputs in order, whatever the number of rows, so a row has the same bits alone and in a
//! batch. A layer of few outputs has no panel to fill: each of its outputs is a dot product, in lanes of its own.

use super::activation::Float;
use super::plain::{Activation, DenseLayer};

/// Rows that are taken together.
const ROWS: usize = 6;
/// Bytes of a line of a panel.
const PANEL_BYTES: usize = 64;
/// Panels that go on together for one row.
const PANELS: usize = 4;
/// A layer of at most so many outputs is made of dot products.
const DOT_OUTPUTS_MAX: usize = 3;
/// Sums of a dot product that go on together: so many vectors of so many values.
const DOT_VECTORS: usize = 4;
const DOT_LANES: usize = 8;

/// A layer in the form that runs.
#[derive(Debug)]
pub(super) struct PackedLayer<T> {
    pub(super) inputs_count: usize,
    activation: Activation,
    weights: Weights<T>,
}

#[derive(Debug)]
enum Weights<T> {
    /// `[panels, inputs, WIDTH]`, filled up with zeros, and `[panels, WIDTH]`.
    Panels { weights: Vec<T>, bias: Vec<T> },
    /// `[outputs, inputs]` and `[outputs]`.
    Dots { weights: Vec<T>, bias: Vec<T> },
}

impl<T: Float> PackedLayer<T> {
    /// The layer was checked.
    pub(super) fn new(layer: &DenseLayer) -> Self {
        let (inputs, outputs) = (layer.inputs_count, layer.outputs_count);
        let weight = |input: usize, output: usize| T::from_f64(layer.weights[input * outputs + output]);
        // Zero is positive: a sum that begins with a negative one would depend on whether zeros are added to it.
        let bias = layer.bias.iter().map(|&bias| T::from_f64(bias + 0.0));
        let weights = if outputs <= DOT_OUTPUTS_MAX {
            let weights = (0..outputs).flat_map(|output| (0..inputs).map(move |input| weight(input, output)));
            Weights::Dots { weights: weights.collect(), bias: bias.collect() }
        } else {
            let width = PANEL_BYTES / size_of::<T>();
            let padded = outputs.next_multiple_of(width);
            let mut weights = vec![T::default(); padded * inputs];
            for output in 0..outputs {
                let panel = &mut weights[output / width * width * inputs..];
                for input in 0..inputs {
                    panel[input * width + output % width] = weight(input, output);
                }
            }
            let bias = bias.chain(std::iter::repeat(T::default())).take(padded);
            Weights::Panels { weights, bias: bias.collect() }
        };
        Self { inputs_count: inputs, activation: layer.activation, weights }
    }

    /// Values of a row that the layer gives, filled up to whole panels.
    pub(super) fn stride(&self) -> usize {
        match &self.weights {
            Weights::Panels { bias, .. } | Weights::Dots { bias, .. } => bias.len(),
        }
    }

    /// What each output would be were no weight, bias or input negative and the activation the identity; at least what such an activation
    /// may give whatever its sum.
    pub(super) fn magnitudes(&self, inputs: &[f64]) -> Vec<f64> {
        let (width, weights, bias) = match &self.weights {
            Weights::Panels { weights, bias } => (PANEL_BYTES / size_of::<T>(), weights, bias),
            Weights::Dots { weights, bias } => (1, weights, bias),
        };
        let is_bounded = matches!(self.activation, Activation::Logistic | Activation::Tanh);
        let mut magnitudes: Vec<f64> = bias.iter().map(|bias| bias.to_f64().abs()).collect();
        for (panel, sums) in magnitudes.chunks_exact_mut(width).enumerate() {
            let lines = weights[panel * width * self.inputs_count..].chunks_exact(width);
            for (input, line) in inputs[..self.inputs_count].iter().zip(lines) {
                sums.iter_mut().zip(line).for_each(|(sum, weight)| *sum += input.abs() * weight.to_f64().abs());
            }
            if is_bounded {
                sums.iter_mut().for_each(|sum| *sum = sum.max(1.0));
            }
        }
        magnitudes
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.weights {
            Weights::Panels { weights, bias } | Weights::Dots { weights, bias } => {
                size_of_val(weights.as_slice()) + size_of_val(bias.as_slice())
            }
        }
    }

    /// From rows of `inputs_count` values, `inputs_stride` apart, to rows of `stride()`. `WIDTH` is that of a panel.
    #[inline(always)]
    pub(super) fn run<const WIDTH: usize, const FMA: bool>(
        &self,
        inputs: &[T],
        inputs_stride: usize,
        rows: usize,
        outputs: &mut [T],
        nonzero: &mut Vec<u32>,
    ) {
        let stride = self.stride();
        let is_relu = self.activation == Activation::Relu;
        let outputs = &mut outputs[..rows * stride];
        match &self.weights {
            Weights::Dots { weights, bias } => {
                let rows = inputs.chunks(inputs_stride).zip(outputs.chunks_exact_mut(stride));
                for (inputs, outputs) in rows {
                    let weights = weights.chunks_exact(self.inputs_count);
                    for ((output, weights), bias) in outputs.iter_mut().zip(weights).zip(bias) {
                        *output = dot::<T, FMA>(&inputs[..self.inputs_count], weights).add(*bias);
                    }
                }
            }
            Weights::Panels { weights, bias } if rows == 1 => {
                list_nonzero(&inputs[..self.inputs_count], nonzero);
                let mut done = 0;
                while done + PANELS * WIDTH <= stride {
                    let weights = &weights[done * self.inputs_count..][..PANELS * WIDTH * self.inputs_count];
                    let bias = &bias[done..][..PANELS * WIDTH];
                    one_row::<T, WIDTH, PANELS, FMA>(inputs, nonzero, weights, bias, &mut outputs[done..]);
                    done += PANELS * WIDTH;
                }
                while done < stride {
                    let weights = &weights[done * self.inputs_count..][..WIDTH * self.inputs_count];
                    let bias = &bias[done..][..WIDTH];
                    one_row::<T, WIDTH, 1, FMA>(inputs, nonzero, weights, bias, &mut outputs[done..]);
                    done += WIDTH;
                }
            }
            Weights::Panels { weights, bias } => {
                let panels = weights.chunks_exact(WIDTH * self.inputs_count).zip(bias.as_chunks::<WIDTH>().0);
                for (panel, (weights, bias)) in panels.enumerate() {
                    let weights = weights.as_chunks::<WIDTH>().0;
                    let mut row = 0;
                    while row < rows {
                        let inputs = &inputs[row * inputs_stride..];
                        let outputs = &mut outputs[row * stride..];
                        let block =
                            Block { inputs, inputs_stride, weights, bias, stride, offset: panel * WIDTH, is_relu };
                        row += match rows - row {
                            1 => block.run::<1, FMA>(outputs),
                            2 => block.run::<2, FMA>(outputs),
                            3 => block.run::<3, FMA>(outputs),
                            4 => block.run::<4, FMA>(outputs),
                            5 => block.run::<5, FMA>(outputs),
                            _ => block.run::<ROWS, FMA>(outputs),
                        };
                    }
                }
            }
        }
        // The blocks apply a ReLU while their sums are in registers.
        if !(is_relu && rows > 1 && matches!(self.weights, Weights::Panels { .. })) {
            T::activate(outputs, self.activation);
        }
    }
}

/// Some rows and one panel.
struct Block<'a, T, const WIDTH: usize> {
    inputs: &'a [T],
    inputs_stride: usize,
    weights: &'a [[T; WIDTH]],
    bias: &'a [T; WIDTH],
    /// Of the outputs' rows, and where in them the panel's lie.
    stride: usize,
    offset: usize,
    is_relu: bool,
}

impl<T: Float, const WIDTH: usize> Block<'_, T, WIDTH> {
    /// Returns the number of rows.
    #[inline(always)]
    fn run<const ROWS: usize, const FMA: bool>(&self, outputs: &mut [T]) -> usize {
        let inputs: [&[T]; ROWS] =
            std::array::from_fn(|row| &self.inputs[row * self.inputs_stride..][..self.weights.len()]);
        let mut sums = [*self.bias; ROWS];
        for (input, weights) in self.weights.iter().enumerate() {
            for (sums, inputs) in sums.iter_mut().zip(&inputs) {
                // SAFETY: each row's slice has the length of `weights`.
                let value = unsafe { *inputs.get_unchecked(input) };
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = T::multiply_add::<FMA>(value, *weight, *sum);
                }
            }
        }
        if self.is_relu {
            sums.iter_mut().for_each(|sums| T::activate(sums, Activation::Relu));
        }
        for (row, sums) in sums.iter().enumerate() {
            outputs[row * self.stride + self.offset..][..WIDTH].copy_from_slice(sums);
        }
        ROWS
    }
}

/// One row and some panels; `nonzero` are the inputs that are not zero.
#[inline(always)]
fn one_row<T: Float, const WIDTH: usize, const PANELS: usize, const FMA: bool>(
    inputs: &[T],
    nonzero: &[u32],
    weights: &[T],
    bias: &[T],
    outputs: &mut [T],
) {
    let panel_lines = weights.len() / WIDTH / PANELS;
    let (weights, _) = weights.as_chunks::<WIDTH>();
    let mut sums = [[T::default(); WIDTH]; PANELS];
    for (panel, sums) in sums.iter_mut().enumerate() {
        sums.copy_from_slice(&bias[panel * WIDTH..][..WIDTH]);
    }
    assert!(inputs.len() >= panel_lines && weights.len() >= PANELS * panel_lines);
    for &input in nonzero {
        let input = input as usize;
        assert!(input < panel_lines);
        // SAFETY: asserted above.
        let value = unsafe { *inputs.get_unchecked(input) };
        for (panel, sums) in sums.iter_mut().enumerate() {
            // SAFETY: asserted above.
            let weights = unsafe { weights.get_unchecked(panel * panel_lines + input) };
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = T::multiply_add::<FMA>(value, *weight, *sum);
            }
        }
    }
    // Over a number of panels that is known here: sums that are indexed by an unknown one would lie in memory.
    for (panel, sums) in sums.iter().enumerate() {
        outputs[panel * WIDTH..][..WIDTH].copy_from_slice(sums);
    }
}

/// The places of the values that are not zero. Which those are is as good as random, so nothing branches on it.
#[inline(always)]
fn list_nonzero<T: Float>(values: &[T], nonzero: &mut Vec<u32>) {
    nonzero.resize(values.len(), 0);
    let mut count = 0;
    for (place, value) in (0u32..).zip(values) {
        nonzero[count] = place;
        count += usize::from(!value.is_zero());
    }
    nonzero.truncate(count);
}

/// `a . b`, in lanes that are summed at the end. Every array has a length that is known here, or it would lie in memory.
#[inline(always)]
fn dot<T: Float, const FMA: bool>(a: &[T], b: &[T]) -> T {
    let mut lanes = [[T::default(); DOT_LANES]; DOT_VECTORS];
    let (a_lines, a_rest) = a.as_chunks::<{ DOT_LANES * DOT_VECTORS }>();
    let (b_lines, b_rest) = b.as_chunks::<{ DOT_LANES * DOT_VECTORS }>();
    for (a, b) in a_lines.iter().zip(b_lines) {
        let (a, b) = (a.as_chunks::<DOT_LANES>().0, b.as_chunks::<DOT_LANES>().0);
        for ((lanes, a), b) in lanes.iter_mut().zip(a).zip(b) {
            for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                *lane = T::multiply_add::<FMA>(*a, *b, *lane);
            }
        }
    }
    let eight: [T; 8] = std::array::from_fn(|at| lanes[0][at].add(lanes[2][at]).add(lanes[1][at].add(lanes[3][at])));
    let four: [T; 4] = std::array::from_fn(|at| eight[at].add(eight[at + 4]));
    let mut sum = four[0].add(four[2]).add(four[1].add(four[3]));
    for (a, b) in a_rest.iter().zip(b_rest) {
        sum = T::multiply_add::<FMA>(*a, *b, sum);
    }
    sum
}
