//! One message to one answer, on the thread that read it. No sockets here.

use std::time::Instant;

use bytes::Bytes;
use headrace_engine::Engine;
use headrace_protocol::grpc::{
    InferMessage, PredictMessage, SettingsMessage, decode, decode_index_request, decode_model_change,
    decode_online_features, decode_predict, decode_texts, encode_infer, encode_json, encode_number,
    encode_online_features, encode_predict, encode_sequences, encode_tensors, log_settings, trace_settings,
};
use headrace_protocol::oip::Infer;
use headrace_protocol::{describe_deployment, list_deployments, oip};
use headrace_types::{Error, Result};
use serde_json::json;

use super::answer::{Answer, Failure, framed};
use super::metadata::Opened;
use super::method::Method;
use crate::access::{Action, Permit};
use crate::arrival::Arrival;
use crate::errands::ErrandQueue;
use crate::handler::{Asked, Prediction, other_kind, unpanicked};
use crate::later::{EngineResponse, LONG_BODY_BYTES, Later, Made, Work};
use crate::repository::{ModelChange, check_parameter};
use crate::route::version_of;

/// The services whose health is the server's.
const SERVICES: [&str; 3] = ["", "inference.GRPCInferenceService", "headrace.v1.Headrace"];
/// The messages of answers that are made of JSON.
const BYTES_ABOUT: usize = 256;

/// A call with its message.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) opened: Opened,
    pub(crate) permit: Permit,
    pub(crate) message: Bytes,
    pub(crate) arrival: Arrival,
}

impl Call {
    /// Asks whether the caller may do with this thing what the method does; the whole server has an empty name.
    ///
    /// # Errors
    /// `permission_denied`, `unauthenticated`.
    fn check(&self, resource: &str) -> Result<()> {
        match self.opened.method.action() {
            Some(action) => self.permit.permit(action, resource),
            None => Ok(()),
        }
    }
}

/// What [`handle`] made of a call.
pub(crate) enum Handled {
    Answered(Answer),
    Later(Later<Job>),
}

/// A call that is put aside.
pub(crate) enum Job {
    /// From decoding to the answer.
    Whole(Call),
    /// It was decoded.
    Answer(Box<Prediction>),
}

impl Work for Job {
    type Reply = Answer;

    fn run(self, engine: &Engine, panicked: impl Fn()) -> Made<Answer> {
        let work = || match self {
            Job::Whole(call) => decoded(engine, &call).map_or_else(
                |failure| Ok(Made::Answered(Err(failure))),
                |decoded| match decoded {
                    Decoded::Prediction(prediction) => prediction.made(engine, told),
                    Decoded::Answer(answer) => Ok(Made::Answered(Ok(answer))),
                },
            ),
            Job::Answer(prediction) => prediction.made(engine, told),
        };
        unpanicked(work, panicked).unwrap_or_else(|error| Made::Answered(Err(error.into())))
    }

    fn reply(prediction: &Prediction, response: EngineResponse) -> Answer {
        told(prediction, response)
    }

    fn refused(error: Error) -> Answer {
        Err(error.into())
    }
}

/// What was made of a message.
enum Decoded {
    Prediction(Box<Prediction>),
    Answer(Vec<u8>),
}

/// Answers a call, unless it must wait or takes long. A panic becomes an error answer, and `panicked` is called.
pub(crate) fn handle(engine: &Engine, call: Call, is_stopping: bool, panicked: impl FnOnce()) -> Handled {
    let work = || {
        if call.message.len() > LONG_BODY_BYTES {
            return Ok(Handled::Later(Later::Aside(Job::Whole(call))));
        }
        if call.opened.method == Method::Check && is_stopping {
            return Ok(Handled::Answered(health_answer(NOT_SERVING)));
        }
        Ok(match decoded(engine, &call) {
            Ok(Decoded::Prediction(prediction)) if prediction.takes_long() => {
                Handled::Later(Later::Aside(Job::Answer(prediction)))
            }
            Ok(Decoded::Prediction(prediction)) => match prediction.made(engine, told)? {
                Made::Answered(answer) => Handled::Answered(answer),
                Made::Queued(queued) => Handled::Later(Later::Queued(queued)),
            },
            Ok(Decoded::Answer(answer)) => Handled::Answered(Ok(answer)),
            Err(failure) => Handled::Answered(Err(failure)),
        })
    };
    // The engine's state is behind locks that survive a panic, and each request's memory is its own.
    unpanicked(work, panicked).unwrap_or_else(|error| Handled::Answered(Err(error.into())))
}

