//! Trees of which every node is asked, for 32 or 64 rows at a time.
//!
//! A walk asks few questions, each of which waits for the answer before. A sweep asks all of them, in vector instructions that
//! answer for all rows at once and wait for nothing: for a tree of 64 leaves that is a quarter of the instructions, and none of
//! them depends on a row. From the leaves upwards, a node takes for each row what its left or its right child gave, which is
//! the number of a leaf:
//!
//! ```text
//!   node      given to[row] = bins[slot][row] > bin ? given right[row] : given left[row]
//!   leaf      its number in the tree, the same for all rows
//! ```

use std::ops::Range;

use super::ensemble::{Ensemble, Node, Tree};
use super::layout::Shape;
use super::leaves::{Leaves, SWEPT_TREES};
use super::number::{Bin, Number};
use super::quantize::Questions;
use crate::vectorized::{Vectorized, vectorized};

/// Rows that are swept together where there are enough: two vector registers of bytes, so that what is read of a node serves both.
pub(super) const SWEPT_ROWS: usize = 64;
/// Rows that are swept together at the end of a batch.
pub(super) const SWEPT_ROWS_FEW: usize = 32;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct SweptNode<B> {
    slot: u32,
    /// Places of what the children gave: a leaf's number is at its own place, what nodes give comes behind all numbers.
    left: u16,
    right: u16,
    to: u16,
    bin: B,
}

/// Trees that are swept, in one form or the other.
pub(super) trait Sweep<B, T>: Send + Sync {
    /// Groups of [`SWEPT_ROWS`] rows: adds the leaves that they reach to their sums. `bins` has `slots_count * SWEPT_ROWS` for each
    /// group, `sums` row-major `[rows, outputs_count]`, for as many groups as it has room for.
    fn add_many(&self, bins: &[B], slots_count: usize, outputs_count: usize, sums: &mut [T]);
    /// The same for groups of [`SWEPT_ROWS_FEW`].
    fn add_few(&self, bins: &[B], slots_count: usize, outputs_count: usize, sums: &mut [T]);
    /// The memory that nodes and leaves take.
    fn bytes(&self) -> usize;

    fn name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}

/// A form of trees, as far as the sweep of one tree depends on it.
///
/// # Safety
/// `first_leaf` plus each number of `leaf_numbers` is below the number of `leaves`.
pub(super) unsafe trait Form<B, T>: Send + Sync {
    fn leaves(&self) -> &Leaves<T>;
    fn first_leaf(&self, tree: usize) -> usize;
    /// The places for what nodes give.
    fn places<const ROWS: usize>(&self) -> Vec<[B; ROWS]>;
    /// The number of the leaf of one tree that each row reaches. `bins` has a group for each slot; `given` is what `places` made.
    fn leaf_numbers<const ROWS: usize>(&self, tree: usize, bins: &[[B; ROWS]], given: &mut [[B; ROWS]]) -> [B; ROWS];
    fn nodes_bytes(&self) -> usize;
}

impl<B: Bin, T: Number, F: Form<B, T>> Sweep<B, T> for F {
    fn add_many(&self, bins: &[B], slots_count: usize, outputs_count: usize, sums: &mut [T]) {
        vectorized(Work::<_, _, _, SWEPT_ROWS> { form: self, bins, slots_count, outputs_count, sums });
    }

    fn add_few(&self, bins: &[B], slots_count: usize, outputs_count: usize, sums: &mut [T]) {
        vectorized(Work::<_, _, _, SWEPT_ROWS_FEW> { form: self, bins, slots_count, outputs_count, sums });
    }

    fn bytes(&self) -> usize {
        self.nodes_bytes() + self.leaves().bytes()
    }
}

struct Work<'a, F, B, T, const ROWS: usize> {
    form: &'a F,
    bins: &'a [B],
    slots_count: usize,
    outputs_count: usize,
    sums: &'a mut [T],
}

