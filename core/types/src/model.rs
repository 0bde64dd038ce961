use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode, Result, Vocabulary};

/// What a model answers, which decides the shape of the Common API's predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    Classification,
    Regression,
    MultiLabel,
    Seq2seq,
    Ranking,
    /// Named tensors in, named tensors out, whatever they mean.
    Tensors,
}

/// How raw margins become scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The margin is the answer.
    Identity,
    /// One margin, one probability of the positive class.
    Logistic,
    /// One margin a class, probabilities that sum to one.
    Softmax,
    /// The answer is the exponential of the margin (Poisson, gamma, Tweedie).
    Exponential,
}

/// A loaded model that turns rows of numbers into margins. A missing value is NaN.
pub trait Model: Send + Sync + Debug {
    /// Features a row must have.
    fn features_count(&self) -> usize;

    /// Margins a row gets: 1, or the number of classes.
    fn outputs_count(&self) -> usize;

    fn objective(&self) -> Objective;

    /// The codes of an input that may be given as text; `None` of one that takes numbers only. Who gives rows puts the codes in the place
    /// of the texts.
    fn vocabulary(&self, input: usize) -> Option<&Vocabulary> {
        let _ = input;
        None
    }

    /// Whether a call waits for another process, so that its thread is better lent to others meanwhile.
    fn waits(&self) -> bool {
        false
    }

    /// Calls that run beside each other where a call [waits](Self::waits); those of other models share this process's processors.
    fn calls_at_a_time(&self) -> usize {
        1
    }

    /// Whether a few rows may take so long that the calling thread's other work should not stand behind them.
    fn takes_long(&self) -> bool {
        false
    }

    /// Raw margins of `rows` rows. `features` is row-major `[rows, features_count]`, `margins` is row-major `[rows, outputs_count]`.
    ///
    /// A float32 model (XGBoost) rounds each feature to float32 first, as its trainer does, and returns its float32 margins widened.
    ///
    /// # Errors
    /// `length_mismatch` when a slice's length is not as stated.
    fn margins(&self, features: &[f64], rows: usize, margins: &mut [f64]) -> Result<()>;

    /// As [`margins`](Self::margins), of float32 features.
    ///
    /// # Errors
    /// As [`margins`](Self::margins).
    fn margins_of_float32(&self, features: &[f32], rows: usize, margins: &mut [f64]) -> Result<()> {
        let widened: Vec<f64> = features.iter().copied().map(f64::from).collect();
        self.margins(&widened, rows, margins)
    }

    /// Margins turned into scores in place, with the trainer's own arithmetic and precision.
    fn scores(&self, margins: &mut [f64]);

    /// Whether [`contributions`](Self::contributions) can answer: asked before any work is done for it.
    ///
    /// # Errors
    /// `unsupported_model` naming what cannot be explained, and why.
    fn check_explainable(&self) -> Result<()> {
        Err(Error::new(
            ErrorCode::UnsupportedModel,
            "this kind of model has no contributions of features",
            "tree ensembles and linear models have them",
        ))
    }

    /// How much each feature adds to the margins of `rows` rows. `contributions` is row-major
    /// `[rows, outputs_count, features_count + 1]`; the last value is what the margin is expected to be when no feature is known, so
    /// that the values of an output sum to its margin. A model that prepares its inputs adds the contributions of the columns that it made of
    /// an input to that input's.
    ///
    /// # Errors
    /// As [`check_explainable`](Self::check_explainable); `length_mismatch` when a slice's length is not as stated.
    fn contributions(&self, features: &[f64], rows: usize, contributions: &mut [f64]) -> Result<()> {
        let _ = (features, rows, contributions);
        self.check_explainable()
    }
}
