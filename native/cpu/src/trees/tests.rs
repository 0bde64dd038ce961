#![allow(clippy::unwrap_used)]
//! The compiled forest against its plain twin, bit for bit, and what validation refuses.

use headrace_types::ErrorCode;
use proptest::prelude::*;

use super::*;
use crate::rows::Features;

/// A small generator, so that one seed names a whole forest.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Values that collide with thresholds, and the ones at the edges of the number line.
    pub(super) fn value(&mut self, distinct: usize) -> f64 {
        const SPECIAL: [f64; 12] = [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            0.0,
            -0.0,
            1e-36,
            -1e-36,
            ZERO_THRESHOLD,
            -ZERO_THRESHOLD,
            f64::MIN_POSITIVE,
            1e300,
            -1e300,
        ];
        if self.below(4) == 0 {
            return SPECIAL[self.below(SPECIAL.len())];
        }
        (self.below(distinct) as f64 - distinct as f64 / 2.0) * 0.37
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) seed: u64,
    pub(super) features_precision: Precision,
    pub(super) precision: Precision,
    pub(super) comparison: Comparison,
    pub(super) trees: usize,
    pub(super) features: usize,
    pub(super) outputs: usize,
    pub(super) depth_max: u32,
    pub(super) distinct: usize,
    pub(super) chance_of_leaf: usize,
    pub(super) has_zero_missing: bool,
    pub(super) has_categories: bool,
    pub(super) has_vector_leaves: bool,
}

fn split(random: &mut Random, wanted: &Wanted) -> Split {
    let kinds = if wanted.has_zero_missing { 5 } else { 3 };
    let missing =
        [Missing::Left, Missing::Right, Missing::AsZero, Missing::ZeroLeft, Missing::ZeroRight][random.below(kinds)];
    let test = if wanted.has_categories && random.below(4) == 0 {
        let words = (0..random.below(3)).map(|_| random.next() as u32).collect();
        Test::Categories {
            set: Categories::from_words(words, random.below(2) == 0),
            members_go_left: random.below(2) == 0,
        }
    } else {
        let mut threshold = random.value(wanted.distinct);
        while threshold.is_nan() {
            threshold = random.value(wanted.distinct);
        }
        Test::Threshold(threshold)
    };
    Split { feature: random.below(wanted.features), test, missing, left: 0, right: 0 }
}

fn grow(random: &mut Random, wanted: &Wanted, nodes: &mut Vec<Node>, depth: u32) -> usize {
    let index = nodes.len();
    let mut value = || (random.below(2_000_001) as f64 - 1e6) * 1.1e-6;
    nodes.push(if wanted.has_vector_leaves {
        Node::VectorLeaf((0..wanted.outputs).map(|_| value()).collect())
    } else {
        Node::Leaf(value())
    });
    if depth < wanted.depth_max && random.below(100) >= wanted.chance_of_leaf {
        let mut split = split(random, wanted);
        // Children in either order in the list: a loader promises nothing about it.
        split.left = grow(random, wanted, nodes, depth + 1);
        split.right = grow(random, wanted, nodes, depth + 1);
        nodes[index] = Node::Split(split);
    }
    index
}

pub(super) fn ensemble(wanted: &Wanted) -> Ensemble {
    let mut random = Random(wanted.seed);
    Ensemble {
        features_precision: wanted.features_precision,
        precision: wanted.precision,
        comparison: wanted.comparison,
        features_count: wanted.features,
        outputs_count: wanted.outputs,
        base: (0..wanted.outputs).map(|output| 0.1 * output as f64 - 0.3).collect(),
        trees: (0..wanted.trees)
            .map(|_| {
                let mut nodes = Vec::new();
                grow(&mut random, wanted, &mut nodes, 0);
                Tree::new(if wanted.has_vector_leaves { 0 } else { random.below(wanted.outputs) }, nodes)
            })
            .collect(),
    }
}

