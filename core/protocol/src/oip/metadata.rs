//! What the protocol tells about server and models: metadata, configuration, repository index, statistics.

use std::sync::Arc;

use headrace_engine::{Deployment, Engine, Phase, TransportPhase};
use headrace_types::{DType, Error, ErrorCode, Field, Result, TensorInfo};
use serde_json::{Value, json};

use super::datatype::Datatype;
use super::tensors::infos;
use super::{FEATURES_INPUT, output_names};

/// The extensions of the protocol that this server speaks.
///
/// `model_repository` is none of them: its index is answered, but models are loaded by registering them, not over HTTP.
const EXTENSIONS: [&str; 8] = [
    "classification",
    "binary_tensor_data",
    "parameters",
    "schedule_policy",
    "model_configuration",
    "statistics",
    "trace",
    "logging",
];

/// GET /v2
pub fn server_metadata() -> Value {
    json!({"name": "headrace", "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS})
}

/// GET /v2/health/ready: every model that is loaded can answer.
pub fn is_ready(engine: &Engine) -> bool {
    engine.models().iter().all(|model| model.fault().is_none())
}

/// GET /v2/models/{m}[/versions/{v}]/ready
///
/// # Errors
/// `unknown_model`, `unknown_model_version`, or `unavailable` with the reason.
pub fn model_ready(engine: &Engine, name: &str, version: Option<u32>) -> Result<Value> {
    let deployment = engine.deployment(name, version)?;
    Ok(json!({"name": deployment.name(), "ready": true}))
}

/// GET /v2/models/{m}[/versions/{v}]
///
/// # Errors
/// `unknown_model` or `unknown_model_version`.
pub fn model_metadata(engine: &Engine, name: &str, version: Option<u32>) -> Result<Value> {
    let deployment = engine.find_model(name, version)?;
    let versions: Vec<String> = match version {
        Some(version) => vec![version.to_string()],
        None => versions_of(&engine.models(), name),
    };
    let inputs: Vec<Value> = inputs(&deployment).iter().map(Io::metadata).collect();
    let outputs: Vec<Value> = outputs(&deployment).iter().map(Io::metadata).collect();
    Ok(json!({
        "name": deployment.name(), "versions": versions, "platform": deployment.platform(),
        "inputs": inputs, "outputs": outputs,
        "properties": {"task": serde_json::to_value(deployment.task()).unwrap_or_default()},
    }))
}

/// GET /v2/models/{m}[/versions/{v}]/config: Triton's configuration, as far as it is true of this engine. A model of rows has
/// `max_batch_size` 0, so its dimensions hold the rows; where a model of tensors has a batch, its dimensions are told without it.
///
/// # Errors
/// `unknown_model` or `unknown_model_version`.
pub fn model_config(engine: &Engine, name: &str, version: Option<u32>) -> Result<Value> {
    let deployment = engine.find_model(name, version)?;
    let batch_max = deployment.tensor_model().map_or(0, |model| model.signature().batch_max);
    let config = |io: &Io| io.config(batch_max > 0);
    let input_of = |io: &Io, is_optional: bool| {
        let mut config = config(io);
        config["optional"] = is_optional.into();
        config
    };
    let mut input: Vec<Value> = inputs(&deployment).iter().map(|io| input_of(io, false)).collect();
    if deployment.service().is_some() {
        input.extend(deployment.features().iter().filter_map(|field| Some(input_of(&Io::of(field)?, true))));
    }
    let output: Vec<Value> = outputs(&deployment).iter().map(config).collect();
    Ok(json!({
        "name": deployment.name(), "platform": deployment.platform(), "backend": "headrace",
        "version_policy": {"all": {}}, "max_batch_size": batch_max, "input": input, "output": output,
        "model_transaction_policy": {"decoupled": false}, "response_cache": {"enable": false},
    }))
}

/// POST /v2/repository/index: what is loaded, then what could not be. `ready_only` is the body's `ready`.
pub fn repository_index(engine: &Engine, ready_only: bool) -> Value {
    let models = engine.models();
    let unloaded = engine.unloaded_models().into_iter().filter(|_| !ready_only).map(|(name, version, error)| {
        json!({"name": name, "version": version.to_string(), "state": "UNAVAILABLE", "reason": error.to_string()})
    });
    let entries = models.iter().filter(|model| !ready_only || model.fault().is_none()).map(|model| {
        json!({
            "name": model.name(), "version": model.version().to_string(),
            "state": if model.fault().is_none() { "READY" } else { "UNAVAILABLE" },
            "reason": model.fault().map(ToString::to_string).unwrap_or_default(),
        })
    });
    entries.chain(unloaded).collect()
}

/// GET /v2/models: the index as it stands, for those who look before they ask.
pub fn list_models(engine: &Engine) -> Value {
    json!({"models": repository_index(engine, false)})
}

/// GET /v2/models[/{m}[/versions/{v}]]/stats. A request runs as one batch of its own, so `execution_count` counts requests.
///
/// # Errors
/// `unknown_model` or `unknown_model_version`.
pub fn statistics(engine: &Engine, name: Option<&str>, version: Option<u32>) -> Result<Value> {
    if let Some(name) = name {
        engine.find_model(name, version)?;
    }
    let is_asked = |deployment: &Deployment| {
        name.is_none_or(|name| name == deployment.name())
            && version.is_none_or(|version| version == deployment.version())
    };
    let models = engine.models();
    let stats = models.iter().map(|model| &**model).filter(|deployment| is_asked(deployment)).map(model_stats);
    Ok(json!({"model_stats": stats.collect::<Vec<_>>()}))
}

fn model_stats(deployment: &Deployment) -> Value {
    let metrics = deployment.metrics().snapshot();
    let sum = |phases: &[Phase]| -> u64 { phases.iter().map(|phase| metrics.phase(*phase).sum_ns()).sum() };
    let answered = |ns: u64| json!({"count": metrics.requests, "ns": ns});
    let (none, encode) = (json!({"count": 0, "ns": 0}), metrics.transport(TransportPhase::Encode));
    json!({
        "name": deployment.name(), "version": deployment.version().to_string(),
        "last_inference": metrics.last_request_ms, "inference_count": metrics.answered_rows(),
        "execution_count": metrics.direct_calls + deployment.queue_stats().calls,
        "inference_stats": {
            "success": answered(sum(&[Phase::Total])),
            "fail": {"count": metrics.failed_requests(), "ns": 0},
            "queue": answered(sum(&[Phase::Queue])),
            "compute_input": answered(sum(&[Phase::Lookup, Phase::Transform])),
            "compute_infer": answered(sum(&[Phase::Model])),
            "compute_output": {"count": encode.count(), "ns": encode.sum_ns()}, "cache_hit": none, "cache_miss": none,
        },
        "response_stats": {}, "batch_stats": [], "memory_usage": [],
    })
}

fn versions_of(models: &[Arc<Deployment>], name: &str) -> Vec<String> {
    let versions = models.iter().filter(|deployment| deployment.name() == name);
    versions.map(|deployment| deployment.version().to_string()).collect()
}

/// An input or output of a model. Its first dimension is the number of rows.
struct Io {
    name: String,
    datatype: Datatype,
    shape: Vec<i64>,
}

impl Io {
    fn of(field: &Field) -> Option<Self> {
        Some(Self { name: field.name.clone(), datatype: Datatype::of(field.dtype)?, shape: vec![-1] })
    }

    fn metadata(&self) -> Value {
        json!({"name": self.name, "datatype": self.datatype.name(), "shape": self.shape})
    }

    fn config(&self, without_batch: bool) -> Value {
        let dims = if without_batch { self.shape.get(1..).unwrap_or_default() } else { &self.shape };
        json!({"name": self.name, "data_type": self.datatype.config_name(), "dims": dims})
    }
}

impl From<&TensorInfo> for Io {
    fn from(info: &TensorInfo) -> Self {
        Self { name: info.name.clone(), datatype: info.datatype, shape: info.shape.clone() }
    }
}

fn inputs(deployment: &Deployment) -> Vec<Io> {
    if let Some((inputs, _)) = infos(deployment) {
        return inputs.iter().map(Io::from).collect();
    }
    if deployment.service().is_none() && deployment.takes_text() {
        return deployment.features().iter().filter_map(Io::of).collect();
    }
    if deployment.service().is_none() {
        let width = width_of(deployment.features().len());
        return vec![Io { name: FEATURES_INPUT.to_owned(), datatype: Datatype::Fp64, shape: vec![-1, width] }];
    }
    deployment.entity_fields().iter().chain(deployment.request_fields()).filter_map(Io::of).collect()
}

fn outputs(deployment: &Deployment) -> Vec<Io> {
    if let Some((_, outputs)) = infos(deployment) {
        return outputs.iter().map(Io::from).collect();
    }
    let names = output_names(deployment).iter();
    let io = |name: &&str| {
        let (dtype, shape) = match *name {
            "label" => (DType::STRING, vec![-1]),
            "value" => (DType::FLOAT64, vec![-1]),
            "scores" => (DType::FLOAT64, vec![-1, width_of(deployment.classes().len())]),
            _ => (DType::FLOAT64, vec![-1, width_of(deployment.margins_count())]),
        };
        Some(Io { name: (*name).to_owned(), datatype: Datatype::of(dtype)?, shape })
    };
    names.filter_map(io).collect()
}

fn width_of(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The body of POST /v2/repository/index: empty, or `{"ready": bool}`.
///
/// # Errors
/// `invalid_json`.
pub fn decode_index_request(body: &[u8]) -> Result<bool> {
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(default)]
        ready: Option<bool>,
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(false);
    }
    let body: Body = serde_json::from_slice(body)
        .map_err(|error| Error::new(ErrorCode::InvalidJson, error.to_string(), "send nothing, or {\"ready\": true}"))?;
    Ok(body.ready.unwrap_or(false))
}
