#![allow(clippy::unwrap_used)]
use headrace_engine::testing::{sum_classifier, sum_regressor};
use headrace_engine::{Deployment, Engine, EngineOptions};
use headrace_types::{ErrorCode, Result};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::describe::decode_json;
use super::wire::{put_bytes, put_doubles, put_nested, put_text};
use super::*;
use crate::oip;

fn engine() -> Engine {
    let engine = Engine::new(EngineOptions::default());
    engine.add_model(sum_classifier("delay", 3, &["a", "b"])).unwrap();
    engine.add_model(sum_regressor("minutes", 1, &["a"])).unwrap();
    engine
}

/// A message of that name, from JSON.
fn message(name: &str, json: Value) -> Vec<u8> {
    let mut out = Vec::new();
    encode_json(&mut out, name, &json).unwrap();
    out
}

fn inferred(engine: &Engine, request: &[u8]) -> Result<Value> {
    let message = InferMessage::parse(request)?;
    let deployment = engine.deployment(message.model_name, None)?;
    let request = decode_infer(&deployment, message)?;
    let response = engine.predict_on(&deployment, &request.predict)?;
    let mut out = Vec::new();
    encode_infer(&mut out, &deployment, &request, &response)?;
    decode_json(&out, "inference.ModelInferResponse")
}

fn typed(field: &str, datatype: &str, shape: Value, values: Value) -> Value {
    json!({"model_name": "delay", "id": "7", "inputs": [
        {"name": "features", "datatype": datatype, "shape": shape, "contents": {field: values}}]})
}

#[test]
fn the_answers_of_typed_requests_are_typed_and_named() {
    let engine = engine();
    let mut request = typed("fp64_contents", "FP64", json!([2, 2]), json!([1.0, -1.0, 3.0, 4.0]));
    request["outputs"] = json!([{"name": "margin"}, {"name": "label"},
        {"name": "scores", "parameters": {"classification": {"int64_param": "1"}}}]);
    let answer = inferred(&engine, &message("inference.ModelInferRequest", request)).unwrap();
    assert_eq!(answer["model_name"], "delay");
    assert_eq!((answer["model_version"].as_str(), answer["id"].as_str()), (Some("3"), Some("7")));
    assert_eq!(answer["outputs"][0]["contents"]["fp64_contents"], json!([0.0, 7.0]));
    assert_eq!(answer["outputs"][0]["datatype"], "FP64");
    // Bytes are base64 in protobuf's JSON.
    assert_eq!(answer["outputs"][1]["contents"]["bytes_contents"].as_array().map(Vec::len), Some(2));
    assert_eq!(answer["outputs"][2]["shape"], json!([2, 1]));
    assert_eq!(answer.get("raw_output_contents"), None);
}

#[test]
fn every_integer_type_is_read_from_its_contents() {
    let engine = engine();
    for (field, datatype) in [
        ("int_contents", "INT8"),
        ("int_contents", "INT16"),
        ("int_contents", "INT32"),
        ("int64_contents", "INT64"),
        ("uint_contents", "UINT8"),
        ("uint_contents", "UINT16"),
        ("uint_contents", "UINT32"),
        ("uint64_contents", "UINT64"),
        ("fp32_contents", "FP32"),
    ] {
        let request = typed(field, datatype, json!([1, 2]), json!([100, 0]));
        let answer = inferred(&engine, &message("inference.ModelInferRequest", request));
        assert!(answer.is_ok(), "{datatype}: {answer:?}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    let engine = engine();
    for (field, datatype, shape, values, part) in [
        ("int_contents", "INT8", json!([1, 2]), json!([300, 0]), "cannot hold"),
        ("uint_contents", "UINT16", json!([1, 2]), json!([65536, 0]), "cannot hold"),
        ("fp32_contents", "FP64", json!([1, 2]), json!([1, 2]), "fp64_contents"),
        ("fp32_contents", "BF16", json!([1, 2]), json!([1, 2]), "raw_input_contents"),
        ("fp64_contents", "FP64", json!([1, 2]), json!([1, 2, 3]), "more values than the 2"),
        ("fp64_contents", "FP64", json!([1, 2]), json!([1]), "1 values"),
        ("fp64_contents", "FP64", json!([-1, 2]), json!([1, 2]), "negative"),
        ("fp64_contents", "FP64", json!([1, 1, 1, 1, 1, 1, 1, 1, 2]), json!([1, 2]), "more than 8 dimensions"),
        ("fp64_contents", "FP64", json!([i64::MAX, i64::MAX]), json!([1, 2]), "without bounds"),
        ("fp64_contents", "FP99", json!([1, 2]), json!([1, 2]), "FP99"),
    ] {
        let request = typed(field, datatype, shape, values);
        let error = inferred(&engine, &message("inference.ModelInferRequest", request)).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidTensor, "{error}");
        assert!(error.message.contains(part), "{error}");
    }
    let huge = typed("bool_contents", "BOOL", json!([1u64 << 40, 2]), json!([true]));
    let error = inferred(&engine, &message("inference.ModelInferRequest", huge)).unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge);
}

