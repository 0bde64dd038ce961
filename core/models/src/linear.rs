//! Linear and generalised linear models, in a small JSON form of our own.
//!
//! ```json
//! {"format": 1, "weights": [[0.5, -1.0]], "intercept": [0.1], "link": "identity | logistic | softmax | exponential"}
//! ```
//! One row of weights for each output; a margin is `sum of weight x feature + intercept`, in float64.

use headrace_cpu::{Activation, DenseLayer, Features, Mlp, Precision};
use headrace_types::{Error, ErrorCode, Result};

use crate::document::{Document, corrupt, unsupported};
use crate::link::{Link, LinkKind};
use crate::parsed::{Body, Parsed};
use crate::xgboost::OUTPUTS_MAX;

/// The format that this version writes and reads.
const FORMAT: usize = 1;

#[derive(Debug)]
pub(crate) struct Linear {
    /// Row-major `[outputs, features]`.
    weights: Vec<f64>,
    intercept: Vec<f64>,
    /// Float64: as a dense layer of the CPU kernels sums. Float32: as XGBoost's gblinear, the intercept, then the products, features
    /// in order, and a missing feature adds nothing.
    kernel: Kernel,
}

#[derive(Debug)]
enum Kernel {
    Float32,
    Float64(Mlp),
}

pub(crate) fn parse(document: &Document) -> Result<Parsed> {
    let format = document.count("format")?;
    if format > FORMAT {
        return Err(Error::new(
            ErrorCode::NewerFormat,
            format!("the linear model has format {format}, this headrace reads up to {FORMAT}"),
            "upgrade headrace, or export the model with this version",
        ));
    }
    let kind = match document.text("link")? {
        "identity" => LinkKind::Identity,
        "logistic" => LinkKind::Logistic { scale: 1.0 },
        "softmax" => LinkKind::Softmax,
        "exponential" => LinkKind::Exponential,
        other => {
            return Err(unsupported(
                format!("the link is '{other}'"),
                "use identity, logistic, softmax or exponential",
            ));
        }
    };
    let intercept = document.numbers("intercept")?.to_vec();
    let rows = document.list("weights")?;
    if rows.len() != intercept.len() || rows.is_empty() || rows.len() > OUTPUTS_MAX {
        return Err(corrupt(format!("it has {} rows of weights for {} intercepts", rows.len(), intercept.len())));
    }
    let mut weights = Vec::new();
    let mut features_count = None;
    for (output, row) in rows.iter().enumerate() {
        let Document::Numbers(row) = row else {
            return Err(corrupt(format!("row {output} of 'weights' is not an array of numbers")));
        };
        if row.is_empty() || *features_count.get_or_insert(row.len()) != row.len() {
            return Err(corrupt(format!("row {output} of 'weights' has {} weights", row.len())));
        }
        weights.extend_from_slice(row);
    }
    let linear = Linear::new(weights, intercept, Precision::Float64)?;
    Ok(Parsed::new(Body::Linear(linear), Link::new(kind, Precision::Float64)))
}

impl Linear {
    /// `weights` is row-major `[outputs, features]`.
    ///
    /// # Errors
    /// `corrupt_model` when there are no weights, or not the same number for each output.
    pub(crate) fn new(weights: Vec<f64>, intercept: Vec<f64>, precision: Precision) -> Result<Self> {
        if weights.is_empty() || intercept.is_empty() || !weights.len().is_multiple_of(intercept.len()) {
            return Err(corrupt(format!("it has {} weights for {} outputs", weights.len(), intercept.len())));
        }
        let (features_count, outputs_count) = (weights.len() / intercept.len(), intercept.len());
        let kernel = match precision {
            Precision::Float32 => Kernel::Float32,
            Precision::Float64 => {
                let by_feature = |index: usize| weights[index % outputs_count * features_count + index / outputs_count];
                let layer = DenseLayer {
                    inputs_count: features_count,
                    outputs_count,
                    weights: (0..weights.len()).map(by_feature).collect(),
                    bias: intercept.clone(),
                    activation: Activation::Identity,
                };
                Kernel::Float64(Mlp::new(precision, vec![layer])?)
            }
        };
        Ok(Self { weights, intercept, kernel })
    }

