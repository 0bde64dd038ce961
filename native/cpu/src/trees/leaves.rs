//! What leaves add to.

use super::ensemble::{Ensemble, Node, Tree};
use super::layout::LANES;
use super::number::{Bin, Number};

/// Trees that are swept before their leaves are added: a row's sum is then read and written once for so many.
pub(super) const SWEPT_TREES: usize = 4;

/// The values of all leaves, by the leaf's number.
#[derive(Debug)]
pub(super) struct Leaves<T> {
    values: Vec<T>,
    /// Values of a leaf: 1, or one for each output.
    width: usize,
    /// The output that each tree adds to, where a leaf has one value.
    outputs: Vec<usize>,
    outputs_count: usize,
}

impl<T: Number> Leaves<T> {
    /// Room for `count` leaves that hold zero.
    pub(super) fn new(ensemble: &Ensemble, count: usize) -> Self {
        let has_vectors = ensemble.trees.iter().any(Tree::has_vector_leaves);
        let width = if has_vectors { ensemble.outputs_count } else { 1 };
        Self {
            values: vec![T::default(); count * width],
            width,
            outputs: ensemble.trees.iter().map(|tree| tree.output).collect(),
            outputs_count: ensemble.outputs_count,
        }
    }

    pub(super) fn set(&mut self, number: usize, leaf: &Node) {
        let values = &mut self.values[number * self.width..][..self.width];
        match leaf {
            Node::Leaf(value) => values[0] = T::from_f64(*value),
            Node::VectorLeaf(vector) => {
                values.iter_mut().zip(vector).for_each(|(to, &from)| *to = T::from_f64(from));
            }
            Node::Split(_) => unreachable!("a split is no leaf"),
        }
    }

    pub(super) fn trees_count(&self) -> usize {
        self.outputs.len()
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.values.as_slice())
    }

    /// Adds the leaves that one row reached in the trees from `first_tree` on, in their order. Numbers beyond the last tree are padding.
    #[inline(always)]
    pub(super) fn add_trees(&self, first_tree: usize, numbers: [usize; LANES], sums: &mut [T]) {
        let outputs = &self.outputs[first_tree..];
        if let [sum] = sums {
            for number in &numbers[..outputs.len().min(LANES)] {
                *sum = *sum + self.values[*number];
            }
        } else if self.width == 1 {
            for (output, number) in outputs.iter().zip(numbers) {
                sums[*output] = sums[*output] + self.values[number];
            }
        } else {
            for number in &numbers[..outputs.len().min(LANES)] {
                self.add_vector(*number, sums);
            }
        }
    }

    /// Adds the leaf that each row reached in one tree. `sums` is row-major `[rows, outputs]`; `numbers` has one for each row, at least.
    #[inline(always)]
    pub(super) fn add_rows(&self, tree: usize, numbers: impl Iterator<Item = usize>, sums: &mut [T]) {
        if self.outputs_count == 1 {
            for (sum, number) in sums.iter_mut().zip(numbers) {
                *sum = *sum + self.values[number];
            }
        } else if self.width == 1 {
            let output = self.outputs[tree];
            for (sums, number) in sums.chunks_exact_mut(self.outputs_count).zip(numbers) {
                sums[output] = sums[output] + self.values[number];
            }
        } else {
            for (sums, number) in sums.chunks_exact_mut(self.outputs_count).zip(numbers) {
                self.add_vector(number, sums);
            }
        }
    }

    /// As [`add_rows`](Self::add_rows) for some swept trees from `tree` on, whose leaves are numbered from `first_leaves` on.
    ///
    /// # Safety
    /// Each number plus the tree's first leaf is below the number of leaves.
    #[inline(always)]
    pub(super) unsafe fn add_swept<B: Bin, const ROWS: usize>(
        &self,
        tree: usize,
        first_leaves: &[usize],
        numbers: &[[B; ROWS]; SWEPT_TREES],
        sums: &mut [T],
    ) {
        let one_output = if self.outputs_count == 1 { sums.first_chunk_mut::<ROWS>() } else { None };
        match (one_output, first_leaves.first_chunk::<SWEPT_TREES>()) {
            (Some(sums), Some(first_leaves)) => {
                let trees = first_leaves.map(|first_leaf| &self.values[first_leaf..]);
                for (row, sum) in sums.iter_mut().enumerate() {
                    for (values, numbers) in trees.iter().zip(numbers) {
                        // SAFETY: what the caller promises.
                        *sum = *sum + unsafe { *values.get_unchecked(numbers[row].number()) };
                    }
                }
            }
            _ => {
                for (index, (&first_leaf, numbers)) in first_leaves.iter().zip(numbers).enumerate() {
                    self.add_rows(tree + index, numbers.iter().map(|number| first_leaf + number.number()), sums);
                }
            }
        }
    }

    #[inline(always)]
    fn add_vector(&self, number: usize, sums: &mut [T]) {
        let values = &self.values[number * self.width..][..self.width];
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = *sum + *value;
        }
    }
}