impl<B: Bin, T: Number, F: Form<B, T>, const ROWS: usize> Vectorized for Work<'_, F, B, T, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let leaves = self.form.leaves();
        let trees_count = leaves.trees_count();
        let mut given = self.form.places::<ROWS>();
        let (bins, _) = self.bins.as_chunks::<ROWS>();
        let mut numbers = [[B::MIN; ROWS]; SWEPT_TREES];
        for first_tree in (0..trees_count).step_by(SWEPT_TREES) {
            let trees = first_tree..(first_tree + SWEPT_TREES).min(trees_count);
            let mut first_leaves = [0; SWEPT_TREES];
            trees.clone().zip(&mut first_leaves).for_each(|(tree, first)| *first = self.form.first_leaf(tree));
            let first_leaves = &first_leaves[..trees.len()];
            let groups = bins.chunks_exact(self.slots_count);
            for (bins, sums) in groups.zip(self.sums.chunks_exact_mut(ROWS * self.outputs_count)) {
                for (tree, numbers) in trees.clone().zip(&mut numbers) {
                    *numbers = self.form.leaf_numbers(tree, bins, &mut given);
                }
                // SAFETY: what a form promises.
                unsafe { leaves.add_swept(first_tree, first_leaves, &numbers, sums) };
            }
        }
    }
}

/// All trees, children before their parents.
///
/// Invariants, on which the sweep relies: `left` and `right` are below `places`, `to` as well, and each slot is less than the
/// quantizer's number of slots. What a root gives is the number of a leaf of its tree, so `first_leaf` plus it is below the number
/// of leaves.
#[derive(Debug)]
pub(super) struct Swept<B, T> {
    trees: Vec<SweptTree>,
    nodes: Vec<SweptNode<B>>,
    /// Leaves of the largest tree: the places of leaves' numbers.
    numbers: usize,
    /// Numbers, and what nodes give until their parents take it.
    places: usize,
    leaves: Leaves<T>,
}

#[derive(Debug)]
struct SweptTree {
    nodes: Range<usize>,
    first_leaf: usize,
    /// Nodes between two leaves; they come first.
    lowest_count: usize,
    /// The place of what the root gives.
    root: u16,
}

/// Whether each tree has so few leaves that a bin's type holds their numbers.
pub(super) fn can_sweep<B: Bin>(leaves_max: usize) -> bool {
    // Places are 16 bits: numbers of leaves, and at most as many of nodes.
    leaves_max <= (B::COUNT_MAX + 1).min(1 << 15)
}

impl<B: Bin, T: Number> Swept<B, T> {
    pub(super) fn new<F: Number>(ensemble: &Ensemble, questions: &Questions<F>, shape: &Shape) -> Self {
        let leaves = Leaves::new(ensemble, shape.leaves_count());
        let numbers = shape.leaves_max();
        let mut swept = Self { trees: Vec::new(), nodes: Vec::new(), numbers, places: numbers, leaves };
        let mut first_leaf = 0;
        for tree in &ensemble.trees {
            first_leaf = swept.push(tree, questions, first_leaf);
        }
        swept
    }

    /// Nodes in order of their height, so that neighbours do not wait for each other. Returns the number behind the tree's last leaf.
    fn push<F: Number>(&mut self, tree: &Tree, questions: &Questions<F>, first_leaf: usize) -> usize {
        let nodes_begin = self.nodes.len();
        let postorder = in_postorder(tree);
        let mut heights = vec![0u32; tree.nodes.len()];
        let mut places = vec![0usize; tree.nodes.len()];
        let mut leaves_count = 0;
        for &index in &postorder {
            match &tree.nodes[index] {
                Node::Split(split) => heights[index] = 1 + heights[split.left].max(heights[split.right]),
                leaf => {
                    places[index] = leaves_count;
                    self.leaves.set(first_leaf + leaves_count, leaf);
                    leaves_count += 1;
                }
            }
        }
        let mut order = postorder;
        order.retain(|&index| heights[index] > 0);
        order.sort_by_key(|&index| heights[index]);
        let lowest_count = order.partition_point(|&index| heights[index] == 1);
        let mut free = Vec::new();
        let mut places_end = self.numbers;
        for index in order {
            let Node::Split(split) = &tree.nodes[index] else { unreachable!("leaves have height 0") };
            let (left, right) = (places[split.left], places[split.right]);
            free.extend([left, right].into_iter().filter(|&place| place >= self.numbers));
            places[index] = free.pop().unwrap_or_else(|| {
                places_end += 1;
                places_end - 1
            });
            let place = |place: usize| u16::try_from(place).expect("a tree that is swept has few leaves");
            self.nodes.push(SweptNode {
                slot: u32::try_from(questions.slot_of(split)).expect("an ensemble has fewer features and nodes"),
                left: place(left),
                right: place(right),
                to: place(places[index]),
                bin: B::from_bin(questions.bin_of(split)),
            });
        }
        self.places = self.places.max(places_end);
        let root = u16::try_from(places[0]).expect("a tree that is swept has few leaves");
        self.trees.push(SweptTree { nodes: nodes_begin..self.nodes.len(), first_leaf, lowest_count, root });
        first_leaf + leaves_count
    }
}

