//! Requests to models of tensors: checked against the model's signature, run, timed and counted as predictions are.

use std::time::{Duration, Instant};

use headrace_expr::did_you_mean;
use headrace_types::{Error, ErrorCode, Result, Tensor, TensorInfo, TensorModel, TensorSignature, invalid_tensor};

use crate::deployment::Deployment;
use crate::engine::Engine;
use crate::request::{Priority, check_deadline, shortened};
use crate::request_id::new_request_id;
use crate::response::Timing;

/// Named tensors for a model of tensors.
#[derive(Debug, Clone, Default)]
pub struct TensorRequest {
    /// Echoed in the answer; the engine makes one when absent.
    pub id: Option<String>,
    /// In any order.
    pub inputs: Vec<Tensor>,
    /// Names of the outputs that are wanted, in the order of the answer; all of the model's where it is empty.
    pub outputs: Vec<String>,
    /// As in [`PredictRequest`](crate::PredictRequest).
    pub arrived: Option<Instant>,
    /// As in [`PredictRequest`](crate::PredictRequest).
    pub decoded_in: Duration,
    /// As in [`PredictRequest`](crate::PredictRequest).
    pub deadline: Option<Instant>,
    /// As in [`PredictRequest`](crate::PredictRequest).
    pub priority: Priority,
}

/// What a model of tensors has answered.
#[derive(Debug, Clone)]
pub struct TensorResponse {
    pub id: String,
    /// In the order in which they were asked for.
    pub outputs: Vec<Tensor>,
    /// Rows of the batch; 1 of a model without a batch dimension.
    pub rows: usize,
    pub timing: Timing,
}

impl Engine {
    /// Runs a model of tensors on the calling thread.
    ///
    /// # Errors
    /// `invalid_tensor` naming an input that is missing, doubled, unknown or does not fit; `invalid_argument` naming an output;
    /// `invalid_argument` of a model of rows; `too_large`, `deadline_exceeded`, and what the model answers.
    pub fn run_on(&self, deployment: &Deployment, request: &TensorRequest) -> Result<TensorResponse> {
        let started = Instant::now();
        let arrived = request.arrived.unwrap_or(started);
        let mut timing = Timing::waited(started.saturating_duration_since(arrived), request.decoded_in);
        let result = check_deadline(request.deadline, started)
            .and_then(|()| self.run_tensors(deployment, request, started, &mut timing));
        timing.total = arrived.elapsed();
        match result {
            Ok(mut response) => {
                response.timing = timing;
                deployment.metrics().record(&timing, response.rows, 0, self.options.clock.now_us());
                Ok(response)
            }
            Err(error) => {
                deployment.metrics().record_failure(error.code, timing.total);
                Err(error)
            }
        }
    }

    /// Without timing and counting the request.
    pub(crate) fn run_tensors(
        &self,
        deployment: &Deployment,
        request: &TensorRequest,
        started: Instant,
        timing: &mut Timing,
    ) -> Result<TensorResponse> {
        let model = deployment.tensor_model().ok_or_else(|| rows_only(deployment))?;
        let signature = model.signature();
        let named = |error: Error| error.within(format!("model '{}'", deployment.name()));
        let inputs = ordered_inputs(signature, &request.inputs).map_err(named)?;
        let outputs = output_places(signature, &request.outputs).map_err(named)?;
        let rows = batch_rows(signature, &inputs).map_err(named)?;
        self.check_rows(rows)?;
        let model_started = Instant::now();
        timing.transform = model_started - started;
        let answered = answer(&**model, &inputs, &outputs).map_err(named)?;
        timing.model = model_started.elapsed();
        timing.cost = timing.transform + timing.model;
        deployment.metrics().record_direct_call();
        let id = request.id.clone().unwrap_or_else(|| new_request_id(self.options.clock.now_us()));
        Ok(TensorResponse { id, outputs: answered, rows, timing: Timing::default() })
    }
}

