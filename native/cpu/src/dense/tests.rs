#![allow(clippy::unwrap_used)]
//! Networks against their plain twin, alone and in batches, and what is refused.

use headrace_types::ErrorCode;

use super::plain::evaluate_plain;
use super::*;
use crate::rows::Features;
use crate::trees::Precision;

/// Numbers from -1 to 1 that repeat for a seed.
fn numbers(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

pub(super) fn layers(widths: &[usize], activation: Activation, seed: u64) -> Vec<DenseLayer> {
    let mut number = numbers(seed);
    let last = widths.len() - 2;
    let layer = |(index, pair): (usize, &[usize])| DenseLayer {
        inputs_count: pair[0],
        outputs_count: pair[1],
        weights: (0..pair[0] * pair[1]).map(|_| f64::from((number() / (pair[0] as f64).sqrt()) as f32)).collect(),
        bias: (0..pair[1]).map(|_| f64::from(number() as f32)).collect(),
        activation: if index == last { Activation::Identity } else { activation },
    };
    widths.windows(2).enumerate().map(layer).collect()
}

#[test]
fn networks_and_their_plain_twin_agree() {
    let shapes: [&[usize]; 7] =
        [&[1, 1], &[50, 256, 256, 1], &[3, 16, 5], &[7, 100, 17, 3], &[130, 64, 2], &[33, 4], &[5, 1, 70, 9]];
    for (seed, widths) in shapes.iter().enumerate() {
        for activation in [Activation::Identity, Activation::Relu, Activation::Logistic, Activation::Tanh] {
            for (precision, bound) in [(Precision::Float32, 2e-6), (Precision::Float64, 1e-14)] {
                let layers = layers(widths, activation, seed as u64);
                let mlp = Mlp::new(precision, layers.clone()).unwrap();
                let (features_count, outputs_count) = (mlp.features_count(), mlp.outputs_count());
                let mut number = numbers(99);
                for rows in [1, 2, 5, 6, 7, 13, 96, 100, 203] {
                    let narrow: Vec<f32> = (0..rows * features_count).map(|_| number() as f32).collect();
                    let features: Vec<f64> = narrow.iter().map(|&value| value.into()).collect();
                    let mut margins = vec![0.0; rows * outputs_count];
                    mlp.margins(Features::Float64(&features), rows, &mut margins).unwrap();
                    let mut of_narrow = margins.clone();
                    mlp.margins(Features::Float32(&narrow), rows, &mut of_narrow).unwrap();
                    assert_eq!(margins, of_narrow);
                    for row in 0..rows {
                        let features = &features[row * features_count..][..features_count];
                        let margins = &margins[row * outputs_count..][..outputs_count];
                        let expected = evaluate_plain(&layers, features);
                        for (margin, expected) in margins.iter().zip(&expected) {
                            let error = (margin - expected).abs() / (1.0 + expected.abs());
                            assert!(error < bound * 10.0, "{widths:?} {activation:?} {precision:?}: {error:e}");
                        }
                        let mut alone = vec![0.0; outputs_count];
                        mlp.margins(Features::Float64(features), 1, &mut alone).unwrap();
                        assert_eq!(alone, margins, "a row alone and in a batch of {rows}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_missing_feature_gives_no_number() {
    let mlp = Mlp::new(Precision::Float32, layers(&[2, 20, 1], Activation::Relu, 1)).unwrap();
    let mut margins = [0.0; 2];
    mlp.margins(Features::Float64(&[f64::NAN, 1.0, 0.0, 1.0]), 2, &mut margins).unwrap();
    assert!(margins[0].is_nan() && margins[1].is_finite());
}

#[test]
fn layers_that_do_not_fit_are_refused() {
    let good = layers(&[3, 4, 2], Activation::Relu, 1);
    let change = |change: &dyn Fn(&mut Vec<DenseLayer>)| {
        let mut bad = good.clone();
        change(&mut bad);
        Mlp::new(Precision::Float64, bad).unwrap_err()
    };
    let cases = [
        change(&|layers| layers.clear()),
        change(&|layers| layers[1].inputs_count = 5),
        change(&|layers| layers[0].weights.truncate(1)),
        change(&|layers| layers[1].bias.clear()),
        change(&|layers| layers[0].outputs_count = usize::MAX),
        change(&|layers| layers[0].weights[3] = f64::NAN),
    ];
    for error in cases {
        assert_eq!(error.code, ErrorCode::CorruptModel);
    }
}
