//! Explanations of tree ensembles: how much each feature of a row adds to its margins.
//!
//! The answer is the Shapley value of the game in which a set of features is known and a split on any other feature sends a
//! row down both branches, weighted by the training rows that went there (its *covers*): "path-dependent TreeSHAP", as
//! XGBoost's `pred_contribs`, LightGBM's `pred_contrib` and `shap.TreeExplainer` compute it. [`contributions_plain`] is the
//! algorithm of Lundberg et al. 2020 (Algorithm 2), the plain twin; [`Explainer`] is ours.
//!
//! **The formula.** Take the path to one leaf of value `v`, merge the splits on the same feature, and let `z_i` be the share
//! of the training rows that feature `i` lets through to the leaf, and `o_i` 1 where the row itself passes, else 0. By the
//! definition of the Shapley value, and since the integral of `t^k (1 - t)^(d - 1 - k)` is `k! (d - 1 - k)! / d!`, the leaf
//! gives feature `i`
//!
//! ```text
//!   v (o_i - z_i)  integral over t in 0..1 of  product over j != i of ( z_j (1 - t) + o_j t )
//! ```
//!
//! whose integrand is a polynomial of degree `d - 1` for `d` features on the path. Gauss-Legendre's rule with `d / 2` points
//! (rounded up) integrates it without error: three points for paths of six features. All weights and factors are positive,
//! so nothing cancels and nothing is divided, where EXTEND and UNWIND of the usual algorithm lose digits with depth.
//!
//! **The sweep.** At a fixed `t` the factors of a path are products of factors of its edges, so one walk over the tree's
//! edges serves all leaves: down it carries `D`, the product of the factors above a node, and up it carries `U`, the sum of
//! `v` times the factors below. With `b` 1 where the row goes left, `z` the share of the left child and `c = b - z`:
//!
//! ```text
//!   f = z + t c,    D_left = D f,    D_right = D - D_left,    U = U_right + f (U_left - U_right)
//!   the node's feature gets     c  sum over points of  weight D (U_left - U_right)
//! ```
//!
//! A feature that an edge above has asked already, with merged share `Z` and merged answer `O`, changes that edge's factor
//! instead of adding one: `c = O (b - z)`, `f = z + c B` with `B = t / (Z (1 - t) + t)`, and the sum's terms are multiplied by
//! `Z B^2 / t^2` (which is 1 for `Z = 1`). That is about nine operations a point and node, on eight rows at once, where the usual
//! algorithm takes the square of the depth for each leaf. [`sweep`] does it, [`program`] prepares it, [`quadrature`] has the rules.

mod plain;
mod program;
mod quadrature;
mod sweep;
#[cfg(test)]
mod tests;

use std::fmt;

use headrace_types::Result;

use super::ensemble::{Ensemble, Precision};
use super::forest::Input;
use super::number::{Bin, Number};
use super::quantize::{Quantizer, Questions};
pub use plain::contributions_plain;
use program::Program;
use quadrature::Rules;
use sweep::{LANES, LANES_FEW, Lanes, Sweeper};

use crate::rows::{Features, check_contributions_lengths, spread};

/// Rows that are quantized together and then pass through one tree after the other, at most.
const ROWS_PER_BLOCK: usize = 128;
/// Sums that such a block holds, if that leaves it enough rows for one walk.
const SUMS_PER_BLOCK: usize = 1 << 20;
/// A further thread is started for each so many rows, at most.
const ROWS_PER_THREAD_MIN: usize = 16;

/// An [`Ensemble`] compiled to be explained.
pub struct Explainer {
    kernel: Box<dyn Kernel>,
    features_count: usize,
    outputs_count: usize,
}

impl fmt::Debug for Explainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explainer")
            .field("features_count", &self.features_count)
            .field("outputs_count", &self.outputs_count)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

impl Explainer {
    /// Validates and compiles.
    ///
    /// # Errors
    /// `corrupt_model`, as [`Ensemble::validate`]; `unsupported_model` for trees without covers, with covers that are no weights, or
    /// deeper than 4,096 levels.
    pub fn new(ensemble: &Ensemble) -> Result<Self> {
        Self::check(ensemble)?;
        let kernel = match ensemble.features_precision {
            Precision::Float32 => compile::<f32>(ensemble),
            Precision::Float64 => compile::<f64>(ensemble),
        };
        Ok(Self { kernel, features_count: ensemble.features_count, outputs_count: ensemble.outputs_count })
    }

    /// Whether [`new`](Self::new) compiles the trees, without compiling them.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn check(ensemble: &Ensemble) -> Result<()> {
        ensemble.validate()?;
        program::check(ensemble)
    }

    pub fn features_count(&self) -> usize {
        self.features_count
    }

    pub fn outputs_count(&self) -> usize {
        self.outputs_count
    }

    /// Memory that the compiled trees take.
    pub fn bytes(&self) -> usize {
        self.kernel.bytes()
    }

    /// Contributions of `rows` rows, row-major `[rows, outputs_count, features_count + 1]`: what each feature adds to the margin, and
    /// last the expected value, which is the margin of a row of which nothing is known. The values of an output sum to its margin.
    /// Rows are spread over at most `threads` threads (0 counts as 1) where there are enough.
    ///
    /// # Errors
    /// `length_mismatch` when a slice does not fit `rows`.
    pub fn contributions(
        &self,
        features: Features<'_>,
        rows: usize,
        contributions: &mut [f64],
        threads: usize,
    ) -> Result<()> {
        let (features_count, outputs_count) = (self.features_count, self.outputs_count);
        check_contributions_lengths(features_count, outputs_count, features.len(), rows, contributions.len())?;
        let threads = threads.min(rows / ROWS_PER_THREAD_MIN);
        let width = outputs_count * (features_count + 1);
        spread(features, features_count, contributions, width, threads, LANES, |features, contributions| {
            self.kernel.contributions(features, features_count, contributions);
            Ok(())
        })
    }
}