fn rows_only(deployment: &Deployment) -> Error {
    Error::new(
        ErrorCode::InvalidArgument,
        format!("model '{}' takes rows of features, not tensors", deployment.name()),
        "ask it for a prediction",
    )
}

/// # Errors
/// What the model answers; `model_failed` when that is not what its signature says.
fn answer(model: &dyn TensorModel, inputs: &[Tensor], outputs: &[usize]) -> Result<Vec<Tensor>> {
    let answered = model.run(inputs, outputs)?;
    let infos = outputs.iter().map(|place| &model.signature().outputs[*place]);
    let fits = |(tensor, info): (&Tensor, &TensorInfo)| tensor.name() == info.name && info.check(tensor).is_ok();
    if answered.len() == outputs.len() && answered.iter().zip(infos).all(fits) {
        return Ok(answered);
    }
    let found: Vec<String> =
        answered.iter().map(|tensor| format!("{} {} {:?}", tensor.name(), tensor.datatype(), tensor.shape())).collect();
    Err(Error::new(
        ErrorCode::ModelFailed,
        format!("the model gave other outputs than its signature says: {}", found.join(", ")),
        "register the model again with the signature of its file",
    ))
}

/// The inputs in the order of the signature.
fn ordered_inputs(signature: &TensorSignature, given: &[Tensor]) -> Result<Vec<Tensor>> {
    let mut ordered: Vec<Option<&Tensor>> = vec![None; signature.inputs.len()];
    for tensor in given {
        let known = || signature.inputs.iter().map(|info| info.name.as_str());
        let place = signature.inputs.iter().position(|info| info.name == tensor.name()).ok_or_else(|| {
            Error::new(
                ErrorCode::InvalidTensor,
                format!("there is no input '{}'", shortened(tensor.name())),
                did_you_mean(&shortened(tensor.name()), "inputs", known()),
            )
        })?;
        signature.inputs[place].check(tensor)?;
        if ordered[place].replace(tensor).is_some() {
            return Err(invalid_tensor(tensor.name(), "comes twice"));
        }
    }
    let inputs = ordered.into_iter().zip(&signature.inputs);
    inputs.map(|(tensor, info)| tensor.cloned().ok_or_else(|| invalid_tensor(&info.name, "is missing"))).collect()
}

fn output_places(signature: &TensorSignature, wanted: &[String]) -> Result<Vec<usize>> {
    if wanted.is_empty() {
        return Ok((0..signature.outputs.len()).collect());
    }
    let mut places = Vec::with_capacity(wanted.len());
    for name in wanted {
        let known = signature.outputs.iter().map(|info| info.name.as_str());
        let place = signature.outputs.iter().position(|info| info.name == *name);
        let message = match place {
            Some(place) if !places.contains(&place) => {
                places.push(place);
                continue;
            }
            Some(_) => format!("output '{name}' is asked for twice"),
            None => format!("there is no output '{}'", shortened(name)),
        };
        return Err(Error::new(ErrorCode::InvalidArgument, message, did_you_mean(&shortened(name), "outputs", known)));
    }
    Ok(places)
}

