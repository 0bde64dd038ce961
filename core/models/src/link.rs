//! From margins to scores, in the trainer's arithmetic: XGBoost's float32 and LightGBM's float64, step by step.
//!
//! `exp` is the platform's, because it is what the training libraries call.

use headrace_cpu::Precision;
use headrace_types::Objective;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum LinkKind {
    Identity,
    /// The margin is the probability.
    Probability,
    /// A probability for each margin; LightGBM multiplies the margin by `scale` first.
    Logistic {
        scale: f64,
    },
    /// A logistic probability for each margin, divided by their sum over a row.
    OneAgainstRest,
    /// `(clip(x, -1, 1) + 1) / 2`, divided by the sum over a row of several margins; all zero means all alike.
    ModifiedHuber,
    /// Probabilities over all margins of a row.
    Softmax,
    Exponential,
    /// 1 above zero, else 0.
    Hinge,
    /// `sign(x) x^2`, the inverse of LightGBM's `reg_sqrt`.
    SignedSquare,
    /// `ln(1 + e^x)`.
    Softplus,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    kind: LinkKind,
    precision: Precision,
    /// A random forest's margin is a sum over so many iterations; its score is of the mean.
    iterations: Option<f64>,
}

impl Link {
    pub(crate) fn new(kind: LinkKind, precision: Precision) -> Self {
        Self { kind, precision, iterations: None }
    }

    pub(crate) fn averaged_over(self, iterations: usize) -> Self {
        #[allow(clippy::cast_precision_loss)] // a count of trees is far below 2^53
        Self { iterations: Some(iterations as f64), ..self }
    }

    pub(crate) fn objective(&self) -> Objective {
        match self.kind {
            LinkKind::Identity | LinkKind::Hinge | LinkKind::SignedSquare | LinkKind::Softplus => Objective::Identity,
            LinkKind::Probability | LinkKind::Logistic { .. } | LinkKind::ModifiedHuber => Objective::Logistic,
            LinkKind::Softmax | LinkKind::OneAgainstRest => Objective::Softmax,
            LinkKind::Exponential => Objective::Exponential,
        }
    }

    /// Turns rows of `outputs_count` margins into scores in place.
    pub(crate) fn apply(&self, margins: &mut [f64], outputs_count: usize) {
        if let Some(iterations) = self.iterations {
            margins.iter_mut().for_each(|margin| *margin /= iterations);
        }
        match self.kind {
            LinkKind::Softmax => {
                for row in margins.chunks_exact_mut(outputs_count.max(1)) {
                    match self.precision {
                        Precision::Float32 => softmax_f32(row),
                        Precision::Float64 => softmax_f64(row),
                    }
                }
            }
            LinkKind::OneAgainstRest => {
                let logistic = LinkKind::Logistic { scale: 1.0 };
                margins.iter_mut().for_each(|margin| *margin = self.one(logistic, *margin));
                divide_by_sums(margins, outputs_count);
            }
            LinkKind::ModifiedHuber => {
                margins.iter_mut().for_each(|margin| *margin = f64::midpoint(margin.clamp(-1.0, 1.0), 1.0));
                if outputs_count > 1 {
                    divide_by_sums(margins, outputs_count);
                }
            }
            kind => margins.iter_mut().for_each(|margin| *margin = self.one(kind, *margin)),
        }
    }

    fn one(&self, kind: LinkKind, margin: f64) -> f64 {
        #[allow(clippy::cast_possible_truncation)] // a float32 model's margins are float32 values
        let narrow = margin as f32;
        match (kind, self.precision) {
            (LinkKind::Logistic { .. }, Precision::Float32) => sigmoid_f32(narrow).into(),
            (LinkKind::Logistic { scale }, Precision::Float64) => 1.0 / (1.0 + (-scale * margin).exp()),
            (LinkKind::Exponential, Precision::Float32) => narrow.exp().into(),
            (LinkKind::Exponential, Precision::Float64) => margin.exp(),
            (LinkKind::Hinge, _) => f64::from(u8::from(margin > 0.0)),
            (LinkKind::SignedSquare, _) => margin.signum() * margin * margin,
            (LinkKind::Softplus, _) => margin.exp().ln_1p(),
            (
                LinkKind::Identity
                | LinkKind::Probability
                | LinkKind::OneAgainstRest
                | LinkKind::ModifiedHuber
                | LinkKind::Softmax,
                _,
            ) => margin,
        }
    }
}

/// A row of zeros becomes one of equal shares.
fn divide_by_sums(values: &mut [f64], outputs_count: usize) {
    for row in values.chunks_exact_mut(outputs_count.max(1)) {
        if row.iter().all(|&value| value == 0.0) {
            row.fill(1.0);
        }
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|value| *value /= sum);
    }
}

fn sigmoid_f32(margin: f32) -> f32 {
    // Written as a comparison, so that NaN stays NaN.
    let exponent = if -margin > 88.7 { 88.7 } else { -margin };
    1.0 / (exponent.exp() + 1.0 + 1e-16)
}

#[allow(clippy::cast_possible_truncation)] // float32 values, and a float64 sum that XGBoost narrows before it divides
fn softmax_f32(row: &mut [f64]) {
    let max = row.iter().fold(f32::NEG_INFINITY, |max, &margin| max.max(margin as f32));
    let mut sum = 0.0;
    for margin in row.iter_mut() {
        *margin = (*margin as f32 - max).exp().into();
        sum += *margin;
    }
    for margin in row {
        *margin = (*margin as f32 / sum as f32).into();
    }
}

fn softmax_f64(row: &mut [f64]) {
    let max = row.iter().fold(f64::NEG_INFINITY, |max, &margin| max.max(margin));
    let mut sum = 0.0;
    for margin in row.iter_mut() {
        *margin = (*margin - max).exp();
        sum += *margin;
    }
    for margin in row {
        *margin /= sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_margins_stay_probabilities() {
        for precision in [Precision::Float32, Precision::Float64] {
            let mut margins = [-1e30, -200.0, 0.0, 200.0, 1e30, f64::NAN];
            Link::new(LinkKind::Logistic { scale: 1.0 }, precision).apply(&mut margins, 1);
            assert!(margins[..5].is_sorted() && margins[0] >= 0.0 && margins[4] == 1.0, "{margins:?}");
            assert!((margins[2] - 0.5).abs() < 1e-7 && margins[5].is_nan());
            let mut margins = [1e30, -1e30, 0.0];
            Link::new(LinkKind::Softmax, precision).apply(&mut margins, 3);
            assert_eq!(margins, [1.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn a_random_forest_scores_its_mean() {
        let mut margins = [6.0];
        Link::new(LinkKind::Identity, Precision::Float64).averaged_over(3).apply(&mut margins, 1);
        assert_eq!(margins, [2.0]);
    }
}
