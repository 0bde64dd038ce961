//! The sweep of trees that are padded to perfect ones: what a node gives needs no place in memory.
//!
//! Three levels are taken at a time: seven nodes stand between eight given values (or sixteen leaves, at the bottom) and one, and what
//! they give each other stays in registers.

use super::ensemble::{Ensemble, Node};
use super::leaves::{Leaves, SWEPT_TREES};
use super::number::{Bin, Number};
use super::quantize::Questions;
use super::sweep::{SWEPT_ROWS, SWEPT_ROWS_FEW, Sweep};
use super::walk::AddRows;
use crate::vectorized::{Vectorized, vectorized};

/// Deeper trees have more leaves than a byte can number.
pub(super) const SWEPT_DEPTH_MAX: u32 = 8;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct SweptNode<B> {
    slot: u16,
    bin: B,
}

/// All trees padded to perfect ones of one depth.
///
/// Invariants, on which the sweep relies: `nodes` has `2^depth - 1` for each tree, each slot is less than the quantizer's number of
/// slots (or zero, where there is none), and `leaves` has `2^depth` for each tree.
#[derive(Debug)]
pub(super) struct SweptPerfect<B, T> {
    depth: u32,
    /// Of each tree, the lowest levels first: for each subtree of these levels, its root, its second level, its third.
    nodes: Vec<SweptNode<B>>,
    leaves: Leaves<T>,
}

/// How many levels are taken together, from the leaves upwards.
fn levels_of(depth: u32) -> impl Iterator<Item = u32> {
    let first = if depth.is_multiple_of(3) { 3 } else { depth % 3 };
    // The top takes what is left over, so that most nodes stand in full groups.
    std::iter::repeat_n(3, ((depth - first) / 3) as usize).chain([first])
}

impl<B: Bin, T: Number> SweptPerfect<B, T> {
    pub(super) fn new<F: Number>(ensemble: &Ensemble, questions: &Questions<F>, depth: u32) -> Self {
        let size = 1usize << depth;
        let mut leaves = Leaves::new(ensemble, ensemble.trees.len() * size);
        let mut nodes = Vec::with_capacity(ensemble.trees.len() * (size - 1));
        for (index, tree) in ensemble.trees.iter().enumerate() {
            // As a heap: the children of node `i` are `2 i` and `2 i + 1`, the root is 1.
            let mut heap = vec![SweptNode { slot: 0, bin: B::MAX }; size];
            let mut pending = vec![(0, 1)];
            while let Some((from, mut to)) = pending.pop() {
                match &tree.nodes[from] {
                    Node::Split(split) => {
                        let slot = u16::try_from(questions.slot_of(split)).expect("wider rows have wider bins");
                        heap[to] = SweptNode { slot, bin: B::from_bin(questions.bin_of(split)) };
                        pending.extend([(split.left, 2 * to), (split.right, 2 * to + 1)]);
                    }
                    leaf => {
                        // The padding below a leaf always goes left.
                        while to < size {
                            to *= 2;
                        }
                        leaves.set(index * size + to - size, leaf);
                    }
                }
            }
            let mut bottom = depth;
            for levels in levels_of(depth) {
                let top = bottom - levels;
                for root in 1usize << top..2 << top {
                    for level in 0..levels {
                        nodes.extend_from_slice(&heap[root << level..(root + 1) << level]);
                    }
                }
                bottom = top;
            }
        }
        Self { depth, nodes, leaves }
    }
}

impl<B: Bin, T: Number> Sweep<B, T> for SweptPerfect<B, T> {
    fn many(&self) -> &dyn AddRows<B, T, SWEPT_ROWS> {
        self
    }

    fn few(&self) -> &dyn AddRows<B, T, SWEPT_ROWS_FEW> {
        self
    }

    fn bytes(&self) -> usize {
        size_of_val(self.nodes.as_slice()) + self.leaves.bytes()
    }
}

impl<B: Bin, T: Number, const ROWS: usize> AddRows<B, T, ROWS> for SweptPerfect<B, T> {
    fn add_rows(&self, bins: &[B], slots_count: usize, outputs_count: usize, sums: &mut [T]) {
        vectorized(Work::<B, T, ROWS> { swept: self, bins, slots_count, outputs_count, sums });
    }
}

struct Work<'a, B, T, const ROWS: usize> {
    swept: &'a SweptPerfect<B, T>,
    bins: &'a [B],
    slots_count: usize,
    outputs_count: usize,
    sums: &'a mut [T],
}

