//! From feature values to bins: each distinct threshold of a feature starts a new bin, so a bin answers every node's
//! question.

use std::collections::HashMap;

use super::ensemble::{Categories, Comparison, Ensemble, Missing, Node, Precision, Split, Test, ZERO_THRESHOLD};
use super::forest::Input;
use super::number::{Bin, Number};
use super::search::{FANOUT, LEVELS_MAX, Levels};
use crate::vectorized::has_avx2;

/// The smallest value that goes right at `threshold`; NaN when no value does.
pub(super) fn start_of<T: Number>(comparison: Comparison, threshold: f64) -> T {
    let threshold = T::from_f64(threshold);
    match comparison {
        Comparison::Less => threshold,
        Comparison::LessEqual => threshold.above(),
    }
}

/// What the trees of an ensemble ask, collected before the width of a bin is known.
#[derive(Debug)]
pub(super) struct Questions<T> {
    comparison: Comparison,
    precision: Precision,
    /// For each feature that is compared: the smallest values of its bins 1, 2, ...; sorted, distinct, without NaN.
    starts: Vec<Vec<T>>,
    /// Slots of comparisons: `(feature, missing)`.
    slots: Vec<(usize, Missing)>,
    /// Features that are compared; each has one of the first slots.
    columns_count: usize,
    slot_of: HashMap<(usize, Missing), usize>,
    /// Whether a node compares with a threshold that no value is beyond.
    has_always_left: bool,
    category_splits: Vec<Split>,
    category_slot_of: HashMap<(usize, Missing, Categories, bool), usize>,
}

impl<T: Number> Questions<T> {
    pub(super) fn collect(ensemble: &Ensemble) -> Self {
        let mut questions = Self {
            comparison: ensemble.comparison,
            precision: ensemble.features_precision,
            starts: vec![Vec::new(); ensemble.features_count],
            slots: Vec::new(),
            columns_count: 0,
            slot_of: HashMap::new(),
            has_always_left: false,
            category_splits: Vec::new(),
            category_slot_of: HashMap::new(),
        };
        let splits = ensemble.trees.iter().flat_map(|tree| &tree.nodes).filter_map(|node| match node {
            Node::Split(split) => Some(split),
            Node::Leaf(_) | Node::VectorLeaf(_) => None,
        });
        for split in splits {
            match &split.test {
                Test::Threshold(threshold) => {
                    let start = questions.start(*threshold);
                    if start.to_f64().is_nan() {
                        questions.has_always_left = true;
                    } else {
                        questions.starts[split.feature].push(start);
                    }
                    if questions.slot_of.insert((split.feature, split.missing), 0).is_none() {
                        questions.slots.push((split.feature, split.missing));
                    }
                }
                Test::Categories { set, members_go_left } => {
                    let key = (split.feature, split.missing, set.clone(), *members_go_left);
                    let next = questions.category_splits.len();
                    if *questions.category_slot_of.entry(key).or_insert(next) == next {
                        questions.category_splits.push(split.clone());
                    }
                }
            }
        }
        questions.number_slots();
        questions
    }

    /// The first slot of each compared feature is numbered by the feature's place among them; further ones come after.
    fn number_slots(&mut self) {
        for starts in &mut self.starts {
            starts.sort_by(|one, two| one.partial_cmp(two).expect("starts hold no NaN"));
            starts.dedup_by(|one, two| one == two);
            starts.shrink_to_fit();
        }
        self.slots.sort_unstable();
        let (first, further): (Vec<_>, Vec<_>) =
            self.slots.iter().enumerate().partition(|&(index, slot)| index == 0 || self.slots[index - 1].0 != slot.0);
        self.columns_count = first.len();
        self.slots = first.into_iter().chain(further).map(|(_, &slot)| slot).collect();
        for (index, slot) in self.slots.iter().enumerate() {
            self.slot_of.insert(*slot, index);
        }
    }

    /// The smallest value that goes right at `threshold`; NaN when no value does.
    fn start(&self, threshold: f64) -> T {
        start_of(self.comparison, threshold)
    }

    /// The last bin that goes left at `split`.
    pub(super) fn bin_of(&self, split: &Split) -> usize {
        match &split.test {
            // A start that is NaN compares false with all: every bin goes left.
            Test::Threshold(threshold) => {
                let start = self.start(*threshold);
                let starts = &self.starts[split.feature];
                if start.to_f64().is_nan() { starts.len() } else { starts.partition_point(|&other| other < start) }
            }
            Test::Categories { .. } => 0,
        }
    }

