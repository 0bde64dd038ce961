use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use headrace_types::Result;

use super::direct::Direct;
use super::ensemble::{Ensemble, Precision};
use super::layout::{LANES, Linked, Perfect, Shape};
use super::number::{Bin, Number, Offset};
use super::plan::{Plan, Way};
use super::quantize::{Quantizer, Questions};
use super::sweep::{SWEPT_ROWS, SWEPT_ROWS_FEW, Sweep, Swept, can_sweep};
use super::sweep_perfect::SweptPerfect;
use super::walk::{WalkRow, WalkRows};
use crate::rows::{Features, check_lengths, spread};

/// Rows that are quantized and then walked together: one tree in the first-level cache serves so many.
const ROWS_PER_BLOCK: usize = 256;
/// Fewer of them where rows are so wide that their bins would take more of the second-level cache.
const BLOCK_BYTES_MAX: usize = 128 << 10;
/// A further thread is started where each gets so much to do, at least.
const TIME_PER_THREAD_MIN: Duration = Duration::from_micros(150);
/// Rows that are so wide are not sampled to measure kernels.
const MEASURED_FEATURES_MAX: usize = 1 << 16;
/// Slots that fit into the buffer on the stack; a wider row allocates.
const STACK_SLOTS_MAX: usize = 256;

/// A float type that features may come in.
pub(super) trait Input: Copy + Sync {
    fn number<T: Number>(self) -> T;
}

impl Input for f32 {
    #[inline]
    fn number<T: Number>(self) -> T {
        T::from_f32(self)
    }
}

impl Input for f64 {
    #[inline]
    fn number<T: Number>(self) -> T {
        T::from_f64(self)
    }
}

/// A compiled [`Ensemble`]: the same margins, bit for bit, much sooner.
pub struct Forest {
    kernel: Box<dyn Kernel>,
    features_count: usize,
    outputs_count: usize,
    trees_count: usize,
    precision: Precision,
}

impl fmt::Debug for Forest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forest")
            .field("features_count", &self.features_count)
            .field("outputs_count", &self.outputs_count)
            .field("trees_count", &self.trees_count)
            .field("precision", &self.precision)
            .field("bytes", &self.bytes())
            .field("layout", &self.kernel.layout())
            .finish_non_exhaustive()
    }
}

impl Forest {
    /// Validates and compiles.
    ///
    /// # Errors
    /// `corrupt_model`, as [`Ensemble::validate`].
    pub fn new(ensemble: &Ensemble) -> Result<Self> {
        ensemble.validate()?;
        let kernel = match (ensemble.features_precision, ensemble.precision) {
            (Precision::Float32, Precision::Float32) => compile::<f32, f32>(ensemble),
            (Precision::Float32, Precision::Float64) => compile::<f32, f64>(ensemble),
            (Precision::Float64, Precision::Float32) => compile::<f64, f32>(ensemble),
            (Precision::Float64, Precision::Float64) => compile::<f64, f64>(ensemble),
        };
        Ok(Self {
            kernel,
            features_count: ensemble.features_count,
            outputs_count: ensemble.outputs_count,
            trees_count: ensemble.trees.len(),
            precision: ensemble.precision,
        })
    }

    #[cfg(test)]
    pub(super) fn margins_by_each_way(&self, features: &[f64], rows: usize) -> Vec<(Way, Vec<f64>)> {
        self.kernel.margins_by_each_way(features, self.features_count, rows)
    }

    pub fn features_count(&self) -> usize {
        self.features_count
    }

    pub fn outputs_count(&self) -> usize {
        self.outputs_count
    }

