//! Trees as straight lists of actions, which a sweep follows for every row alike.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use headrace_types::{Error, ErrorCode, Result};

use super::super::ensemble::{Ensemble, Node, Split, Tree};
use super::super::number::{Bin, Number};
use super::super::quantize::Questions;
use super::quadrature;

/// Levels that a tree may have: a sweep keeps a frame for each.
const LEVELS_MAX: usize = 4_096;
/// Features of all outputs together that a row's explanation may name.
const COLUMNS_MAX: usize = 1 << 22;

/// What a sweep does next. Inner nodes and leaves are taken from their lists in the order in which actions need them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Action {
    /// The next inner node has two leaves, which are the next ones: its sum is known at once.
    Leaves,
    /// Opens the next inner node and goes to its left child.
    OpenLeft,
    /// Opens the next inner node and goes to its right child; the left one is a leaf.
    OpenRight,
    /// The left child of the last opened node is done: goes to the right one.
    Turn,
    /// Both children of the last opened node are done: closes it.
    Close,
    /// As `Close`, and the right child is the next leaf.
    CloseWithRightLeaf,
    /// As `Close`, and the left child is the next leaf.
    CloseWithLeftLeaf,
}

/// No edge above asks the same feature.
pub(super) const NOWHERE: u16 = u16::MAX;

#[derive(Debug, Clone, Copy)]
pub(super) struct Inner<B> {
    /// The share of the node's training rows that went left.
    pub(super) left_share: f64,
    pub(super) slot: u32,
    /// Where the contribution goes, counted from the program's first column.
    pub(super) column: u32,
    /// The last bin that goes left.
    pub(super) bin: B,
    /// The level of the nearest node above that asks the same feature, or [`NOWHERE`].
    pub(super) same_feature_at: u16,
}

/// One tree's edges, for all outputs that its leaves add to.
///
/// Invariants, on which a sweep relies: the actions open and close nodes like brackets, at most `levels` deep, and take all inner nodes
/// and leaves; each `slot` is below the quantizer's number of slots, each `column` below the number of features that are asked.
#[derive(Debug)]
pub(super) struct Shape<B> {
    pub(super) actions: Vec<Action>,
    pub(super) inner: Vec<Inner<B>>,
    /// For each inner node with a `same_feature_at`, in their order: the merged share of the edge there.
    pub(super) shares_above: Vec<f64>,
    pub(super) levels: usize,
    /// Features on the path that has most of them.
    features: usize,
}

impl<B> Shape<B> {
    pub(super) fn points_count(&self) -> usize {
        quadrature::points_count(self.features)
    }

    fn bytes(&self) -> usize {
        size_of_val(self.actions.as_slice())
            + size_of_val(self.inner.as_slice())
            + size_of_val(self.shares_above.as_slice())
    }
}

/// One tree, for one output.
#[derive(Debug)]
pub(super) struct Program<B> {
    shape: Arc<Shape<B>>,
    /// In the order in which the actions take them.
    pub(super) leaves: Vec<f64>,
    /// The output's first column; until all trees are known, the output.
    pub(super) first_column: usize,
}

impl<B> Deref for Program<B> {
    type Target = Shape<B>;

    fn deref(&self) -> &Shape<B> {
        &self.shape
    }
}

impl<B> Program<B> {
    /// Its memory; outputs of one tree share its shape.
    pub(super) fn bytes(&self) -> usize {
        self.shape.bytes() / Arc::strong_count(&self.shape) + size_of_val(self.leaves.as_slice())
    }
}

pub(super) struct Programs<B> {
    pub(super) programs: Vec<Program<B>>,
    /// The place in a row's contributions of each column.
    pub(super) columns: Vec<usize>,
    /// The expected value of each output.
    pub(super) expected: Vec<f64>,
}

/// What [`compile`] relies on, of trees that were validated.
///
/// # Errors
/// `unsupported_model` naming the tree, or for too many features of too many outputs.
pub(super) fn check(ensemble: &Ensemble) -> Result<()> {
    let mut is_asked = vec![false; ensemble.features_count];
    for (index, tree) in ensemble.trees.iter().enumerate() {
        check_covers(tree).and_then(|()| check_levels(tree)).map_err(|error| error.within(format!("tree {index}")))?;
        for node in &tree.nodes {
            if let Node::Split(split) = node {
                is_asked[split.feature] = true;
            }
        }
    }
    let columns = is_asked.into_iter().filter(|&is_asked| is_asked).count();
    if columns.saturating_mul(ensemble.outputs_count) > COLUMNS_MAX {
        return Err(Error::new(
            ErrorCode::UnsupportedModel,
            format!("{} outputs of {columns} features are more than explanations are made of", ensemble.outputs_count),
            "explain a model of fewer classes or features",
        ));
    }
    Ok(())
}

