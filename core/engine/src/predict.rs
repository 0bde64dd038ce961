//! The path of a prediction: check the request, find the features, run the model, name the answer.

use std::sync::Arc;
use std::time::Instant;

use headrace_types::{Error, ErrorCode, Result};

use crate::deployment::{Deployment, FeaturesFrom, Section};
use crate::engine::Engine;
use crate::inputs::{Inputs, missing_column};
use crate::numbers::Target;
use crate::request::PredictRequest;
use crate::request_id::new_request_id;
use crate::response::{PredictResponse, Timing};
use crate::running::{Begun, Started, Submitted, Waiting};
use crate::scratch::Scratch;
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

    /// As [`Engine::predict`], with a deployment found before: a transport decodes a request by its signature first. Of a model that
    /// [queues](Deployment::queues), it returns when the request's turn has come and gone.
    ///
    /// # Errors
    /// As [`Engine::predict`].
    pub fn predict_on(&self, deployment: &Deployment, request: &PredictRequest) -> Result<PredictResponse> {
        match self.start(deployment, request)?.go_on(deployment, request)? {
            Begun::Answered(response) => Ok(response),
            Begun::Queued(queued) => queued.wait(deployment),
        }
    }

    /// As [`Engine::predict_on`], for a caller that has other work: of a model that [queues](Deployment::queues), the answer comes later.
    ///
    /// # Errors
    /// As [`Engine::predict`].
    pub fn submit(&self, deployment: &Arc<Deployment>, request: &PredictRequest) -> Result<Submitted> {
        Ok(match self.start(deployment, request)?.go_on(deployment, request)? {
            Begun::Answered(response) => Submitted::Answered(response),
            Begun::Queued(queued) => Submitted::Waiting(Waiting { deployment: Arc::clone(deployment), queued }),
        })
    }

    /// Checks a request and finds its features.
    fn start(&self, deployment: &Deployment, request: &PredictRequest) -> Result<Started> {
        let now = Instant::now();
        let (arrived, decoded_in) = (request.arrived.unwrap_or(now), request.decoded_in);
        let timing = Timing::waited(now.saturating_duration_since(arrived), request.decoded_in);
        let (scratch, clock) = (deployment.scratches.take(), Arc::clone(&self.options.clock));
        let mut started = Started { scratch, timing, arrived, decoded_in, rows: 0, id: String::new(), clock };
        match request.check_deadline(now).and_then(|()| self.find_features(deployment, request, &mut started)) {
            Ok(()) => Ok(started),
            Err(error) => Err(started.fail(deployment, error)),
        }
    }

    fn find_features(&self, deployment: &Deployment, request: &PredictRequest, started: &mut Started) -> Result<()> {
        let Started { scratch, timing, .. } = started;
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
        timing.transform = transform_started.elapsed().saturating_sub(timing.lookup);
        (started.rows, started.id) = (rows, id);
        Ok(())
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