    pub fn trees_count(&self) -> usize {
        self.trees_count
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Memory that the compiled nodes and leaves take.
    pub fn bytes(&self) -> usize {
        self.kernel.bytes()
    }

    /// Margins of `rows` rows on the calling thread, row-major `[rows, outputs_count]`; float32 margins are widened.
    ///
    /// # Errors
    /// `length_mismatch` when a slice does not fit `rows`.
    pub fn margins(&self, features: Features<'_>, rows: usize, margins: &mut [f64]) -> Result<()> {
        self.margins_threads(features, rows, margins, 1)
    }

    /// As [`margins`](Self::margins), with the rows spread over at most `threads` threads (0 counts as 1) where there
    /// are enough.
    ///
    /// # Errors
    /// `length_mismatch` when a slice does not fit `rows`.
    pub fn margins_threads(
        &self,
        features: Features<'_>,
        rows: usize,
        margins: &mut [f64],
        threads: usize,
    ) -> Result<()> {
        check_lengths(self.features_count, self.outputs_count, features.len(), rows, margins.len())?;
        let time = self.kernel.row_cost().saturating_mul(u32::try_from(rows).unwrap_or(u32::MAX));
        let threads = threads.min((time.as_nanos() / TIME_PER_THREAD_MIN.as_nanos()) as usize);
        let (features_count, outputs_count) = (self.features_count, self.outputs_count);
        spread(features, features_count, margins, outputs_count, threads, SWEPT_ROWS, |features, margins| {
            self.kernel.margins(features, features_count, margins);
            Ok(())
        })
    }
}

/// Chooses the narrowest bins and slots, and the layouts.
fn compile<F: Number, T: Number>(ensemble: &Ensemble) -> Box<dyn Kernel> {
    let questions = Questions::<F>::collect(ensemble);
    let shape = Shape::of(ensemble);
    let (bins, slots) = (questions.bin_max(), questions.slots_count());
    if bins <= i8::COUNT_MAX && slots <= u8::MAX.into() {
        if shape.tree_nodes_max <= u16::MAX.into() {
            compiled::<F, T, i8, u8, u16>(ensemble, &questions, &shape)
        } else {
            compiled::<F, T, i8, u8, u32>(ensemble, &questions, &shape)
        }
    } else if bins <= i8::COUNT_MAX && slots <= u16::MAX.into() {
        compiled::<F, T, i8, u16, u32>(ensemble, &questions, &shape)
    } else if bins <= i16::COUNT_MAX && slots <= u16::MAX.into() {
        compiled::<F, T, i16, u16, u32>(ensemble, &questions, &shape)
    } else {
        compiled::<F, T, i32, u32, u32>(ensemble, &questions, &shape)
    }
}

fn compiled<F: Number, T: Number, B: Bin, S: Offset, C: Offset>(
    ensemble: &Ensemble,
    questions: &Questions<F>,
    shape: &Shape,
) -> Box<dyn Kernel> {
    let swept: Option<Box<dyn Sweep<B, T>>> = if !can_sweep::<B>(shape.leaves_max()) {
        None
    } else if shape.prefers_perfect() && questions.slots_count() <= u16::MAX.into() {
        Some(Box::new(SweptPerfect::new(ensemble, questions, shape.depth_max.max(1))))
    } else {
        Some(Box::new(Swept::new(ensemble, questions, shape)))
    };
    let (row, walked): (Row<B, T>, Option<Walked<B, T>>) = if swept.is_some() && shape.prefers_perfect() {
        (Arc::new(Perfect::<S, B, T>::new(ensemble, questions, shape.depth_max.max(1))), None)
    } else {
        let linked = Arc::new(Linked::<C, S, B, T>::new(ensemble, questions, shape));
        (Arc::clone(&linked) as _, Some(linked))
    };
    let base = ensemble.base.iter().map(|&base| T::from_f64(base)).collect();
    let direct = Direct::new(ensemble, shape);
    let quantizer = Quantizer::<F, B>::new(questions);
    let mut compiled = Compiled { base, quantizer, row, walked, swept, direct, plan: Plan::of_rows() };
    if ensemble.features_count <= MEASURED_FEATURES_MAX {
        compiled.plan = compiled.measure(questions, ensemble.features_count);
    }
    // Tests look at each way.
    if !cfg!(test) && !compiled.plan.uses(Way::Direct) {
        compiled.direct = None;
    }
    Box::new(compiled)
}

/// A compiled forest without its types: widths and layout are behind it.
trait Kernel: Send + Sync {
    /// Lengths were checked by the caller.
    fn margins(&self, features: Features<'_>, features_count: usize, margins: &mut [f64]);
    /// Each way that there is, with the margins of all rows by it.
    #[cfg(test)]
    fn margins_by_each_way(&self, features: &[f64], features_count: usize, rows: usize) -> Vec<(Way, Vec<f64>)>;
    /// A row's share of a large batch.
    fn row_cost(&self) -> Duration;
    fn bytes(&self) -> usize;
    fn layout(&self) -> String;
}

type Row<B, T> = Arc<dyn WalkRow<B, T>>;
type Walked<B, T> = Arc<dyn WalkRows<B, T>>;

struct Compiled<F, T, B> {
    base: Vec<T>,
    quantizer: Quantizer<F, B>,
    row: Row<B, T>,
    /// Always there where trees are not swept.
    walked: Option<Walked<B, T>>,
    swept: Option<Box<dyn Sweep<B, T>>>,
    direct: Option<Direct<F, T>>,
    plan: Plan,
}

impl<F: Number, T: Number, B: Bin> Kernel for Compiled<F, T, B> {
    fn margins(&self, features: Features<'_>, features_count: usize, margins: &mut [f64]) {
        match features {
            Features::Float32(values) => self.run(values, features_count, margins),
            Features::Float64(values) => self.run(values, features_count, margins),
        }
    }

