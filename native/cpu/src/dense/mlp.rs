use std::fmt;

use headrace_types::Result;

use super::kernel::PackedLayer;
use super::line::{Line, Lines};
use super::plain::{DenseLayer, check_layers};
use crate::rows::{Features, check_lengths};
use crate::trees::Precision;
use crate::vectorized::{has_avx2, has_avx512};

/// Rows that go through all layers together: their values stay in the second-level cache. A multiple of the kernel's rows.
const ROWS_PER_BLOCK: usize = 48;
/// Fewer of them where a layer is so wide that they would take more.
const BLOCK_BYTES_MAX: usize = 4 << 20;

/// A network that evaluates rows in the precision of its trainer.
///
/// Margins agree with the plain twin to rounding: sums of a layer are in the order of its inputs, with one rounding for each
/// product and sum where the processor multiplies and adds in one step. A row's margins do not depend on the rows beside it.
#[derive(Debug)]
pub struct Mlp {
    precision: Precision,
    features_count: usize,
    outputs_count: usize,
    network: Box<dyn Network>,
}

impl Mlp {
    /// # Errors
    /// `corrupt_model` when layers do not fit each other, or a weight is not finite.
    pub fn new(precision: Precision, layers: Vec<DenseLayer>) -> Result<Self> {
        check_layers(&layers, precision)?;
        let network: Box<dyn Network> = match precision {
            Precision::Float32 => Box::new(Packed::<f32>::new(&layers)),
            Precision::Float64 => Box::new(Packed::<f64>::new(&layers)),
        };
        let (first, last) = (&layers[0], &layers[layers.len() - 1]);
        Ok(Self { precision, features_count: first.inputs_count, outputs_count: last.outputs_count, network })
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub fn features_count(&self) -> usize {
        self.features_count
    }

    pub fn outputs_count(&self) -> usize {
        self.outputs_count
    }

    /// The memory that weights take.
    pub fn bytes(&self) -> usize {
        self.network.bytes()
    }

    /// What each margin of a row would be were no weight, bias or feature negative and each activation the identity, which none is steeper
    /// than: rounding errors are in proportion to it. A logistic or tanh unit counts as 1 at least.
    ///
    /// # Errors
    /// `length_mismatch` when `features` is no row.
    pub fn magnitudes(&self, features: &[f64]) -> Result<Vec<f64>> {
        check_lengths(self.features_count, self.outputs_count, features.len(), 1, self.outputs_count)?;
        let mut magnitudes = self.network.magnitudes(features);
        magnitudes.truncate(self.outputs_count);
        Ok(magnitudes)
    }

    /// The last layer's values of `rows` rows, row-major `[rows, outputs_count]`.
    ///
    /// # Errors
    /// `length_mismatch` when a slice does not fit `rows`.
    pub fn margins(&self, features: Features<'_>, rows: usize, margins: &mut [f64]) -> Result<()> {
        check_lengths(self.features_count, self.outputs_count, features.len(), rows, margins.len())?;
        self.network.margins(features, rows, margins);
        Ok(())
    }
}

/// A network without its precision.
trait Network: fmt::Debug + Send + Sync {
    /// Lengths were checked by the caller.
    fn margins(&self, features: Features<'_>, rows: usize, margins: &mut [f64]);
    /// Of one row; filled up as the last layer is.
    fn magnitudes(&self, features: &[f64]) -> Vec<f64>;
    fn bytes(&self) -> usize;
}

#[derive(Debug)]
struct Packed<T> {
    layers: Vec<PackedLayer<T>>,
    /// Values of a row in the widest place between two layers.
    stride_max: usize,
}

/// What one call needs beside its rows.
struct Scratch<T> {
    inputs: Vec<T>,
    outputs: Vec<T>,
    nonzero: Vec<u32>,
}

impl<T: Lines> Packed<T> {
    fn new(layers: &[DenseLayer]) -> Self {
        let layers: Vec<_> = layers.iter().map(PackedLayer::new).collect();
        let widths = layers.iter().map(|layer| layer.stride().max(layer.inputs_count));
        let stride_max = widths.max().unwrap_or(1);
        Self { layers, stride_max }
    }

    /// `convert` takes a feature to the precision of the network.
    fn run<I: Copy>(&self, features: &[I], convert: impl Fn(I) -> T, rows: usize, margins: &mut [f64]) {
        let (features_count, outputs_count) = (self.layers[0].inputs_count, margins.len() / rows);
        let rows_per_block = (BLOCK_BYTES_MAX / (self.stride_max * size_of::<T>())).clamp(1, ROWS_PER_BLOCK);
        let rows_max = rows.min(rows_per_block) * self.stride_max;
        let mut scratch = Scratch {
            inputs: vec![T::default(); rows_max],
            outputs: vec![T::default(); rows_max],
            nonzero: Vec::with_capacity(self.stride_max),
        };
        let blocks = features.chunks(rows_per_block * features_count);
        for (features, margins) in blocks.zip(margins.chunks_mut(rows_per_block * outputs_count)) {
            for (input, &feature) in scratch.inputs.iter_mut().zip(features) {
                *input = convert(feature);
            }
            self.run_block(margins.len() / outputs_count, &mut scratch);
            let stride = self.layers[self.layers.len() - 1].stride();
            for (margins, values) in margins.chunks_exact_mut(outputs_count).zip(scratch.inputs.chunks_exact(stride)) {
                margins.iter_mut().zip(values).for_each(|(margin, value)| *margin = value.to_f64());
            }
        }
    }