fn check_covers(tree: &Tree) -> Result<()> {
    if tree.covers.is_empty() && tree.nodes.len() > 1 {
        return Err(Error::new(
            ErrorCode::UnsupportedModel,
            "the model file has no covers (the weight of the training rows at each node), by which explanations are weighted",
            "save the model again with a version of its library that writes them",
        ));
    }
    for node in &tree.nodes {
        let Node::Split(split) = node else { continue };
        for child in [split.left, split.right] {
            let cover = tree.covers[child];
            if !cover.is_finite() || cover < 0.0 {
                let message = format!("node {child} has the cover {cover}, which is no weight of rows");
                let hint = "explain a model that was trained with positive weights";
                return Err(Error::new(ErrorCode::UnsupportedModel, message, hint));
            }
        }
    }
    Ok(())
}

fn check_levels(tree: &Tree) -> Result<()> {
    let splits_count = tree.nodes.iter().filter(|node| matches!(node, Node::Split(_))).count();
    if splits_count <= LEVELS_MAX {
        return Ok(());
    }
    let mut pending = vec![(0, 1)];
    while let Some((node, level)) = pending.pop() {
        let Node::Split(split) = &tree.nodes[node] else { continue };
        if level > LEVELS_MAX {
            return Err(Error::new(
                ErrorCode::UnsupportedModel,
                format!("it has more than {LEVELS_MAX} levels, too many to explain"),
                "train with a bound on the depth (max_depth)",
            ));
        }
        pending.extend([(split.left, level + 1), (split.right, level + 1)]);
    }
    Ok(())
}

/// Compiles trees that [`check`] passed.
pub(super) fn compile<F: Number, B: Bin>(ensemble: &Ensemble, questions: &Questions<F>) -> Programs<B> {
    let mut columns = Columns::default();
    let mut expected = ensemble.base.clone();
    let mut programs = Vec::new();
    for tree in &ensemble.trees {
        let shares = left_shares(tree);
        let outputs = if tree.has_vector_leaves() { 0..ensemble.outputs_count } else { tree.output..tree.output + 1 };
        let mut compiler = Compiler::new(tree, &shares, questions, &mut columns);
        compiler.compile();
        let Compiler { shape, leaves, .. } = compiler;
        let shape = Arc::new(shape);
        for output in outputs {
            expected[output] += mean(tree, &shares, output);
            if !shape.inner.is_empty() {
                let leaves = leaves.iter().map(|&leaf| leaf_value(tree, leaf, output).unwrap_or_default()).collect();
                programs.push(Program { shape: Arc::clone(&shape), leaves, first_column: output });
            }
        }
    }
    for program in &mut programs {
        program.first_column *= columns.features.len();
    }
    let stride = ensemble.features_count + 1;
    let places = (0..ensemble.outputs_count)
        .flat_map(|output| columns.features.iter().map(move |feature| output * stride + feature));
    Programs { programs, columns: places.collect(), expected }
}

fn leaf_value(tree: &Tree, node: usize, output: usize) -> Option<f64> {
    match &tree.nodes[node] {
        Node::Leaf(value) => Some(*value),
        Node::VectorLeaf(values) => Some(values[output]),
        Node::Split(_) => None,
    }
}

/// The mean of the leaves, weighted by the training rows that went there.
fn mean(tree: &Tree, shares: &[f64], output: usize) -> f64 {
    let mut mean = 0.0;
    let mut pending = vec![(0, 1.0)];
    while let Some((node, weight)) = pending.pop() {
        match &tree.nodes[node] {
            Node::Split(split) => {
                let share = shares[node];
                pending.extend([(split.left, weight * share), (split.right, weight * (1.0 - share))]);
            }
            Node::Leaf(_) | Node::VectorLeaf(_) => {
                mean += weight * leaf_value(tree, node, output).unwrap_or_default();
            }
        }
    }
    mean
}

/// The share of each inner node's training rows that went left. Children's covers are weighed against each other, since an inner node's
/// own may be rounded otherwise than their sum.
pub(super) fn left_shares(tree: &Tree) -> Vec<f64> {
    let share = |node: &Node| {
        let Node::Split(split) = node else { return 0.0 };
        let (left, right) = (tree.covers[split.left], tree.covers[split.right]);
        // Where no training row came, either side is as good.
        if left + right > 0.0 { left / (left + right) } else { 0.5 }
    };
    tree.nodes.iter().map(share).collect()
}

/// Numbers the features that are asked.
#[derive(Default)]
struct Columns {
    of: HashMap<usize, u32>,
    features: Vec<usize>,
}

impl Columns {
    fn number(&mut self, feature: usize) -> u32 {
        *self.of.entry(feature).or_insert_with(|| {
            self.features.push(feature);
            u32::try_from(self.features.len() - 1).expect("an ensemble has fewer features")
        })
    }
}

/// A step of the compiler's own walk.
enum Visit {
    Enter(usize),
    Turn(usize),
    Close(usize),
}