    #[cfg(test)]
    fn margins_by_each_way(&self, features: &[f64], features_count: usize, rows: usize) -> Vec<(Way, Vec<f64>)> {
        let outputs_count = self.base.len();
        let by = |way: Way| {
            let mut margins = vec![f64::NAN; rows * outputs_count];
            // A walk takes whole groups only.
            let whole = if way == Way::Walk { rows / LANES * LANES } else { rows };
            let (features, rest) = features.split_at(whole * features_count);
            self.run_way(way, features, features_count, &mut margins[..whole * outputs_count]);
            self.run_way(Way::Row, rest, features_count, &mut margins[whole * outputs_count..]);
            (way, margins)
        };
        self.ways().into_iter().map(by).collect()
    }

    fn row_cost(&self) -> Duration {
        self.plan.row_cost()
    }

    fn bytes(&self) -> usize {
        self.row.bytes()
            + self.direct.as_ref().map_or(0, Direct::bytes)
            + self.swept.as_ref().map_or(0, |swept| swept.bytes())
    }

    fn layout(&self) -> String {
        format!("{}, {}", self.row.name(), self.swept.as_ref().map_or("walked", |swept| swept.name()))
    }
}

impl<F: Number, T: Number, B: Bin> Compiled<F, T, B> {
    fn run<I: Input>(&self, features: &[I], features_count: usize, margins: &mut [f64]) {
        let outputs_count = self.base.len();
        let rows = margins.len() / outputs_count;
        let (mut features, mut margins) = (features, margins);
        for (way, rows) in self.plan.steps(rows) {
            let (now, later) = features.split_at(rows * features_count);
            let (margins_now, margins_later) = margins.split_at_mut(rows * outputs_count);
            (features, margins) = (later, margins_later);
            self.run_way(way, now, features_count, margins_now);
        }
    }

    fn run_way<I: Input>(&self, way: Way, features: &[I], features_count: usize, margins: &mut [f64]) {
        match (way, &self.direct, &self.walked, &self.swept) {
            (Way::Direct, Some(direct), ..) => {
                self.run_rows(features, features_count, margins, |row, sums| direct.add_row(row, sums));
            }
            (Way::Walk, _, Some(walked), _) => {
                self.run_blocks::<I, LANES>(features, features_count, margins, |bins, slots_count, sums| {
                    walked.add_rows(bins, slots_count, self.base.len(), sums);
                });
            }
            (Way::SweepFew, .., Some(swept)) => {
                self.run_blocks::<I, SWEPT_ROWS_FEW>(features, features_count, margins, |bins, slots_count, sums| {
                    swept.add_few(bins, slots_count, self.base.len(), sums);
                });
            }
            (Way::SweepMany, .., Some(swept)) => {
                self.run_blocks::<I, SWEPT_ROWS>(features, features_count, margins, |bins, slots_count, sums| {
                    swept.add_many(bins, slots_count, self.base.len(), sums);
                });
            }
            _ => self.run_quantized_rows(features, features_count, margins),
        }
    }

