//! Infer requests as clients write them, and as they should not.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use headrace_engine::testing::{SumModel, sum_classifier, sum_regressor};
use headrace_engine::{Deployment, Engine, EngineOptions, ModelSpec};
use headrace_types::{ColumnData, DType, Error, ErrorCode, Field, Result, Value};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::json::KEYS_MAX;

fn added(spec: ModelSpec) -> (Engine, Arc<Deployment>) {
    let engine = Engine::new(EngineOptions::default());
    let deployment = engine.add_model(spec).unwrap();
    (engine, deployment)
}

/// As a model with a feature service asks: a key, two request fields, two features.
fn with_service() -> Arc<Deployment> {
    let mut spec = sum_classifier("risk", 4, &["wind", "age"]);
    spec.service = Some("departures".to_owned());
    spec.join_keys = vec![Field::new("origin", DType::STRING)];
    spec.request_fields = vec![Field::new("planned", DType::TIMESTAMP), Field::new("seats", DType::INT32)];
    added(spec).1
}

fn decoded(body: &str) -> Result<InferRequest> {
    decode_infer(&with_service(), None, body.as_bytes())
}

fn infer(spec: ModelSpec, header_bytes: Option<usize>, body: &[u8]) -> Result<(serde_json::Value, Vec<u8>)> {
    let (engine, deployment) = added(spec);
    let request = decode_infer(&deployment, header_bytes, body)?;
    let response = engine.predict_on(&deployment, &request.predict)?;
    let encoded = encode_infer(&deployment, &request, &response)?;
    let split = encoded.header_bytes.unwrap_or(encoded.body.len());
    Ok((serde_json::from_slice(&encoded.body[..split]).unwrap(), encoded.body[split..].to_vec()))
}

fn features(shape: &str, data: &str) -> String {
    format!(r#"{{"inputs": [{{"name": "features", "shape": {shape}, "datatype": "FP64", "data": {data}}}]}}"#)
}

#[test]
fn inputs_of_a_service_find_their_sections_and_types() {
    let body = r#"{"inputs": [
        {"data": ["JFK", "EWR"], "name": "origin", "shape": [2], "datatype": "BYTES"},
        {"name": "planned", "shape": [2, 1], "datatype": "INT64", "data": [[5], [6]]},
        {"name": "seats", "shape": [2], "datatype": "UINT8", "data": [7, null]},
        {"name": "wind", "shape": [2], "datatype": "FP32", "data": [0.5, "x"]}]}"#;
    let predict = decoded(body).unwrap().predict;
    assert_eq!(predict.entities.columns[0].1.data, ColumnData::String(vec!["JFK".into(), "EWR".into()]));
    assert_eq!(predict.request.columns[0].1.data, ColumnData::Timestamp(vec![5, 6]));
    assert_eq!(predict.request.columns[1].1.value(0), Value::Int(7));
    assert_eq!(predict.request.columns[1].1.value(1), Value::Null);
    assert_eq!(predict.features.columns[0].1.value(0), Value::Float64(0.5));
    assert_eq!(predict.row_errors.iter().map(|found| found.row).collect::<Vec<_>>(), [1]);
    assert_eq!(predict.rows(), 2);
}

#[test]
fn a_timestamp_may_be_text() {
    let body =
        r#"{"inputs": [{"name": "planned", "shape": [1], "datatype": "BYTES", "data": ["1970-01-01T00:00:01Z"]}]}"#;
    assert_eq!(decoded(body).unwrap().predict.request.columns[0].1.value(0), Value::Timestamp(1_000_000));
}

#[test]
fn binary_inputs_come_in_the_order_of_the_list() {
    let json = br#"{"inputs": [
        {"name": "seats", "shape": [1], "datatype": "INT32", "parameters": {"binary_data_size": 4}},
        {"name": "planned", "shape": [1], "datatype": "INT64", "data": [9]},
        {"name": "origin", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 7}}]}"#;
    let body = [&json[..], &7i32.to_le_bytes(), &3u32.to_le_bytes(), b"LGA"].concat();
    let predict = decode_infer(&with_service(), Some(json.len()), &body).unwrap().predict;
    assert_eq!(predict.request.columns[0].1.value(0), Value::Int(7));
    assert_eq!(predict.entities.columns[0].1.value(0), Value::String("LGA".into()));
    for (body, part) in [
        (&body[..body.len() - 1], "asks for 7 binary bytes, 6 are left"),
        (&[&body[..], b"x"].concat()[..], "1 bytes follow"),
    ] {
        let error = decode_infer(&with_service(), Some(json.len()), body).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidTensor);
        assert!(error.message.contains(part), "{error}");
    }
}