    pub(super) fn slot_of(&self, split: &Split) -> usize {
        match &split.test {
            Test::Threshold(_) => self.slot_of[&(split.feature, split.missing)],
            Test::Categories { set, members_go_left } => {
                let key = (split.feature, split.missing, set.clone(), *members_go_left);
                self.slots.len() + self.category_slot_of[&key]
            }
        }
    }

    pub(super) fn slots_count(&self) -> usize {
        self.slots.len() + self.category_splits.len()
    }

    /// Rows whose values are spread over the thresholds of each feature, and missing now and then.
    pub(super) fn sample(&self, rows: usize) -> Vec<T> {
        let mut state = 1u64;
        let mut below = move |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
        let mut value = |starts: &Vec<T>| match (starts.as_slice(), below(16)) {
            (_, 0) => T::NAN,
            ([], kind) => T::from_f64(kind as f64),
            (starts, _) => starts[below(starts.len())],
        };
        (0..rows).flat_map(|_| self.starts.iter().map(&mut value).collect::<Vec<_>>()).collect()
    }

    /// The number that the bins' type must hold: the largest bin of a value, and one above the largest bin of a node,
    /// as the type's own maximum stands for "always right" in a row and for "always left" in a node.
    pub(super) fn bin_max(&self) -> usize {
        let starts_max = self.starts.iter().map(Vec::len).max().unwrap_or(0);
        (starts_max + usize::from(self.has_always_left)).max(1)
    }
}

/// One compared feature. Column `n` fills slot `n`.
#[derive(Debug)]
struct Column<B> {
    levels: Levels,
    missing: Substitute<B>,
}

/// A further slot of a column, for nodes that treat its missing values in another way.
#[derive(Debug)]
struct Further<B> {
    column: usize,
    missing: Substitute<B>,
}

/// What stands in a slot for a missing value of a feature.
#[derive(Debug)]
struct Substitute<B> {
    feature: usize,
    bin: B,
    zero_is_missing: bool,
}

impl<B: Bin> Substitute<B> {
    fn new<T: Number>(feature: usize, missing: Missing, starts: &[T]) -> Self {
        let zero = T::default();
        let bin = match missing {
            Missing::Left | Missing::ZeroLeft => B::MIN,
            Missing::Right | Missing::ZeroRight => B::MAX,
            Missing::AsZero => B::from_bin(starts.partition_point(|&start| start <= zero)),
        };
        Self { feature, bin, zero_is_missing: matches!(missing, Missing::ZeroLeft | Missing::ZeroRight) }
    }

    #[inline]
    fn replaces<T: Number>(&self, value: T) -> bool {
        let value = value.to_f64();
        value.is_nan() | (self.zero_is_missing & (value.abs() <= ZERO_THRESHOLD))
    }
}

/// Turns rows of features into rows of bins.
#[derive(Debug)]
pub(super) struct Quantizer<T, B> {
    comparison: Comparison,
    precision: Precision,
    columns: Vec<Column<B>>,
    /// Levels of every column's search.
    depth: usize,
    /// The levels' blocks, of all columns.
    starts: Vec<[T; FANOUT]>,
    further: Vec<Further<B>>,
    category_splits: Vec<Split>,
}

impl<T: Number, B: Bin> Quantizer<T, B> {
    pub(super) fn new(questions: &Questions<T>) -> Self {
        let depth = questions.starts.iter().map(|starts| Levels::depth(starts.len())).max().unwrap_or(1);
        let mut blocks = Vec::new();
        let (first, further) = questions.slots.split_at(questions.columns_count);
        let columns = first.iter().map(|&(feature, missing)| {
            let starts = &questions.starts[feature];
            let levels = Levels::new(starts, depth, &mut blocks);
            Column { levels, missing: Substitute::new(feature, missing, starts) }
        });
        let columns: Vec<_> = columns.collect();
        let further = further.iter().map(|&(feature, missing)| {
            let column = first.partition_point(|&(other, _)| other < feature);
            Further { column, missing: Substitute::new(feature, missing, &questions.starts[feature]) }
        });
        Self {
            comparison: questions.comparison,
            precision: questions.precision,
            columns,
            depth,
            further: further.collect(),
            starts: blocks,
            category_splits: questions.category_splits.clone(),
        }
    }

    pub(super) fn slots_count(&self) -> usize {
        self.columns.len() + self.further.len() + self.category_splits.len()
    }