fn assert_twins_agree(ensemble: &Ensemble, rows: usize, distinct: usize, seed: u64) {
    let mut random = Random(seed ^ 0x5555);
    let features: Vec<f64> = (0..rows * ensemble.features_count).map(|_| random.value(distinct)).collect();
    let features_f32: Vec<f32> = features.iter().map(|&value| value as f32).collect();
    let widened: Vec<f64> = features_f32.iter().map(|&value| value.into()).collect();
    let forest = Forest::new(ensemble).unwrap();
    let bits = |margins: &[f64]| margins.iter().map(|margin| margin.to_bits()).collect::<Vec<_>>();
    let mut plain = vec![0.0; rows * ensemble.outputs_count];
    let mut fast = plain.clone();

    ensemble.margins(&features, rows, &mut plain).unwrap();
    forest.margins(Features::Float64(&features), rows, &mut fast).unwrap();
    assert_eq!(bits(&plain), bits(&fast), "{forest:?}");
    for (way, margins) in forest.margins_by_each_way(&features, rows) {
        assert_eq!(bits(&plain), bits(&margins), "{forest:?} by {way:?}");
    }
    fast.fill(f64::NAN);
    forest.margins_threads(Features::Float64(&features), rows, &mut fast, 3).unwrap();
    assert_eq!(bits(&plain), bits(&fast), "{forest:?} with threads");
    for row in 0..rows {
        let features = &features[row * ensemble.features_count..][..ensemble.features_count];
        let mut alone = vec![0.0; ensemble.outputs_count];
        forest.margins(Features::Float64(features), 1, &mut alone).unwrap();
        let expected = &plain[row * ensemble.outputs_count..][..ensemble.outputs_count];
        assert_eq!(bits(expected), bits(&alone), "{forest:?} row {row} alone");
    }

    ensemble.margins(&widened, rows, &mut plain).unwrap();
    forest.margins(Features::Float32(&features_f32), rows, &mut fast).unwrap();
    assert_eq!(bits(&plain), bits(&fast), "{forest:?} of float32");
}

