//! A prediction as the dictionary of the Common API: the same names, nesting and nulls as `headrace_protocol` writes in JSON.

use headrace_engine::{Deployment, Explanation, NO_LABEL, Phase, PredictResponse, RowError, Timing};
use headrace_types::{Error, Task};
use numpy::ndarray::Array2;
use numpy::{IntoPyArray, PyArray2};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::error::{Failure, Outcome};

const API_VERSION: &str = "v1";

/// `{"id", "api_version", "deployment", "model", "model_version", "task", "predictions": [..], "timing_us": {..}}`
pub(crate) fn response_dict<'py>(
    py: Python<'py>,
    deployment: &Deployment,
    response: &PredictResponse,
) -> Outcome<Bound<'py, PyDict>> {
    let answer = begin_answer(py, deployment, &response.id)?;
    let classes: Vec<Bound<'py, PyString>> = response.classes.iter().map(|class| PyString::new(py, class)).collect();
    let mut features = Vec::new();
    if response.explain.is_some() {
        features.extend(deployment.features().iter().map(|field| PyString::new(py, &field.name)));
    }
    let names = Names { classes, features };
    let predictions = PyList::empty(py);
    for row in 0..response.rows {
        predictions.append(prediction(py, deployment, response, &names, row)?)?;
    }
    answer.set_item(intern!(py, "predictions"), predictions)?;
    answer.set_item(intern!(py, "timing_us"), timing_dict(py, &response.timing)?)?;
    Ok(answer)
}

/// What stands before the predictions.
pub(crate) fn begin_answer<'py>(py: Python<'py>, deployment: &Deployment, id: &str) -> Outcome<Bound<'py, PyDict>> {
    let answer = PyDict::new(py);
    answer.set_item(intern!(py, "id"), id)?;
    answer.set_item(intern!(py, "api_version"), intern!(py, API_VERSION))?;
    answer.set_item(intern!(py, "deployment"), deployment.name())?;
    answer.set_item(intern!(py, "model"), deployment.name())?;
    answer.set_item(intern!(py, "model_version"), deployment.version().to_string())?;
    answer.set_item(intern!(py, "task"), task_name(py, deployment.task()))?;
    Ok(answer)
}

/// `{"deployment", "model_version", "classes", "labels"?, "scores", "margins"?, "errors"}`: a float64 array of `[rows, classes]` scores (of
/// values `[rows, 1]`), an int64 array of label places, -1 in a failed row, a float64 array `[rows, margins]`, and the failed rows' errors.
pub(crate) fn response_arrays(py: Python<'_>, response: PredictResponse) -> Outcome<Bound<'_, PyDict>> {
    let answer = PyDict::new(py);
    let (rows, scores_count) = (response.rows, response.scores_count());
    answer.set_item(intern!(py, "deployment"), &*response.deployment)?;
    answer.set_item(intern!(py, "model_version"), response.model_version)?;
    answer.set_item(intern!(py, "classes"), PyList::new(py, response.classes.iter())?)?;
    if response.outputs.label && response.task == Task::Classification {
        let place = |&label: &u32| if label == NO_LABEL { -1 } else { i64::from(label) };
        let labels: Vec<i64> = response.labels.iter().map(place).collect();
        answer.set_item(intern!(py, "labels"), labels.into_pyarray(py))?;
    }
    answer.set_item(intern!(py, "scores"), array(py, response.scores, rows, scores_count)?)?;
    if response.outputs.margin {
        answer.set_item(intern!(py, "margins"), array(py, response.margins, rows, response.margins_count)?)?;
    }
    let errors = PyDict::new(py);
    for RowError { row, error } in &response.row_errors {
        errors.set_item(row, PyErr::from(Failure::from(Error::clone(error))).into_value(py))?;
    }
    answer.set_item(intern!(py, "errors"), errors)?;
    Ok(answer)
}

fn array(py: Python<'_>, values: Vec<f64>, rows: usize, width: usize) -> Outcome<Bound<'_, PyArray2<f64>>> {
    let values = Array2::from_shape_vec((rows, width), values).map_err(|error| Error::internal(error.to_string()))?;
    Ok(values.into_pyarray(py))
}

fn task_name<'py>(py: Python<'py>, task: Task) -> &'py Bound<'py, PyString> {
    match task {
        Task::Classification => intern!(py, "classification"),
        Task::Regression => intern!(py, "regression"),
        Task::MultiLabel => intern!(py, "multi_label"),
        Task::Seq2seq => intern!(py, "seq2seq"),
        Task::Ranking => intern!(py, "ranking"),
        Task::Tensors => intern!(py, "tensors"),
    }
}

/// Names that every row tells.
struct Names<'py> {
    classes: Vec<Bound<'py, PyString>>,
    /// Empty unless explanations are told.
    features: Vec<Bound<'py, PyString>>,
}

