use std::fmt;

use headrace_types::Result;

use super::activation::Float;
use super::kernel::PackedLayer;
use super::plain::{DenseLayer, check_layers};
use crate::rows::{Features, check_lengths};
use crate::trees::Precision;
use crate::vectorized::has_avx2;

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

impl<T: Float> Packed<T> {
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
        #[cfg(target_arch = "x86_64")]
        if has_avx2() {
            // SAFETY: the processor has it.
            unsafe { self.run_block_avx2(rows, scratch) };
            return;
        }
        self.run_block_with::<false>(rows, scratch);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,fma,lzcnt,popcnt")]
    fn run_block_avx2(&self, rows: usize, scratch: &mut Scratch<T>) {
        self.run_block_with::<true>(rows, scratch);
    }

    #[inline(always)]
    fn run_block_with<const FMA: bool>(&self, rows: usize, scratch: &mut Scratch<T>) {
        let Scratch { inputs, outputs, nonzero } = scratch;
        let mut stride = self.layers[0].inputs_count;
        for layer in &self.layers {
            if size_of::<T>() == 4 {
                layer.run::<16, FMA>(inputs, stride, rows, outputs, nonzero);
            } else {
                layer.run::<8, FMA>(inputs, stride, rows, outputs, nonzero);
            }
            stride = layer.stride();
            std::mem::swap(inputs, outputs);
        }
    }
}

impl<T: Float> Network for Packed<T> {
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