// SAFETY: what a root gives is the number of one of its leaves.
unsafe impl<B: Bin, T: Number> Form<B, T> for Swept<B, T> {
    fn leaves(&self) -> &Leaves<T> {
        &self.leaves
    }

    fn first_leaf(&self, tree: usize) -> usize {
        self.trees[tree].first_leaf
    }

    fn places<const ROWS: usize>(&self) -> Vec<[B; ROWS]> {
        let mut given = vec![[B::MIN; ROWS]; self.places];
        for (number, given) in given[..self.numbers].iter_mut().enumerate() {
            *given = [B::from_number(number); ROWS];
        }
        given
    }

    #[inline(always)]
    fn leaf_numbers<const ROWS: usize>(&self, tree: usize, bins: &[[B; ROWS]], given: &mut [[B; ROWS]]) -> [B; ROWS] {
        let tree = &self.trees[tree];
        let (lowest, others) = self.nodes[tree.nodes.clone()].split_at(tree.lowest_count);
        for node in lowest {
            sweep_lowest(node, bins, given);
        }
        for node in others {
            sweep_node(node, bins, given);
        }
        given[usize::from(tree.root)]
    }

    fn nodes_bytes(&self) -> usize {
        size_of_val(self.nodes.as_slice()) + size_of_val(self.trees.as_slice())
    }
}

/// The nodes that the root reaches, children before their parents and left before right.
fn in_postorder(tree: &Tree) -> Vec<usize> {
    let mut order = Vec::with_capacity(tree.nodes.len());
    let mut pending = vec![0];
    // Parents before children and right before left, then turned round.
    while let Some(index) = pending.pop() {
        order.push(index);
        if let Node::Split(split) = &tree.nodes[index] {
            pending.extend([split.left, split.right]);
        }
    }
    order.reverse();
    order
}

/// A node between two leaves, whose numbers follow each other.
#[inline(always)]
fn sweep_lowest<B: Bin, const ROWS: usize>(node: &SweptNode<B>, bins: &[[B; ROWS]], given: &mut [[B; ROWS]]) {
    // SAFETY: as in `sweep_node`.
    let bins = unsafe { bins.get_unchecked(node.slot as usize) };
    let left = B::from_number(node.left.into());
    let to: [B; ROWS] = std::array::from_fn(|row| B::next_if(bins[row] > node.bin, left));
    // SAFETY: as in `sweep_node`.
    unsafe { *given.get_unchecked_mut(usize::from(node.to)) = to };
}

#[inline(always)]
fn sweep_node<B: Bin, const ROWS: usize>(node: &SweptNode<B>, bins: &[[B; ROWS]], given: &mut [[B; ROWS]]) {
    // SAFETY: the invariants of `Swept`; `bins` has as many groups as the quantizer has slots, `given` as many as there are
    // places.
    let (bins, left, right) = unsafe {
        (
            bins.get_unchecked(node.slot as usize),
            *given.get_unchecked(usize::from(node.left)),
            *given.get_unchecked(usize::from(node.right)),
        )
    };
    let to: [B; ROWS] = std::array::from_fn(|row| B::select(bins[row] > node.bin, right[row], left[row]));
    // SAFETY: as above.
    unsafe { *given.get_unchecked_mut(usize::from(node.to)) = to };
}
