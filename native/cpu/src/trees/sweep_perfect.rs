//! The sweep of trees that are padded to perfect ones: what a node gives needs no place in memory.
//!
//! Three levels are taken at a time: seven nodes stand between eight given values (or leaves, at the bottom) and one, and what
//! they give each other stays in registers.

use super::ensemble::{Ensemble, Split};
use super::layout::pad;
use super::leaves::Leaves;
use super::number::{Bin, Number};
use super::quantize::Questions;
use super::sweep::Form;

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
    /// Leaves of a tree.
    size: usize,
    /// How many levels are taken together, from the leaves upwards.
    levels: Vec<u32>,
    /// Of each tree, the lowest levels first: for each subtree of these levels, its root, its second level, its third.
    nodes: Vec<SweptNode<B>>,
    leaves: Leaves<T>,
}

/// The top takes what is left over, so that most nodes stand in full groups.
fn levels_of(depth: u32) -> Vec<u32> {
    let top = if depth.is_multiple_of(3) { 3 } else { depth % 3 };
    std::iter::repeat_n(3, ((depth - top) / 3) as usize).chain([top]).collect()
}

impl<B: Bin, T: Number> SweptPerfect<B, T> {
    pub(super) fn new<F: Number>(ensemble: &Ensemble, questions: &Questions<F>, depth: u32) -> Self {
        let size = 1usize << depth;
        let mut leaves = Leaves::new(ensemble, ensemble.trees.len() * size);
        let mut nodes = Vec::with_capacity(ensemble.trees.len() * (size - 1));
        let levels = levels_of(depth);
        for (index, tree) in ensemble.trees.iter().enumerate() {
            let mut heap = vec![SweptNode { slot: 0, bin: B::MAX }; size];
            let split_at = |to: usize, split: &Split| {
                let slot = u16::try_from(questions.slot_of(split)).expect("wider rows have wider bins");
                heap[to] = SweptNode { slot, bin: B::from_bin(questions.bin_of(split)) };
            };
            pad(tree, size, split_at, |place, leaf| leaves.set(index * size + place, leaf));
            let mut bottom = depth;
            for &levels in &levels {
                let top = bottom - levels;
                for root in 1usize << top..2 << top {
                    for level in 0..levels {
                        nodes.extend_from_slice(&heap[root << level..(root + 1) << level]);
                    }
                }
                bottom = top;
            }
        }
        Self { size, levels, nodes, leaves }
    }
}

// SAFETY: a perfect tree gives a number below `size`, and `leaves` has `size` for each tree.
unsafe impl<B: Bin, T: Number> Form<B, T> for SweptPerfect<B, T> {
    fn leaves(&self) -> &Leaves<T> {
        &self.leaves
    }

    fn first_leaf(&self, tree: usize) -> usize {
        tree * self.size
    }

    fn places<const ROWS: usize>(&self) -> Vec<[B; ROWS]> {
        vec![[B::MIN; ROWS]; (self.size / 2).max(1)]
    }

    #[inline(always)]
    fn leaf_numbers<const ROWS: usize>(&self, tree: usize, bins: &[[B; ROWS]], given: &mut [[B; ROWS]]) -> [B; ROWS] {
        let mut rest = &self.nodes[tree * (self.size - 1)..][..self.size - 1];
        let mut count = self.size;
        for (place, &levels) in self.levels.iter().enumerate() {
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
        given[0]
    }

    fn nodes_bytes(&self) -> usize {
        size_of_val(self.nodes.as_slice())
    }
}

/// Subtrees of `LEVELS` levels, which have `NODES` nodes: from what the subtrees below them have given, or from leaves, to what they
/// give.
#[inline(always)]
fn sweep_group<B: Bin, const ROWS: usize, const LEVELS: usize, const NODES: usize, const LEAVES: bool>(
    nodes: &[SweptNode<B>],
    bins: &[[B; ROWS]],
    given: &mut [[B; ROWS]],
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
