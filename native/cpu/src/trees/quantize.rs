//! From feature values to bins: each distinct threshold of a feature starts a new bin, so a bin answers every node's
//! question.

use std::collections::HashMap;

use super::ensemble::{Categories, Comparison, Ensemble, Missing, Node, Precision, Split, Test, ZERO_THRESHOLD};
use super::forest::Input;
use super::number::{Bin, Number};

/// What the trees of an ensemble ask, collected before the width of a bin is known.
#[derive(Debug)]
pub(super) struct Questions<T> {
    comparison: Comparison,
    precision: Precision,
    /// For each feature that is compared: the smallest values of its bins 1, 2, ...; sorted, distinct, without NaN.
    starts: Vec<Vec<T>>,
    /// Slots of comparisons in order of feature: `(feature, missing)`.
    slots: Vec<(usize, Missing)>,
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
            precision: ensemble.precision,
            starts: vec![Vec::new(); ensemble.features_count],
            slots: Vec::new(),
            slot_of: HashMap::new(),
            has_always_left: false,
            category_splits: Vec::new(),
            category_slot_of: HashMap::new(),
        };
        let splits = ensemble.trees.iter().flat_map(|tree| &tree.nodes).filter_map(|node| match node {
            Node::Split(split) => Some(split),
            Node::Leaf(_) => None,
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

    fn number_slots(&mut self) {
        for starts in &mut self.starts {
            starts.sort_by(|one, two| one.partial_cmp(two).expect("starts hold no NaN"));
            starts.dedup_by(|one, two| one == two);
            starts.shrink_to_fit();
        }
        self.slots.sort_unstable();
        for (index, slot) in self.slots.iter().enumerate() {
            self.slot_of.insert(*slot, index);
        }
    }

    /// The smallest value that goes right at `threshold`; NaN when no value does.
    fn start(&self, threshold: f64) -> T {
        let threshold = T::from_f64(threshold);
        match self.comparison {
            Comparison::Less => threshold,
            Comparison::LessEqual => threshold.above(),
        }
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

    /// The number that the bins' type must hold: the largest bin of a value, and one above the largest bin of a node,
    /// as the type's own maximum stands for "always right" in a row and for "always left" in a node.
    pub(super) fn bin_max(&self) -> usize {
        let starts_max = self.starts.iter().map(Vec::len).max().unwrap_or(0);
        (starts_max + usize::from(self.has_always_left)).max(1)
    }
}

/// One searched feature and the slots that its bin goes to.
#[derive(Debug)]
struct Column {
    feature: usize,
    /// Where its starts begin in `Quantizer::starts`; there are `2^steps - 1`, filled up with NaN.
    starts_begin: usize,
    steps: u32,
    slots_end: usize,
}

#[derive(Debug)]
struct Slot<B> {
    /// The bin that stands for a missing value.
    missing: B,
    zero_is_missing: bool,
}

/// Turns rows of features into rows of bins.
#[derive(Debug)]
pub(super) struct Quantizer<T, B> {
    comparison: Comparison,
    precision: Precision,
    columns: Vec<Column>,
    starts: Vec<T>,
    slots: Vec<Slot<B>>,
    category_splits: Vec<Split>,
}

impl<T: Number, B: Bin> Quantizer<T, B> {
    pub(super) fn new(questions: &Questions<T>) -> Self {
        let mut quantizer = Self {
            comparison: questions.comparison,
            precision: questions.precision,
            columns: Vec::new(),
            starts: Vec::new(),
            slots: Vec::with_capacity(questions.slots.len()),
            category_splits: questions.category_splits.clone(),
        };
        for &(feature, missing) in &questions.slots {
            let starts = &questions.starts[feature];
            if quantizer.columns.last().is_none_or(|column| column.feature != feature) {
                let steps = usize::BITS - starts.len().leading_zeros();
                let starts_begin = quantizer.starts.len();
                quantizer.starts.extend_from_slice(starts);
                quantizer.starts.resize(starts_begin + (1 << steps) - 1, T::NAN);
                quantizer.columns.push(Column { feature, starts_begin, steps, slots_end: 0 });
            }
            let zero = T::default();
            quantizer.slots.push(Slot {
                missing: match missing {
                    Missing::Left | Missing::ZeroLeft => B::default(),
                    Missing::Right | Missing::ZeroRight => B::MAX,
                    Missing::AsZero => B::from_usize(starts.partition_point(|&start| start <= zero)),
                },
                zero_is_missing: matches!(missing, Missing::ZeroLeft | Missing::ZeroRight),
            });
            let slots_end = quantizer.slots.len();
            if let Some(column) = quantizer.columns.last_mut() {
                column.slots_end = slots_end;
            }
        }
        quantizer
    }

    pub(super) fn slots_count(&self) -> usize {
        self.slots.len() + self.category_splits.len()
    }

    /// Fills `bins` (rows `stride` apart) from row-major `features`.
    pub(super) fn quantize<I: Input>(&self, features: &[I], features_count: usize, bins: &mut [B], stride: usize) {
        let mut slots_begin = 0;
        for column in &self.columns {
            let starts = &self.starts[column.starts_begin..][..(1 << column.steps) - 1];
            let slots = &self.slots[slots_begin..column.slots_end];
            for (row, bins) in features.chunks_exact(features_count).zip(bins.chunks_exact_mut(stride)) {
                let value: T = row[column.feature].number();
                let bin = search(starts, column.steps, value);
                for (slot, bin_out) in slots.iter().zip(&mut bins[slots_begin..]) {
                    *bin_out = if is_missing(value, slot.zero_is_missing) { slot.missing } else { bin };
                }
            }
            slots_begin = column.slots_end;
        }
        for (index, split) in self.category_splits.iter().enumerate() {
            for (row, bins) in features.chunks_exact(features_count).zip(bins.chunks_exact_mut(stride)) {
                let value: T = row[split.feature].number();
                let is_left = split.goes_left(value.to_f64(), self.precision, self.comparison);
                bins[slots_begin + index] = if is_left { B::default() } else { B::MAX };
            }
        }
    }
}

#[inline]
fn is_missing<T: Number>(value: T, zero_is_missing: bool) -> bool {
    let value = value.to_f64();
    value.is_nan() | (zero_is_missing & (value.abs() <= ZERO_THRESHOLD))
}

/// How many of `starts` (sorted, `2^steps - 1` of them, NaN at the end) are at most `value`: a binary search without
/// branches.
#[inline]
fn search<T: Number, B: Bin>(starts: &[T], steps: u32, value: T) -> B {
    debug_assert_eq!(starts.len(), (1 << steps) - 1);
    let mut count = 0usize;
    for step in (0..steps).rev() {
        let middle = count + (1 << step) - 1;
        // SAFETY: before this step `count` is a multiple of `2^(step + 1)` below `2^steps`, so `middle` is at most
        // `2^steps - 2`, which is inside `starts` (asserted above in debug builds, and by the slice that the caller
        // takes).
        let start = unsafe { *starts.get_unchecked(middle) };
        count += usize::from(start <= value) << step;
    }
    B::truncate(count)
}
