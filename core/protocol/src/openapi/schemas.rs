//! JSON Schemas of bodies: those that all share, and those of one deployment.

use headrace_engine::{Deployment, Outputs, Section, SequenceMembers};
use headrace_types::{DType, Field, ScalarType, Task};
use serde_json::{Map, Value, json};

use super::reference;

/// A column of values of a type; each may be null.
fn column(dtype: DType) -> Value {
    json!({"type": "array", "items": value(dtype), "description": dtype.to_string()})
}

fn value(dtype: DType) -> Value {
    if let DType::List(element) = dtype {
        return json!({"type": ["array", "null"], "items": value(DType::Scalar(element))});
    }
    let integer =
        |minimum: i64, maximum: u64| json!({"type": ["integer", "null"], "minimum": minimum, "maximum": maximum});
    match dtype.element() {
        ScalarType::Bool => json!({"type": ["boolean", "null"]}),
        ScalarType::Int8 => integer(i8::MIN.into(), i8::MAX as u64),
        ScalarType::Int16 => integer(i16::MIN.into(), i16::MAX as u64),
        ScalarType::Int32 => integer(i32::MIN.into(), i32::MAX as u64),
        ScalarType::Int64 => integer(i64::MIN, i64::MAX as u64),
        ScalarType::UInt8 => integer(0, u8::MAX.into()),
        ScalarType::UInt16 => integer(0, u16::MAX.into()),
        ScalarType::UInt32 => integer(0, u32::MAX.into()),
        ScalarType::UInt64 => integer(0, u64::MAX),
        ScalarType::Float32 | ScalarType::Float64 => json!({"type": ["number", "null"]}),
        ScalarType::String => json!({"type": ["string", "null"]}),
        ScalarType::Bytes => json!({"type": ["string", "null"], "contentEncoding": "base64"}),
        ScalarType::Timestamp => json!({"type": ["string", "null"], "format": "date-time"}),
    }
}

fn columns(fields: &[Field]) -> Value {
    let properties: Map<String, Value> = fields.iter().map(|field| (field.name.clone(), column(field.dtype))).collect();
    json!({"type": ["object", "null"], "properties": properties, "additionalProperties": false})
}

pub(super) fn predict_request(deployment: &Deployment) -> Value {
    let mut properties = json!({
        "id": {"type": ["string", "null"], "description": "Comes back in the answer; made where there is none."},
        "outputs": {"type": ["array", "null"], "items": {"enum": output_names(deployment)}},
        "explain": {"anyOf": [{"type": ["boolean", "null"]}, {"type": "object", "required": ["top"], "additionalProperties": false,
            "properties": {"top": {"type": "integer", "minimum": 1, "maximum": 1_000_000}}}]},
        "timeout_ms": {"type": ["integer", "null"], "minimum": 0, "maximum": 1_u64 << 53},
        "priority": {"type": ["integer", "null"], "minimum": 0, "maximum": 9},
    });
    for section in Section::ALL {
        properties[section.name()] = columns(deployment.fields(section));
    }
    if deployment.sequences().is_some() {
        properties["explain"] = json!({"type": ["boolean", "null"], "enum": [false, null]});
    }
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

/// What may be asked for.
pub(crate) fn output_names(deployment: &Deployment) -> &'static [&'static str] {
    if deployment.sequences().is_some() { &["label", "scores"] } else { &Outputs::NAMES }
}

/// What the answer of a row has.
fn sequence_members(members: SequenceMembers) -> Value {
    let number = json!({"type": ["number", "null"]});
    let list = |items: Value| json!({"type": ["array", "null"], "items": items});
    let known = [
        (members.text, "text", json!({"type": ["string", "null"]})),
        (members.tokens, "tokens", list(json!({"type": "integer"}))),
        (members.score, "score", number.clone()),
        (members.scores, "scores", list(number)),
    ];
    known.into_iter().filter(|(is_told, ..)| *is_told).map(|(_, name, schema)| (name.to_owned(), schema)).collect()
}

pub(super) fn predict_response(deployment: &Deployment) -> Value {
    let mut members = match deployment.sequences() {
        Some(layout) => sequence_members(SequenceMembers::of(layout, Outputs::default())),
        None => row_members(deployment),
    };
    members["status"] = reference("RowStatus");
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["id", "api_version", "deployment", "model", "model_version", "task", "predictions", "timing_us"],
        "properties": {
            "id": text, "api_version": text, "deployment": text, "model": text, "model_version": text,
            "task": {"const": deployment.task()},
            "predictions": {"type": "array", "items": {"type": "object", "properties": members, "additionalProperties": false}},
            "timing_us": {"type": "object", "additionalProperties": {"type": "number"}},
        },
    })
}

