#![allow(clippy::unwrap_used)]
//! Contributions against their definition on small trees, and the sweep against its plain twin on any.

use headrace_types::ErrorCode;
use proptest::prelude::*;

use super::super::ensemble::{Missing, Node, Split, Test, Tree};
use super::super::tests::{Random, Wanted, any_wanted, ensemble, wanted};
use super::*;

/// Gives every node a cover: some are zero, and inner nodes' are the sums of their children's.
fn with_covers(mut ensemble: Ensemble, seed: u64) -> Ensemble {
    fn fill(tree: &Tree, node: usize, random: &mut Random, covers: &mut [f64]) -> f64 {
        covers[node] = match &tree.nodes[node] {
            Node::Split(split) => fill(tree, split.left, random, covers) + fill(tree, split.right, random, covers),
            Node::Leaf(_) | Node::VectorLeaf(_) => [0.0, 1.0, 7.0, 120.5][random.below(4)],
        };
        covers[node]
    }
    let mut random = Random(seed ^ 0xc0);
    for tree in &mut ensemble.trees {
        let mut covers = vec![0.0; tree.nodes.len()];
        fill(tree, 0, &mut random, &mut covers);
        tree.covers = covers;
    }
    ensemble
}

fn random_rows(ensemble: &Ensemble, rows: usize, distinct: usize, seed: u64) -> Vec<f64> {
    let mut random = Random(seed ^ 0x77);
    (0..rows * ensemble.features_count).map(|_| random.value(distinct)).collect()
}

/// The mean margin of a row of which only the features in `known` are known, each split on another feature weighing its branches.
fn known_margin(ensemble: &Ensemble, row: &[f64], known: u32, output: usize) -> f64 {
    fn below(ensemble: &Ensemble, tree: &Tree, node: usize, row: &[f64], known: u32, output: usize) -> f64 {
        let split = match &tree.nodes[node] {
            Node::Leaf(value) => return if tree.output == output { *value } else { 0.0 },
            Node::VectorLeaf(values) => return values[output],
            Node::Split(split) => split,
        };
        let child = |child| below(ensemble, tree, child, row, known, output);
        if known >> split.feature & 1 == 1 {
            let precision = ensemble.features_precision;
            let value = super::super::number::round_to(precision, row[split.feature]);
            return child(if split.goes_left(value, precision, ensemble.comparison) {
                split.left
            } else {
                split.right
            });
        }
        let (left, right) = (tree.covers[split.left], tree.covers[split.right]);
        let share = if left + right > 0.0 { left / (left + right) } else { 0.5 };
        share * child(split.left) + (1.0 - share) * child(split.right)
    }
    let trees: f64 = ensemble.trees.iter().map(|tree| below(ensemble, tree, 0, row, known, output)).sum();
    ensemble.base[output] + trees
}

/// The definition: the mean over all orders of what a feature changes when it becomes known.
fn shapley_values(ensemble: &Ensemble, row: &[f64], output: usize) -> Vec<f64> {
    let count = u32::try_from(ensemble.features_count).unwrap();
    let values: Vec<f64> = (0..1 << count).map(|known| known_margin(ensemble, row, known, output)).collect();
    let factorial = |n: u32| (1..=n).map(f64::from).product::<f64>();
    let mut contributions: Vec<f64> = (0..count)
        .map(|feature| {
            let without = (0..1u32 << count).filter(|known| known >> feature & 1 == 0);
            let gains = without.map(|known| {
                let size = known.count_ones();
                let weight = factorial(size) * factorial(count - size - 1) / factorial(count);
                weight * (values[(known | 1 << feature) as usize] - values[known as usize])
            });
            gains.sum()
        })
        .collect();
    contributions.push(values[0]);
    contributions
}

/// The sum of the largest leaves, to which rounding errors are in proportion.
fn magnitude(ensemble: &Ensemble) -> f64 {
    let leaf = |node: &Node| match node {
        Node::Leaf(value) => value.abs(),
        Node::VectorLeaf(values) => values.iter().fold(0.0, |max: f64, value| max.max(value.abs())),
        Node::Split(_) => 0.0,
    };
    1.0 + ensemble.trees.iter().map(|tree| tree.nodes.iter().map(leaf).fold(0.0, f64::max)).sum::<f64>()
}