    /// From `scratch.inputs` to `scratch.inputs`.
    fn run_block(&self, rows: usize, scratch: &mut Scratch<T>) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if has_avx512() {
            // SAFETY: the processor has it.
            unsafe { self.run_block_avx512(rows, scratch) };
            return;
        } else if has_avx2() {
            // SAFETY: the processor has it.
            unsafe { self.run_block_avx2(rows, scratch) };
            return;
        }
        // SAFETY: a plain line needs no instructions of its own.
        unsafe { self.run_block_with::<T::Plain, 1>(rows, scratch) };
    }

    /// The same bits as [`Self::run_block_avx2`].
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[target_feature(enable = "avx2,bmi1,bmi2,fma,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
    fn run_block_avx512(&self, rows: usize, scratch: &mut Scratch<T>) {
        // SAFETY: this function is called where the processor has the instructions.
        unsafe { self.run_block_with::<T::Avx512, 4>(rows, scratch) };
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[target_feature(enable = "avx2,bmi1,bmi2,fma,lzcnt,popcnt")]
    fn run_block_avx2(&self, rows: usize, scratch: &mut Scratch<T>) {
        // SAFETY: this function is called where the processor has the instructions.
        unsafe { self.run_block_with::<T::Avx2, 1>(rows, scratch) };
    }

    /// # Safety
    /// The processor has the instructions of `L`.
    #[inline(always)]
    unsafe fn run_block_with<L: Line<Value = T>, const PANELS: usize>(&self, rows: usize, scratch: &mut Scratch<T>) {
        let Scratch { inputs, outputs, nonzero } = scratch;
        let mut stride = self.layers[0].inputs_count;
        for layer in &self.layers {
            // SAFETY: the caller promises the instructions.
            unsafe { layer.run::<L, PANELS>(inputs, stride, rows, outputs, nonzero) };
            stride = layer.stride();
            std::mem::swap(inputs, outputs);
        }
    }
}

impl<T: Lines> Network for Packed<T> {
    fn bytes(&self) -> usize {
        self.layers.iter().map(PackedLayer::bytes).sum()
    }

    fn magnitudes(&self, features: &[f64]) -> Vec<f64> {
        self.layers.iter().fold(features.to_vec(), |values, layer| layer.magnitudes(&values))
    }

    fn margins(&self, features: Features<'_>, rows: usize, margins: &mut [f64]) {
        match features {
            _ if rows == 0 => {}
            Features::Float32(values) => self.run(values, T::from_f32, rows, margins),
            Features::Float64(values) => self.run(values, T::from_f64, rows, margins),
        }
    }
}

#[cfg(all(test, target_arch = "x86_64", not(miri)))]
mod tests {
    use super::super::plain::Activation;
    use super::super::tests::layers;
    use super::*;

    fn check<T: Lines>(bound: f64) {
        for (widths, activation) in [
            (&[300, 150, 40, 2][..], Activation::Relu), // more inputs than go by in one part
            (&[20, 100, 5], Activation::Logistic),
            (&[129, 16, 7], Activation::Tanh),
            (&[1, 90, 4], Activation::Identity),
        ] {
            let packed = Packed::<T>::new(&layers(widths, activation, 7));
            for rows in [1, 2, 6, 13, 48] {
                let run = |run: &dyn Fn(&mut Scratch<T>)| {
                    let room = rows * packed.stride_max;
                    let inputs = (0..room).map(|at| T::from_f64((at * 37 % 101) as f64 / 50.0 - 1.0)).collect();
                    let mut scratch = Scratch { inputs, outputs: vec![T::default(); room], nonzero: Vec::new() };
                    run(&mut scratch);
                    let stride = packed.layers[packed.layers.len() - 1].stride();
                    scratch.inputs[..rows * stride].iter().map(|value| value.to_f64()).collect::<Vec<_>>()
                };
                // SAFETY: plain lines need nothing.
                let plain = run(&|scratch| unsafe { packed.run_block_with::<T::Plain, 1>(rows, scratch) });
                if !has_avx2() {
                    return;
                }
                // SAFETY: asked above.
                let avx2 = run(&|scratch| unsafe { packed.run_block_avx2(rows, scratch) });
                for (plain, avx2) in plain.iter().zip(&avx2) {
                    assert!((plain - avx2).abs() <= bound * (1.0 + plain.abs()), "{widths:?}: {plain} and {avx2}");
                }
                if has_avx512() {
                    // SAFETY: asked above.
                    let avx512 = run(&|scratch| unsafe { packed.run_block_avx512(rows, scratch) });
                    assert_eq!(avx2, avx512, "{widths:?}");
                }
            }
        }
    }

    #[test]
    fn every_set_of_instructions_gives_the_same() {
        check::<f32>(1e-4);
        check::<f64>(1e-12);
    }
}