    /// Fills `bins` from row-major `features`: slot `s` of row `r` goes to `bins[r / L][s][r % L]`, with `L` for
    /// `LANES`.
    pub(super) fn quantize<I: Input, const LANES: usize>(
        &self,
        features: &[I],
        features_count: usize,
        bins: &mut [B],
        slots_count: usize,
    ) {
        #[cfg(target_arch = "x86_64")]
        if has_avx2() {
            // SAFETY: the processor has it.
            unsafe { self.quantize_avx2::<I, LANES>(features, features_count, bins, slots_count) };
            return;
        }
        self.quantize_with::<I, LANES, false>(features, features_count, bins, slots_count);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,popcnt")]
    fn quantize_avx2<I: Input, const LANES: usize>(
        &self,
        features: &[I],
        features_count: usize,
        bins: &mut [B],
        slots_count: usize,
    ) {
        self.quantize_with::<I, LANES, true>(features, features_count, bins, slots_count);
    }

    #[inline(always)]
    fn quantize_with<I: Input, const LANES: usize, const AVX2: bool>(
        &self,
        features: &[I],
        features_count: usize,
        bins: &mut [B],
        slots_count: usize,
    ) {
        let (rows, bins) = (features.chunks(LANES * features_count), bins.chunks_exact_mut(LANES * slots_count));
        for (features, bins) in rows.zip(bins) {
            // One code for each depth, so that a search is a straight line.
            match self.depth {
                1 => self.search::<I, LANES, 1, AVX2>(features, features_count, bins),
                2 => self.search::<I, LANES, 2, AVX2>(features, features_count, bins),
                3 => self.search::<I, LANES, 3, AVX2>(features, features_count, bins),
                _ => self.search::<I, LANES, LEVELS_MAX, AVX2>(features, features_count, bins),
            }
            self.fill_further::<I, LANES>(features, features_count, bins);
        }
    }

    /// The first slot of each column, of at most `LANES` rows.
    #[inline(always)]
    fn search<I: Input, const LANES: usize, const DEPTH: usize, const AVX2: bool>(
        &self,
        features: &[I],
        features_count: usize,
        bins: &mut [B],
    ) {
        let rows = features.len() / features_count;
        for (column, bins) in self.columns.iter().zip(bins.chunks_exact_mut(LANES)) {
            let missing = &column.missing;
            assert!(missing.feature < features_count && rows <= LANES);
            let value = |row: usize| -> T {
                // SAFETY: the row and the feature are there (asserted above).
                unsafe { *features.get_unchecked(row * features_count + missing.feature) }.number()
            };
            let bin = |value: T| {
                // SAFETY: the levels were built over `self.starts` with this depth.
                B::from_bin(unsafe { column.levels.search::<T, DEPTH, AVX2>(&self.starts, self.depth, value) })
            };
            if missing.zero_is_missing {
                for (row, to) in bins[..rows].iter_mut().enumerate() {
                    *to = B::select(missing.replaces(value(row)), missing.bin, bin(value(row)));
                }
            } else if missing.bin == B::MIN {
                // No start is at most NaN, so it is found in bin 0 as it should be.
                for (row, to) in bins[..rows].iter_mut().enumerate() {
                    *to = bin(value(row));
                }
            } else {
                for (row, to) in bins[..rows].iter_mut().enumerate() {
                    *to = B::select(value(row).is_nan(), missing.bin, bin(value(row)));
                }
            }
        }
    }

    /// The other slots, of at most `LANES` rows.
    #[inline]
    fn fill_further<I: Input, const LANES: usize>(&self, features: &[I], features_count: usize, bins: &mut [B]) {
        let (first, others) = bins.split_at_mut(self.columns.len() * LANES);
        let (further, categories) = others.split_at_mut(self.further.len() * LANES);
        for (further, bins) in self.further.iter().zip(further.chunks_exact_mut(LANES)) {
            let first = &first[further.column * LANES..][..LANES];
            let features = features[further.missing.feature..].iter().step_by(features_count);
            for ((feature, bin), first) in features.zip(bins).zip(first) {
                let value: T = feature.number();
                *bin = if further.missing.replaces(value) { further.missing.bin } else { *first };
            }
        }
        for (split, bins) in self.category_splits.iter().zip(categories.chunks_exact_mut(LANES)) {
            let features = features[split.feature..].iter().step_by(features_count);
            for (feature, bin) in features.zip(bins) {
                let value: T = feature.number();
                let goes_left = split.goes_left(value.to_f64(), self.precision, self.comparison);
                *bin = if goes_left { B::MIN } else { B::MAX };
            }
        }
    }
}
