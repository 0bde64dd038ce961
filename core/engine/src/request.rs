//! What a caller asks: columns of values by name, and which outputs to answer.

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headrace_types::{Batch, Error, ErrorCode, Result};

/// Which parts of a prediction the answer carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outputs {
    /// The label (classification), the labels (multi-label) or the value (regression, ranking).
    pub label: bool,
    /// The score of each class.
    pub scores: bool,
    /// The model's raw margins, before they become scores.
    pub margin: bool,
}

impl Default for Outputs {
    fn default() -> Self {
        Self { label: true, scores: true, margin: false }
    }
}

impl Outputs {
    pub const NONE: Outputs = Outputs { label: false, scores: false, margin: false };
    pub const NAMES: [&'static str; 3] = ["label", "scores", "margin"];

    /// Switches one output on by its name; `None` when there is no such output.
    #[must_use]
    pub fn with(mut self, name: &str) -> Option<Self> {
        match name {
            // A regression's answer is its value; there the two words mean the same.
            "label" | "value" => self.label = true,
            "scores" => self.scores = true,
            "margin" => self.margin = true,
            _ => return None,
        }
        Some(self)
    }
}

/// That the answer shall carry how much each feature adds to the margins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Explain {
    /// Only so many features of each margin, by magnitude; the sum of the others comes as one value.
    pub top: Option<NonZeroUsize>,
}

/// Why one row of a request has no answer, while the others have.
#[derive(Debug, Clone)]
pub struct RowError {
    pub row: usize,
    /// Shared between the rows behind the first [`ROW_ERRORS_TOLD`], so that a million wrong values do not become a million texts.
    pub error: Arc<Error>,
}

/// Wrong rows of one column that are told each with its value; those behind them say only that they are wrong in the same way.
pub const ROW_ERRORS_TOLD: usize = 1000;

/// The wrong rows of one column, or of one check.
#[derive(Debug, Default)]
pub(crate) struct RowErrors {
    found: Vec<RowError>,
    rest: Option<Arc<Error>>,
}

impl RowErrors {
    /// Notes that a row is wrong; `error` is called for the first rows only.
    pub(crate) fn note(&mut self, row: usize, error: impl FnOnce() -> Error) {
        let error = if self.found.len() < ROW_ERRORS_TOLD {
            Arc::new(error())
        } else {
            let same =
                || Arc::new(Error { message: "wrong as the rows before".to_owned(), hint: String::new(), ..error() });
            Arc::clone(self.rest.get_or_insert_with(same))
        };
        self.found.push(RowError { row, error });
    }

    pub(crate) fn len(&self) -> usize {
        self.found.len()
    }

    pub(crate) fn into_vec(self) -> Vec<RowError> {
        self.found
    }
}

/// Which requests a busy model answers first: 1 before 5, the usual one, before 9. Each level counts as much as the model's latency
/// objective of waiting, so that every level is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priority(u8);

impl Default for Priority {
    fn default() -> Self {
        Self(Self::USUAL)
    }
}

impl Priority {
    const USUAL: u8 = 5;
    const LAST: u8 = 9;

    /// The priority of a level; 0 is the usual one, as in the Open Inference Protocol.
    ///
    /// # Errors
    /// `invalid_argument` above the last.
    pub fn of_level(level: u64) -> Result<Self> {
        match u8::try_from(level) {
            Ok(0) => Ok(Self::default()),
            Ok(level @ 1..=Self::LAST) => Ok(Self(level)),
            _ => Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("the priority {level} is none"),
                format!("use 1 (first) to {} (last), or 0 for the usual one, which is {}", Self::LAST, Self::USUAL),
            )),
        }
    }

    /// Levels above the usual one; below zero behind it.
    pub(crate) fn levels_up(self) -> i32 {
        i32::from(Self::USUAL) - i32::from(self.0)
    }
}

/// Rows to predict, as columns. A column's place says what it is for: finding stored features (`entities`), replacing a
/// feature (`features`), or computing on-demand features (`request`).
#[derive(Debug, Clone, Default)]
pub struct PredictRequest {
    /// Echoed in the answer; the engine makes one when absent.
    pub id: Option<String>,
    pub entities: Batch,
    pub features: Batch,
    pub request: Batch,
    /// All features at once, row-major in the order of the signature; the three batches are then ignored.
    pub matrix: Option<Vec<f64>>,
    /// Rows that the transport could not decode; they fail alone.
    pub row_errors: Vec<RowError>,
    pub outputs: Outputs,
    pub explain: Option<Explain>,
    /// When the request came; its wait counts as queue time.
    pub arrived: Option<Instant>,
    /// What the transport has taken since then to read and decode it, which is no wait.
    pub decoded_in: Duration,
    /// How long the caller waits from then on, in its own words.
    pub timeout: Option<Duration>,
    /// When the caller stops waiting; work that has not begun by then is not begun.
    pub deadline: Option<Instant>,
    pub priority: Priority,
}

/// # Errors
/// `deadline_exceeded` when the caller waits no longer.
pub(crate) fn check_deadline(deadline: Option<Instant>, now: Instant) -> Result<()> {
    match deadline {
        Some(deadline) if now >= deadline => Err(Error::new(
            ErrorCode::DeadlineExceeded,
            "the request's deadline had passed before its work began",
            "allow more time, or send fewer requests at once",
        )),
        _ => Ok(()),
    }
}

impl PredictRequest {
    /// Notes when the whole request was there, which its `timeout` counts from, and what the transport knows of its deadline: the earlier
    /// one counts.
    pub fn arrived(&mut self, at: Instant, deadline: Option<Instant>) {
        self.arrived = Some(at);
        // A timeout beyond what the clock can tell is none.
        self.deadline = self.timeout.and_then(|timeout| at.checked_add(timeout)).into_iter().chain(deadline).min();
    }

    /// # Errors
    /// `deadline_exceeded` when the caller waits no longer.
    pub fn check_deadline(&self, now: Instant) -> Result<()> {
        check_deadline(self.deadline, now)
    }

    /// Rows of the request: the length of its longest column (the engine checks that all are equal).
    pub fn rows(&self) -> usize {
        [&self.entities, &self.features, &self.request]
            .iter()
            .flat_map(|batch| batch.columns.iter().map(|(_, column)| column.len()))
            .max()
            .unwrap_or(0)
    }
}

/// Characters of a caller's text that a message repeats.
const CHARS_SHOWN: usize = 100;

/// A caller's text as a message may repeat it.
pub fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(CHARS_SHOWN) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
    }
}