    fn ways(&self) -> Vec<Way> {
        let is_there = |way: &Way| match way {
            Way::Row => true,
            Way::Direct => self.direct.is_some(),
            Way::Walk => self.walked.is_some(),
            Way::SweepFew | Way::SweepMany => self.swept.is_some(),
        };
        Way::ALL.into_iter().filter(is_there).collect()
    }

    /// Measures each way on rows whose values are spread over the thresholds.
    fn measure(&self, questions: &Questions<F>, features_count: usize) -> Plan {
        let sample = questions.sample(SWEPT_ROWS);
        let mut margins = vec![0.0; SWEPT_ROWS * self.base.len()];
        Plan::measured(&self.ways(), |way| {
            let rows = way.rows();
            let (features, margins) = (&sample[..rows * features_count], &mut margins[..rows * self.base.len()]);
            self.run_way(way, features, features_count, margins);
        })
    }

    /// At least one slot, so that the padding of a forest without splits has one to look at.
    fn slots_count(&self) -> usize {
        self.quantizer.slots_count().max(1)
    }

    fn run_quantized_rows<I: Input>(&self, features: &[I], features_count: usize, margins: &mut [f64]) {
        let slots_count = self.slots_count();
        let mut on_stack = [B::MIN; STACK_SLOTS_MAX];
        let mut on_heap = Vec::new();
        let bins = if slots_count <= STACK_SLOTS_MAX {
            &mut on_stack[..slots_count]
        } else {
            on_heap.resize(slots_count, B::MIN);
            &mut on_heap[..]
        };
        self.run_rows(features, features_count, margins, |row, sums| {
            self.quantizer.quantize::<I, 1>(row, features_count, bins, slots_count);
            self.row.add_row(bins, slots_count, sums);
        });
    }

    /// A few rows, one by one.
    fn run_rows<I: Input>(
        &self,
        features: &[I],
        features_count: usize,
        margins: &mut [f64],
        mut add_row: impl FnMut(&[I], &mut [T]),
    ) {
        for (row, margins) in features.chunks_exact(features_count).zip(margins.chunks_exact_mut(self.base.len())) {
            if let [margin] = margins {
                let mut sums = [self.base[0]];
                add_row(row, &mut sums);
                *margin = sums[0].to_f64();
            } else {
                let mut sums = self.base.clone();
                add_row(row, &mut sums);
                for (margin, sum) in margins.iter_mut().zip(sums) {
                    *margin = sum.to_f64();
                }
            }
        }
    }

    /// Rows in groups of `GROUP`, some groups at a time. The last group may have fewer rows.
    fn run_blocks<I: Input, const GROUP: usize>(
        &self,
        features: &[I],
        features_count: usize,
        margins: &mut [f64],
        add_rows: impl Fn(&[B], usize, &mut [T]),
    ) {
        let (outputs_count, slots_count) = (self.base.len(), self.slots_count());
        let rows_per_block = (BLOCK_BYTES_MAX / (slots_count * size_of::<B>())).clamp(GROUP, ROWS_PER_BLOCK);
        let rows_per_block = rows_per_block / GROUP * GROUP;
        let rows_max = rows_per_block.min((margins.len() / outputs_count).next_multiple_of(GROUP));
        let mut bins = vec![B::MIN; rows_max * slots_count];
        let mut sums = vec![T::default(); rows_max * outputs_count];
        let blocks = features.chunks(rows_per_block * features_count);
        for (features, margins) in blocks.zip(margins.chunks_mut(rows_per_block * outputs_count)) {
            let rows = (margins.len() / outputs_count).next_multiple_of(GROUP);
            let (bins, sums) = (&mut bins[..rows * slots_count], &mut sums[..rows * outputs_count]);
            self.quantizer.quantize::<I, GROUP>(features, features_count, bins, slots_count);
            for sums in sums.chunks_exact_mut(outputs_count) {
                sums.copy_from_slice(&self.base);
            }
            add_rows(bins, slots_count, sums);
            for (margin, sum) in margins.iter_mut().zip(sums) {
                *margin = sum.to_f64();
            }
        }
    }
}