#[test]
fn outputs_answer_in_the_order_asked() {
    let body = r#"{"inputs": [{"name": "features", "shape": [2, 2], "datatype": "FP64", "data": [1, 1, -1, -1]}],
        "outputs": [{"name": "margin", "parameters": {"binary_data": true}}, {"name": "scores", "parameters": {"classification": 1}}]}"#;
    let (answer, blob) = infer(sum_classifier("m", 1, &["a", "b"]), None, body.as_bytes()).unwrap();
    assert_eq!(answer["outputs"][0]["name"], "margin");
    assert_eq!(answer["outputs"][0]["shape"], json!([2, 1]));
    assert_eq!(blob, [2.0_f64.to_le_bytes(), (-2.0_f64).to_le_bytes()].concat());
    let best = answer["outputs"][1]["data"].as_array().unwrap();
    assert!(
        best[0].as_str().unwrap().ends_with(":1:late") && best[1].as_str().unwrap().ends_with(":0:on_time"),
        "{best:?}"
    );
    assert!(answer.get("id").is_none());
}

#[test]
fn a_regression_answers_its_value() {
    let body = r#"{"inputs": [{"name": "a", "shape": [2], "datatype": "INT16", "data": [3, -4]}]}"#;
    let (answer, _) = infer(sum_regressor("m", 1, &["a"]), None, body.as_bytes()).unwrap();
    assert_eq!(answer["outputs"][0], json!({"name": "value", "datatype": "FP64", "shape": [2], "data": [3.0, -4.0]}));
}

#[test]
fn a_raw_request_is_one_tensor_and_is_answered_in_binary() {
    let raw: Vec<u8> = [1.0, 2.0, -3.0, 0.0].iter().flat_map(|value: &f64| value.to_le_bytes()).collect();
    let (answer, blob) = infer(sum_classifier("m", 1, &["a", "b"]), Some(0), &raw).unwrap();
    assert_eq!(answer["outputs"][0]["shape"], json!([2]));
    assert!(blob.starts_with(&[4, 0, 0, 0, b'l', b'a', b't', b'e', 7, 0, 0, 0, b'o', b'n']));
    let error = infer(sum_classifier("m", 1, &["a", "b"]), Some(0), &raw[..24]).unwrap_err();
    assert!(error.message.contains("asks for another number"), "{error}");
    let error = decode_infer(&with_service(), Some(0), &raw).unwrap_err();
    assert!(error.message.contains("must only have 1 input to be deduced but got 3"), "{error}");
}