pub(super) fn any_wanted() -> impl Strategy<Value = Wanted> {
    let shape = (1usize..40, 1usize..12, 1usize..4, 0u32..10, 2usize..40, 0usize..60);
    (any::<u64>(), any::<[bool; 6]>(), shape).prop_map(|(seed, flags, shape)| Wanted {
        seed,
        features_precision: if flags[4] { Precision::Float32 } else { Precision::Float64 },
        precision: if flags[0] { Precision::Float32 } else { Precision::Float64 },
        comparison: if flags[1] { Comparison::Less } else { Comparison::LessEqual },
        trees: shape.0,
        features: shape.1,
        outputs: shape.2,
        depth_max: shape.3,
        distinct: shape.4,
        chance_of_leaf: shape.5,
        has_zero_missing: flags[2],
        has_categories: flags[3],
        has_vector_leaves: flags[5],
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_forest_and_its_plain_twin_agree_on_every_bit(wanted in any_wanted(), rows in 1usize..150) {
        assert_twins_agree(&ensemble(&wanted), rows, wanted.distinct, wanted.seed);
    }
}

pub(super) fn wanted() -> Wanted {
    Wanted {
        seed: 1,
        features_precision: Precision::Float64,
        precision: Precision::Float64,
        comparison: Comparison::LessEqual,
        trees: 20,
        features: 3,
        outputs: 1,
        depth_max: 7,
        distinct: 50,
        chance_of_leaf: 10,
        has_zero_missing: false,
        has_categories: false,
        has_vector_leaves: false,
    }
}

#[test]
fn every_layout_and_width_agrees() {
    let cases = [
        ("Perfect<u8, i8, f64>, SweptPerfect<i8, f64>", 9, 2, 6, 120, 0, false),
        ("Linked<u16, u8, i8, f64>, Swept<i8, f64>", 9, 2, 7, 120, 35, false),
        ("Linked<u16, u8, i8, f64>, walked", 9, 2, 7, 120, 45, true),
        ("Perfect<u16, i16, f64>, SweptPerfect<i16, f64>", 9, 1, 8, 1 << 40, 0, false),
        ("Perfect<u16, i8, f64>, SweptPerfect<i8, f64>", 9, 300, 7, 90, 0, false),
        ("Linked<u32, u16, i8, f64>, Swept<i8, f64>", 40, 300, 7, 90, 35, false),
        ("Linked<u32, u16, i16, f64>, Swept<i16, f64>", 40, 1, 9, 1 << 40, 10, false),
        ("Linked<u32, u32, i32, f64>, Swept<i32, f64>", 200, 1, 9, 1 << 40, 0, false),
    ];
    for (layout, trees, features, depth_max, distinct, chance_of_leaf, has_deep_tree) in cases {
        let wanted = Wanted { trees, features, depth_max, distinct, chance_of_leaf, ..wanted() };
        let mut ensemble = ensemble(&wanted);
        if has_deep_tree {
            // One deep tree among shallow ones, so that padding would cost too much.
            let mut random = Random(7);
            let mut nodes = Vec::new();
            grow(&mut random, &Wanted { depth_max: 12, chance_of_leaf: 0, ..wanted }, &mut nodes, 0);
            ensemble.trees.push(Tree::new(0, nodes));
        }
        let found = format!("{:?}", Forest::new(&ensemble).unwrap());
        let found = found.replace("headrace_cpu::trees::layout::", "");
        let found =
            found.replace("headrace_cpu::trees::sweep::", "").replace("headrace_cpu::trees::sweep_perfect::", "");
        assert!(found.contains(layout), "{layout} was expected: {found}");
        assert_twins_agree(&ensemble, 150, distinct, 9);
    }
}

#[test]
fn exactly_255_thresholds_agree_in_one_byte() {
    for count in 254..=257 {
        for comparison in [Comparison::Less, Comparison::LessEqual] {
            let trees = (0..count).map(|threshold| {
                let missing = if threshold % 2 == 0 { Missing::Left } else { Missing::Right };
                let test = Test::Threshold(f64::from(threshold));
                let split = Split { feature: 0, test, missing, left: 1, right: 2 };
                Tree::new(0, vec![Node::Split(split), Node::Leaf(f64::from(threshold)), Node::Leaf(0.5)])
            });
            let ensemble = Ensemble {
                features_precision: Precision::Float32,
                precision: Precision::Float32,
                comparison,
                features_count: 1,
                outputs_count: 1,
                base: vec![0.0],
                trees: trees.collect(),
            };
            let features: Vec<f64> = (-2..520).map(|half| f64::from(half) / 2.0).chain([f64::NAN]).collect();
            let mut plain = vec![0.0; features.len()];
            let mut fast = plain.clone();
            ensemble.margins(&features, features.len(), &mut plain).unwrap();
            Forest::new(&ensemble).unwrap().margins(Features::Float64(&features), features.len(), &mut fast).unwrap();
            assert_eq!(plain, fast);
        }
    }
}

#[test]
fn a_chain_as_deep_as_a_list_is_long_agrees() {
    let depth = 70_000;
    let mut nodes = Vec::new();
    for level in 0..depth {
        let test = Test::Threshold(f64::from(level));
        let left = 2 * level as usize + 1;
        nodes.push(Node::Split(Split { feature: 0, test, missing: Missing::Right, left, right: left + 1 }));
        nodes.push(Node::Leaf(f64::from(level)));
    }
    nodes.push(Node::Leaf(-1.0));
    let tree = Tree::new(0, nodes);
    let ensemble = Ensemble {
        features_count: 1,
        trees: vec![tree.clone(), tree],
        ..ensemble(&Wanted { features: 1, ..wanted() })
    };
    assert_twins_agree(&ensemble, 9, 200_000, 3);
}

#[test]
fn a_forest_without_trees_or_splits_gives_its_base_and_leaves() {
    let mut ensemble = ensemble(&Wanted { trees: 0, ..wanted() });
    assert_twins_agree(&ensemble, 10, 5, 1);
    ensemble.trees = vec![Tree::new(0, vec![Node::Leaf(0.25)]); 3];
    assert_twins_agree(&ensemble, 10, 5, 1);
}

#[test]
fn wrong_lengths_are_refused_by_name() {
    let forest = Forest::new(&ensemble(&wanted())).unwrap();
    let error = forest.margins(Features::Float64(&[0.0; 5]), 2, &mut [0.0; 2]).unwrap_err();
    assert_eq!(error.code, ErrorCode::LengthMismatch);
    assert!(error.message.contains("features have 5 values, 2 rows of 3"), "{error}");
    let error = forest.margins(Features::Float64(&[0.0; 6]), 2, &mut [0.0; 3]).unwrap_err();
    assert!(error.message.contains("margins have 3 values"), "{error}");
    assert!(forest.margins(Features::Float64(&[]), usize::MAX, &mut []).is_err());
}

#[test]
fn what_is_not_a_forest_is_refused_by_name() {
    let good = ensemble(&Wanted { trees: 1, chance_of_leaf: 0, ..wanted() });
    let with_split = |change: &dyn Fn(&mut Split)| {
        let mut bad = good.clone();
        match &mut bad.trees[0].nodes[0] {
            Node::Split(split) => change(split),
            _ => unreachable!("the root was grown as a split"),
        }
        bad
    };
    let mut mixed = good.clone();
    mixed.trees.push(Tree::new(0, vec![Node::VectorLeaf(Box::new([1.0]))]));
    let cases: [(Ensemble, &str); 10] = [
        (mixed, "some trees have vectors"),
        (with_split(&|split| split.feature = 3), "node 0 tests feature 3, the model has 3"),
        (with_split(&|split| split.test = Test::Threshold(f64::NAN)), "NaN as its threshold"),
        (with_split(&|split| split.left = 1 << 40), "has child 1099511627776"),
        (with_split(&|split| split.left = 0), "node 0 has more than one parent"),
        (with_split(&|split| split.left = split.right), "has more than one parent"),
        (Ensemble { base: vec![], ..good.clone() }, "0 base scores for 1 outputs"),
        (Ensemble { features_count: 0, ..good.clone() }, "0 features"),
        (Ensemble { trees: vec![Tree::new(0, vec![])], ..good.clone() }, "tree 0: has no nodes"),
        (Ensemble { trees: vec![Tree::new(1, vec![Node::Leaf(0.0)])], ..good.clone() }, "adds to output 1"),
    ];
    for (bad, message) in cases {
        let error = Forest::new(&bad).unwrap_err();
        assert_eq!(error.code, ErrorCode::CorruptModel);
        assert!(error.message.contains(message), "{error}");
    }
}