    pub(crate) fn precision(&self) -> Precision {
        match self.kernel {
            Kernel::Float32 => Precision::Float32,
            Kernel::Float64(_) => Precision::Float64,
        }
    }

    pub(crate) fn features_count(&self) -> usize {
        self.weights.len() / self.intercept.len()
    }

    pub(crate) fn outputs_count(&self) -> usize {
        self.intercept.len()
    }

    /// Lengths were checked by the caller.
    pub(crate) fn margins(&self, features: Features<'_>, rows: usize, margins: &mut [f64]) -> Result<()> {
        match (&self.kernel, features) {
            (Kernel::Float64(layer), features) => layer.margins(features, rows, margins),
            (Kernel::Float32, features) => {
                match features {
                    Features::Float32(values) => self.margins_f32(values, margins),
                    Features::Float64(values) => self.margins_f32(values, margins),
                }
                Ok(())
            }
        }
    }

    fn margins_f32<T: Copy + Into<f64>>(&self, features: &[T], margins: &mut [f64]) {
        let (features_count, outputs_count) = (self.features_count(), self.outputs_count());
        for (row, margins) in features.chunks_exact(features_count).zip(margins.chunks_exact_mut(outputs_count)) {
            let weights = self.weights.chunks_exact(features_count);
            for ((margin, weights), intercept) in margins.iter_mut().zip(weights).zip(&self.intercept) {
                *margin = margin_f32(weights, row, *intercept);
            }
        }
    }

    /// A weight times its feature; the intercept stands for the expected value, since the file does not tell the features' means. Lengths
    /// were checked by the caller.
    pub(crate) fn contributions(&self, features: Features<'_>, contributions: &mut [f64]) {
        match features {
            Features::Float32(values) => self.contributions_from(values, contributions),
            Features::Float64(values) => self.contributions_from(values, contributions),
        }
    }

    fn contributions_from<T: Copy + Into<f64>>(&self, features: &[T], contributions: &mut [f64]) {
        let (features_count, width) = (self.features_count(), self.outputs_count() * (self.features_count() + 1));
        for (row, values) in features.chunks_exact(features_count).zip(contributions.chunks_exact_mut(width)) {
            let outputs = self.weights.chunks_exact(features_count).zip(&self.intercept);
            for (values, (weights, intercept)) in values.chunks_exact_mut(features_count + 1).zip(outputs) {
                for ((value, weight), &feature) in values.iter_mut().zip(weights).zip(row) {
                    let feature = feature.into();
                    let is_missing = self.precision() == Precision::Float32 && feature.is_nan();
                    *value = if is_missing { 0.0 } else { weight * feature };
                }
                values[features_count] = *intercept;
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let kernel = if let Kernel::Float64(layer) = &self.kernel { layer.bytes() } else { 0 };
        size_of_val(self.weights.as_slice()) + size_of_val(self.intercept.as_slice()) + kernel
    }

    /// The sum of the magnitudes that make a margin, to which its rounding error is in proportion.
    pub(crate) fn magnitude(&self, features: &[f64], output: usize) -> f64 {
        let weights = &self.weights[output * self.features_count()..][..self.features_count()];
        let sum: f64 = weights.iter().zip(features).map(|(weight, feature)| (weight * feature).abs()).sum();
        sum + self.intercept[output].abs()
    }
}

#[allow(clippy::cast_possible_truncation)] // rounding to the trainer's precision is the purpose
fn margin_f32<T: Copy + Into<f64>>(weights: &[f64], row: &[T], intercept: f64) -> f64 {
    let mut sum = intercept as f32;
    for (weight, &feature) in weights.iter().zip(row) {
        let feature = feature.into() as f32;
        if !feature.is_nan() {
            sum += feature * *weight as f32;
        }
    }
    sum.into()
}
