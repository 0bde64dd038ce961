//! One request to one answer, on the thread that read it. No sockets here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use headrace_engine::{Deployment, Engine, PredictRequest};
use headrace_protocol::{
    decode_online_features, decode_predict, describe_deployment, encode_online_features, encode_predict,
    encode_sequences, error_body, http_status, list_deployments, oip, openapi,
};
use headrace_types::{Error, ErrorCode, Result};
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, Method, StatusCode};

use crate::access::{Action, Permit};
use crate::arrival::{Arrival, REQUEST_ID};
use crate::compress::Encoding;
use crate::errands::ErrandQueues;
use crate::later::{EngineResponse, Made, Queued};
use crate::record::Record;
use crate::repository::{ModelChange, check_body};
use crate::route::{ModelRef, Route};
use crate::writes::{ViewWrite, decode_keys, decode_push};

const JSON: &str = "application/json";
/// Of a body with binary tensors.
const BINARY: &str = "application/octet-stream";
const HTML: &str = "text/html; charset=utf-8";

/// An answer before it is HTTP.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) content_type: &'static str,
    /// Bytes of JSON at the start of a body with binary tensors.
    pub(crate) header_bytes: Option<usize>,
    /// The verb that the path takes, told with a 405.
    pub(crate) allow: Option<Method>,
    /// Seconds, told with a 429.
    pub(crate) retry_after_s: Option<u64>,
    /// How the body is compressed.
    pub(crate) encoding: Option<Encoding>,
    /// Why it is none.
    pub(crate) error: Option<ErrorCode>,
}

impl Reply {
    fn json(value: &serde_json::Value) -> Self {
        Self::ok(value.to_string().into_bytes())
    }

    pub(crate) fn ok(body: Vec<u8>) -> Self {
        Self {
            status: 200,
            body,
            content_type: JSON,
            header_bytes: None,
            allow: None,
            retry_after_s: None,
            encoding: None,
            error: None,
        }
    }

    fn tensors(body: Vec<u8>, header_bytes: Option<usize>) -> Self {
        let content_type = if header_bytes.is_some() { BINARY } else { JSON };
        Self { header_bytes, content_type, ..Self::ok(body) }
    }

    pub(crate) fn error(error: &Error) -> Self {
        Self {
            status: http_status(error.code),
            body: error_body(error),
            content_type: JSON,
            header_bytes: None,
            allow: None,
            retry_after_s: None,
            encoding: None,
            error: Some(error.code),
        }
    }
}

impl Reply {
    /// All headers but those of the connection.
    pub(crate) fn tell_headers(&self, request_id: Option<HeaderValue>, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if let Some(encoding) = self.encoding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
        }
        if let Some(length) = self.header_bytes {
            headers.insert(oip::HEADER_LENGTH, HeaderValue::from(length));
        }
        if let Some(value) = self.allow.as_ref().and_then(|method| HeaderValue::from_str(method.as_str()).ok()) {
            headers.insert(ALLOW, value);
        }
        if let Some(id) = request_id {
            headers.insert(HeaderName::from_static(REQUEST_ID), id);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"headrace\""));
        }
    }
}

/// The route of a path, if the verb fits it; else the refusal.
pub(crate) fn routed(method: &Method, path: &str) -> Result<Route, Reply> {
    let route = Route::of_path(path).map_err(|error| Reply::error(&error))?;
    if route.takes(method) {
        return Ok(route);
    }
    let expected = route.method();
    let error =
        Error::new(ErrorCode::MethodNotAllowed, format!("{path} does not take {method}"), format!("use {expected}"));
    Err(Reply { allow: Some(expected), ..Reply::error(&error) })
}

/// What [`handle`] made of a request.
#[derive(Debug)]
pub(crate) enum Handled {
    Answered(Reply),
    /// It was decoded, and its answer takes long to make.
    Long(Box<Prediction>),
    Queued(Queued),
}

/// A prediction that was decoded.
#[derive(Debug)]
pub(crate) struct Prediction {
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) asked: Asked,
    /// What the transport took to read and to decode it.
    pub(crate) read: Duration,
    pub(crate) decode: Duration,
    pub(crate) record: Option<Arc<Record>>,
}

#[derive(Debug)]
pub(crate) enum Asked {
    Predict(PredictRequest),
    /// Of a model of sequences.
    Sequences(PredictRequest),
    Infer(oip::Infer),
}

impl Asked {
    /// A prediction, by the kind of its model.
    pub(crate) fn prediction(deployment: &Deployment, request: PredictRequest) -> Self {
        if deployment.sequences().is_some() { Self::Sequences(request) } else { Self::Predict(request) }
    }
}

