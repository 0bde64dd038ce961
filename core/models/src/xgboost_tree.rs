//! One tree of an XGBoost model: parallel arrays, an entry for each node.

use headrace_cpu::{Categories, Missing, Node, Split, Test, Tree};
use headrace_types::Result;

use crate::category_words::CategoryWords;
use crate::document::{Document, corrupt, whole};

/// XGBoost's own bound of a category's code.
const CATEGORY_MAX: usize = 16_777_216;

/// What a tree's leaves add to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaves {
    /// What scalar leaves add to.
    pub(crate) output: usize,
    /// The values that a vector leaf has.
    pub(crate) outputs_count: usize,
    /// A factor of all leaves.
    pub(crate) weight: f32,
}

/// Reads a tree.
pub(crate) fn read_tree(tree: &Document, leaves: Leaves, category_words: &mut CategoryWords) -> Result<Tree> {
    let parameters = tree.get("tree_param")?;
    let leaf_size = parameters.find("size_leaf_vector")?.map_or(Ok(1), |_| parameters.count("size_leaf_vector"))?;
    if leaf_size > 1 && leaf_size != leaves.outputs_count {
        let outputs_count = leaves.outputs_count;
        return Err(corrupt(format!("its leaves hold {leaf_size} values for {outputs_count} outputs")));
    }
    let left = tree.numbers("left_children")?;
    let count = parameters.count("num_nodes")?;
    if left.len() != count {
        return Err(corrupt(format!("it says {count} nodes and lists {} left children", left.len())));
    }
    let column = |key: &str| {
        let numbers = tree.numbers(key)?;
        if numbers.len() == count {
            Ok(numbers)
        } else {
            Err(corrupt(format!("'{key}' has {} entries for {count} nodes", numbers.len())))
        }
    };
    let (right, features) = (column("right_children")?, column("split_indices")?);
    let (conditions, defaults) = (column("split_conditions")?, column("default_left")?);
    let covers = tree.find("sum_hessian")?.map(|_| column("sum_hessian")).transpose()?;
    let kinds = tree.find("split_type")?.map(|_| column("split_type")).transpose()?;
    let mut sets = category_sets(tree, count, category_words)?;

    let mut vectors = if leaf_size > 1 { Some(VectorLeaves::read(tree, leaf_size)?) } else { None };
    let mut nodes = Vec::with_capacity(count);
    for index in 0..count {
        #[allow(clippy::cast_possible_truncation)] // XGBoost holds conditions and leaves as float32
        let condition = conditions[index] as f32;
        if left[index] == -1.0 {
            nodes.push(match &mut vectors {
                None => Node::Leaf((condition * leaves.weight).into()),
                Some(vectors) => vectors.take(index, right[index], leaves.weight)?,
            });
            continue;
        }
        let place = |what: &str, number: f64| {
            whole(number).ok_or_else(|| corrupt(format!("node {index} has {number} as its {what}")))
        };
        let is_categorical = kinds.is_some_and(|kinds| kinds[index] != 0.0);
        let test = if is_categorical {
            let set = sets[index].take().ok_or_else(|| corrupt(format!("node {index} has no categories")))?;
            Test::Categories { set, members_go_left: false }
        } else {
            Test::Threshold(condition.into())
        };
        nodes.push(Node::Split(Split {
            feature: place("feature", features[index])?,
            test,
            missing: if defaults[index] == 0.0 { Missing::Right } else { Missing::Left },
            left: place("left child", left[index])?,
            right: place("right child", right[index])?,
        }));
    }
    Ok(Tree {
        covers: known_covers(covers.map(<[f64]>::to_vec)),
        ..Tree::new(if leaf_size > 1 { 0 } else { leaves.output }, nodes)
    })
}

/// The leaves of a tree with a value for each output: since XGBoost 3.1 in a list of leaves of their own, whose place
/// stands in the place of the right child; before that among the weights of all nodes.
struct VectorLeaves<'a> {
    values: &'a [f64],
    size: usize,
    has_places: bool,
    /// Leaves that are taken: none twice, or a short list could stand for much memory.
    taken: Vec<bool>,
}

impl<'a> VectorLeaves<'a> {
    fn read(tree: &'a Document, size: usize) -> Result<Self> {
        let has_places = tree.find("leaf_weights")?.is_some();
        let values = tree.numbers(if has_places { "leaf_weights" } else { "base_weights" })?;
        Ok(Self { values, size, has_places, taken: vec![false; values.len() / size] })
    }

    /// `place` is that of the right child.
    #[allow(clippy::cast_possible_truncation)] // XGBoost holds leaves as float32
    fn take(&mut self, node: usize, place: f64, weight: f32) -> Result<Node> {
        let place = if self.has_places { whole(place) } else { Some(node) };
        let place = place.filter(|&place| self.taken.get(place) == Some(&false));
        let place = place.ok_or_else(|| corrupt(format!("leaf {node} has no values of its own")))?;
        self.taken[place] = true;
        let values = &self.values[place * self.size..][..self.size];
        Ok(Node::VectorLeaf(values.iter().map(|&value| f64::from(value as f32 * weight)).collect()))
    }
}

/// Covers that explanations can divide by, or none: an objective of the user's own may give negative weights.
pub(crate) fn known_covers(covers: Option<Vec<f64>>) -> Vec<f64> {
    covers.filter(|covers| covers.iter().all(|cover| (0.0..f64::INFINITY).contains(cover))).unwrap_or_default()
}

/// The set of each node that tests categories.
fn category_sets(tree: &Document, count: usize, category_words: &mut CategoryWords) -> Result<Vec<Option<Categories>>> {
    let mut sets = vec![None; count];
    if tree.find("categories_nodes")?.is_none() {
        return Ok(sets);
    }
    let (nodes, categories) = (tree.numbers("categories_nodes")?, tree.numbers("categories")?);
    let (segments, sizes) = (tree.numbers("categories_segments")?, tree.numbers("categories_sizes")?);
    if nodes.len() != segments.len() || nodes.len() != sizes.len() {
        return Err(corrupt("'categories_nodes', '_segments' and '_sizes' differ in length"));
    }
    for ((&node, &segment), &size) in nodes.iter().zip(segments).zip(sizes) {
        let slot = whole(node).and_then(|node| sets.get_mut(node));
        let slot = slot.ok_or_else(|| corrupt(format!("categories are given for node {node} of {count}")))?;
        let range = whole(segment).zip(whole(size)).and_then(|(begin, size)| Some(begin..begin.checked_add(size)?));
        let members = range.and_then(|range| categories.get(range));
        let members =
            members.ok_or_else(|| corrupt(format!("the categories of node {node} lie outside their list")))?;
        let mut codes = Vec::with_capacity(members.len());
        for &member in members {
            let code = whole(member).filter(|&code| code < CATEGORY_MAX);
            codes.push(code.ok_or_else(|| corrupt(format!("{member} is not a category of node {node}")))?);
        }
        let words = codes.iter().max().map_or(0, |max| max / 32 + 1);
        category_words.take(words.max(codes.len() / 32))?;
        let mut bits = vec![0u32; words];
        for code in codes {
            bits[code / 32] |= 1 << (code % 32);
        }
        *slot = Some(Categories::from_words(bits, false));
    }
    Ok(sets)
}
