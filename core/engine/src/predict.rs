//! The path of a prediction: check the request, find the features, run the model, name the answer.

use std::time::Instant;

use headrace_types::{Error, ErrorCode, Result};

use crate::answer::no_score;
use crate::deployment::{Deployment, FeaturesFrom, Section};
use crate::engine::Engine;
use crate::inputs::{Inputs, missing_column};
use crate::numbers::Target;
use crate::request::{PredictRequest, RowErrors};
use crate::request_id::new_request_id;
use crate::response::{NO_LABEL, PredictResponse, Timing};
use crate::scratch::{Matrix, Scratch};
use crate::served::Served;

impl Engine {
    /// Predicts with the named model (a registered model has a deployment of its own name), in its highest version unless told.
    ///
    /// # Errors
    /// The names and columns of the request are checked as a whole: `unknown_model`, `unknown_model_version`, `unknown_entity`,
    /// `unknown_feature`, `invalid_argument`, `missing_column`, `length_mismatch`, `too_large`, `unavailable`, `deadline_exceeded`. A
    /// value that does not fit fails its row only, in the answer.
    pub fn predict(&self, deployment: &str, version: Option<u32>, request: &PredictRequest) -> Result<PredictResponse> {
        self.predict_on(&*self.deployment(deployment, version)?, request)
    }

    /// As [`Engine::predict`], with a deployment found before: a transport decodes a request by its signature first.
    ///
    /// # Errors
    /// As [`Engine::predict`].
    pub fn predict_on(&self, deployment: &Deployment, request: &PredictRequest) -> Result<PredictResponse> {
        let started = Instant::now();
        let arrived = request.arrived.unwrap_or(started);
        let mut timing = Timing { queue: started.saturating_duration_since(arrived), ..Timing::default() };
        let mut scratch = deployment.scratches.take();
        let result =
            request.check_deadline(started).and_then(|()| self.run(deployment, request, &mut scratch, &mut timing));
        deployment.scratches.give(scratch);
        timing.total = arrived.elapsed();
        match result {
            Ok(mut response) => {
                response.timing = timing;
                let now_us = self.options.clock.now_us();
                deployment.core.metrics.record(&timing, response.rows, response.row_errors.len(), now_us);
                Ok(response)
            }
            Err(error) => {
                deployment.core.metrics.record_failure(timing.total);
                Err(error)
            }
        }
    }

    fn run(
        &self,
        deployment: &Deployment,
        request: &PredictRequest,
        scratch: &mut Scratch,
        timing: &mut Timing,
    ) -> Result<PredictResponse> {
        let now_us = self.options.clock.now_us();
        let rows = self.checked_rows(deployment, request)?;
        if request.explain.is_some() {
            check_explainable(deployment, rows)?;
        }
        let id = request.id.clone().unwrap_or_else(|| new_request_id(now_us));
        scratch.start(rows, deployment.margins_count());
        scratch.row_errors.extend(request.row_errors.iter().filter(|error| error.row < rows).cloned());
        let transform_started = Instant::now();
        if let Some(matrix) = &request.matrix {
            scratch.missing_float64(matrix.len()).0.copy_from_slice(matrix);
        } else {
            let inputs = Inputs::of_predict(deployment, request, rows, &mut scratch.row_errors)?;
            match &deployment.features_from {
                FeaturesFrom::Request => fill_from_columns(deployment, &inputs, rows, scratch)?,
                FeaturesFrom::Service(binding) => {
                    let log = self.options.payload.as_deref();
                    let logged = log.map_or_else(Vec::new, |log| binding.sampled(log, &inputs, rows));
                    // What is logged has types and statuses, which a matrix has not; what is explained is explained in float64.
                    let is_plain = logged.is_empty() && request.explain.is_none();
                    if !(is_plain && binding.fill_by_lookup(&inputs, rows, now_us, scratch, timing)?) {
                        binding.fill(deployment, &inputs, rows, now_us, scratch, timing)?;
                    }
                    if let Some(log) = log {
                        let (queue, compute) = (Some(timing.queue), transform_started.elapsed());
                        let request_id = (!id.is_empty()).then_some(id.as_str());
                        let served = Served { inputs: &inputs, at_us: now_us, request_id, queue, compute };
                        binding.log(log, &served, scratch, &logged);
                    }
                }
                FeaturesFrom::Nowhere(fault) => return Err(fault.clone()),
            }
        }
        let model_started = Instant::now();
        timing.transform = (model_started - transform_started).saturating_sub(timing.lookup);
        let mut response = answer(deployment, request, rows, scratch)?;
        timing.model = model_started.elapsed();
        response.id = id;
        Ok(response)
    }

    fn checked_rows(&self, deployment: &Deployment, request: &PredictRequest) -> Result<usize> {
        let rows = match &request.matrix {
            Some(matrix) => matrix_rows(deployment, matrix.len())?,
            None => request.rows(),
        };
        self.check_rows(rows)?;
        Ok(rows)
    }

    pub(crate) fn check_rows(&self, rows: usize) -> Result<()> {
        if rows > self.options.rows_max {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("the request has {rows} rows, the limit is {}", self.options.rows_max),
                "split it into several requests",
            ));
        }
        Ok(())
    }
}