/// Answers a request, or decodes it if its answer takes long. A panic becomes an error answer, and `panicked` is called.
pub(crate) fn handle(
    engine: &Engine,
    route: &Route,
    headers: &HeaderMap,
    body: &Bytes,
    arrival: &Arrival,
    permit: &Permit,
    panicked: impl FnOnce(),
) -> Handled {
    let work = || {
        let prediction = match route {
            Route::Predict(model) => decoded_predict(engine, model, body, arrival)?,
            Route::Infer(model) => decoded_infer(engine, model, headers, body, arrival)?,
            _ => return answer(engine, route, body, permit).map(Handled::Answered),
        };
        if prediction.takes_long() {
            return Ok(Handled::Long(prediction));
        }
        Ok(match prediction.made(engine, Prediction::told)? {
            Made::Answered(reply) => Handled::Answered(reply),
            Made::Queued(queued) => Handled::Queued(queued),
        })
    };
    // The engine's state is behind locks that survive a panic, and each request's memory is its own.
    unpanicked(work, panicked).unwrap_or_else(|error| Handled::Answered(Reply::error(&error)))
}

/// As [`handle`], and makes the answer however long it takes, unless the model queues.
pub(crate) fn handle_whole(
    engine: &Engine,
    route: &Route,
    headers: &HeaderMap,
    body: &Bytes,
    arrival: &Arrival,
    permit: &Permit,
    panicked: impl Fn(),
) -> Made<Reply> {
    match handle(engine, route, headers, body, arrival, permit, &panicked) {
        Handled::Answered(reply) => Made::Answered(reply),
        Handled::Queued(queued) => Made::Queued(queued),
        Handled::Long(prediction) => prediction.made_whole(engine, panicked),
    }
}

impl Prediction {
    /// Whether its answer takes so long that connections should not wait for it: explanations do, of which the first one of a model also
    /// reads its file, and slow models of tensors.
    pub(crate) fn takes_long(&self) -> bool {
        match &self.asked {
            Asked::Predict(request) => request.explain.is_some(),
            Asked::Infer(oip::Infer::Rows(request)) => request.predict.explain.is_some(),
            Asked::Infer(oip::Infer::Tensors(_)) | Asked::Sequences(_) => self.deployment.takes_long(),
        }
    }

    /// Answers, however long it takes, unless the model queues. A panic becomes an error answer, and `panicked` is called.
    pub(crate) fn made_whole(self: Box<Self>, engine: &Engine, panicked: impl FnOnce()) -> Made<Reply> {
        unpanicked(|| self.made(engine, Prediction::told), panicked)
            .unwrap_or_else(|error| Made::Answered(Reply::error(&error)))
    }

    /// The reply that tells a response, or that an output cannot be told.
    pub(crate) fn told(&self, response: EngineResponse) -> Reply {
        self.encoded(response).unwrap_or_else(|error| Reply::error(&error))
    }

    fn encoded(&self, response: EngineResponse) -> Result<Reply> {
        let deployment = &*self.deployment;
        match (&self.asked, response) {
            (Asked::Predict(_), EngineResponse::Rows(response)) => Ok(Reply::ok(encode_predict(deployment, &response))),
            (Asked::Sequences(_), EngineResponse::Sequences(response)) => {
                Ok(Reply::ok(encode_sequences(deployment, &response)))
            }
            (Asked::Infer(oip::Infer::Rows(request)), EngineResponse::Rows(response)) => {
                let encoded = oip::encode_infer(deployment, request, &response)?;
                Ok(Reply::tensors(encoded.body, encoded.header_bytes))
            }
            (Asked::Infer(oip::Infer::Tensors(infer)), EngineResponse::Tensors(response)) => {
                let encoded = oip::encode_tensors(deployment, infer, &response)?;
                Ok(Reply::tensors(encoded.body, encoded.header_bytes))
            }
            _ => Err(other_kind()),
        }
    }
}

/// What is said of a response of another kind than its request.
pub(crate) fn other_kind() -> Error {
    Error::internal("a response of another kind than its request")
}

/// Queues what the program around the server does, and answers when it is done: a write when it is durable.
pub(crate) async fn handle_errand(
    engine: &Engine,
    queues: &ErrandQueues,
    route: &Route,
    headers: &HeaderMap,
    body: &Bytes,
    panicked: impl FnOnce(),
) -> Reply {
    let decoded = unpanicked(|| decode_errand(engine, queues, route, headers, body), panicked);
    let answer = match decoded {
        Ok(Decoded::Write(write)) => queues.writes.run(write).await,
        Ok(Decoded::ModelChange(change)) => queues.models.run(change).await,
        Err(error) => Err(error),
    };
    answer.map_or_else(|error| Reply::error(&error), Reply::ok)
}

/// What the program around the server is to do.
#[derive(Debug)]
pub(crate) enum Decoded {
    Write(ViewWrite),
    ModelChange(ModelChange),
}

/// # Errors
/// `read_only` where it is not done here; what is wrong with the request.
pub(crate) fn decode_errand(
    engine: &Engine,
    queues: &ErrandQueues,
    route: &Route,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Decoded> {
    match route {
        Route::Push(view) => {
            queues.writes.check()?;
            let write = decode_push(engine, view, headers, body)?;
            Ok(Decoded::Write(ViewWrite { view: view.clone(), write }))
        }
        Route::Delete(view) => {
            queues.writes.check()?;
            Ok(Decoded::Write(ViewWrite { view: view.clone(), write: decode_keys(engine, view, body)? }))
        }
        Route::ChangeModel(change) => {
            queues.models.check()?;
            check_body(body)?;
            Ok(Decoded::ModelChange(change.clone()))
        }
        _ => Err(Error::internal("a request that is no errand came to where they are run")),
    }
}

pub(crate) fn unpanicked<T>(work: impl FnOnce() -> Result<T>, panicked: impl FnOnce()) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        panicked();
        Err(Error::internal("the request ended in a panic; the log has the place"))
    })
}

