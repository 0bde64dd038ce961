//! Trees that are walked over a row's features as they come, without bins.
//!
//! To quantize a row takes time for each feature that some tree asks for, and a walk asks for few of them. For one row of thousands
//! of features it is cheaper to compare numbers at each node.

use super::ensemble::{Ensemble, Missing, Node, Test, Tree};
use super::forest::Input;
use super::layout::{LANES, Shape, in_level_order};
use super::leaves::Leaves;
use super::number::Number;
use super::quantize::start_of;
use super::walk::descend;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct DirectNode<F> {
    /// The smallest value that goes right; NaN, which no value reaches, in a leaf.
    start: F,
    feature: u32,
    /// Twice the distance to the left child, behind which the right one follows, and 1 more if a missing value goes right. A leaf's
    /// is zero, so that a step from a leaf leads to the leaf.
    step: u32,
}

/// Invariants, on which the walk relies: `starts` has a place of `nodes` for each tree and for the padding to a multiple of
/// [`LANES`], each step from a node leads to a node of `nodes`, and each feature is below the ensemble's number of features.
#[derive(Debug)]
pub(super) struct Direct<F, T> {
    features_count: usize,
    starts: Vec<usize>,
    depths: Vec<u32>,
    nodes: Vec<DirectNode<F>>,
    /// By the leaf's place in `nodes`.
    leaves: Leaves<T>,
}

impl<F: Number, T: Number> Direct<F, T> {
    /// `None` where a node asks for more than a comparison tells: categories, or zero as a missing value.
    pub(super) fn new(ensemble: &Ensemble, shape: &Shape) -> Option<Self> {
        let is_plain = |node: &Node| match node {
            Node::Split(split) => {
                matches!(split.test, Test::Threshold(_))
                    && !matches!(split.missing, Missing::ZeroLeft | Missing::ZeroRight)
            }
            _ => true,
        };
        if shape.tree_nodes_max >= 1 << 30 || !ensemble.trees.iter().flat_map(|tree| &tree.nodes).all(is_plain) {
            return None;
        }
        let padding = ensemble.trees.len().next_multiple_of(LANES) - ensemble.trees.len();
        let mut direct = Self {
            features_count: ensemble.features_count,
            starts: Vec::new(),
            depths: Vec::new(),
            nodes: Vec::new(),
            leaves: Leaves::new(ensemble, shape.nodes_count + padding),
        };
        for tree in &ensemble.trees {
            direct.push(tree, ensemble);
        }
        for _ in 0..padding {
            direct.starts.push(direct.nodes.len());
            direct.depths.push(0);
            direct.push_leaf();
        }
        Some(direct)
    }

    fn push(&mut self, tree: &Tree, ensemble: &Ensemble) {
        let (order, depth) = in_level_order(tree);
        self.starts.push(self.nodes.len());
        self.depths.push(depth);
        for (from, step) in order {
            match &tree.nodes[from] {
                Node::Split(split) => {
                    let Test::Threshold(threshold) = split.test else { unreachable!("checked by `new`") };
                    let start: F = start_of(ensemble.comparison, threshold);
                    let missing_right = match split.missing {
                        Missing::Right | Missing::ZeroRight => true,
                        Missing::Left | Missing::ZeroLeft => false,
                        Missing::AsZero => F::default() >= start,
                    };
                    let distance = u32::try_from(step).expect("checked by `new`");
                    self.nodes.push(DirectNode {
                        start,
                        feature: u32::try_from(split.feature).expect("an ensemble has fewer features"),
                        step: 2 * distance + u32::from(missing_right),
                    });
                }
                leaf => {
                    self.leaves.set(self.nodes.len(), leaf);
                    self.push_leaf();
                }
            }
        }
    }

    fn push_leaf(&mut self) {
        self.nodes.push(DirectNode { start: F::NAN, feature: 0, step: 0 });
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.nodes.as_slice()) + self.leaves.bytes()
    }

    /// One row, eight trees at a time.
    pub(super) fn add_row<I: Input>(&self, row: &[I], sums: &mut [T]) {
        assert!(row.len() == self.features_count);
        let groups = self.starts.chunks_exact(LANES).zip(self.depths.chunks_exact(LANES));
        for (group, (starts, depths)) in groups.enumerate() {
            let mut places: [usize; LANES] = starts.try_into().expect("chunks are exact");
            descend(depths.iter().copied().max().unwrap_or(0), &mut places, |_, place| {
                // SAFETY: a place begins at a tree's start, and a step leads to a node of the tree; features are below the row's
                // length, which was asserted (the invariants).
                let (node, value) = unsafe {
                    let node = self.nodes.get_unchecked(place);
                    (node, row.get_unchecked(node.feature as usize).number::<F>())
                };
                let goes_right = (value >= node.start) | (value.is_nan() & (node.step & 1 == 1));
                place + (node.step / 2) as usize + usize::from(goes_right)
            });
            self.leaves.add_trees(group * LANES, places, sums);
        }
    }
}