fn matrix_rows(deployment: &Deployment, values: usize) -> Result<usize> {
    let features = deployment.features().len();
    if features == 0 || !values.is_multiple_of(features) {
        return Err(Error::new(
            ErrorCode::LengthMismatch,
            format!("{values} feature values are no whole number of rows of {features} features"),
            format!("send rows of {features} values in the order of the signature"),
        ));
    }
    Ok(values / features)
}

fn fill_from_columns(deployment: &Deployment, inputs: &Inputs<'_>, rows: usize, scratch: &mut Scratch) -> Result<()> {
    let (model, width) = (deployment.row_model()?, deployment.features().len());
    let (matrix, row_errors) = scratch.missing_float64(rows * width);
    for (index, field) in deployment.features().iter().enumerate() {
        let column =
            inputs.overrides(index).ok_or_else(|| missing_column(deployment.name(), Section::Features, field))?;
        Target { model, field, index, width, matrix, row_errors }.take_column(column);
    }
    Ok(())
}

/// Values that the explanations of one request may have: 32 MiB, and three times as much as JSON.
const EXPLAINED_VALUES_MAX: usize = 1 << 22;

/// # Errors
/// `unsupported_model` naming the model; `too_large`.
fn check_explainable(deployment: &Deployment, rows: usize) -> Result<()> {
    let place = |error: Error| error.within(format!("model '{}' ({})", deployment.name(), deployment.platform()));
    deployment.row_model()?.check_explainable().map_err(place)?;
    let values = deployment.explained_values(rows);
    if values.is_none_or(|values| values > EXPLAINED_VALUES_MAX) {
        return Err(Error::new(
            ErrorCode::TooLarge,
            format!("the explanations of {rows} rows have more than {EXPLAINED_VALUES_MAX} values"),
            "split the request into several",
        ));
    }
    Ok(())
}

/// Runs the model over the matrix and names the answers; failed rows are blanked.
fn answer(
    deployment: &Deployment,
    request: &PredictRequest,
    rows: usize,
    scratch: &mut Scratch,
) -> Result<PredictResponse> {
    let margins_count = deployment.margins_count();
    let model = deployment.row_model()?;
    if rows > 0 {
        match &scratch.matrix {
            Matrix { is_float32: true, float32, .. } => {
                model.margins_of_float32(float32, rows, &mut scratch.margins)?;
            }
            Matrix { float64, .. } => model.margins(float64, rows, &mut scratch.margins)?,
        }
    }
    let mut contributions = Vec::new();
    if request.explain.is_some() && rows > 0 {
        contributions.resize(deployment.explained_values(rows).unwrap_or_default(), 0.0);
        model.contributions(&scratch.matrix.float64, rows, &mut contributions)?;
    }
    let mut margins = if request.outputs.margin { scratch.margins.clone() } else { Vec::new() };
    model.scores(&mut scratch.margins);
    let kind = deployment.core.kind;
    let scores_count = kind.scores_count(margins_count);
    let mut scores = Vec::with_capacity(rows * scores_count);
    kind.fill_scores(&scratch.margins, &mut scores);
    let mut without_score = RowErrors::default();
    let is_all_finite = |numbers: &[f64]| numbers.iter().fold(true, |all, number| all & number.is_finite());
    let told = if is_all_finite(&scores) && is_all_finite(&margins) { &[][..] } else { &scores[..] };
    for (row, row_scores) in told.chunks_exact(scores_count).enumerate() {
        let row_margins =
            margins.get(row * margins_count..).map_or(&[][..], |rest| &rest[..margins_count.min(rest.len())]);
        let numbers = || row_scores.iter().chain(row_margins);
        if !numbers().all(|number| number.is_finite()) {
            without_score.note(row, || no_score(row, numbers().any(|number| number.is_nan())));
        }
    }
    scratch.row_errors.extend(without_score.into_vec());
    let mut labels = Vec::new();
    if deployment.task() == headrace_types::Task::Classification {
        labels.extend(scores.chunks_exact(scores_count).map(|row| kind.label_of(row)));
    }
    let row_errors = scratch.take_row_errors();
    for error in &row_errors {
        scores[error.row * scores_count..][..scores_count].fill(f64::NAN);
        if let Some(label) = labels.get_mut(error.row) {
            *label = NO_LABEL;
        }
        if !margins.is_empty() {
            margins[error.row * margins_count..][..margins_count].fill(f64::NAN);
        }
        if !contributions.is_empty() {
            let width = contributions.len() / rows;
            contributions[error.row * width..][..width].fill(f64::NAN);
        }
    }
    Ok(PredictResponse {
        id: String::new(),
        deployment: deployment.core.name.clone(),
        model: deployment.core.name.clone(),
        model_version: deployment.version(),
        task: deployment.task(),
        rows,
        outputs: request.outputs,
        classes: deployment.core.classes.clone(),
        labels,
        scores,
        margins,
        margins_count,
        explain: request.explain,
        contributions,
        row_errors,
        timing: Timing::default(),
    })
}