fn prediction<'py>(
    py: Python<'py>,
    deployment: &Deployment,
    response: &PredictResponse,
    names: &Names<'py>,
    row: usize,
) -> Outcome<Bound<'py, PyDict>> {
    let classes = &names.classes;
    let width = response.scores_count();
    let scores = &response.scores[row * width..][..width];
    let found = PyDict::new(py);
    if response.outputs.label {
        match response.task {
            Task::Classification => {
                let label = response.labels.get(row).copied().unwrap_or(NO_LABEL);
                found.set_item(intern!(py, "label"), classes.get(label as usize))?;
            }
            Task::MultiLabel => {
                let chosen = classes.iter().zip(scores).filter(|(_, score)| deployment.chooses(**score));
                found.set_item(
                    intern!(py, "labels"),
                    PyList::new(py, chosen.map(|(class, _)| class).collect::<Vec<_>>())?,
                )?;
            }
            Task::Regression | Task::Ranking | Task::Seq2seq | Task::Tensors => {
                found.set_item(intern!(py, "value"), number(scores[0]))?;
            }
        }
    }
    if response.outputs.scores && !classes.is_empty() {
        let by_class = PyDict::new(py);
        for (class, score) in classes.iter().zip(scores) {
            by_class.set_item(class, number(*score))?;
        }
        found.set_item(intern!(py, "scores"), by_class)?;
    }
    if response.outputs.margin {
        let margins = &response.margins[row * response.margins_count..][..response.margins_count];
        match margins {
            [one] => found.set_item(intern!(py, "margin"), number(*one))?,
            many => {
                let many: Vec<Option<f64>> = many.iter().map(|margin| number(*margin)).collect();
                found.set_item(intern!(py, "margin"), many)?;
            }
        }
    }
    if response.explain.is_some() {
        let told = |margin: usize| {
            let explanation = response.explanation(row, margin);
            explanation.map(|explanation| explanation_dict(py, &explanation, &names.features)).transpose()
        };
        match response.margins_count {
            1 => found.set_item(intern!(py, "explanation"), told(0)?)?,
            many => found.set_item(intern!(py, "explanation"), (0..many).map(told).collect::<Outcome<Vec<_>>>()?)?,
        }
    }
    if let Some(RowError { error, .. }) = response.row_error(row) {
        found.set_item(intern!(py, "status"), status_dict(py, error)?)?;
    }
    Ok(found)
}

/// Why a row has no answer.
pub(crate) fn status_dict<'py>(py: Python<'py>, error: &Error) -> Outcome<Bound<'py, PyDict>> {
    let status = PyDict::new(py);
    status.set_item(intern!(py, "code"), error.code.slug())?;
    status.set_item(intern!(py, "error"), error.to_string())?;
    Ok(status)
}

fn explanation_dict<'py>(
    py: Python<'py>,
    explanation: &Explanation,
    features: &[Bound<'py, PyString>],
) -> Outcome<Bound<'py, PyDict>> {
    let contributions = PyDict::new(py);
    for (feature, contribution) in &explanation.contributions {
        contributions.set_item(&features[*feature], number(*contribution))?;
    }
    let told = PyDict::new(py);
    told.set_item(intern!(py, "expected"), number(explanation.expected))?;
    told.set_item(intern!(py, "contributions"), contributions)?;
    if let Some(others) = explanation.others {
        told.set_item(intern!(py, "others"), number(others))?;
    }
    Ok(told)
}

/// A failed row has no number; JSON says null there, Python None.
pub(crate) fn number(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

pub(crate) fn timing_dict<'py>(py: Python<'py>, timed: &Timing) -> Outcome<Bound<'py, PyDict>> {
    let timing = PyDict::new(py);
    for phase in Phase::ALL {
        #[allow(clippy::cast_precision_loss)] // tenths of a microsecond of a request's life
        let us = (timed.of(phase).as_nanos() / 100) as f64 / 10.0;
        timing.set_item(PyString::intern(py, phase.name()), us)?;
    }
    Ok(timing)
}
