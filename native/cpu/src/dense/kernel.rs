//! One layer over a block of rows: `activation(inputs . weights + bias)`.
//!
//! Outputs are taken 16 at a time (8 of float64), two vector registers of AVX2 or one of AVX-512: the weights of such a *panel* lie
//! together, one line of them for each input. Six rows times a panel (AVX-512: times four) stay in registers while the inputs go by,
//! so that a line of weights is read once for six rows, and 12 (24) sums do not wait for each other. For one row the weights are
//! the work: four panels go on together, and an input that is zero, as half of a ReLU's are, costs nothing.
//!
//! Sums begin with the bias and add the inputs in order, whatever the number of rows, so a row has the same bits alone and in a
//! batch. A layer of few outputs has no panel to fill: each of its outputs is a dot product, in lanes of its own.

use std::array;
use std::ops::Range;

use super::activation::Float;
use super::line::{Line, panel_width};
use super::plain::{Activation, DenseLayer};

/// Rows that are taken together.
const ROWS: usize = 6;
/// Panels that go on together for one row.
const ONE_ROW_PANELS: usize = 4;
/// Inputs of which the weights stay in the first-level cache while several rows go by.
const INPUTS_PER_PART: usize = 128;
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
            let width = panel_width::<T>();
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
            Weights::Panels { weights, bias } => (panel_width::<T>(), weights, bias),
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

    /// From rows of `inputs_count` values, `inputs_stride` apart, to rows of `stride()`; several rows take `PANELS` panels together.
    ///
    /// # Safety
    /// The processor has the instructions of `L`.
    #[inline(always)]
    pub(super) unsafe fn run<L: Line<Value = T>, const PANELS: usize>(
        &self,
        inputs: &[T],
        inputs_stride: usize,
        rows: usize,
        outputs: &mut [T],
        nonzero: &mut Vec<u32>,
    ) {
        let outputs = &mut outputs[..rows * self.stride()];
        match &self.weights {
            Weights::Dots { weights, bias } => {
                let rows = inputs.chunks(inputs_stride).zip(outputs.chunks_exact_mut(bias.len()));
                for (inputs, outputs) in rows {
                    let weights = weights.chunks_exact(self.inputs_count);
                    for ((output, weights), bias) in outputs.iter_mut().zip(weights).zip(bias) {
                        *output = dot::<L>(&inputs[..self.inputs_count], weights).add(*bias);
                    }
                }
                activate::<L>(outputs, self.activation);
            }
            Weights::Panels { weights, bias } => {
                let is_relu = self.activation == Activation::Relu;
                let panels_count = bias.len() / L::WIDTH;
                let block =
                    Block { inputs, inputs_stride, rows, weights, bias, inputs_count: self.inputs_count, is_relu };
                if rows == 1 {
                    list_nonzero(&inputs[..self.inputs_count], nonzero);
                }
                let mut panel = 0;
                while panel < panels_count {
                    let left = panels_count - panel;
                    // SAFETY: the caller promises the instructions, and there are as many panels.
                    panel += unsafe {
                        match rows {
                            1 if left >= ONE_ROW_PANELS => block.one_row::<L, ONE_ROW_PANELS>(panel, nonzero, outputs),
                            1 => block.one_row::<L, 1>(panel, nonzero, outputs),
                            _ if left >= PANELS => block.all_rows::<L, PANELS>(panel, outputs),
                            _ if left >= 2 && PANELS > 2 => block.all_rows::<L, 2>(panel, outputs),
                            _ => block.all_rows::<L, 1>(panel, outputs),
                        }
                    };
                }
                // A ReLU is applied while the sums are in registers.
                if !is_relu {
                    activate::<L>(outputs, self.activation);
                }
            }
        }
    }
}

/// Some rows, and a layer whose weights are in panels.
struct Block<'a, T> {
    inputs: &'a [T],
    inputs_stride: usize,
    rows: usize,
    /// `[panels, inputs_count, width]`
    weights: &'a [T],
    /// `[panels, width]`
    bias: &'a [T],
    inputs_count: usize,
    is_relu: bool,
}

