use headrace_cpu::{
    Activation, Categories, Comparison, DenseLayer, Ensemble, Missing, Node, Precision, Split, Test, Tree,
};
use headrace_types::{Error, Result};
use serde::Deserialize;

use super::tensors::Tensors;
use crate::category_words::CategoryWords;
use crate::document::corrupt;
use crate::linear::Linear;
use crate::link::Link;
use crate::parsed::{Body, Parsed};
use crate::xgboost::OUTPUTS_MAX;
use crate::xgboost_tree::known_covers;

/// Layers that a network may have.
const LAYERS_MAX: usize = 1024;

/// The estimator at the end of a pipeline; tensors hold its numbers.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Estimator {
    Trees {
        /// What features are rounded to before they are compared.
        features_precision: DescribedPrecision,
        /// Scores are of the sum over so many, if it is given.
        #[serde(default)]
        averaged_over: Option<usize>,
    },
    Linear,
    Network {
        precision: DescribedPrecision,
        /// One for each layer.
        activations: Vec<DescribedActivation>,
    },
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DescribedPrecision {
    Float32,
    Float64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DescribedActivation {
    Identity,
    Relu,
    Logistic,
    Tanh,
}

impl DescribedPrecision {
    fn precision(self) -> Precision {
        match self {
            DescribedPrecision::Float32 => Precision::Float32,
            DescribedPrecision::Float64 => Precision::Float64,
        }
    }
}

impl DescribedActivation {
    fn activation(self) -> Activation {
        match self {
            DescribedActivation::Identity => Activation::Identity,
            DescribedActivation::Relu => Activation::Relu,
            DescribedActivation::Logistic => Activation::Logistic,
            DescribedActivation::Tanh => Activation::Tanh,
        }
    }
}

impl Estimator {
    /// What margins are computed in.
    pub(super) fn precision(&self) -> Precision {
        match self {
            Estimator::Network { precision, .. } => precision.precision(),
            Estimator::Trees { .. } | Estimator::Linear => Precision::Float64,
        }
    }

    /// Reads the estimator of rows of `features_count` columns.
    ///
    /// # Errors
    /// `corrupt_model` naming the tensor, or the tree and the node.
    pub(super) fn parse(&self, tensors: &Tensors<'_>, features_count: usize, link: Link) -> Result<Parsed> {
        match self {
            Estimator::Trees { features_precision, averaged_over } => {
                let ensemble = ensemble(tensors, features_count, features_precision.precision())?;
                let link = averaged_over.filter(|&count| count > 0).map_or(link, |count| link.averaged_over(count));
                Ok(Parsed::new(Body::Trees(ensemble), link))
            }
            Estimator::Linear => Ok(Parsed::new(Body::Linear(linear(tensors, features_count)?), link)),
            Estimator::Network { precision, activations } => {
                let layers = layers(tensors, features_count, activations)?;
                Ok(Parsed::new(Body::Network { precision: precision.precision(), layers }, link))
            }
        }
    }
}

fn fits<T>(name: &str, values: Vec<T>, count: usize) -> Result<Vec<T>> {
    if values.len() == count {
        return Ok(values);
    }
    Err(corrupt(format!("'{name}' has {} entries, {count} were expected", values.len())))
}

fn check_outputs(count: usize) -> Result<usize> {
    if count == 0 || count > OUTPUTS_MAX {
        return Err(corrupt(format!("it has {count} outputs; 1 to {OUTPUTS_MAX} are read")));
    }
    Ok(count)
}

fn linear(tensors: &Tensors<'_>, features_count: usize) -> Result<Linear> {
    let (outputs_count, columns, weights) = tensors.matrix("linear.weights")?;
    let intercept = fits("linear.intercept", tensors.floats("linear.intercept")?, check_outputs(outputs_count)?)?;
    if columns != features_count {
        return Err(corrupt(format!("'linear.weights' has {columns} columns for {features_count} features")));
    }
    Linear::new(weights, intercept, Precision::Float64)
}

fn layers(
    tensors: &Tensors<'_>,
    features_count: usize,
    activations: &[DescribedActivation],
) -> Result<Vec<DenseLayer>> {
    if activations.is_empty() || activations.len() > LAYERS_MAX {
        return Err(corrupt(format!("the network has {} layers; 1 to {LAYERS_MAX} are read", activations.len())));
    }
    let mut layers = Vec::with_capacity(activations.len());
    for (index, activation) in activations.iter().enumerate() {
        let (inputs_count, outputs_count, weights) = tensors.matrix(&format!("network.{index}.weights"))?;
        let bias = tensors.floats(&format!("network.{index}.bias"))?;
        layers.push(DenseLayer { inputs_count, outputs_count, weights, bias, activation: activation.activation() });
    }
    if layers[0].inputs_count != features_count {
        let have = layers[0].inputs_count;
        return Err(corrupt(format!("'network.0.weights' has {have} rows for {features_count} features")));
    }
    check_outputs(layers[layers.len() - 1].outputs_count)?;
    Ok(layers)
}

/// The nodes of all trees, one after another.
struct Nodes {
    left: Vec<i64>,
    right: Vec<i64>,
    features: Vec<i64>,
    thresholds: Vec<f64>,
    missing_left: Vec<u8>,
    values_count: usize,
    values: Vec<f64>,
    covers: Vec<f64>,
    /// The row of `words` that is the set of a node, or less than zero.
    sets: Vec<i64>,
    words_count: usize,
    words: Vec<u32>,
}

impl Nodes {
    fn read(tensors: &Tensors<'_>) -> Result<Self> {
        let left = tensors.integers("trees.left")?;
        let count = left.len();
        let (rows, values_count, values) = tensors.matrix("trees.values")?;
        if rows != count || values_count == 0 {
            return Err(corrupt(format!("'trees.values' is {rows} x {values_count} for {count} nodes")));
        }
        let has_sets = tensors.has("trees.sets");
        let sets = if has_sets { fits("trees.sets", tensors.integers("trees.sets")?, count)? } else { vec![-1; count] };
        let (_, words_count, words) = if has_sets { tensors.words("trees.set_words")? } else { (0, 0, Vec::new()) };
        let covers = if tensors.has("trees.covers") { tensors.floats("trees.covers")? } else { Vec::new() };
        Ok(Self {
            right: fits("trees.right", tensors.integers("trees.right")?, count)?,
            features: fits("trees.features", tensors.integers("trees.features")?, count)?,
            thresholds: fits("trees.thresholds", tensors.floats("trees.thresholds")?, count)?,
            missing_left: fits("trees.missing_left", tensors.flags("trees.missing_left")?.to_vec(), count)?,
            covers: if covers.is_empty() { covers } else { fits("trees.covers", covers, count)? },
            left,
            values_count,
            values,
            sets,
            words_count,
            words,
        })
    }

    /// The node at `index` of all; its children are counted from the tree's first node.
    fn node(&self, index: usize, features_precision: Precision, category_words: &mut CategoryWords) -> Result<Node> {
        if self.left[index] < 0 {
            let values = &self.values[index * self.values_count..][..self.values_count];
            return Ok(if let [value] = values { Node::Leaf(*value) } else { Node::VectorLeaf(values.into()) });
        }
        let place = |what: &str, number: i64| {
            usize::try_from(number).map_err(|_| corrupt(format!("a node has {number} as its {what}")))
        };
        let test = match usize::try_from(self.sets[index]) {
            Err(_) => Test::Threshold(threshold(self.thresholds[index], features_precision)),
            Ok(set) => {
                category_words.take(self.words_count)?;
                let begin = set.checked_mul(self.words_count);
                let words = begin.and_then(|begin| self.words.get(begin..begin.checked_add(self.words_count)?));
                let words = words.ok_or_else(|| corrupt(format!("there is no set {set} of categories")))?;
                Test::Categories { set: Categories::from_words(words.to_vec(), false), members_go_left: true }
            }
        };
        Ok(Node::Split(Split {
            feature: place("feature", self.features[index])?,
            test,
            missing: if self.missing_left[index] == 0 { Missing::Right } else { Missing::Left },
            left: place("left child", self.left[index])?,
            right: place("right child", self.right[index])?,
        }))
    }
}

/// The largest float32 that is not above a float64 threshold asks the same of every float32 value.
fn threshold(threshold: f64, features_precision: Precision) -> f64 {
    if features_precision == Precision::Float64 || threshold.is_nan() {
        return threshold;
    }
    #[allow(clippy::cast_possible_truncation)] // rounding is the purpose
    let narrow = threshold as f32;
    f64::from(if f64::from(narrow) > threshold { narrow.next_down() } else { narrow })
}

fn ensemble(tensors: &Tensors<'_>, features_count: usize, features_precision: Precision) -> Result<Ensemble> {
    let base = tensors.floats("trees.base")?;
    let outputs_count = check_outputs(base.len())?;
    let nodes = Nodes::read(tensors)?;
    let starts = tensors.integers("trees.starts")?;
    let outputs = fits("trees.outputs", tensors.integers("trees.outputs")?, starts.len().saturating_sub(1))?;
    let count = nodes.left.len();
    let is_whole = starts.first() == Some(&0) && starts.last().copied() == i64::try_from(count).ok();
    if !is_whole || !starts.is_sorted() {
        return Err(corrupt(format!("'trees.starts' does not lead from 0 to {count} nodes")));
    }
    let mut category_words = CategoryWords::default();
    let mut trees = Vec::with_capacity(outputs.len());
    for (index, (bounds, &output)) in starts.windows(2).zip(&outputs).enumerate() {
        let within = |error: Error| error.within(format!("tree {index}"));
        let output = usize::try_from(output).map_err(|_| within(corrupt(format!("adds to output {output}"))))?;
        let bound = |at: i64| usize::try_from(at).map_err(|_| within(corrupt("its bounds are out of range")));
        let range = bound(bounds[0])?..bound(bounds[1])?;
        let covers = nodes.covers.get(range.clone()).map(<[f64]>::to_vec);
        let list: Result<Vec<Node>> = range.map(|at| nodes.node(at, features_precision, &mut category_words)).collect();
        trees.push(Tree { output, nodes: list.map_err(within)?, covers: known_covers(covers) });
    }
    Ok(Ensemble {
        features_precision,
        precision: Precision::Float64,
        comparison: Comparison::LessEqual,
        features_count,
        outputs_count,
        base,
        trees,
    })
}
