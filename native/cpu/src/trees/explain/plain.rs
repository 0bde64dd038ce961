//! The plain twin: TreeSHAP as it is published (Lundberg et al., "From local explanations to global understanding with explainable AI
//! for trees", 2020, Algorithm 2), for tests and for reading.

use headrace_types::Result;

use super::super::ensemble::{Ensemble, Node, Tree};
use super::super::number::round_to;
use super::Explainer;
use super::program::left_shares;
use crate::rows::check_contributions_lengths;

/// A feature on the path, with the shares of the training rows (`zero`) and of the row itself (`one`) that pass it, and the weight of
/// the sets of so many features.
#[derive(Debug, Clone, Copy)]
struct Element {
    /// None for the root.
    feature: Option<usize>,
    zero: f64,
    one: f64,
    weight: f64,
}

/// Contributions as [`Explainer::contributions`], one row, tree and leaf at a time.
///
/// # Errors
/// As [`Explainer::check`] and [`Explainer::contributions`].
pub fn contributions_plain(
    ensemble: &Ensemble,
    features: &[f64],
    rows: usize,
    contributions: &mut [f64],
) -> Result<()> {
    Explainer::check(ensemble)?;
    let (features_count, outputs_count) = (ensemble.features_count, ensemble.outputs_count);
    check_contributions_lengths(features_count, outputs_count, features.len(), rows, contributions.len())?;
    let stride = features_count + 1;
    let rows = features.chunks_exact(features_count).zip(contributions.chunks_exact_mut(outputs_count * stride));
    for (features, contributions) in rows {
        contributions.fill(0.0);
        for (output, base) in ensemble.base.iter().enumerate() {
            contributions[output * stride + features_count] = *base;
        }
        for tree in &ensemble.trees {
            let shares = left_shares(tree);
            let walk = Walk { ensemble, tree, shares: &shares, features };
            walk.descend(0, 1.0, &[], [1.0, 1.0], None, contributions);
        }
    }
    Ok(())
}

struct Walk<'a> {
    ensemble: &'a Ensemble,
    tree: &'a Tree,
    shares: &'a [f64],
    features: &'a [f64],
}

impl Walk<'_> {
    /// Goes below `node`, which the edge `(feature, [zero, one])` leads to and a share `reached` of the training rows reaches.
    fn descend(
        &self,
        node: usize,
        reached: f64,
        path: &[Element],
        [zero, one]: [f64; 2],
        feature: Option<usize>,
        contributions: &mut [f64],
    ) {
        let mut path = extended(path, zero, one, feature);
        let split = match &self.tree.nodes[node] {
            Node::Split(split) => split,
            Node::Leaf(value) => return self.leaf(self.tree.output, *value, reached, &path, contributions),
            Node::VectorLeaf(values) => {
                for (output, value) in values.iter().enumerate() {
                    self.leaf(output, *value, reached, &path, contributions);
                }
                return;
            }
        };
        let value = round_to(self.ensemble.features_precision, self.features[split.feature]);
        let goes_left = split.goes_left(value, self.ensemble.features_precision, self.ensemble.comparison);
        let (mut zero, mut one) = (1.0, 1.0);
        if let Some(at) = path.iter().position(|element| element.feature == Some(split.feature)) {
            (zero, one) = (path[at].zero, path[at].one);
            path = unwound(&path, at);
        }
        let left = self.shares[node];
        for (child, share, is_taken) in [(split.left, left, goes_left), (split.right, 1.0 - left, !goes_left)] {
            let one = if is_taken { one } else { 0.0 };
            self.descend(child, reached * share, &path, [zero * share, one], Some(split.feature), contributions);
        }
    }

    fn leaf(&self, output: usize, value: f64, reached: f64, path: &[Element], contributions: &mut [f64]) {
        let values = &mut contributions[output * (self.features.len() + 1)..][..=self.features.len()];
        values[self.features.len()] += reached * value;
        for (at, element) in path.iter().enumerate().skip(1) {
            let weights: f64 = unwound(path, at).iter().map(|element| element.weight).sum();
            if let Some(feature) = element.feature {
                values[feature] += weights * (element.one - element.zero) * value;
            }
        }
    }
}

/// EXTEND: the path with one more feature.
#[allow(clippy::cast_precision_loss)] // lengths of paths
fn extended(path: &[Element], zero: f64, one: f64, feature: Option<usize>) -> Vec<Element> {
    let length = path.len();
    let mut longer = path.to_vec();
    longer.push(Element { feature, zero, one, weight: if length == 0 { 1.0 } else { 0.0 } });
    for i in (0..length).rev() {
        longer[i + 1].weight += one * longer[i].weight * (i + 1) as f64 / (length + 1) as f64;
        longer[i].weight *= zero * (length - i) as f64 / (length + 1) as f64;
    }
    longer
}

/// UNWIND: the path as if the feature at `at` had never come.
#[allow(clippy::cast_precision_loss)]
fn unwound(path: &[Element], at: usize) -> Vec<Element> {
    let last = path.len() - 1;
    let mut shorter = path.to_vec();
    let Element { zero, one, .. } = path[at];
    let mut next = path[last].weight;
    for i in (0..last).rev() {
        if one != 0.0 {
            let weight = shorter[i].weight;
            shorter[i].weight = next * (last + 1) as f64 / ((i + 1) as f64 * one);
            next = weight - shorter[i].weight * zero * (last - i) as f64 / (last + 1) as f64;
        } else if zero != 0.0 {
            shorter[i].weight = shorter[i].weight * (last + 1) as f64 / (zero * (last - i) as f64);
        } else {
            shorter[i].weight = 0.0; // neither passes: nothing below has any weight
        }
    }
    for i in at..last {
        let Element { feature, zero, one, .. } = shorter[i + 1];
        shorter[i] = Element { feature, zero, one, weight: shorter[i].weight };
    }
    shorter.pop();
    shorter
}
