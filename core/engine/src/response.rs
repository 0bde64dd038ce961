//! What a prediction answers, as columns; a transport turns it into rows or tensors.

use std::sync::Arc;
use std::time::Duration;

use headrace_types::Task;

use crate::metrics::Phase;
use crate::request::{Explain, Outputs, RowError};

/// Where a request's time went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    pub queue: Duration,
    pub lookup: Duration,
    pub transform: Duration,
    pub model: Duration,
    /// From the request's arrival to its answer.
    pub total: Duration,
    /// What the request is charged for: its lookup and transform, and its part by rows of the calls that answered it.
    pub cost: Duration,
}

impl Timing {
    /// That of a request whose work begins, so long after it came; the transport's part of that is no wait.
    pub(crate) fn waited(since_arrival: Duration, decoded_in: Duration) -> Self {
        Self { queue: since_arrival.saturating_sub(decoded_in), ..Self::default() }
    }

    pub fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Queue => self.queue,
            Phase::Lookup => self.lookup,
            Phase::Transform => self.transform,
            Phase::Model => self.model,
            Phase::Total => self.total,
        }
    }
}

/// The answers of a request's rows, in their order.
#[derive(Debug, Clone)]
pub struct PredictResponse {
    pub id: String,
    pub deployment: Arc<str>,
    pub model: Arc<str>,
    pub model_version: u32,
    pub task: Task,
    pub rows: usize,
    pub outputs: Outputs,
    /// Names of the classes, in the order of `scores`; empty for regression and ranking.
    pub classes: Arc<[String]>,
    /// Classification: the chosen class of each row, an index into `classes`; [`NO_LABEL`] in a failed row.
    pub labels: Vec<u32>,
    /// Row-major `[rows, classes]`; for regression and ranking `[rows, 1]`, the value. NaN in a failed row.
    pub scores: Vec<f64>,
    /// Row-major `[rows, margins_count]`; empty unless asked for. NaN in a failed row.
    pub margins: Vec<f64>,
    pub margins_count: usize,
    /// How to tell `contributions`; none unless asked for.
    pub explain: Option<Explain>,
    /// Row-major `[rows, margins_count, features + 1]`, the last value is the expected margin; empty unless asked for. NaN in a failed row.
    pub contributions: Vec<f64>,
    /// The rows that failed, in order of their row; all others have an answer.
    pub row_errors: Vec<RowError>,
    pub timing: Timing,
}

/// Why a margin is what it is: `expected`, `contributions` and `others` sum to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The margin when no feature is known.
    pub expected: f64,
    /// Places among the features, and what each adds; the largest first where only the top was asked for, else in their order.
    pub contributions: Vec<(usize, f64)>,
    /// What all features add that are not told.
    pub others: Option<f64>,
}

/// The label index of a row that has none.
pub const NO_LABEL: u32 = u32::MAX;

impl PredictResponse {
    /// Scores a row has.
    pub fn scores_count(&self) -> usize {
        self.classes.len().max(1)
    }

    /// What explains one margin of one row: the contributions of the features that are to be told, by their place among the features. None
    /// where the row failed, or explanations were not asked for.
    pub fn explanation(&self, row: usize, margin: usize) -> Option<Explanation> {
        let explain = self.explain?;
        if self.row_error(row).is_some() || self.rows == 0 {
            return None;
        }
        let stride = self.contributions.len() / (self.rows * self.margins_count);
        let (expected, features) =
            self.contributions[(row * self.margins_count + margin) * stride..][..stride].split_last()?;
        let mut contributions: Vec<(usize, f64)> = features.iter().copied().enumerate().collect();
        let mut others = None;
        if let Some(top) = explain.top {
            contributions.sort_by(|one, two| two.1.abs().total_cmp(&one.1.abs()).then(one.0.cmp(&two.0)));
            if top.get() < contributions.len() {
                others = Some(contributions.drain(top.get()..).map(|(_, contribution)| contribution).sum());
            }
        }
        Some(Explanation { expected: *expected, contributions, others })
    }

    pub fn row_error(&self, row: usize) -> Option<&RowError> {
        let index = self.row_errors.binary_search_by_key(&row, |error| error.row).ok()?;
        Some(&self.row_errors[index])
    }
}