/// The answer to what is no prediction.
fn answer(engine: &Engine, route: &Route, body: &Bytes, permit: &Permit) -> Result<Reply> {
    let named = |model: &ModelRef| (model.name.clone(), model.version);
    match route {
        Route::Live => Ok(Reply::ok(br#"{"live":true}"#.to_vec())),
        Route::Ready => ready(engine),
        Route::ServerMetadata => Ok(Reply::json(&oip::server_metadata())),
        Route::ModelMetadata(model) => Ok(Reply::json(&oip::model_metadata(engine, &model.name, model.version)?)),
        Route::ModelReady(model) => Ok(Reply::json(&oip::model_ready(engine, &model.name, model.version)?)),
        Route::ModelConfig(model) => Ok(Reply::json(&oip::model_config(engine, &model.name, model.version)?)),
        Route::Statistics => Ok(Reply::json(&oip::statistics(engine, None, None)?)),
        Route::ModelStatistics(model) => {
            let (name, version) = named(model);
            Ok(Reply::json(&oip::statistics(engine, Some(&name), version)?))
        }
        Route::RepositoryIndex => Ok(Reply::json(&oip::repository_index(engine, oip::decode_index_request(body)?))),
        Route::OnlineFeatures => online_features(engine, body, permit),
        Route::Models => Ok(Reply::json(&oip::list_models(engine))),
        Route::Deployments => Ok(Reply::json(&list_deployments(engine))),
        Route::Deployment(name) => Ok(Reply::json(&describe_deployment(engine, name)?)),
        Route::TraceSetting(model) => trace_setting(engine, model.as_deref(), body),
        Route::Logging => {
            engine.settings().change_log(&oip::decode_settings(body)?)?;
            Ok(Reply::json(&engine.settings().log()))
        }
        Route::OpenApi => Ok(Reply::json(&openapi::document(engine))),
        Route::Docs => Ok(Reply { content_type: HTML, ..Reply::ok(openapi::page(engine)) }),
        Route::Push(_) | Route::Delete(_) | Route::ChangeModel(_) | Route::Predict(_) | Route::Infer(_) => {
            Err(Error::internal("an errand or a prediction came to where none is made"))
        }
    }
}

/// A GET, which has no body, changes nothing.
fn trace_setting(engine: &Engine, model: Option<&str>, body: &[u8]) -> Result<Reply> {
    if let Some(model) = model {
        engine.find_model(model, None)?;
    }
    engine.settings().change_trace(model, &oip::decode_settings(body)?)?;
    Ok(Reply::json(&engine.settings().trace(model)))
}

fn ready(engine: &Engine) -> Result<Reply> {
    if oip::is_ready(engine) {
        return Ok(Reply::ok(br#"{"ready":true}"#.to_vec()));
    }
    Err(Error::new(
        ErrorCode::Unavailable,
        "not every loaded model can answer",
        "POST /v2/repository/index tells which one and why",
    ))
}

fn decoded_predict(engine: &Engine, model: &ModelRef, body: &[u8], arrival: &Arrival) -> Result<Box<Prediction>> {
    let began = Instant::now();
    let deployment = engine.deployment(&model.name, model.version)?;
    let request = decode_predict(&deployment, body)?;
    let asked = Asked::prediction(&deployment, request);
    Ok(arrival.decoded(deployment, asked, began))
}

fn decoded_infer(
    engine: &Engine,
    model: &ModelRef,
    headers: &HeaderMap,
    body: &Bytes,
    arrival: &Arrival,
) -> Result<Box<Prediction>> {
    let began = Instant::now();
    let deployment = engine.deployment(&model.name, model.version)?;
    let infer = oip::decode(&deployment, header_length(headers)?, body)?;
    Ok(arrival.decoded(deployment, Asked::Infer(infer), began))
}

fn online_features(engine: &Engine, body: &[u8], permit: &Permit) -> Result<Reply> {
    let request = decode_online_features(engine, body)?;
    permit.permit(Action::ReadFeatures, request.service.name())?;
    let response = engine.look_up(&request.service, &request.features)?;
    Ok(Reply::ok(encode_online_features(&request, &response)))
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>> {
    let Some(value) = headers.get(oip::HEADER_LENGTH) else { return Ok(None) };
    let text = value.to_str().unwrap_or("?").trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).map(Some).ok_or_else(|| {
        Error::new(
            ErrorCode::InvalidArgument,
            format!("Inference-Header-Content-Length '{}' is not a number", text.chars().take(40).collect::<String>()),
            "give the number of JSON bytes at the start of the body",
        )
    })
}
