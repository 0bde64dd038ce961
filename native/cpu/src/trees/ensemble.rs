use headrace_types::{Error, ErrorCode, Result};

use super::number::{Number, round_to};
use crate::rows::check_lengths;

/// A feature whose magnitude is at most this counts as zero where zero means missing (LightGBM's `kZeroThreshold`).
pub const ZERO_THRESHOLD: f64 = 1.000_000_018_002_509_5e-35;

/// Nodes that all trees of an ensemble may have together.
const NODES_MAX: usize = 1 << 28;
/// Features that a row may have.
const FEATURES_MAX: usize = 1 << 20;

/// An arithmetic of the trainer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Float32,
    Float64,
}

/// Which comparison with the threshold sends a row to the left child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `x < threshold`, as XGBoost.
    Less,
    /// `x <= threshold`, as LightGBM.
    LessEqual,
}

/// What a node does with a value that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Missing {
    /// NaN goes left.
    Left,
    /// NaN goes right.
    Right,
    /// NaN is tested as if it were 0.0.
    AsZero,
    /// NaN and zero (see [`ZERO_THRESHOLD`]) go left.
    ZeroLeft,
    /// NaN and zero (see [`ZERO_THRESHOLD`]) go right.
    ZeroRight,
}

/// A set of category codes. A feature value stands for the code that it truncates to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Categories {
    bits: Vec<u32>,
    /// Whether values between -1 and 0 stand for code 0 (LightGBM) or for no category (XGBoost).
    negative_fraction_is_zero: bool,
}

impl Categories {
    /// The set whose member `code` is bit `code % 32` of word `code / 32`.
    pub fn from_words(bits: Vec<u32>, negative_fraction_is_zero: bool) -> Self {
        Self { bits, negative_fraction_is_zero }
    }

    pub fn words_count(&self) -> usize {
        self.bits.len()
    }

    /// Whether `value` (not NaN) stands for a member.
    #[inline]
    pub fn contains(&self, value: f64) -> bool {
        let lowest_is_valid = if self.negative_fraction_is_zero { value > -1.0 } else { value >= 0.0 };
        if !lowest_is_valid || value >= 4_294_967_296.0 {
            return false;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the range was checked above
        let code = value as u32;
        self.bits.get(code as usize / 32).is_some_and(|word| word >> (code % 32) & 1 == 1)
    }
}

/// The question of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// Compares with a threshold by the ensemble's [`Comparison`].
    Threshold(f64),
    /// Asks for membership; `members_go_left` says where a member goes.
    Categories { set: Categories, members_go_left: bool },
}

/// An inner node. Children are positions in the tree's list of nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    pub feature: usize,
    pub test: Test,
    pub missing: Missing,
    pub left: usize,
    pub right: usize,
}

impl Split {
    /// Where a value goes that is already rounded to `precision`.
    pub(super) fn goes_left(&self, value: f64, precision: Precision, comparison: Comparison) -> bool {
        let zero_is_missing = matches!(self.missing, Missing::ZeroLeft | Missing::ZeroRight);
        let value = if value.is_nan() || zero_is_missing && value.abs() <= ZERO_THRESHOLD {
            match self.missing {
                Missing::Left | Missing::ZeroLeft => return true,
                Missing::Right | Missing::ZeroRight => return false,
                Missing::AsZero => 0.0,
            }
        } else {
            value
        };
        match &self.test {
            Test::Threshold(threshold) => match comparison {
                Comparison::Less => value < round_to(precision, *threshold),
                Comparison::LessEqual => value <= round_to(precision, *threshold),
            },
            Test::Categories { set, members_go_left } => set.contains(value) == *members_go_left,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// Adds to the tree's output.
    Leaf(f64),
    /// Adds a value to each output of the ensemble. All leaves of an ensemble are of one kind.
    VectorLeaf(Box<[f64]>),
    Split(Split),
}

/// One tree; its root is node 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Tree {
    /// What scalar leaves add to; 0 where leaves are vectors.
    pub output: usize,
    pub nodes: Vec<Node>,
    /// The weight of the training rows that reached each node; empty where the file does not tell. Only explanations need it.
    pub covers: Vec<f64>,
}

impl Tree {
    /// A tree without covers.
    pub fn new(output: usize, nodes: Vec<Node>) -> Self {
        Self { output, nodes, covers: Vec::new() }
    }

    pub(super) fn has_vector_leaves(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node, Node::VectorLeaf(_)))
    }
}

/// Trees as the trainer wrote them. Public fields: a loader fills it, [`Ensemble::validate`] checks it, nothing trusts
/// it before.
#[derive(Debug, Clone, PartialEq)]
pub struct Ensemble {
    /// What features and thresholds are rounded to before they are compared.
    pub features_precision: Precision,
    /// What leaves are summed in.
    pub precision: Precision,
    pub comparison: Comparison,
    pub features_count: usize,
    pub outputs_count: usize,
    /// What each output's sum starts from.
    pub base: Vec<f64>,
    pub trees: Vec<Tree>,
}

fn corrupt(message: String) -> Error {
    Error::new(ErrorCode::CorruptModel, message, "export the model again from the library that trained it")
}