/// What the answer of a row has, of a model of rows.
fn row_members(deployment: &Deployment) -> Value {
    let number = json!({"type": ["number", "null"]});
    let scores: Map<String, Value> = deployment.classes().iter().map(|class| (class.clone(), number.clone())).collect();
    let scores = json!({"type": "object", "properties": scores, "additionalProperties": false});
    let label =
        json!({"enum": deployment.classes().iter().map(|class| json!(class)).chain([Value::Null]).collect::<Vec<_>>()});
    let mut members = match deployment.task() {
        Task::Classification => json!({"label": label, "scores": scores}),
        Task::MultiLabel => json!({"labels": {"type": "array", "items": label}, "scores": scores}),
        Task::Regression | Task::Ranking | Task::Seq2seq | Task::Tensors => json!({"value": number}),
    };
    members["margin"] = json!({"anyOf": [number, {"type": "array", "items": number}]});
    let explanation = reference("Explanation");
    members["explanation"] = json!({"anyOf": [{"type": "null"}, explanation, {"type": "array", "items": {"anyOf": [{"type": "null"}, explanation]}}]});
    members
}

/// What bodies refer to.
pub(super) fn shared() -> Value {
    let text = json!({"type": "string"});
    let texts = json!({"type": "array", "items": text});
    let number = json!({"type": ["number", "null"]});
    let object = |required: &[&str], properties: Value| json!({"type": "object", "required": required, "properties": properties});
    let any_columns = json!({"type": "object", "additionalProperties": {"type": "array"}});
    let deployment = json!({"name": text, "model": text, "model_version": text, "versions": texts, "task": text,
        "feature_service": {"type": ["string", "null"]}, "ready": {"type": "boolean"}, "reason": {"type": ["string", "null"]}});
    let mut details = deployment.clone();
    for section in Section::ALL {
        details[section.name()] =
            json!({"type": "array", "items": object(&["name", "dtype"], json!({"name": text, "dtype": text}))});
    }
    details["outputs"] = texts.clone();
    details["classes"] = texts.clone();
    let known = ["name", "model", "model_version", "versions", "task", "feature_service", "ready", "reason"];
    let tensor = object(
        &["name", "datatype", "shape"],
        json!({"name": text, "datatype": text, "shape": {"type": "array", "items": {"type": "integer"}}}),
    );
    let tensors = json!({"type": "array", "items": tensor});
    let filled = object(
        &["name", "datatype", "shape"],
        json!({"name": text, "datatype": text,
        "shape": {"type": "array", "items": {"type": "integer"}}, "parameters": {"type": ["object", "null"]}, "data": {}}),
    );
    let filled = json!({"type": "array", "items": filled});
    let parameters =
        json!({"type": ["object", "null"], "additionalProperties": {"type": ["string", "number", "boolean", "null"]}});
    json!({
        "Error": object(&["error", "code"], json!({"error": text, "code": text})),
        "Explanation": object(&["expected", "contributions"], json!({"expected": number, "contributions": {"type": "object", "additionalProperties": number}, "others": number})),
        "RowStatus": object(&["code", "error"], json!({"code": text, "error": text})),
        "DeploymentList": object(&["deployments"], json!({"deployments": {"type": "array", "items": object(&known, deployment)}})),
        "DeploymentDetails": object(&known, details),
        "FeaturesRequest": {"type": "object", "required": ["feature_service"], "additionalProperties": false, "properties": {
            "feature_service": text, "entities": any_columns, "request": any_columns, "full_feature_names": {"type": ["boolean", "null"]}}},
        "FeaturesResponse": object(&["metadata", "results"], json!({
            "metadata": object(&["feature_names"], json!({"feature_names": texts})),
            "results": {"type": "array", "items": object(&["values", "statuses", "event_timestamps"], json!({"values": {"type": "array"},
                "statuses": {"type": "array", "items": {"enum": ["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "INVALID"]}},
                "event_timestamps": texts}))}})),
        "PushRequest": {"type": "object", "required": ["columns"], "properties": {"columns": any_columns}},
        "DeleteRequest": {"type": "object", "required": ["keys"], "properties": {"keys": any_columns, "event_ts": {"type": ["string", "null"], "format": "date-time"}}},
        "WriteCounts": object(&["rows"], json!({"rows": {"type": "integer"}, "refused": {"type": "object"}})),
        "ServerMetadata": object(&["name", "version", "extensions"], json!({"name": text, "version": text, "extensions": texts})),
        "Live": object(&["live"], json!({"live": {"type": "boolean"}})),
        "Ready": object(&["ready"], json!({"ready": {"type": "boolean"}})),
        "ModelReady": object(&["name", "ready"], json!({"name": text, "ready": {"type": "boolean"}})),
        "ModelList": object(&["models"], json!({"models": {"type": "array", "items":
            object(&["name", "version", "state", "reason"], json!({"name": text, "version": text, "state": text, "reason": text}))}})),
        "ModelMetadata": object(&["name", "platform", "inputs", "outputs"], json!({"name": text, "versions": texts, "platform": text, "inputs": tensors, "outputs": tensors})),
        "InferRequest": object(&["inputs"], json!({"id": {"type": ["string", "null"]}, "parameters": parameters, "inputs": filled,
            "outputs": {"type": ["array", "null"], "items": object(&["name"], json!({"name": text}))}})),
        "InferResponse": object(&["model_name", "model_version", "outputs"], json!({"model_name": text, "model_version": text, "id": text, "outputs": filled})),
    })
}