fn assert_close(found: &[f64], expected: &[f64], bound: f64) {
    assert_eq!(found.len(), expected.len());
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= bound, "value {place} is {found}, {expected} was expected");
    }
}

fn fast(ensemble: &Ensemble, features: &[f64], rows: usize, threads: usize) -> Vec<f64> {
    let width = ensemble.outputs_count * (ensemble.features_count + 1);
    let mut contributions = vec![f64::NAN; rows * width];
    let explainer = Explainer::new(ensemble).unwrap();
    explainer.contributions(Features::Float64(features), rows, &mut contributions, threads).unwrap();
    contributions
}

fn assert_twins_agree(ensemble: &Ensemble, rows: usize, distinct: usize, seed: u64) {
    let features = random_rows(ensemble, rows, distinct, seed);
    let found = fast(ensemble, &features, rows, 1);
    let bound = 1e-12 * magnitude(ensemble);
    let mut plain = vec![f64::NAN; found.len()];
    contributions_plain(ensemble, &features, rows, &mut plain).unwrap();
    assert_close(&found, &plain, 10.0 * bound);
    let spread = fast(ensemble, &features, rows, 3);
    assert_eq!(found, spread, "threads change nothing");
    let alone = fast(ensemble, &features[..ensemble.features_count], 1, 1);
    assert_eq!(alone, found[..alone.len()], "a row alone is the row in a batch");
    assert_sums_to_margins(ensemble, &features, rows, &found);
}

fn assert_sums_to_margins(ensemble: &Ensemble, features: &[f64], rows: usize, contributions: &[f64]) {
    let mut margins = vec![0.0; rows * ensemble.outputs_count];
    ensemble.margins(features, rows, &mut margins).unwrap();
    let sums: Vec<f64> = contributions.chunks_exact(ensemble.features_count + 1).map(|row| row.iter().sum()).collect();
    let epsilon = match ensemble.precision {
        Precision::Float32 => 1e-6 * ensemble.trees.len().max(1) as f64,
        Precision::Float64 => 1e-12,
    };
    assert_close(&sums, &margins, epsilon * magnitude(ensemble));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn small_trees_get_their_shapley_values(
        wanted in any_wanted(), features in 1usize..6, depth_max in 0u32..6, trees in 1usize..4,
    ) {
        let wanted = Wanted { features, depth_max, trees, ..wanted };
        let ensemble = with_covers(ensemble(&wanted), wanted.seed);
        let rows = random_rows(&ensemble, 3, wanted.distinct, wanted.seed);
        let found = fast(&ensemble, &rows, 3, 1);
        let mut plain = vec![f64::NAN; found.len()];
        contributions_plain(&ensemble, &rows, 3, &mut plain).unwrap();
        let width = ensemble.outputs_count * (features + 1);
        for (index, row) in rows.chunks_exact(features).enumerate() {
            for output in 0..ensemble.outputs_count {
                let expected = shapley_values(&ensemble, row, output);
                let place = index * width + output * (features + 1);
                let bound = 1e-12 * magnitude(&ensemble);
                assert_close(&found[place..][..=features], &expected, bound);
                assert_close(&plain[place..][..=features], &expected, 10.0 * bound);
            }
        }
    }

    #[test]
    fn the_sweep_and_its_plain_twin_agree(wanted in any_wanted(), rows in 1usize..40, features in 1usize..30) {
        let wanted = Wanted { features, trees: wanted.trees.min(8), ..wanted };
        assert_twins_agree(&with_covers(ensemble(&wanted), wanted.seed), rows, wanted.distinct, wanted.seed);
    }
}