/// The rows of a batch, the same in every input.
fn batch_rows(signature: &TensorSignature, inputs: &[Tensor]) -> Result<usize> {
    if signature.batch_max == 0 {
        return Ok(1);
    }
    let rows_of = |tensor: &Tensor| tensor.shape().first().copied().unwrap_or(0);
    let rows = inputs.first().map_or(0, rows_of);
    if let Some(other) = inputs.iter().find(|tensor| rows_of(tensor) != rows) {
        let what = format!("has a batch of {}, tensor '{}' one of {rows}", rows_of(other), inputs[0].name());
        return Err(invalid_tensor(other.name(), what));
    }
    if rows == 0 || rows > signature.batch_max {
        return Err(Error::new(
            ErrorCode::TooLarge,
            format!("the batch has {rows} rows, the model takes 1 to {}", signature.batch_max),
            "split the request into several",
        ));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::engine::EngineOptions;
    use headrace_types::Datatype;

    fn engine() -> (Engine, Arc<Deployment>) {
        let engine = Engine::new(EngineOptions::default());
        engine.add_fixtures().unwrap();
        let simple = engine.deployment("simple", None).unwrap();
        (engine, simple)
    }

    fn int32(name: &str, shape: [usize; 2], first: i32) -> Tensor {
        let count = shape.iter().product::<usize>();
        let data: Vec<u8> = (first..).take(count).flat_map(i32::to_le_bytes).collect();
        Tensor::new(name, Datatype::Int32, shape.to_vec(), data.into()).unwrap()
    }

    fn refusal(inputs: Vec<Tensor>, outputs: &[&str]) -> String {
        let (engine, simple) = engine();
        let outputs = outputs.iter().map(|name| (*name).to_owned()).collect();
        let request = TensorRequest { inputs, outputs, ..TensorRequest::default() };
        engine.run_on(&simple, &request).unwrap_err().message
    }

    #[test]
    fn tensors_come_in_any_order_and_outputs_as_asked() {
        let (engine, simple) = engine();
        let inputs = vec![int32("INPUT1", [2, 16], 1), int32("INPUT0", [2, 16], 5)];
        let request = TensorRequest { inputs, outputs: vec!["OUTPUT1".to_owned()], ..TensorRequest::default() };
        let response = engine.run_on(&simple, &request).unwrap();
        let [difference] = &response.outputs[..] else { panic!("{response:?}") };
        assert_eq!((difference.name(), difference.shape()), ("OUTPUT1", &[2, 16][..]));
        assert!(difference.numbers(i32::from_le_bytes).unwrap().all(|number| number == 4));
        let metrics = simple.metrics().snapshot();
        assert_eq!((metrics.requests, metrics.rows, response.rows), (1, 2, 2));
    }

    #[test]
    fn what_does_not_fit_the_signature_is_named() {
        let good = || vec![int32("INPUT0", [1, 16], 0), int32("INPUT1", [1, 16], 0)];
        assert!(refusal(vec![good().remove(0)], &[]).contains("'INPUT1' is missing"));
        assert!(refusal(vec![int32("INPUT0", [1, 16], 0); 2], &[]).contains("'INPUT0' comes twice"));
        assert!(refusal(vec![int32("INPUT2", [1, 16], 0)], &[]).contains("no input 'INPUT2'"));
        assert!(refusal(vec![int32("INPUT0", [1, 15], 0)], &[]).contains("[1, 15]"));
        assert!(refusal(vec![int32("INPUT0", [2, 16], 0), int32("INPUT1", [1, 16], 0)], &[]).contains("batch of 1"));
        assert!(refusal(vec![int32("INPUT0", [9, 16], 0), int32("INPUT1", [9, 16], 0)], &[]).contains("1 to 8"));
        assert!(refusal(good(), &["OUTPUT0", "OUTPUT0"]).contains("twice"));
        assert!(refusal(good(), &["OUTPUT9"]).contains("no output 'OUTPUT9'"));
    }

    #[test]
    fn a_past_deadline_and_the_wrong_kind_of_model_are_refused() {
        let (engine, simple) = engine();
        let past =
            TensorRequest { deadline: Some(Instant::now() - Duration::from_millis(1)), ..TensorRequest::default() };
        assert_eq!(engine.run_on(&simple, &past).unwrap_err().code, ErrorCode::DeadlineExceeded);
        let rows = engine.add_model(crate::testing::sum_regressor("rows", 1, &["a"])).unwrap();
        let error = engine.run_on(&rows, &TensorRequest::default()).unwrap_err();
        assert!(error.message.contains("takes rows of features"));
        let error = engine.predict_on(&simple, &crate::PredictRequest::default()).unwrap_err();
        assert!(error.message.contains("takes tensors"));
    }
}