impl<B: Bin, T: Number, const ROWS: usize> Vectorized for Work<'_, B, T, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let size = 1usize << self.swept.depth;
        let levels: Vec<u32> = levels_of(self.swept.depth).collect();
        let mut given = [[B::MIN; ROWS]; 1 << (SWEPT_DEPTH_MAX - 1)];
        let (bins, _) = self.bins.as_chunks::<ROWS>();
        let trees_count = self.swept.leaves.trees_count();
        let mut numbers = [[B::MIN; ROWS]; SWEPT_TREES];
        for first_tree in (0..trees_count).step_by(SWEPT_TREES) {
            let trees = first_tree..(first_tree + SWEPT_TREES).min(trees_count);
            let mut first_leaves = [0; SWEPT_TREES];
            trees.clone().zip(&mut first_leaves).for_each(|(tree, first_leaf)| *first_leaf = tree * size);
            let first_leaves = &first_leaves[..trees.len()];
            let groups = bins.chunks_exact(self.slots_count);
            for (bins, sums) in groups.zip(self.sums.chunks_exact_mut(ROWS * self.outputs_count)) {
                for (tree, numbers) in trees.clone().zip(&mut numbers) {
                    let nodes = &self.swept.nodes[tree * (size - 1)..][..size - 1];
                    sweep_tree(nodes, size, &levels, bins, &mut given);
                    *numbers = given[0];
                }
                // SAFETY: a perfect tree gives a number below `size`.
                unsafe { self.swept.leaves.add_swept(first_tree, first_leaves, &numbers, sums) };
            }
        }
    }
}

#[inline(always)]
fn sweep_tree<B: Bin, const ROWS: usize>(
    nodes: &[SweptNode<B>],
    size: usize,
    levels: &[u32],
    bins: &[[B; ROWS]],
    given: &mut [[B; ROWS]; 1 << (SWEPT_DEPTH_MAX - 1)],
) {
    let (mut rest, mut count) = (nodes, size);
    for (place, &levels) in levels.iter().enumerate() {
        count >>= levels;
        let (group, after) = rest.split_at(count * ((1 << levels) - 1));
        rest = after;
        match (levels, place == 0) {
            (3, true) => sweep_group::<B, ROWS, 3, 7, true>(group, bins, given),
            (2, true) => sweep_group::<B, ROWS, 2, 3, true>(group, bins, given),
            (_, true) => sweep_group::<B, ROWS, 1, 1, true>(group, bins, given),
            (3, false) => sweep_group::<B, ROWS, 3, 7, false>(group, bins, given),
            (2, false) => sweep_group::<B, ROWS, 2, 3, false>(group, bins, given),
            (_, false) => sweep_group::<B, ROWS, 1, 1, false>(group, bins, given),
        }
    }
}

/// Subtrees of `LEVELS` levels, which have `NODES` nodes: from what the subtrees below them have given, or from leaves, to what they
/// give.
#[inline(always)]
fn sweep_group<B: Bin, const ROWS: usize, const LEVELS: usize, const NODES: usize, const LEAVES: bool>(
    nodes: &[SweptNode<B>],
    bins: &[[B; ROWS]],
    given: &mut [[B; ROWS]; 1 << (SWEPT_DEPTH_MAX - 1)],
) {
    for (subtree, nodes) in nodes.as_chunks::<NODES>().0.iter().enumerate() {
        let below = subtree << LEVELS;
        given[subtree] = match LEVELS {
            3 => third::<B, ROWS, LEAVES>(nodes, bins, given, below),
            2 => second::<B, ROWS, LEAVES>(nodes, 0, 1, bins, given, below),
            _ => first::<B, ROWS, LEAVES>(&nodes[0], bins, given, below),
        };
    }
}

#[inline(always)]
fn third<B: Bin, const ROWS: usize, const LEAVES: bool>(
    nodes: &[SweptNode<B>],
    bins: &[[B; ROWS]],
    given: &[[B; ROWS]],
    below: usize,
) -> [B; ROWS] {
    let left = second::<B, ROWS, LEAVES>(nodes, 1, 3, bins, given, below);
    let right = second::<B, ROWS, LEAVES>(nodes, 2, 5, bins, given, below + 4);
    choose(&nodes[0], bins, &left, &right)
}

#[inline(always)]
fn second<B: Bin, const ROWS: usize, const LEAVES: bool>(
    nodes: &[SweptNode<B>],
    root: usize,
    child: usize,
    bins: &[[B; ROWS]],
    given: &[[B; ROWS]],
    below: usize,
) -> [B; ROWS] {
    let left = first::<B, ROWS, LEAVES>(&nodes[child], bins, given, below);
    let right = first::<B, ROWS, LEAVES>(&nodes[child + 1], bins, given, below + 2);
    choose(&nodes[root], bins, &left, &right)
}

#[inline(always)]
fn first<B: Bin, const ROWS: usize, const LEAVES: bool>(
    node: &SweptNode<B>,
    bins: &[[B; ROWS]],
    given: &[[B; ROWS]],
    below: usize,
) -> [B; ROWS] {
    if LEAVES {
        let number = B::from_number(below);
        // SAFETY: as in `choose`.
        let bins = unsafe { bins.get_unchecked(usize::from(node.slot)) };
        return std::array::from_fn(|row| B::next_if(bins[row] > node.bin, number));
    }
    choose(node, bins, &given[below], &given[below + 1])
}

#[inline(always)]
fn choose<B: Bin, const ROWS: usize>(
    node: &SweptNode<B>,
    bins: &[[B; ROWS]],
    left: &[B; ROWS],
    right: &[B; ROWS],
) -> [B; ROWS] {
    // SAFETY: each slot is below the number of slots, of which `bins` has one for each.
    let bins = unsafe { bins.get_unchecked(usize::from(node.slot)) };
    std::array::from_fn(|row| B::select(bins[row] > node.bin, right[row], left[row]))
}
