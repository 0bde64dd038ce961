//! Predictions of models of sequences: texts or tokens as a column in, a text or tokens with scores for each row out.

mod inputs;
mod outputs;

use std::time::Instant;

use headrace_models::{SequenceInput, SequenceLayout};
use headrace_types::{Column, DType, Error, ErrorCode, Field, Result, ScalarType};

use crate::deployment::{Deployment, Section};
use crate::engine::Engine;
use crate::inputs::missing_column;
use crate::request::{Outputs, PredictRequest, RowError};
use crate::request_id::new_request_id;
use crate::response::Timing;
use crate::tensors::TensorRequest;

/// One row's answer; what the model does not give is none, and so is all of a row that failed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sequence {
    pub text: Option<String>,
    pub tokens: Option<Vec<i64>>,
    /// Of the whole sequence.
    pub score: Option<f64>,
    /// Of each token.
    pub scores: Option<Vec<f64>>,
}

/// Which members a row's answer has: what the model gives, as far as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a member of the answer
pub struct SequenceMembers {
    pub text: bool,
    pub tokens: bool,
    pub score: bool,
    pub scores: bool,
}

impl SequenceMembers {
    /// The label is the sequence itself.
    pub fn of(layout: &SequenceLayout, outputs: Outputs) -> Self {
        Self {
            text: outputs.label && layout.text.is_some(),
            tokens: outputs.label && layout.tokens.is_some(),
            score: outputs.scores && layout.score.is_some(),
            scores: outputs.scores && layout.scores.is_some(),
        }
    }
}

/// The answers of a request's rows, in their order.
#[derive(Debug, Clone)]
pub struct SequenceResponse {
    pub id: String,
    pub members: SequenceMembers,
    /// One for each row.
    pub sequences: Vec<Sequence>,
    /// The rows that failed, in order of their row; all others have an answer.
    pub row_errors: Vec<RowError>,
    pub timing: Timing,
}

impl SequenceResponse {
    pub fn row_error(&self, row: usize) -> Option<&RowError> {
        let index = self.row_errors.binary_search_by_key(&row, |error| error.row).ok()?;
        Some(&self.row_errors[index])
    }
}

/// The column that a model of sequences is given.
pub(crate) fn field_of(layout: &SequenceLayout) -> Field {
    match &layout.input {
        SequenceInput::Text => Field::new("text", DType::STRING),
        SequenceInput::Tokens { datatype: headrace_types::Datatype::Int32, .. } => {
            Field::new("tokens", DType::List(ScalarType::Int32))
        }
        SequenceInput::Tokens { .. } => Field::new("tokens", DType::List(ScalarType::Int64)),
    }
}

impl Engine {
    /// Predicts with a model of sequences on the calling thread.
    ///
    /// # Errors
    /// `missing_column`, `length_mismatch` for rows of different lengths where the model takes no padding, `too_large`,
    /// `invalid_argument`, `unsupported_model`, `deadline_exceeded`, and what the model answers. A value that does not fit fails its row
    /// only, in the answer.
    pub fn predict_sequences(&self, deployment: &Deployment, request: &PredictRequest) -> Result<SequenceResponse> {
        let started = Instant::now();
        let arrived = request.arrived.unwrap_or(started);
        let mut timing = Timing::waited(started.saturating_duration_since(arrived), request.decoded_in);
        let checked = request.check_deadline(started);
        let result = checked.and_then(|()| self.run_sequences(deployment, request, started, &mut timing));
        timing.total = arrived.elapsed();
        match result {
            Ok(mut response) => {
                response.timing = timing;
                let (rows, failed) = (response.sequences.len(), response.row_errors.len());
                deployment.metrics().record(&timing, rows, failed, self.options.clock.now_us());
                Ok(response)
            }
            Err(error) => {
                deployment.metrics().record_failure(error.code, timing.total);
                Err(error)
            }
        }
    }

    fn run_sequences(
        &self,
        deployment: &Deployment,
        request: &PredictRequest,
        started: Instant,
        timing: &mut Timing,
    ) -> Result<SequenceResponse> {
        let layout = deployment.sequences().ok_or_else(|| Error::internal("a model without sequences"))?;
        check_asked(request)?;
        let column = column_of(deployment, request)?;
        let rows = column.len();
        self.check_rows(rows)?;
        let mut row_errors: Vec<RowError> =
            request.row_errors.iter().filter(|error| error.row < rows).cloned().collect();
        let named = |error: Error| error.within(format!("model '{}'", deployment.name()));
        let taken = inputs::taken(&layout.input, column, &mut row_errors);
        let mut sequences = vec![Sequence::default(); rows];
        if !taken.is_empty() {
            let inputs = inputs::tensors(&layout.input, column, &taken).map_err(named)?;
            let tensors = TensorRequest { id: Some(String::new()), inputs, ..TensorRequest::default() };
            let answered = self.run_tensors(deployment, &tensors, started, timing)?.outputs;
            outputs::read(layout, &answered, &taken, &mut sequences, &mut row_errors).map_err(named)?;
        }
        row_errors.sort_by_key(|error| error.row);
        let id = request.id.clone().unwrap_or_else(|| new_request_id(self.options.clock.now_us()));
        let members = SequenceMembers::of(layout, request.outputs);
        Ok(SequenceResponse { id, members, sequences, row_errors, timing: Timing::default() })
    }
}

/// # Errors
/// `invalid_argument`, `unsupported_model` for what there is not of a sequence.
fn check_asked(request: &PredictRequest) -> Result<()> {
    if request.explain.is_some() {
        let message = "a model of sequences has no contributions of features";
        return Err(Error::new(ErrorCode::UnsupportedModel, message, "leave 'explain' out"));
    }
    if request.outputs.margin {
        let message = "there is no output 'margin' of a model of sequences";
        return Err(Error::new(ErrorCode::InvalidArgument, message, "use label, scores"));
    }
    Ok(())
}

fn column_of<'a>(deployment: &Deployment, request: &'a PredictRequest) -> Result<&'a Column> {
    match (&request.features.columns[..], deployment.fields(Section::Features)) {
        ([(_, column)], _) => Ok(column),
        ([], [field, ..]) => Err(missing_column(deployment.name(), Section::Features, field)),
        _ => Err(Error::new(ErrorCode::InvalidArgument, "'features' holds a column twice", "give it once")),
    }
}

#[cfg(test)]
mod tests;