/// A tree of one path, whose nodes ask the features in turn.
fn chain(levels: usize, features: usize) -> Tree {
    let mut nodes = Vec::new();
    let mut covers = Vec::new();
    for level in 0..levels {
        let (left, feature) = (2 * level + 1, level % features);
        let test = Test::Threshold((level % 7) as f64 / 3.0 - 1.0);
        let is_deeper_left = level % 3 == 0;
        let children = if is_deeper_left { (left + 1, left) } else { (left, left + 1) };
        nodes.push(Node::Split(Split { feature, test, missing: Missing::Right, left: children.0, right: children.1 }));
        covers.push(3.0 * (levels - level) as f64);
        nodes.push(Node::Leaf(1.0 / (level + 1) as f64));
        covers.push(3.0);
    }
    nodes.push(Node::Leaf(-1.0));
    covers.push(2.0);
    Tree { covers, ..Tree::new(0, nodes) }
}

#[test]
fn deep_trees_and_thousands_of_features_agree() {
    for (levels, features) in [(40, 40), (60, 7), (300, 5_000)] {
        let trees = vec![chain(levels, features); 2];
        let ensemble = Ensemble { features_count: features, trees, ..ensemble(&Wanted { trees: 0, ..wanted() }) };
        let rows = random_rows(&ensemble, 9, 12, 1);
        let found = fast(&ensemble, &rows, 9, 2);
        assert_sums_to_margins(&ensemble, &rows, 9, &found);
        if levels < 100 {
            let mut plain = vec![0.0; found.len()];
            contributions_plain(&ensemble, &rows, 9, &mut plain).unwrap();
            assert_close(&found, &plain, 1e-9); // the plain twin loses digits with depth
        }
    }
}

#[test]
fn more_thresholds_than_two_bytes_count_agree() {
    let wanted = Wanted { trees: 150, features: 2, depth_max: 9, distinct: 1 << 40, chance_of_leaf: 0, ..wanted() };
    assert_twins_agree(&with_covers(ensemble(&wanted), 3), 9, 1 << 40, 3);
}

#[test]
fn a_forest_without_splits_explains_nothing() {
    let trees = vec![Tree::new(0, vec![Node::Leaf(0.25)]); 3];
    let ensemble = Ensemble { trees, ..ensemble(&Wanted { trees: 0, ..wanted() }) };
    assert_close(&fast(&ensemble, &[1.0, 2.0, 3.0], 1, 1), &[0.0, 0.0, 0.0, 0.45], 1e-15);
}

#[test]
fn what_cannot_be_explained_is_refused_by_name() {
    let good = with_covers(ensemble(&Wanted { trees: 2, chance_of_leaf: 0, ..wanted() }), 1);
    let with_covers_of = |covers: Vec<f64>| {
        let mut bad = good.clone();
        bad.trees[1].covers = covers;
        bad
    };
    let count = good.trees[1].nodes.len();
    let deep = Ensemble { trees: vec![chain(4_200, 3)], ..good.clone() };
    let cases = [
        (with_covers_of(vec![]), "tree 1: the model file has no covers"),
        (with_covers_of(vec![f64::NAN; count]), "the cover NaN"),
        (with_covers_of(vec![-1.0; count]), "the cover -1"),
        (deep, "tree 0: it has more than 4096 levels"),
    ];
    for (bad, message) in cases {
        let error = Explainer::new(&bad).unwrap_err();
        assert_eq!(error.code, ErrorCode::UnsupportedModel);
        assert!(error.message.contains(message), "{error}");
    }
    assert_eq!(Explainer::new(&with_covers_of(vec![1.0])).unwrap_err().code, ErrorCode::CorruptModel);
    let explainer = Explainer::new(&good).unwrap();
    let error = explainer.contributions(Features::Float64(&[0.0; 6]), 2, &mut [0.0; 7], 1).unwrap_err();
    assert_eq!(error.code, ErrorCode::LengthMismatch);
    assert!(error.message.contains("2 rows take 3 features and 4 contributions each, there are 6 and 7"), "{error}");
    assert!(explainer.contributions(Features::Float64(&[]), usize::MAX, &mut [], 1).is_err());
}