impl<T: Float> Block<'_, T> {
    /// All rows and `PANELS` panels. Returns the number of panels.
    ///
    /// The inputs go by in parts, so that the weights of a part stay in the first-level cache while the rows go by.
    ///
    /// # Safety
    /// The processor has the instructions of `L`.
    #[inline(always)]
    unsafe fn all_rows<L: Line<Value = T>, const PANELS: usize>(&self, panel: usize, outputs: &mut [T]) -> usize {
        let mut first = 0;
        while first < self.inputs_count {
            let part = first..self.inputs_count.min(first + INPUTS_PER_PART);
            first = part.end;
            let mut row = 0;
            while row < self.rows {
                // SAFETY: the caller promises the instructions.
                row += unsafe {
                    match self.rows - row {
                        1 => self.add::<L, 1, PANELS>(row, panel, part.clone(), outputs),
                        2 => self.add::<L, 2, PANELS>(row, panel, part.clone(), outputs),
                        3 => self.add::<L, 3, PANELS>(row, panel, part.clone(), outputs),
                        4 => self.add::<L, 4, PANELS>(row, panel, part.clone(), outputs),
                        5 => self.add::<L, 5, PANELS>(row, panel, part.clone(), outputs),
                        _ => self.add::<L, ROWS, PANELS>(row, panel, part.clone(), outputs),
                    }
                };
            }
        }
        PANELS
    }

    /// Adds what a part of the inputs gives to the outputs of `ROWS` rows and `PANELS` panels. Returns the number of rows.
    ///
    /// # Safety
    /// The processor has the instructions of `L`.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // numbers of rows and panels go into several arrays at once
    unsafe fn add<L: Line<Value = T>, const ROWS: usize, const PANELS: usize>(
        &self,
        row: usize,
        panel: usize,
        part: Range<usize>,
        outputs: &mut [T],
    ) -> usize {
        let stride = self.bias.len();
        let inputs: [&[T]; ROWS] = array::from_fn(|at| &self.inputs[(row + at) * self.inputs_stride..][part.clone()]);
        let weights: [&[T]; PANELS] = array::from_fn(|at| {
            let panel = &self.weights[(panel + at) * self.inputs_count * L::WIDTH..];
            &panel[part.start * L::WIDTH..part.end * L::WIDTH]
        });
        let bias = &self.bias[panel * L::WIDTH..][..PANELS * L::WIDTH];
        let outputs: [&mut [T]; ROWS] = {
            let mut rows = outputs[row * stride..].chunks_exact_mut(stride);
            array::from_fn(|_| &mut rows.next().unwrap_or_default()[panel * L::WIDTH..][..PANELS * L::WIDTH])
        };
        // SAFETY: each slice of inputs has the length of the part, each of weights as many lines, `bias` and each slice of outputs has
        // `PANELS` lines. The caller promises the instructions.
        unsafe {
            let mut sums: [[L; PANELS]; ROWS] = array::from_fn(|row| {
                let from = if part.start == 0 { bias.as_ptr() } else { outputs[row].as_ptr() };
                array::from_fn(|at| L::load(from.add(at * L::WIDTH)))
            });
            for input in 0..part.len() {
                let weights: [L; PANELS] = array::from_fn(|at| L::load(weights[at].as_ptr().add(input * L::WIDTH)));
                for row in 0..ROWS {
                    let value = *inputs[row].get_unchecked(input);
                    for at in 0..PANELS {
                        sums[row][at] = sums[row][at].multiply_add(value, weights[at]);
                    }
                }
            }
            let is_relu = self.is_relu && part.end == self.inputs_count;
            for row in 0..ROWS {
                for at in 0..PANELS {
                    let sum = sums[row][at];
                    let sum = if is_relu { sum.relu() } else { sum };
                    sum.store(outputs[row].as_mut_ptr().add(at * L::WIDTH));
                }
            }
        }
        ROWS
    }

    /// The one row and `PANELS` panels; `nonzero` are the inputs that are not zero. Returns the number of panels.
    ///
    /// # Safety
    /// The processor has the instructions of `L`.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // as above
    unsafe fn one_row<L: Line<Value = T>, const PANELS: usize>(
        &self,
        panel: usize,
        nonzero: &[u32],
        outputs: &mut [T],
    ) -> usize {
        let line = self.inputs_count * L::WIDTH;
        let weights = &self.weights[panel * line..][..PANELS * line];
        let bias = &self.bias[panel * L::WIDTH..][..PANELS * L::WIDTH];
        let outputs = &mut outputs[panel * L::WIDTH..][..PANELS * L::WIDTH];
        let inputs = &self.inputs[..self.inputs_count];
        // SAFETY: `bias` and `outputs` have `PANELS` lines, `weights` has as many times a line for each input, and no number of an
        // input is used before it is compared with theirs. The caller promises the instructions.
        unsafe {
            let mut sums: [L; PANELS] = array::from_fn(|at| L::load(bias.as_ptr().add(at * L::WIDTH)));
            for &input in nonzero {
                let input = input as usize;
                assert!(input < inputs.len());
                let value = *inputs.get_unchecked(input);
                for at in 0..PANELS {
                    let weights = L::load(weights.as_ptr().add(at * line + input * L::WIDTH));
                    sums[at] = sums[at].multiply_add(value, weights);
                }
            }
            for at in 0..PANELS {
                let sum = if self.is_relu { sums[at].relu() } else { sums[at] };
                sum.store(outputs.as_mut_ptr().add(at * L::WIDTH));
            }
        }
        PANELS
    }
}

#[inline(always)]
fn activate<L: Line>(values: &mut [L::Value], activation: Activation) {
    if L::FMA {
        L::Value::activate::<true>(values, activation)
    } else {
        L::Value::activate::<false>(values, activation)
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
fn dot<L: Line>(a: &[L::Value], b: &[L::Value]) -> L::Value {
    let multiply_add = |a: L::Value, b, sum| {
        if L::FMA { Float::multiply_add::<true>(a, b, sum) } else { Float::multiply_add::<false>(a, b, sum) }
    };
    let mut lanes = [[L::Value::default(); DOT_LANES]; DOT_VECTORS];
    let (a_lines, a_rest) = a.as_chunks::<{ DOT_LANES * DOT_VECTORS }>();
    let (b_lines, b_rest) = b.as_chunks::<{ DOT_LANES * DOT_VECTORS }>();
    for (a, b) in a_lines.iter().zip(b_lines) {
        let (a, b) = (a.as_chunks::<DOT_LANES>().0, b.as_chunks::<DOT_LANES>().0);
        for ((lanes, a), b) in lanes.iter_mut().zip(a).zip(b) {
            for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                *lane = multiply_add(*a, *b, *lane);
            }
        }
    }
    let eight: [L::Value; 8] = array::from_fn(|at| lanes[0][at].add(lanes[2][at]).add(lanes[1][at].add(lanes[3][at])));
    let four: [L::Value; 4] = array::from_fn(|at| eight[at].add(eight[at + 4]));
    let mut sum = four[0].add(four[2]).add(four[1].add(four[3]));
    for (a, b) in a_rest.iter().zip(b_rest) {
        sum = multiply_add(*a, *b, sum);
    }
    sum
}
