//! The forms in which trees that are walked lie in memory.

use super::ensemble::{Ensemble, Node, Split, Tree};
use super::leaves::Leaves;
use super::number::{Bin, Number, Offset};
use super::quantize::Questions;

/// Trees are padded to a multiple of the number of interleaved walks; results of the padding are not used.
pub(super) const LANES: usize = 8;

/// Perfect trees deeper than this are never built: a level doubles the memory.
pub(super) const PERFECT_DEPTH_MAX: u32 = 8;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct PerfectNode<S, B> {
    pub(super) slot: S,
    pub(super) bin: B,
}

/// All trees padded to perfect ones of one depth: the children of node `i` are `2 i` and `2 i + 1`, the root is 1.
///
/// Invariants, on which the walk relies: `nodes` has `trees * 2^depth` places with `trees` a multiple of [`LANES`], `leaves` as
/// many but for the padding, and each slot is less than the quantizer's number of slots (or zero, where there is none).
#[derive(Debug)]
pub(super) struct Perfect<S, B, T> {
    pub(super) depth: u32,
    pub(super) nodes: Vec<PerfectNode<S, B>>,
    pub(super) leaves: Leaves<T>,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct LinkedNode<C, S, B> {
    /// How far behind this node its left child lies; the right one follows that. A leaf's is zero, and its question is
    /// one that every bin answers with "left", so that a step from a leaf leads to the leaf.
    pub(super) step: C,
    pub(super) slot: S,
    pub(super) bin: B,
}

/// Trees of any shape, nodes in order of their levels.
///
/// Invariants, on which the walk relies: `starts` has a place of `nodes` for each tree and for the padding to a
/// multiple of [`LANES`], each step from a node leads to a node of `nodes`, `leaves` has the length of `nodes`, and
/// each slot is less than the quantizer's number of slots (or zero, where there is none).
#[derive(Debug)]
pub(super) struct Linked<C, S, B, T> {
    /// The root of each tree.
    pub(super) starts: Vec<usize>,
    /// The number of levels below the root, for each tree.
    pub(super) depths: Vec<u32>,
    pub(super) nodes: Vec<LinkedNode<C, S, B>>,
    /// By the leaf's place in `nodes`.
    pub(super) leaves: Leaves<T>,
}

/// What decides between the layouts.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub(super) depth_max: u32,
    pub(super) nodes_count: usize,
    pub(super) trees_count: usize,
    pub(super) tree_nodes_max: usize,
}

impl Shape {
    pub(super) fn of(ensemble: &Ensemble) -> Self {
        let mut shape = Self::default();
        for tree in &ensemble.trees {
            let (nodes, depth) = in_level_order(tree);
            shape.depth_max = shape.depth_max.max(depth);
            shape.trees_count += 1;
            shape.nodes_count += nodes.len();
            shape.tree_nodes_max = shape.tree_nodes_max.max(nodes.len());
        }
        shape
    }

    /// Leaves of all trees: a tree has one more than splits.
    pub(super) fn leaves_count(&self) -> usize {
        (self.nodes_count + self.trees_count) / 2
    }

    pub(super) fn leaves_max(&self) -> usize {
        self.tree_nodes_max.div_ceil(2)
    }

    /// Whether padding to perfect trees costs at most twice the memory of linked nodes.
    pub(super) fn prefers_perfect(&self) -> bool {
        self.depth_max <= PERFECT_DEPTH_MAX && (self.trees_count << self.depth_max) <= 2 * self.nodes_count + LANES
    }
}

/// The nodes that the root reaches, level by level and children in pairs, each with how far behind it its left child comes (0 for a leaf);
/// and the depth of the last.
pub(super) fn in_level_order(tree: &Tree) -> (Vec<(usize, usize)>, u32) {
    let mut order = vec![(0, 0)];
    let mut level_begin = 0;
    let mut depth = 0;
    loop {
        let level_end = order.len();
        for place in level_begin..level_end {
            if let Node::Split(split) = &tree.nodes[order[place].0] {
                order[place].1 = order.len() - place;
                order.extend([(split.left, 0), (split.right, 0)]);
            }
        }
        if order.len() == level_end {
            return (order, depth);
        }
        level_begin = level_end;
        depth += 1;
    }
}

/// Pads a tree to a perfect one of `size` leaves, in which the children of node `i` are `2 i` and `2 i + 1` and the root is 1: hands out
/// each split with its place, and each leaf with its place among the leaves. The padding below a leaf must always go left.
pub(super) fn pad(
    tree: &Tree,
    size: usize,
    mut split_at: impl FnMut(usize, &Split),
    mut leaf_at: impl FnMut(usize, &Node),
) {
    let mut pending = vec![(0, 1)];
    while let Some((from, mut to)) = pending.pop() {
        match &tree.nodes[from] {
            Node::Split(split) => {
                split_at(to, split);
                pending.extend([(split.left, 2 * to), (split.right, 2 * to + 1)]);
            }
            leaf => {
                while to < size {
                    to *= 2;
                }
                leaf_at(to - size, leaf);
            }
        }
    }
}

impl<S: Offset, B: Bin, T: Number> Perfect<S, B, T> {
    pub(super) fn new<F: Number>(ensemble: &Ensemble, questions: &Questions<F>, depth: u32) -> Self {
        let size = 1usize << depth;
        let trees = ensemble.trees.len().next_multiple_of(LANES);
        let mut nodes = vec![PerfectNode { slot: S::default(), bin: B::MAX }; trees * size];
        // What the padding reaches is not added.
        let mut leaves = Leaves::new(ensemble, ensemble.trees.len() * size);
        for (index, tree) in ensemble.trees.iter().enumerate() {
            let nodes = &mut nodes[index * size..][..size];
            let split_at = |to: usize, split: &Split| {
                let (slot, bin) = (questions.slot_of(split), questions.bin_of(split));
                nodes[to] = PerfectNode { slot: S::from_usize(slot), bin: B::from_bin(bin) };
            };
            pad(tree, size, split_at, |place, leaf| leaves.set(index * size + place, leaf));
        }
        Self { depth, nodes, leaves }
    }
}

impl<C: Offset, S: Offset, B: Bin, T: Number> Linked<C, S, B, T> {
    pub(super) fn new<F: Number>(ensemble: &Ensemble, questions: &Questions<F>, shape: &Shape) -> Self {
        let padding = ensemble.trees.len().next_multiple_of(LANES) - ensemble.trees.len();
        let leaves = Leaves::new(ensemble, shape.nodes_count + padding);
        let mut linked = Self { starts: Vec::new(), depths: Vec::new(), nodes: Vec::new(), leaves };
        for tree in &ensemble.trees {
            linked.push(tree, questions);
        }
        for _ in 0..padding {
            linked.starts.push(linked.nodes.len());
            linked.depths.push(0);
            linked.push_leaf();
        }
        linked
    }

    fn push<F: Number>(&mut self, tree: &Tree, questions: &Questions<F>) {
        let (order, depth) = in_level_order(tree);
        self.starts.push(self.nodes.len());
        self.depths.push(depth);
        for (from, step) in order {
            match &tree.nodes[from] {
                Node::Split(split) => self.nodes.push(LinkedNode {
                    step: C::from_usize(step),
                    slot: S::from_usize(questions.slot_of(split)),
                    bin: B::from_bin(questions.bin_of(split)),
                }),
                leaf => {
                    self.leaves.set(self.nodes.len(), leaf);
                    self.push_leaf();
                }
            }
        }
    }

    fn push_leaf(&mut self) {
        self.nodes.push(LinkedNode { step: C::default(), slot: S::default(), bin: B::MAX });
    }
}