fn decoded(engine: &Engine, call: &Call) -> Result<Decoded, Failure> {
    let (bytes, began) = (&call.message[..], Instant::now());
    let (deployment, asked) = match call.opened.method {
        Method::ModelInfer | Method::ModelStreamInfer => {
            let message = InferMessage::parse(bytes)?;
            call.check(message.model_name)?;
            let deployment = engine.deployment(message.model_name, version_of(message.model_version)?)?;
            let infer = decode(&deployment, message, &call.message)?;
            (deployment, Asked::Infer(infer))
        }
        Method::Predict => {
            let message = PredictMessage::parse(bytes)?;
            call.check(message.deployment)?;
            let deployment = engine.deployment(message.deployment, version_of(message.version)?)?;
            let request = decode_predict(&deployment, &message)?;
            let asked = Asked::prediction(&deployment, request);
            (deployment, asked)
        }
        _ => return answer(engine, call).map(Decoded::Answer),
    };
    Ok(Decoded::Prediction(call.arrival.decoded(deployment, asked, began)))
}

/// The answer that tells a response.
fn told(prediction: &Prediction, response: EngineResponse) -> Answer {
    let deployment = &*prediction.deployment;
    match (&prediction.asked, response) {
        (Asked::Infer(Infer::Rows(request)), EngineResponse::Rows(response)) => {
            let bytes_about = BYTES_ABOUT + 16 * response.scores.len();
            framed(bytes_about, |out| encode_infer(out, deployment, request, &response))
        }
        (Asked::Infer(Infer::Tensors(infer)), EngineResponse::Tensors(response)) => {
            let bytes = response.outputs.iter().map(|output| output.data().len()).sum::<usize>();
            framed(BYTES_ABOUT + bytes, |out| encode_tensors(out, deployment, infer, &response))
        }
        (Asked::Sequences(_), EngineResponse::Sequences(response)) => framed(BYTES_ABOUT, |out| {
            encode_sequences(out, deployment, &response);
            Ok(())
        }),
        (Asked::Predict(_), EngineResponse::Rows(response)) => framed(BYTES_ABOUT + 64 * response.rows, |out| {
            encode_predict(out, deployment, &response);
            Ok(())
        }),
        _ => Err(other_kind().into()),
    }
}

/// The answer to what is no prediction.
fn answer(engine: &Engine, call: &Call) -> Answer {
    let bytes = &call.message[..];
    let made = |name: &str, json: &serde_json::Value| framed(BYTES_ABOUT, |out| encode_json(out, name, json));
    let number = |value: bool| {
        framed(2, |out| {
            encode_number(out, value.into());
            Ok(())
        })
    };
    let model = |what| -> Result<(&str, Option<u32>)> {
        let [name, version] = decode_texts(what, bytes)?;
        call.check(name)?;
        Ok((name, version_of(version)?))
    };
    match call.opened.method {
        Method::ServerLive => number(true),
        Method::ServerReady => number(oip::is_ready(engine)),
        Method::ModelReady => {
            let (name, version) = model("ModelReadyRequest")?;
            number(engine.deployment(name, version).is_ok())
        }
        Method::ServerMetadata => {
            call.check("")?;
            made("inference.ServerMetadataResponse", &oip::server_metadata())
        }
        Method::ModelMetadata => {
            let (name, version) = model("ModelMetadataRequest")?;
            made("inference.ModelMetadataResponse", &oip::model_metadata(engine, name, version)?)
        }
        Method::ModelConfig => {
            let (name, version) = model("ModelConfigRequest")?;
            let config = oip::model_config(engine, name, version)?;
            made("inference.ModelConfigResponse", &json!({ "config": config }))
        }
        Method::ModelStatistics => {
            let (name, version) = model("ModelStatisticsRequest")?;
            let name = Some(name).filter(|name| !name.is_empty());
            made("inference.ModelStatisticsResponse", &oip::statistics(engine, name, version)?)
        }
        Method::RepositoryIndex => {
            call.check("")?;
            let index = oip::repository_index(engine, decode_index_request(bytes)?);
            made("inference.RepositoryIndexResponse", &json!({ "models": index }))
        }
        Method::GetOnlineFeatures => {
            let request = decode_online_features(engine, bytes)?;
            call.check(request.service.name())?;
            let response = engine.look_up(&request.service, &request.features)?;
            framed(BYTES_ABOUT, |out| {
                encode_online_features(out, &request, &response);
                Ok(())
            })
        }
        Method::ListDeployments => {
            call.check("")?;
            made("headrace.v1.ListDeploymentsResponse", &list_deployments(engine))
        }
        Method::DescribeDeployment => {
            let [name, _] = decode_texts("DescribeDeploymentRequest", bytes)?;
            call.check(name)?;
            made("headrace.v1.DescribeDeploymentResponse", &describe_deployment(engine, name)?)
        }
        Method::Check => {
            let [service, _] = decode_texts("HealthCheckRequest", bytes)?;
            check_health(&call.permit, service)?;
            health_answer(health(engine, service)?)
        }
        Method::TraceSetting | Method::LogSettings => {
            let (name, settings) = settings(engine, call)?;
            made(name, &settings)
        }
        method => {
            call.check("")?;
            Err(not_offered(method))
        }
    }
}