/// An open edge: its level and the merged share of its feature down to here.
struct Edge {
    level: u16,
    share: f64,
}

struct Compiler<'a, F, B> {
    tree: &'a Tree,
    shares: &'a [f64],
    questions: &'a Questions<F>,
    columns: &'a mut Columns,
    /// Open edges by feature, the deepest last.
    path: HashMap<usize, Vec<Edge>>,
    distinct: usize,
    level: usize,
    shape: Shape<B>,
    /// Places of the leaves in the tree, in the order in which the actions take them.
    leaves: Vec<usize>,
}

impl<'a, F: Number, B: Bin> Compiler<'a, F, B> {
    fn new(tree: &'a Tree, shares: &'a [f64], questions: &'a Questions<F>, columns: &'a mut Columns) -> Self {
        let shape = Shape { actions: Vec::new(), inner: Vec::new(), shares_above: Vec::new(), levels: 0, features: 0 };
        let (path, leaves) = (HashMap::new(), Vec::new());
        Self { tree, shares, questions, columns, path, distinct: 0, level: 0, shape, leaves }
    }

    fn is_leaf(&self, node: usize) -> bool {
        !matches!(self.tree.nodes[node], Node::Split(_))
    }

    fn split(&self, node: usize) -> &'a Split {
        match &self.tree.nodes[node] {
            Node::Split(split) => split,
            Node::Leaf(_) | Node::VectorLeaf(_) => unreachable!("only inner nodes are opened"),
        }
    }

    fn compile(&mut self) {
        if self.is_leaf(0) {
            return;
        }
        let mut pending = vec![Visit::Enter(0)];
        while let Some(visit) = pending.pop() {
            match visit {
                Visit::Enter(node) => self.enter(node, &mut pending),
                Visit::Turn(node) => {
                    let split = self.split(node);
                    self.shape.actions.push(Action::Turn);
                    self.pop_edge(split.feature);
                    self.push_edge(split.feature, 1.0 - self.shares[node], self.level - 1);
                    pending.push(Visit::Enter(split.right));
                }
                Visit::Close(node) => self.close(node),
            }
        }
        self.shape.shares_above.shrink_to_fit();
        self.shape.actions.shrink_to_fit();
        self.shape.inner.shrink_to_fit();
    }

    fn enter(&mut self, node: usize, pending: &mut Vec<Visit>) {
        let split = self.split(node);
        let above = self.path.get(&split.feature).and_then(|edges| edges.last());
        self.shape.inner.push(Inner {
            left_share: self.shares[node],
            slot: u32::try_from(self.questions.slot_of(split)).expect("an ensemble has fewer nodes"),
            column: self.columns.number(split.feature),
            bin: B::from_bin(self.questions.bin_of(split)),
            same_feature_at: above.map_or(NOWHERE, |edge| edge.level),
        });
        self.shape.shares_above.extend(above.map(|edge| edge.share));
        self.shape.features = self.shape.features.max(self.distinct + usize::from(above.is_none()));
        let (is_left_leaf, is_right_leaf) = (self.is_leaf(split.left), self.is_leaf(split.right));
        if is_left_leaf && is_right_leaf {
            self.shape.actions.push(Action::Leaves);
            self.leaves.extend([split.left, split.right]);
            return;
        }
        let level = self.level;
        self.level += 1;
        self.shape.levels = self.shape.levels.max(self.level);
        pending.push(Visit::Close(node));
        if is_left_leaf {
            self.shape.actions.push(Action::OpenRight);
            self.push_edge(split.feature, 1.0 - self.shares[node], level);
            pending.push(Visit::Enter(split.right));
        } else {
            self.shape.actions.push(Action::OpenLeft);
            self.push_edge(split.feature, self.shares[node], level);
            if !is_right_leaf {
                pending.push(Visit::Turn(node));
            }
            pending.push(Visit::Enter(split.left));
        }
    }

    fn close(&mut self, node: usize) {
        let split = self.split(node);
        let action = if self.is_leaf(split.left) {
            self.leaves.push(split.left);
            Action::CloseWithLeftLeaf
        } else if self.is_leaf(split.right) {
            self.leaves.push(split.right);
            Action::CloseWithRightLeaf
        } else {
            Action::Close
        };
        self.shape.actions.push(action);
        self.pop_edge(split.feature);
        self.level -= 1;
    }

    fn push_edge(&mut self, feature: usize, share: f64, level: usize) {
        let edges = self.path.entry(feature).or_default();
        self.distinct += usize::from(edges.is_empty());
        let above = edges.last().map_or(1.0, |edge| edge.share);
        let level = u16::try_from(level).expect("levels are bounded");
        edges.push(Edge { level, share: above * share });
    }

    fn pop_edge(&mut self, feature: usize) {
        if let Some(edges) = self.path.get_mut(&feature) {
            edges.pop();
            self.distinct -= usize::from(edges.is_empty());
        }
    }
}