/// Chooses the width of the bins.
fn compile<F: Number>(ensemble: &Ensemble) -> Box<dyn Kernel> {
    let questions = Questions::<F>::collect(ensemble);
    if questions.bin_max() <= u16::MAX.into() {
        Box::new(Compiled::<F, i16>::new(ensemble, &questions))
    } else {
        Box::new(Compiled::<F, i32>::new(ensemble, &questions))
    }
}

/// A compiled ensemble without its types.
trait Kernel: Send + Sync {
    /// Lengths were checked by the caller.
    fn contributions(&self, features: Features<'_>, features_count: usize, contributions: &mut [f64]);
    fn bytes(&self) -> usize;
}

struct Compiled<F, B> {
    quantizer: Quantizer<F, B>,
    programs: Vec<Program<B>>,
    rules: Rules,
    /// The place in a row's contributions of each column that the programs add to.
    columns: Vec<usize>,
    /// The expected value of each output.
    expected: Vec<f64>,
}

impl<F: Number, B: Bin> Compiled<F, B> {
    fn new(ensemble: &Ensemble, questions: &Questions<F>) -> Self {
        let compiled = program::compile(ensemble, questions);
        let rules = Rules::new(compiled.programs.iter().map(|program| program.points_count()));
        Self {
            quantizer: Quantizer::new(questions),
            programs: compiled.programs,
            rules,
            columns: compiled.columns,
            expected: compiled.expected,
        }
    }

    fn run<I: Input>(&self, features: &[I], features_count: usize, contributions: &mut [f64]) {
        let width = self.expected.len() * (features_count + 1);
        let rows = contributions.len() / width / LANES * LANES;
        let (batch, few) = features.split_at(rows * features_count);
        let (batch_contributions, few_contributions) = contributions.split_at_mut(rows * width);
        self.run_groups::<I, LANES>(batch, features_count, batch_contributions);
        self.run_groups::<I, LANES_FEW>(few, features_count, few_contributions);
    }

    /// Some rows, `L` at a time.
    fn run_groups<I: Input, const L: usize>(&self, features: &[I], features_count: usize, contributions: &mut [f64]) {
        let (slots_count, columns_count) = (self.quantizer.slots_count(), self.columns.len());
        let width = self.expected.len() * (features_count + 1);
        let rows_per_block = (SUMS_PER_BLOCK / columns_count.max(1)).min(ROWS_PER_BLOCK) / L * L;
        let rows_per_block = rows_per_block.max(L);
        let rows_max = rows_per_block.min(contributions.len() / width).next_multiple_of(L);
        let mut bins = vec![B::MIN; rows_max * slots_count];
        let mut sums: Vec<Lanes<L>> = vec![[0.0; L]; rows_max / L * columns_count];
        let mut sweeper = Sweeper::<L>::default();
        let blocks = features.chunks(rows_per_block * features_count);
        for (features, contributions) in blocks.zip(contributions.chunks_mut(rows_per_block * width)) {
            let groups = (contributions.len() / width).div_ceil(L);
            let bins = &mut bins[..groups * L * slots_count];
            let sums = &mut sums[..groups * columns_count];
            if slots_count > 0 {
                self.quantizer.quantize::<I, L>(features, features_count, bins, slots_count);
            }
            sums.fill([0.0; L]);
            for program in &self.programs {
                sweeper.add(program, self.rules.of(program.points_count()), bins, slots_count, sums, columns_count);
            }
            self.write(sums, features_count + 1, contributions);
        }
    }

    /// Spreads the columns' sums over the rows' places.
    fn write<const L: usize>(&self, sums: &[Lanes<L>], stride: usize, contributions: &mut [f64]) {
        let width = self.expected.len() * stride;
        contributions.fill(0.0);
        for row in contributions.chunks_exact_mut(width) {
            for (values, expected) in row.chunks_exact_mut(stride).zip(&self.expected) {
                values[stride - 1] = *expected;
            }
        }
        if self.columns.is_empty() {
            return;
        }
        for (rows, sums) in contributions.chunks_mut(L * width).zip(sums.chunks_exact(self.columns.len())) {
            for (lane, row) in rows.chunks_exact_mut(width).enumerate() {
                for (&column, sum) in self.columns.iter().zip(sums) {
                    row[column] = sum[lane];
                }
            }
        }
    }
}

impl<F: Number, B: Bin> Kernel for Compiled<F, B> {
    fn contributions(&self, features: Features<'_>, features_count: usize, contributions: &mut [f64]) {
        match features {
            Features::Float32(values) => self.run(values, features_count, contributions),
            Features::Float64(values) => self.run(values, features_count, contributions),
        }
    }

    fn bytes(&self) -> usize {
        self.programs.iter().map(Program::bytes).sum::<usize>() + size_of_val(self.columns.as_slice())
    }
}