#[test]
fn as_many_tensors_as_are_allowed_are_read_and_no_more() {
    let mut request = Vec::new();
    (0..4097).for_each(|_| put_bytes(&mut request, 5, b""));
    assert_eq!(InferMessage::parse(&request).unwrap_err().code, ErrorCode::TooLarge);
    let region = json!({"model_name": "delay", "inputs": [{"name": "features", "parameters":
        {"shared_memory_region": {"string_param": "r"}}}]});
    let error = InferMessage::parse(&message("inference.ModelInferRequest", region)).unwrap_err();
    assert!(error.message.contains("shared memory"));
}

#[test]
fn the_timeout_parameter_is_in_microseconds() {
    let request = json!({"model_name": "delay", "parameters": {"timeout": {"int64_param": "2500"}}});
    let bytes = message("inference.ModelInferRequest", request);
    assert_eq!(InferMessage::parse(&bytes).unwrap().timeout, Some(std::time::Duration::from_micros(2500)));
}

#[test]
fn what_http_tells_in_json_fits_the_messages() {
    let engine = engine();
    let config = json!({"config": oip::model_config(&engine, "delay", None).unwrap()});
    let told = decode_json(&message("inference.ModelConfigResponse", config), "inference.ModelConfigResponse").unwrap();
    assert_eq!(told["config"]["input"][0]["data_type"], "TYPE_FP64");
    assert!(told["config"]["model_transaction_policy"].is_object());
    let metadata = oip::model_metadata(&engine, "delay", None).unwrap();
    let name = "inference.ModelMetadataResponse";
    assert_eq!(decode_json(&message(name, metadata.clone()), name).unwrap(), metadata);
    let name = "inference.ModelStatisticsResponse";
    let told = decode_json(&message(name, oip::statistics(&engine, None, None).unwrap()), name).unwrap();
    assert_eq!(told["model_stats"].as_array().map(Vec::len), Some(2));
    let name = "headrace.v1.DescribeDeploymentResponse";
    let told = decode_json(&message(name, crate::describe_deployment(&engine, "delay").unwrap()), name).unwrap();
    assert_eq!(told["classes"], json!(["on_time", "late"]));
}

fn predicted(engine: &Engine, request: &[u8]) -> Result<Value> {
    let message = PredictMessage::parse(request)?;
    let deployment = engine.deployment(message.deployment, None)?;
    let request = decode_predict(&deployment, &message)?;
    let response = engine.predict_on(&deployment, &request)?;
    let mut out = Vec::new();
    encode_predict(&mut out, &deployment, &response);
    decode_json(&out, "headrace.v1.PredictResponse")
}

#[test]
fn a_prediction_is_typed_by_its_task() {
    let engine = engine();
    let request = json!({"deployment": "delay", "id": "r1", "outputs": ["label", "scores", "margin"],
        "features": {"a": {"int64s": {"values": ["0", "5"]}}, "b": {"doubles": {"values": [0, 1]}, "nulls": [1]}}});
    let answer = predicted(&engine, &message("headrace.v1.PredictRequest", request)).unwrap();
    assert_eq!((answer["id"].as_str(), answer["task"].as_str()), (Some("r1"), Some("classification")));
    let first = &answer["predictions"][0];
    assert_eq!(first["classification"], json!({"label": "on_time", "scores": {"on_time": 0.5, "late": 0.5}}));
    assert_eq!(first["margin"], json!([0.0]));
    assert!(answer["timing_us"]["total"].is_number());
    let request = json!({"deployment": "minutes", "features": {"a": {"floats": {"values": [2.5]}}}, "explain": {}});
    let answer = predicted(&engine, &message("headrace.v1.PredictRequest", request));
    if let Ok(answer) = answer {
        assert_eq!(answer["predictions"][0]["value"], json!({"value": 2.5}));
    }
}

