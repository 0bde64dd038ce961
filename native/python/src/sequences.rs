//! Answers of models of sequences as the dictionary of the Common API.

use headrace_engine::{Deployment, RowError, SequenceResponse};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::error::Outcome;
use crate::response::{begin_answer, number, status_dict, timing_dict};

/// As [`crate::response::response_dict`]; a prediction is `{"text"?, "tokens"?, "score"?, "scores"?, "status"?}`.
pub(crate) fn sequences_dict<'py>(
    py: Python<'py>,
    deployment: &Deployment,
    response: &SequenceResponse,
) -> Outcome<Bound<'py, PyDict>> {
    let answer = begin_answer(py, deployment, &response.id)?;
    let members = response.members;
    let predictions = PyList::empty(py);
    for (row, sequence) in response.sequences.iter().enumerate() {
        let found = PyDict::new(py);
        if members.text {
            found.set_item(intern!(py, "text"), &sequence.text)?;
        }
        if members.tokens {
            found.set_item(intern!(py, "tokens"), &sequence.tokens)?;
        }
        if members.score {
            found.set_item(intern!(py, "score"), sequence.score.and_then(number))?;
        }
        if members.scores {
            let scores = sequence.scores.as_ref();
            let scores = scores.map(|scores| scores.iter().map(|score| number(*score)).collect::<Vec<_>>());
            found.set_item(intern!(py, "scores"), scores)?;
        }
        if let Some(RowError { error, .. }) = response.row_error(row) {
            found.set_item(intern!(py, "status"), status_dict(py, error)?)?;
        }
        predictions.append(found)?;
    }
    answer.set_item(intern!(py, "predictions"), predictions)?;
    answer.set_item(intern!(py, "timing_us"), timing_dict(py, &response.timing)?)?;
    Ok(answer)
}