impl Ensemble {
    /// Checks everything that evaluation relies on: sizes, indices, and that each tree is a tree.
    ///
    /// # Errors
    /// `corrupt_model` naming the tree, the node and what is wrong with it.
    pub fn validate(&self) -> Result<()> {
        if self.features_count == 0 || self.outputs_count == 0 {
            return Err(corrupt(format!(
                "the model has {} features and {} outputs; it needs at least one of each",
                self.features_count, self.outputs_count
            )));
        }
        if self.features_count > FEATURES_MAX {
            return Err(corrupt(format!(
                "the model says {} features, at most {FEATURES_MAX} are read",
                self.features_count
            )));
        }
        if self.base.len() != self.outputs_count {
            return Err(corrupt(format!(
                "the model has {} base scores for {} outputs",
                self.base.len(),
                self.outputs_count
            )));
        }
        let nodes_count = self.trees.iter().try_fold(0usize, |sum, tree| sum.checked_add(tree.nodes.len()));
        if nodes_count.is_none_or(|count| count > NODES_MAX) {
            return Err(corrupt(format!("the model has more than {NODES_MAX} nodes")));
        }
        let vectors_count = self.trees.iter().filter(|tree| tree.has_vector_leaves()).count();
        if vectors_count != 0 && vectors_count != self.trees.len() {
            return Err(corrupt("some trees have vectors in their leaves, and others numbers".to_string()));
        }
        for (index, tree) in self.trees.iter().enumerate() {
            self.validate_tree(tree).map_err(|error| error.within(format!("tree {index}")))?;
        }
        Ok(())
    }

    fn validate_tree(&self, tree: &Tree) -> Result<()> {
        if tree.output >= self.outputs_count {
            return Err(corrupt(format!("adds to output {}, the model has {}", tree.output, self.outputs_count)));
        }
        if tree.nodes.is_empty() {
            return Err(corrupt("has no nodes".to_string()));
        }
        if !tree.covers.is_empty() && tree.covers.len() != tree.nodes.len() {
            return Err(corrupt(format!("has {} covers for {} nodes", tree.covers.len(), tree.nodes.len())));
        }
        let has_vector_leaves = tree.has_vector_leaves();
        let mut has_parent = vec![false; tree.nodes.len()];
        has_parent[0] = true;
        for (index, node) in tree.nodes.iter().enumerate() {
            let split = match node {
                Node::Split(split) => split,
                Node::Leaf(_) if !has_vector_leaves => continue,
                Node::VectorLeaf(values) if values.len() == self.outputs_count => continue,
                Node::Leaf(_) => return Err(corrupt(format!("node {index} is a scalar leaf among vectors"))),
                Node::VectorLeaf(values) => {
                    let (have, wanted) = (values.len(), self.outputs_count);
                    return Err(corrupt(format!("leaf {index} has {have} values for {wanted} outputs")));
                }
            };
            if split.feature >= self.features_count {
                return Err(corrupt(format!(
                    "node {index} tests feature {}, the model has {}",
                    split.feature, self.features_count
                )));
            }
            if matches!(split.test, Test::Threshold(threshold) if threshold.is_nan()) {
                return Err(corrupt(format!("node {index} has NaN as its threshold")));
            }
            for child in [split.left, split.right] {
                match has_parent.get_mut(child) {
                    None => {
                        return Err(corrupt(format!("node {index} has child {child} of {} nodes", tree.nodes.len())));
                    }
                    Some(true) => return Err(corrupt(format!("node {child} has more than one parent"))),
                    Some(seen) => *seen = true,
                }
            }
        }
        // With one parent at most for each node and none for the root, what the root reaches is a tree: no cycle can be
        // entered.
        Ok(())
    }

    /// The plain twin of [`Forest`](super::Forest): follows the nodes one at a time. For tests and for reading.
    ///
    /// # Errors
    /// `corrupt_model` as [`validate`](Self::validate); `length_mismatch` when a slice does not fit `rows`.
    pub fn margins(&self, features: &[f64], rows: usize, margins: &mut [f64]) -> Result<()> {
        self.validate()?;
        check_lengths(self.features_count, self.outputs_count, features.len(), rows, margins.len())?;
        for row in 0..rows {
            let features = &features[row * self.features_count..][..self.features_count];
            let margins = &mut margins[row * self.outputs_count..][..self.outputs_count];
            match self.precision {
                Precision::Float32 => self.row_margins::<f32>(features, margins),
                Precision::Float64 => self.row_margins::<f64>(features, margins),
            }
        }
        Ok(())
    }

    fn row_margins<T: Number>(&self, features: &[f64], margins: &mut [f64]) {
        let mut sums: Vec<T> = self.base.iter().map(|&base| T::from_f64(base)).collect();
        for tree in &self.trees {
            match self.leaf(tree, features) {
                Node::Leaf(value) => sums[tree.output] = sums[tree.output] + T::from_f64(*value),
                Node::VectorLeaf(values) => {
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum = *sum + T::from_f64(*value);
                    }
                }
                Node::Split(_) => unreachable!("a walk ends at a leaf"),
            }
        }
        for (margin, sum) in margins.iter_mut().zip(sums) {
            *margin = sum.to_f64();
        }
    }

    /// The leaf that a row reaches.
    fn leaf<'a>(&self, tree: &'a Tree, features: &[f64]) -> &'a Node {
        let mut node = &tree.nodes[0];
        while let Node::Split(split) = node {
            let value = round_to(self.features_precision, features[split.feature]);
            let goes_left = split.goes_left(value, self.features_precision, self.comparison);
            node = &tree.nodes[if goes_left { split.left } else { split.right }];
        }
        node
    }
}
