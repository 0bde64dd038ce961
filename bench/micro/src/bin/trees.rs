//! The tree kernel on full trees of random splits, beside its plain twin.

use std::error::Error;
use std::hint::black_box;

use headrace_cpu::{Comparison, Ensemble, Features, Forest, Missing, Node, Precision, Split, Test, Tree};
use headrace_micro::{Random, Timed, print_table, time_in_turns};

const FEATURES: usize = 50;
const POOL_ROWS: usize = 131_101;
const ROWS_PER_CALL: [usize; 4] = [1, 16, 128, 1024];
/// Distinct thresholds of a feature, as many as a histogram of 256 bins has.
const THRESHOLDS: usize = 255;
/// The plain twin walks one tree after the other; it is timed on few rows only.
const PLAIN_ROWS_MAX: usize = 128;

fn main() -> Result<(), Box<dyn Error>> {
    let mut random = Random::new(7);
    let pool: Vec<f32> = (0..POOL_ROWS * FEATURES).map(|_| random.next_f32()).collect();
    let wide: Vec<f64> = pool.iter().map(|&value| value.into()).collect();
    for (trees, depth, precision, comparison) in [
        (100, 6, Precision::Float32, Comparison::Less),
        (500, 8, Precision::Float32, Comparison::Less),
        (500, 6, Precision::Float64, Comparison::LessEqual),
    ] {
        let ensemble = Ensemble {
            features_precision: precision,
            precision,
            comparison,
            features_count: FEATURES,
            outputs_count: 1,
            base: vec![0.5],
            trees: (0..trees).map(|_| full_tree(&mut random, depth)).collect(),
        };
        let forest = Forest::new(&ensemble)?;
        for rows in ROWS_PER_CALL {
            let window = |call: usize| {
                let start = call * rows % (POOL_ROWS - rows + 1);
                start * FEATURES..(start + rows) * FEATURES
            };
            let mut fast = vec![0.0; rows];
            let mut plain = vec![0.0; rows];
            forest.margins(Features::Float32(&pool[window(3)]), rows, &mut fast)?;
            ensemble.margins(&wide[window(3)], rows, &mut plain)?;
            assert_eq!(fast, plain, "the kernel and its plain twin give other margins");
            let mut functions = vec![Timed::new("Forest::margins", rows, |call| {
                let features = Features::Float32(&pool[window(call)]);
                forest.margins(features, rows, &mut fast).expect("the window has that many rows");
                black_box(&fast);
            })];
            if rows <= PLAIN_ROWS_MAX {
                functions.push(Timed::new("Ensemble::margins (plain)", rows, |call| {
                    ensemble.margins(&wide[window(call)], rows, &mut plain).expect("the window has that many rows");
                    black_box(&plain);
                }));
            }
            time_in_turns(&mut functions);
            let bytes = forest.bytes() / 1024;
            print_table(&format!("{trees} trees x depth {depth}, {precision:?}, {bytes} KiB compiled"), &functions)?;
        }
    }
    Ok(())
}

/// A tree whose inner nodes come level by level: node n has the children 2n + 1 and 2n + 2.
fn full_tree(random: &mut Random, depth: u32) -> Tree {
    let inner = (1 << depth) - 1;
    let nodes = (0..2 * inner + 1)
        .map(|at| {
            if at >= inner {
                return Node::Leaf(f64::from(random.next_f32()));
            }
            let step = random.below(THRESHOLDS) as f32;
            Node::Split(Split {
                feature: random.below(FEATURES),
                test: Test::Threshold(f64::from(2.0 * (step + 1.0) / (THRESHOLDS + 1) as f32 - 1.0)),
                missing: Missing::Left,
                left: 2 * at + 1,
                right: 2 * at + 2,
            })
        })
        .collect();
    Tree::new(0, nodes)
}