/// Changes settings, if any are given, and tells all of them with their message's name.
fn settings(engine: &Engine, call: &Call) -> Result<(&'static str, serde_json::Value)> {
    let message = SettingsMessage::parse(&call.message)?;
    let action = if message.is_empty() { Action::ReadMetadata } else { Action::ManageModels };
    call.permit.permit(action, message.model.unwrap_or_default())?;
    let kept = engine.settings();
    if call.opened.method == Method::LogSettings {
        kept.change_log(&message.of_logs()?)?;
        return Ok(("inference.LogSettingsResponse", log_settings(&kept.log())));
    }
    if let Some(model) = message.model {
        engine.find_model(model, None)?;
    }
    kept.change_trace(message.model, &message.of_traces()?)?;
    Ok(("inference.TraceSettingResponse", trace_settings(&kept.trace(message.model))))
}

/// What a call to load or unload asks for.
///
/// # Errors
/// `permission_denied`, `read_only` where it is not done here; what is wrong with the request.
pub(crate) fn model_change(call: &Call, models: &ErrandQueue<ModelChange>) -> Result<ModelChange> {
    let (name, parameters) = decode_model_change(&call.message)?;
    call.check(name)?;
    models.check()?;
    parameters.into_iter().try_for_each(check_parameter)?;
    Ok(match call.opened.method {
        Method::RepositoryModelLoad => ModelChange::Load(name.to_owned()),
        _ => ModelChange::Unload(name.to_owned()),
    })
}

fn not_offered(method: Method) -> Failure {
    let hint = "send tensors in raw_input_contents: shared memory is not offered";
    Failure::unimplemented(format!("{} is not served here", method.name()), hint)
}

/// The numbers of health.
pub(crate) const SERVING: u64 = 1;
pub(crate) const NOT_SERVING: u64 = 2;
pub(crate) const SERVICE_UNKNOWN: u64 = 3;

/// The health of a model tells that there is one.
///
/// # Errors
/// `unauthenticated`.
pub(crate) fn check_health(permit: &Permit, service: &str) -> Result<()> {
    if SERVICES.contains(&service) { Ok(()) } else { permit.permit(Action::ReadMetadata, service) }
}

/// The health of the server, or of the model of that name.
///
/// # Errors
/// `unknown_model`.
pub(crate) fn health(engine: &Engine, service: &str) -> Result<u64> {
    let is_serving = if SERVICES.contains(&service) {
        oip::is_ready(engine)
    } else {
        engine.find_model(service, None)?.fault().is_none()
    };
    Ok(if is_serving { SERVING } else { NOT_SERVING })
}

pub(crate) fn health_answer(status: u64) -> Answer {
    framed(2, |out| {
        encode_number(out, status);
        Ok(())
    })
}