#[test]
fn wrong_columns_are_refused_and_wrong_values_fail_their_rows() {
    let engine = engine();
    let ask = |features: Value| {
        let request = json!({"deployment": "delay", "features": features});
        predicted(&engine, &message("headrace.v1.PredictRequest", request))
    };
    let sound = json!({"doubles": {"values": [1.0, 2.0]}});
    let answer = ask(json!({"a": {"strings": {"values": ["x", "y"]}}, "b": sound})).unwrap();
    assert_eq!(answer["predictions"][1]["status"]["code"], "type_mismatch");
    for (column, code) in [
        (json!({"doubles": {"values": [1.0, 2.0]}, "nulls": [2]}), ErrorCode::InvalidArgument),
        (json!({"doubles": {"values": [1.0, 2.0]}, "nulls": [1, 0]}), ErrorCode::InvalidArgument),
        (json!({"doubles": {"values": [1.0]}}), ErrorCode::LengthMismatch),
        (json!({"lists": {"values": [{}]}}), ErrorCode::TypeMismatch),
    ] {
        let error = ask(json!({"a": column, "b": sound})).unwrap_err();
        assert_eq!(error.code, code, "{column}: {error}");
    }
    assert_eq!(ask(json!({"z": sound})).unwrap_err().code, ErrorCode::UnknownFeature);
    let outputs = message("headrace.v1.PredictRequest", json!({"deployment": "delay", "outputs": ["z"]}));
    assert_eq!(PredictMessage::parse(&outputs).unwrap_err().code, ErrorCode::InvalidArgument);
}

/// The Python client reads the messages from a file of its own, which this writes anew when HEADRACE_UPDATE_DESCRIPTORS is set.
#[test]
fn the_python_client_has_these_messages() {
    let file = "../../pyplatform/headrace/client/descriptors.bin";
    let built = &include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"))[..];
    if std::env::var_os("HEADRACE_UPDATE_DESCRIPTORS").is_some() {
        std::fs::write(file, built).unwrap();
    }
    let is_same = std::fs::read(file).unwrap() == built;
    assert!(
        is_same,
        "HEADRACE_UPDATE_DESCRIPTORS=1 cargo test -p headrace-protocol python_client brings it up to date"
    );
}

#[test]
fn statuses_are_what_http_says() {
    for (code, name) in [
        (ErrorCode::UnknownModel, "NOT_FOUND"),
        (ErrorCode::InvalidTensor, "INVALID_ARGUMENT"),
        (ErrorCode::TooLarge, "RESOURCE_EXHAUSTED"),
        (ErrorCode::Unavailable, "UNAVAILABLE"),
        (ErrorCode::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        (ErrorCode::Cancelled, "CANCELLED"),
        (ErrorCode::Internal, "INTERNAL"),
        (ErrorCode::ReadOnly, "PERMISSION_DENIED"),
        (ErrorCode::MethodNotAllowed, "UNIMPLEMENTED"),
    ] {
        assert_eq!(status_name(status_code(code)), name);
    }
}

/// A sound request, to be damaged.
fn sound(deployment: &Deployment) -> Vec<u8> {
    let width = deployment.features().len();
    let mut request = Vec::new();
    put_text(&mut request, 1, deployment.name());
    put_nested(&mut request, 5, |tensor| {
        put_text(tensor, 1, "features");
        put_text(tensor, 2, "FP64");
        put_nested(tensor, 3, |shape| shape.extend([1, width as u8]));
        put_nested(tensor, 5, |contents| put_doubles(contents, 7, &vec![1.0; width]));
    });
    request
}

proptest! {
    #[test]
    fn damaged_and_random_requests_never_panic(at in 0usize..80, byte: u8, random in prop::collection::vec(any::<u8>(), 0..90)) {
        let engine = engine();
        let deployment = engine.deployment("delay", None).unwrap();
        let mut request = sound(&deployment);
        prop_assert!(inferred(&engine, &request).is_ok());
        let at = at % request.len();
        request[at] = byte;
        for bytes in [&request[..], &request[..at], &random] {
            drop(inferred(&engine, bytes));
            drop(predicted(&engine, bytes));
            drop(decode_online_features(&engine, bytes));
            drop(encode_reflection(&mut Vec::new(), bytes));
        }
    }
}