#[test]
fn a_failed_row_is_named_and_when_all_fail_the_request_does() {
    let spec = || sum_classifier("m", 1, &["a", "b"]);
    let (answer, _) = infer(spec(), None, features("[2, 2]", r#"[1, 1, "x", 1]"#).as_bytes()).unwrap();
    let told: serde_json::Value = serde_json::from_str(answer["parameters"]["row_errors"].as_str().unwrap()).unwrap();
    assert!(told["1"].as_str().unwrap().contains("'x' is not a float64"), "{told}");
    assert_eq!(answer["outputs"][0]["data"], json!(["late", ""]));
    assert_eq!(answer["outputs"][1]["data"][2], serde_json::Value::Null);
    let regressor = sum_regressor("m", 1, &["a", "b"]);
    let (answer, _) = infer(regressor, None, features("[2, 2]", "[1, 1, 1e308, 1e308]").as_bytes()).unwrap();
    assert!(answer["parameters"]["row_errors"].as_str().unwrap().contains("score is infinite"), "{answer}");
    let error = infer(spec(), None, features("[1, 2]", r#"["x", 1]"#).as_bytes()).unwrap_err();
    assert_eq!(error.code, ErrorCode::TypeMismatch);
}

#[test]
fn no_rows_are_no_answers() {
    let (answer, _) = infer(sum_classifier("m", 1, &["a", "b"]), None, features("[0, 2]", "[]").as_bytes()).unwrap();
    assert_eq!(answer["outputs"][1]["shape"], json!([0, 2]));
}

fn refusal(inputs: &str) -> Error {
    decoded(&format!(r#"{{"inputs": [{inputs}]}}"#)).unwrap_err()
}

#[test]
fn what_is_wrong_with_a_tensor_is_said_with_its_name() {
    for (input, code, part) in [
        (r#"{"name": "sky", "shape": [1], "datatype": "FP64", "data": [1]}"#, ErrorCode::UnknownFeature, "'sky'"),
        (
            r#"{"name": "wind", "shape": [2, 2], "datatype": "FP64", "data": [1, 2, 3, 4]}"#,
            ErrorCode::InvalidTensor,
            "[2, 2]",
        ),
        (r#"{"name": "wind", "shape": [2], "datatype": "FP64", "data": [1]}"#, ErrorCode::InvalidTensor, "1 values"),
        (r#"{"name": "wind", "shape": [1], "datatype": "FP64"}"#, ErrorCode::InvalidTensor, "no data"),
        (r#"{"name": "wind", "datatype": "FP64", "data": [1]}"#, ErrorCode::InvalidTensor, "no shape"),
        (r#"{"name": "wind", "shape": [1], "data": [1]}"#, ErrorCode::InvalidTensor, "no datatype"),
        (r#"{"shape": [1], "datatype": "FP64", "data": [1]}"#, ErrorCode::InvalidTensor, "no name"),
        (
            r#"{"name": "wind", "shape": [1], "datatype": "BYTES", "data": ["a"]}"#,
            ErrorCode::InvalidTensor,
            "expects FP64",
        ),
        (
            r#"{"name": "origin", "shape": [1], "datatype": "INT64", "data": [1]}"#,
            ErrorCode::InvalidTensor,
            "expects BYTES",
        ),
        (
            r#"{"name": "wind", "shape": [1], "datatype": "BF16", "data": [1]}"#,
            ErrorCode::InvalidTensor,
            "no JSON form",
        ),
        (r#"{"name": "wind", "shape": [1], "datatype": "FP8", "data": [1]}"#, ErrorCode::InvalidArgument, "'FP8'"),
        (
            r#"{"name": "wind", "shape": [1], "datatype": "FP64", "data": [1], "parameters": {"binary_data_size": 8}}"#,
            ErrorCode::InvalidTensor,
            "both",
        ),
        (
            r#"{"name": "wind", "shape": [1], "datatype": "FP64", "parameters": {"shared_memory_region": "x"}}"#,
            ErrorCode::InvalidArgument,
            "shared memory",
        ),
        (
            r#"{"name": "wind", "shape": [4294967296, 4294967296, 4294967296], "datatype": "FP64", "data": []}"#,
            ErrorCode::InvalidTensor,
            "without bounds",
        ),
        (
            r#"{"name": "wind", "shape": [1,1,1,1,1,1,1,1,1], "datatype": "FP64", "data": [1]}"#,
            ErrorCode::InvalidTensor,
            "9 dimensions",
        ),
        (
            r#"{"name": "wind", "shape": [1], "datatype": "FP64", "data": [[[[[[[[[[1]]]]]]]]]]}"#,
            ErrorCode::InvalidArgument,
            "deeper",
        ),
        (
            r#"{"name": "wind", "name": "wind", "shape": [1], "datatype": "FP64", "data": [1]}"#,
            ErrorCode::InvalidArgument,
            "twice",
        ),
    ] {
        let error = refusal(input);
        assert_eq!(error.code, code, "{input}: {error}");
        assert!(error.message.contains(part), "{input}: {error}");
    }
}

#[test]
fn nested_data_has_the_nesting_of_its_shape() {
    let spec = || sum_regressor("m", 1, &["a", "b"]);
    let value = |shape: &str, data: &str| infer(spec(), None, features(shape, data).as_bytes());
    for (shape, data) in [("[2, 2]", "[1, 2, 3, 4]"), ("[2, 2]", "[[1, 2], [3, 4]]"), ("[0, 2]", "[]")] {
        assert!(value(shape, data).is_ok(), "{shape} {data}");
    }
    for (shape, data) in [
        ("[2, 2]", "[[1, 2, 3, 4]]"),
        ("[2, 2]", "[[1], [2], [3], [4]]"),
        ("[2, 2]", "[[1, 2, 3], [4]]"),
        ("[2, 2]", "[1, 2, [3, 4]]"),
        ("[2, 2]", "[[1, 2], 3, 4]"),
        ("[2, 2]", "[[[1, 2]], [[3, 4]]]"),
        ("[0, 2]", "[[]]"),
    ] {
        let error = value(shape, data).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidTensor, "{shape} {data}");
        assert!(error.message.contains("'features' has data that is not nested as its shape"), "{error}");
        // The same when the data comes before the type.
        let early =
            format!(r#"{{"inputs": [{{"data": {data}, "name": "features", "shape": {shape}, "datatype": "FP64"}}]}}"#);
        assert_eq!(infer(spec(), None, early.as_bytes()).unwrap_err().message, error.message);
    }
    for data in ["1", "true", r#""x""#, "{}"] {
        let error = value("[1, 2]", data).unwrap_err();
        assert!(error.message.contains("not a list"), "{data}: {error}");
    }
}

#[test]
fn all_features_and_one_of_them_are_refused_in_either_order() {
    let all = r#"{"name": "features", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}"#;
    let one = r#"{"name": "a", "shape": [1], "datatype": "FP64", "data": [5]}"#;
    for inputs in [format!("{all}, {one}"), format!("{one}, {all}")] {
        let body = format!(r#"{{"inputs": [{inputs}]}}"#);
        let error = infer(sum_regressor("m", 1, &["a", "b"]), None, body.as_bytes()).unwrap_err();
        assert!(error.code == ErrorCode::InvalidTensor && error.message.contains("beside"), "{error}");
    }
}

#[test]
fn an_empty_body_is_no_raw_request() {
    let error = infer(sum_regressor("m", 1, &["a"]), None, b"").unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidJson);
}

#[test]
fn null_means_absent() {
    let body = br#"{"id": null, "parameters": null, "outputs": null, "inputs": [{"name": "a", "shape": [1], "datatype": "FP64",
        "parameters": {"binary_data_size": null, "shared_memory_region": null}, "data": [2]}]}"#;
    let (answer, blob) = infer(sum_regressor("m", 1, &["a"]), None, body).unwrap();
    assert_eq!((answer["outputs"][0]["data"].clone(), blob.len()), (json!([2.0]), 0));
    let body = br#"{"inputs": [{"name": "a", "shape": [1], "datatype": "FP64", "parameters": null, "data": [2]}],
        "outputs": [{"name": "value", "parameters": {"binary_data": null, "classification": null}}]}"#;
    assert!(infer(sum_regressor("m", 1, &["a"]), None, body).is_ok());
    for (input, part) in [
        (r#"{"name": null, "shape": [1], "datatype": "FP64", "data": [1]}"#, "no name"),
        (r#"{"name": "wind", "shape": null, "datatype": "FP64", "data": [1]}"#, "no shape"),
        (r#"{"name": "wind", "shape": [1], "datatype": null, "data": [1]}"#, "no datatype"),
        (r#"{"name": "wind", "shape": [1], "datatype": "FP64", "data": null}"#, "no data"),
        (r#"{"name": "wind", "shape": [1], "data": null, "datatype": "FP64"}"#, "no data"),
    ] {
        assert!(refusal(input).message.contains(part), "{input}");
    }
    assert!(!decode_index_request(br#"{"ready": null}"#).unwrap());
}

#[test]
fn only_extensions_that_are_there_are_told() {
    let told = server_metadata();
    assert!(!told["extensions"].as_array().unwrap().contains(&json!("model_repository")), "{told}");
}

#[test]
fn what_was_sent_is_said_in_the_words_of_json() {
    for (body, part) in [
        ("[]", "a list was sent, expected an object as the request"),
        (r#"{"inputs": {}}"#, "an object was sent, expected a list as 'inputs' at line 1 column"),
        (r#"{"inputs": [7]}"#, "the number 7 was sent, expected an object as an input"),
        (r#"{"inputs": [{"shape": [-1]}]}"#, "the number -1 was sent, expected a whole number, not negative"),
        (r#"{"inputs": [{"shape": ["2"]}]}"#, r#"the text "2" was sent"#),
        (r#"{"id": true}"#, "true was sent, expected a string"),
    ] {
        let error = decoded(body).unwrap_err();
        assert!(error.message.contains(part), "{body}: {error}");
    }
}

#[test]
fn outputs_that_are_not_there_are_refused() {
    let body = |outputs: &str| format!(r#"{{"inputs": [], "outputs": [{outputs}]}}"#);
    for (outputs, part) in [
        (r#"{"name": "value"}"#, "'value'"),
        (r#"{"name": "label"}, {"name": "label"}"#, "twice"),
        (r#"{"name": "margin", "parameters": {"classification": 2}}"#, "classification"),
    ] {
        let error = decoded(&body(outputs)).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
        assert!(error.message.contains(part) && error.hint.contains("scores"), "{error}");
    }
}

#[test]
fn metadata_tells_what_infer_takes() {
    let (engine, _) = added(sum_classifier("m", 3, &["a", "b"]));
    let metadata = model_metadata(&engine, "m", None).unwrap();
    assert_eq!(metadata["platform"], "headrace_test");
    assert_eq!(metadata["inputs"][0]["shape"], json!([-1, 2]));
    assert_eq!(model_metadata(&engine, "m", Some(4)).unwrap_err().code, ErrorCode::UnknownModelVersion);
    let deployment = with_service();
    let engine = Engine::new(EngineOptions::default());
    engine.add_model(ModelSpec { model: SumModel::logistic(2).into(), ..spec_of(&deployment) }).unwrap();
    let metadata = model_metadata(&engine, "risk", Some(4)).unwrap();
    let expected = json!([
        {"name": "origin", "datatype": "BYTES", "shape": [-1]}, {"name": "planned", "datatype": "INT64", "shape": [-1]},
        {"name": "seats", "datatype": "INT32", "shape": [-1]}]);
    assert_eq!(metadata["inputs"], expected);
    let config = model_config(&engine, "risk", None).unwrap();
    assert_eq!(config["input"][0]["data_type"], "TYPE_STRING");
    assert_eq!(config["input"][3]["optional"], true);
    // The service is not there, so the model is listed and not ready.
    assert!(!is_ready(&engine));
    assert_eq!(repository_index(&engine, false)[0]["state"], "UNAVAILABLE");
    assert_eq!(repository_index(&engine, true), json!([]));
    engine.note_unloaded("risk", 9, Error::new(ErrorCode::CorruptModel, "golden.json is damaged", ""));
    let unloaded = json!({"name": "risk", "version": "9", "state": "UNAVAILABLE", "reason": "golden.json is damaged"});
    assert_eq!(repository_index(&engine, false)[1], unloaded);
    assert_eq!(repository_index(&engine, true), json!([]));
    assert_eq!(model_ready(&engine, "risk", None).unwrap_err().code, ErrorCode::Unavailable);
}

fn spec_of(deployment: &Deployment) -> ModelSpec {
    ModelSpec {
        service: deployment.service().map(str::to_owned),
        join_keys: deployment.entity_fields().to_vec(),
        request_fields: deployment.request_fields().to_vec(),
        ..sum_classifier("risk", 4, &["wind", "age"])
    }
}

#[test]
fn the_index_request_may_be_empty() {
    assert!(!decode_index_request(b" ").unwrap());
    assert!(!decode_index_request(b"{}").unwrap());
    assert!(decode_index_request(br#"{"ready": true}"#).unwrap());
    assert!(decode_index_request(b"[").is_err());
}

/// An object of `inputs`, `count` unknown keys, and what `last` says.
fn with_keys(count: usize, last: &str) -> String {
    let keys: Vec<String> = (0..count).map(|number| format!("\"k{number}\": 0")).collect();
    format!(r#"{{"inputs": [], {}, {last}}}"#, keys.join(","))
}

#[test]
fn an_object_has_bounded_keys_and_each_once() {
    let error = decoded(&with_keys(KEYS_MAX - 2, r#""k7": 0"#)).unwrap_err();
    assert!(error.message.contains("'k7' twice"), "{error}");
    assert!(decoded(&with_keys(KEYS_MAX - 2, r#""last": 0"#)).is_ok());
    // The parse ends at the first key that is one too many: what follows is not JSON and is not reached.
    let error = decoded(&with_keys(KEYS_MAX, "not JSON")).unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge, "{error}");
    let error = decoded(&format!(r#"{{"inputs": [{}]}}"#, with_keys(KEYS_MAX, "not JSON"))).unwrap_err();
    assert!(error.message.contains("keys"), "{error}");
}

const SOUND: &[u8] = br#"{"id": "1", "parameters": {"binary_data_output": true}, "inputs": [
    {"name": "origin", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 7}},
    {"name": "seats", "shape": [1, 1], "data": [[3]], "datatype": "INT32"}], "outputs": [{"name": "label"}]}"#;

#[test]
fn every_truncation_is_refused() {
    let body = [SOUND, &3u32.to_le_bytes()[..], b"LGA"].concat();
    assert!(decode_infer(&with_service(), Some(SOUND.len()), &body).is_ok());
    for end in 0..body.len() {
        for header_bytes in [Some(SOUND.len()), None, Some(end)] {
            assert!(decode_infer(&with_service(), header_bytes, &body[..end]).is_err(), "{end} {header_bytes:?}");
        }
    }
}

proptest! {
    #[test]
    fn damaged_requests_never_panic(at in 0usize..SOUND.len() + 7, byte: u8, cut in 0usize..40, header_bytes in prop::option::of(0usize..400)) {
        let mut body = [SOUND, &3u32.to_le_bytes()[..], b"LGA"].concat();
        body[at] = byte;
        body.truncate(body.len() - cut);
        let _ = decode_infer(&with_service(), header_bytes, &body);
        let _ = crate::decode_predict(&with_service(), &body);
    }

    #[test]
    fn any_numbers_make_the_same_request_in_json_and_in_binary(values in prop::collection::vec(-1e300f64..1e300, 1..30)) {
        let json = format!(r#"{{"inputs": [{{"name": "wind", "shape": [{}], "datatype": "FP64", "data": {values:?}}}]}}"#, values.len());
        let head = format!(r#"{{"inputs": [{{"name": "wind", "shape": [{}], "datatype": "FP64", "parameters": {{"binary_data_size": {}}}}}]}}"#,
            values.len(), values.len() * 8);
        let binary = [head.as_bytes().to_vec(), values.iter().flat_map(|value| value.to_le_bytes()).collect()].concat();
        let by_json = decoded(&json).unwrap().predict.features;
        let by_binary = decode_infer(&with_service(), Some(head.len()), &binary).unwrap().predict.features;
        prop_assert_eq!(by_json, by_binary);
    }
}

#[test]
fn contributions_are_answered_when_they_are_asked_for() {
    let body = r#"{"inputs": [{"name": "features", "shape": [2, 2], "datatype": "FP64", "data": [1, 2, 3, 4]}],
        "outputs": [{"name": "value"}, {"name": "contributions"}]}"#;
    let (answer, _) = infer(sum_regressor("minutes", 1, &["a", "b"]), None, body.as_bytes()).unwrap();
    let contributions = json!({"name": "contributions", "datatype": "FP64", "shape": [2, 3],
        "data": [1.0, 2.0, 0.0, 3.0, 4.0, 0.0]});
    assert_eq!(answer["outputs"][1], contributions);
    let body = features("[1, 2]", "[1, 2]");
    let (answer, _) = infer(sum_regressor("minutes", 1, &["a", "b"]), None, body.as_bytes()).unwrap();
    assert_eq!(answer["outputs"].as_array().map(Vec::len), Some(2));
}
