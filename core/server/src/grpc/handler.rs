//! One message to one answer, on the thread that read it. No sockets here.

use bytes::Bytes;
use headrace_engine::Engine;
use headrace_protocol::grpc::{
    InferMessage, PredictMessage, decode, decode_index_request, decode_online_features, decode_predict, decode_texts,
    encode_infer, encode_json, encode_number, encode_online_features, encode_predict, encode_tensors,
};
use headrace_protocol::oip::Infer;
use headrace_protocol::{describe_deployment, list_deployments, oip};
use headrace_types::{Error, Result};
use serde_json::json;

use super::answer::{Answer, Failure, framed};
use super::metadata::Opened;
use super::method::Method;
use crate::handler::{Asked, Prediction, other_kind, unpanicked};
use crate::later::{EngineResponse, LONG_BODY_BYTES, Later, Made, Work};
use crate::route::version_of;

/// The services whose health is the server's.
const SERVICES: [&str; 3] = ["", "inference.GRPCInferenceService", "headrace.v1.Headrace"];
/// The messages of answers that are made of JSON.
const BYTES_ABOUT: usize = 256;

/// A call with its message.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) opened: Opened,
    pub(crate) message: Bytes,
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
    let (bytes, opened) = (&call.message[..], &call.opened);
    let prediction = match opened.method {
        Method::ModelInfer | Method::ModelStreamInfer => {
            let message = InferMessage::parse(bytes)?;
            let deployment = engine.deployment(message.model_name, version_of(message.model_version)?)?;
            let mut infer = decode(&deployment, message, &call.message)?;
            infer.arrived(opened.arrived, opened.deadline);
            Prediction { deployment, asked: Asked::Infer(infer) }
        }
        Method::Predict => {
            let message = PredictMessage::parse(bytes)?;
            let deployment = engine.deployment(message.deployment, version_of(message.version)?)?;
            let mut request = decode_predict(&deployment, &message)?;
            request.arrived(opened.arrived, opened.deadline);
            Prediction { deployment, asked: Asked::Predict(request) }
        }
        _ => return answer(engine, call).map(Decoded::Answer),
    };
    Ok(Decoded::Prediction(Box::new(prediction)))
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
        Ok((name, version_of(version)?))
    };
    match call.opened.method {
        Method::ServerLive => number(true),
        Method::ServerReady => number(oip::is_ready(engine)),
        Method::ModelReady => {
            let (name, version) = model("ModelReadyRequest")?;
            number(engine.deployment(name, version).is_ok())
        }
        Method::ServerMetadata => made("inference.ServerMetadataResponse", &oip::server_metadata()),
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
            let index = oip::repository_index(engine, decode_index_request(bytes)?);
            made("inference.RepositoryIndexResponse", &json!({ "models": index }))
        }
        Method::GetOnlineFeatures => {
            let request = decode_online_features(engine, bytes)?;
            let response = engine.look_up(&request.service, &request.features)?;
            framed(BYTES_ABOUT, |out| {
                encode_online_features(out, &request, &response);
                Ok(())
            })
        }
        Method::ListDeployments => made("headrace.v1.ListDeploymentsResponse", &list_deployments(engine)),
        Method::DescribeDeployment => {
            let [name, _] = decode_texts("DescribeDeploymentRequest", bytes)?;
            made("headrace.v1.DescribeDeploymentResponse", &describe_deployment(engine, name)?)
        }
        Method::Check => {
            let [service, _] = decode_texts("HealthCheckRequest", bytes)?;
            health_answer(health(engine, service)?)
        }
        method => Err(not_offered(method)),
    }
}

fn not_offered(method: Method) -> Failure {
    let hint = match method {
        Method::RepositoryModelLoad | Method::RepositoryModelUnload => {
            "models are loaded by registering them: headrace.register_model, or `headrace train`"
        }
        Method::TraceSetting => "the metrics port tells where the time of requests goes, by phase",
        Method::LogSettings => "restart the server with other settings in headrace.toml",
        _ => "send tensors in raw_input_contents: shared memory is not offered",
    };
    Failure::unimplemented(format!("{} is not served here", method.name()), hint)
}

/// The numbers of health.
pub(crate) const SERVING: u64 = 1;
pub(crate) const NOT_SERVING: u64 = 2;
pub(crate) const SERVICE_UNKNOWN: u64 = 3;

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
