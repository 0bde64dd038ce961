//! The Common API: predictions with named columns in, labelled answers out, the same shape for every kind of model.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use headrace_engine::{
    Deployment, Engine, Explain, NO_LABEL, Outputs, Phase, PredictRequest, PredictResponse, Priority, RowError,
    Section, Timing, shortened,
};
use headrace_types::{Batch, Column, Error, ErrorCode, Result, Task};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use crate::json::{ColumnSeed, Fault, KeyHandler, ObjectSeed, Optional, WRONG_VALUES_MAX, parse, separate, write};

/// The version of this API, told in every answer.
pub const API_VERSION: &str = "v1";

/// Reads `{"id"?, "entities"?: {column: [..]}, "features"?: {..}, "request"?: {..}, "outputs"?: [..],
/// "explain"?: true | {"top": n}, "timeout_ms"?: n, "priority"?: n}` by a model's signature.
///
/// # Errors
/// `invalid_json`; `invalid_argument`, `unknown_entity`, `unknown_feature` or `type_mismatch` naming the key or column; `too_large`.
pub fn decode_predict(deployment: &Deployment, body: &[u8]) -> Result<PredictRequest> {
    let fault = Fault::default();
    let handler = PredictHandler { deployment, fault: &fault, request: PredictRequest::default() };
    let request = parse(body, &fault, ObjectSeed { what: "the body", fault: Some(&fault), each: handler })?.request;
    if let Some(explain) = request.explain {
        check_explained_bytes(deployment, request.rows(), explain)?;
    }
    Ok(request)
}

/// Bytes that the explanations of one answer may have: the names of features are told for each row.
const EXPLAINED_BYTES_MAX: usize = 128 << 20;
/// The longest float64 as JSON, and a comma.
const NUMBER_BYTES: usize = 25;

/// # Errors
/// `too_large`.
pub(crate) fn check_explained_bytes(deployment: &Deployment, rows: usize, explain: Explain) -> Result<()> {
    let features = deployment.features().iter();
    let mut bytes: Vec<usize> = features.map(|field| key_of(&field.name).len() + NUMBER_BYTES).collect();
    bytes.sort_unstable_by(|one, other| other.cmp(one));
    let told = explain.top.map_or(bytes.len(), NonZeroUsize::get);
    let of_margin = bytes.iter().take(told).sum();
    let together = rows.checked_mul(deployment.margins_count()).and_then(|margins| margins.checked_mul(of_margin));
    if together.is_some_and(|bytes| bytes <= EXPLAINED_BYTES_MAX) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::TooLarge,
        format!("the explanations of {rows} rows may have more than {EXPLAINED_BYTES_MAX} bytes"),
        r#"split the request into several, or ask for the top features only: "explain": {"top": 5}"#,
    ))
}

struct PredictHandler<'a> {
    deployment: &'a Deployment,
    fault: &'a Fault,
    request: PredictRequest,
}

impl<'de> KeyHandler<'de> for PredictHandler<'_> {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let section = match key {
            "id" => {
                self.request.id = map.next_value()?;
                return Ok(());
            }
            "outputs" => {
                let outputs = map.next_value_seed(Optional(OutputsSeed { fault: self.fault }))?;
                self.request.outputs = outputs.unwrap_or_default();
                return Ok(());
            }
            "explain" => {
                let asked: Value = map.next_value()?;
                self.request.explain = explain_of(&asked).map_err(|error| self.fault.raise::<A::Error>(error))?;
                return Ok(());
            }
            "timeout_ms" => {
                let asked: Option<u64> = map.next_value()?;
                self.request.timeout = asked.and_then(timeout_of);
                return Ok(());
            }
            "priority" => {
                let level: Option<u64> = map.next_value()?;
                let priority = Priority::of_level(level.unwrap_or(0));
                self.request.priority = priority.map_err(|error| self.fault.raise::<A::Error>(error))?;
                return Ok(());
            }
            "entities" => Section::Entities,
            "features" => Section::Features,
            "request" => Section::Request,
            _ => {
                return Err(self.fault.raise(Error::new(
                    ErrorCode::InvalidArgument,
                    format!("the body has an unknown key '{key}'"),
                    "use id, entities, features, request, outputs, explain, timeout_ms, priority",
                )));
            }
        };
        let handler = SectionHandler {
            deployment: self.deployment,
            section,
            fault: self.fault,
            columns: Vec::new(),
            row_errors: &mut self.request.row_errors,
        };
        let seed = ObjectSeed { what: section.name(), fault: Some(self.fault), each: handler };
        let Some(SectionHandler { columns, .. }) = map.next_value_seed(Optional(seed))? else { return Ok(()) };
        let batch = Batch { rows: columns.first().map_or(0, |(_, column)| column.len()), columns };
        match section {
            Section::Entities => self.request.entities = batch,
            Section::Features => self.request.features = batch,
            Section::Request => self.request.request = batch,
        }
        Ok(())
    }
}

/// 0 milliseconds are no limit, as in the Open Inference Protocol.
pub(crate) fn timeout_of(ms: u64) -> Option<Duration> {
    Some(ms).filter(|ms| *ms > 0).map(Duration::from_millis)
}

/// `true`, or `{"top": n}` with a whole number from 1 on; `false` and null ask for nothing.
///
/// # Errors
/// `invalid_argument`.
fn explain_of(asked: &Value) -> Result<Option<Explain>> {
    match asked {
        Value::Null | Value::Bool(false) => return Ok(None),
        Value::Bool(true) => return Ok(Some(Explain::default())),
        Value::Object(members) if members.len() == 1 => {
            let top = members.get("top").and_then(Value::as_u64).and_then(|top| usize::try_from(top).ok());
            if let Some(top) = top.and_then(NonZeroUsize::new) {
                return Ok(Some(Explain { top: Some(top) }));
            }
        }
        _ => {}
    }
    let text = asked.to_string();
    Err(Error::new(
        ErrorCode::InvalidArgument,
        format!("'explain' is {}", shortened(&text)),
        r#"use true, or {"top": 5} for the five features that count most"#,
    ))
}

struct SectionHandler<'a> {
    deployment: &'a Deployment,
    section: Section,
    fault: &'a Fault,
    columns: Vec<(String, Column)>,
    row_errors: &'a mut Vec<RowError>,
}

impl<'de> KeyHandler<'de> for SectionHandler<'_> {
    fn key<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        // Clients mostly send columns in the order of the signature.
        let expected = self.deployment.fields(self.section).get(self.columns.len()).filter(|field| field.name == key);
        let field = expected.map_or_else(|| self.deployment.field(self.section, key), Ok);
        let field = field.map_err(|error| self.fault.raise::<A::Error>(error))?;
        let (column, errors) = map.next_value_seed(ColumnSeed {
            field,
            fault: self.fault,
            rows_max: self.deployment.rows_max(),
            wrong_max: WRONG_VALUES_MAX.saturating_sub(self.row_errors.len()),
        })?;
        self.row_errors.extend(errors);
        self.columns.push((field.name.clone(), column));
        Ok(())
    }
}

struct OutputsSeed<'f> {
    fault: &'f Fault,
}

impl<'de> DeserializeSeed<'de> for OutputsSeed<'_> {
    type Value = Outputs;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Outputs, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for OutputsSeed<'_> {
    type Value = Outputs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of output names as 'outputs'")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Outputs, A::Error> {
        let mut outputs = Outputs::NONE;
        while let Some(name) = seq.next_element::<String>()? {
            outputs = outputs.with(&name).ok_or_else(|| self.fault.raise::<A::Error>(unknown_output(&name)))?;
        }
        Ok(if outputs == Outputs::NONE { Outputs::default() } else { outputs })
    }
}

pub(crate) fn unknown_output(name: &str) -> Error {
    Error::new(
        ErrorCode::InvalidArgument,
        format!("there is no output '{name}'"),
        format!("use {}", Outputs::NAMES.join(", ")),
    )
}

/// GET /v1/deployments: every deployment, with the version that answers when none is asked for.
pub fn list_deployments(engine: &Engine) -> Value {
    let mut names: Vec<String> = engine.models().iter().map(|model| model.name().to_owned()).collect();
    names.dedup();
    let entries = names.iter().filter_map(|name| {
        let deployment = engine.find_model(name, None).ok()?;
        Some(summary(engine, &deployment))
    });
    json!({"deployments": entries.collect::<Vec<_>>()})
}

/// GET /v1/deployments/{name}: as in the list, and what a request gives and asks.
///
/// # Errors
/// `unknown_model`.
pub fn describe_deployment(engine: &Engine, name: &str) -> Result<Value> {
    let deployment = engine.find_model(name, None)?;
    let mut described = summary(engine, &deployment);
    for section in Section::ALL {
        let fields = deployment.fields(section).iter();
        described[section.name()] =
            fields.map(|field| json!({"name": field.name, "dtype": field.dtype.to_string()})).collect();
    }
    described["outputs"] = json!(crate::openapi::output_names(&deployment));
    described["classes"] = json!(**deployment.classes());
    Ok(described)
}

fn summary(engine: &Engine, deployment: &Deployment) -> Value {
    let models = engine.models();
    let versions = models.iter().filter(|model| model.name() == deployment.name());
    json!({
        "name": deployment.name(), "model": deployment.name(), "model_version": deployment.version().to_string(),
        "versions": versions.map(|model| model.version().to_string()).collect::<Vec<_>>(),
        "task": deployment.task(), "feature_service": deployment.service(),
        "ready": deployment.fault().is_none(),
        "reason": deployment.fault().map(ToString::to_string),
    })
}

/// Bytes of JSON that a prediction takes about; only to size the buffer.
const BYTES_PER_PREDICTION: usize = 80;

/// Writes the answer. `deployment` is the one that answered.
pub fn encode_predict(deployment: &Deployment, response: &PredictResponse) -> Vec<u8> {
    let mut out = Vec::with_capacity(320 + BYTES_PER_PREDICTION * response.rows);
    begin_answer(&mut out, &response.id, deployment);
    let class_keys: Vec<Vec<u8>> = response.classes.iter().map(|class| key_of(class)).collect();
    let mut feature_keys = Vec::new();
    if response.explain.is_some() {
        feature_keys.extend(deployment.features().iter().map(|field| key_of(&field.name)));
    }
    let keys = Keys { classes: class_keys, features: feature_keys };
    for row in 0..response.rows {
        separate(&mut out, row);
        write_prediction(&mut out, deployment, response, &keys, row);
    }
    end_answer(&mut out, &response.timing);
    out
}

/// What stands before the predictions.
pub(crate) fn begin_answer(out: &mut Vec<u8>, id: &str, deployment: &Deployment) {
    out.extend_from_slice(b"{\"id\":");
    write(out, id);
    out.extend_from_slice(b",\"api_version\":\"");
    out.extend_from_slice(API_VERSION.as_bytes());
    out.extend_from_slice(b"\",\"deployment\":");
    write(out, deployment.name());
    out.extend_from_slice(b",\"model\":");
    write(out, deployment.name());
    out.extend_from_slice(b",\"model_version\":\"");
    write(out, &deployment.version());
    out.extend_from_slice(b"\",\"task\":");
    write(out, &deployment.task());
    out.extend_from_slice(b",\"predictions\":[");
}

/// What stands behind the predictions.
pub(crate) fn end_answer(out: &mut Vec<u8>, timing: &Timing) {
    out.extend_from_slice(b"],\"timing_us\":{");
    for (index, phase) in Phase::ALL.into_iter().enumerate() {
        separate(out, index);
        out.extend_from_slice(&key_of(phase.name()));
        #[allow(clippy::cast_precision_loss)] // tenths of a microsecond of a request's life
        write(out, &((timing.of(phase).as_nanos() / 100) as f64 / 10.0));
    }
    out.extend_from_slice(b"}}");
}

/// Names as keys, each escaped once for all rows.
struct Keys {
    classes: Vec<Vec<u8>>,
    /// Empty unless explanations are told.
    features: Vec<Vec<u8>>,
}

/// `"name":`, escaped.
fn key_of(name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 3);
    write(&mut key, name);
    key.push(b':');
    key
}

fn write_prediction(out: &mut Vec<u8>, deployment: &Deployment, response: &PredictResponse, keys: &Keys, row: usize) {
    let width = response.scores_count();
    let scores = &response.scores[row * width..][..width];
    out.push(b'{');
    let begin = out.len();
    if response.outputs.label {
        match response.task {
            Task::Classification => {
                out.extend_from_slice(b"\"label\":");
                let label = response.labels.get(row).copied().unwrap_or(NO_LABEL);
                write(out, &response.classes.get(label as usize));
            }
            Task::MultiLabel => {
                out.extend_from_slice(b"\"labels\":");
                let chosen = response.classes.iter().zip(scores).filter(|(_, score)| deployment.chooses(**score));
                write(out, &chosen.map(|(class, _)| class).collect::<Vec<_>>());
            }
            Task::Regression | Task::Ranking | Task::Seq2seq | Task::Tensors => {
                out.extend_from_slice(b"\"value\":");
                write(out, &scores[0]);
            }
        }
    }
    if response.outputs.scores && !keys.classes.is_empty() {
        next_member(out, begin);
        out.extend_from_slice(b"\"scores\":{");
        for (class, (key, score)) in keys.classes.iter().zip(scores).enumerate() {
            separate(out, class);
            out.extend_from_slice(key);
            write(out, score);
        }
        out.push(b'}');
    }
    if response.outputs.margin {
        next_member(out, begin);
        out.extend_from_slice(b"\"margin\":");
        match &response.margins[row * response.margins_count..][..response.margins_count] {
            [one] => write(out, one),
            many => write(out, many),
        }
    }
    if response.explain.is_some() {
        next_member(out, begin);
        write_explanation(out, response, &keys.features, row);
    }
    if let Some(RowError { error, .. }) = response.row_error(row) {
        next_member(out, begin);
        write_status(out, error);
    }
    out.push(b'}');
}

/// `"status":` and why a row has no answer.
pub(crate) fn write_status(out: &mut Vec<u8>, error: &Error) {
    out.extend_from_slice(b"\"status\":{\"code\":");
    write(out, error.code.slug());
    out.extend_from_slice(b",\"error\":");
    write(out, &error.to_string());
    out.push(b'}');
}

/// `"explanation":` and one object for a row of one margin, a list of them for more, null for a row that failed.
fn write_explanation(out: &mut Vec<u8>, response: &PredictResponse, feature_keys: &[Vec<u8>], row: usize) {
    out.extend_from_slice(b"\"explanation\":");
    let is_list = response.margins_count != 1;
    if is_list {
        out.push(b'[');
    }
    for margin in 0..response.margins_count {
        separate(out, margin);
        let Some(explanation) = response.explanation(row, margin) else {
            out.extend_from_slice(b"null");
            continue;
        };
        out.extend_from_slice(b"{\"expected\":");
        write(out, &explanation.expected);
        out.extend_from_slice(b",\"contributions\":{");
        for (index, (feature, contribution)) in explanation.contributions.iter().enumerate() {
            separate(out, index);
            out.extend_from_slice(&feature_keys[*feature]);
            write(out, contribution);
        }
        out.push(b'}');
        if let Some(others) = explanation.others {
            out.extend_from_slice(b",\"others\":");
            write(out, &others);
        }
        out.push(b'}');
    }
    if is_list {
        out.push(b']');
    }
}

/// A comma before every member of an object but the first; `begin` is where they begin.
pub(crate) fn next_member(out: &mut Vec<u8>, begin: usize) {
    if out.len() > begin {
        out.push(b',');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use headrace_engine::EngineOptions;
    use headrace_engine::testing::{sum_classifier, sum_regressor};

    fn engine() -> Engine {
        let engine = Engine::new(EngineOptions::default());
        engine.add_model(sum_classifier("delay", 3, &["a", "b"])).unwrap();
        engine.add_model(sum_regressor("minutes", 1, &["a", "b"])).unwrap();
        engine
    }

    fn answer(model: &str, body: &str) -> Value {
        let engine = engine();
        let deployment = engine.deployment(model, None).unwrap();
        let request = decode_predict(&deployment, body.as_bytes()).unwrap();
        let response = engine.predict_on(&deployment, &request).unwrap();
        serde_json::from_slice(&encode_predict(&deployment, &response)).unwrap()
    }

    fn refusal(body: &str) -> Error {
        let engine = engine();
        let deployment = engine.deployment("delay", None).unwrap();
        decode_predict(&deployment, body.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_classification_answers_label_scores_and_margin() {
        let body =
            r#"{"id": "r1", "features": {"b": [0.0, 1], "a": [0, -3]}, "outputs": ["label", "scores", "margin"]}"#;
        let mut answer = answer("delay", body);
        let timing = answer["timing_us"].take();
        for phase in ["queue", "lookup", "transform", "model", "total"] {
            assert!(timing[phase].is_number(), "{phase}");
        }
        let negative = 1.0 / (1.0 + 2.0_f64.exp());
        let expected = json!({
            "id": "r1", "api_version": "v1", "deployment": "delay", "model": "delay", "model_version": "3",
            "task": "classification", "timing_us": null,
            "predictions": [
                {"label": "on_time", "scores": {"on_time": 0.5, "late": 0.5}, "margin": 0.0},
                {"label": "on_time", "scores": {"on_time": 1.0 - negative, "late": negative}, "margin": -2.0},
            ],
        });
        assert_eq!(answer, expected);
    }

    #[test]
    fn an_explanation_tells_what_each_feature_adds() {
        let body = r#"{"features": {"a": [1.5, "x"], "b": [-2, 1]}, "outputs": ["label"], "explain": true}"#;
        let told = answer("minutes", body);
        let explanation = json!({"expected": 0.0, "contributions": {"a": 1.5, "b": -2.0}});
        assert_eq!(told["predictions"][0], json!({"value": -0.5, "explanation": explanation}));
        assert_eq!(told["predictions"][1]["explanation"], Value::Null);
        let told =
            answer("delay", r#"{"features": {"a": [1], "b": [-2]}, "outputs": ["label"], "explain": {"top": 1}}"#);
        let explanation = json!({"expected": 0.0, "contributions": {"b": -2.0}, "others": 1.0});
        assert_eq!(told["predictions"], json!([{"label": "on_time", "explanation": explanation}]));
        for nothing in ["false", "null"] {
            let told = answer("minutes", &format!(r#"{{"features": {{"a": [1], "b": [2]}}, "explain": {nothing}}}"#));
            assert_eq!(told["predictions"], json!([{"value": 3.0}]));
        }
    }

    #[test]
    fn explanations_are_bounded_by_the_bytes_of_their_names() {
        let engine = Engine::new(EngineOptions::default());
        let long = "x".repeat(100_000);
        engine.add_model(sum_regressor("wide", 1, &[&long, "b"])).unwrap();
        let deployment = engine.deployment("wide", None).unwrap();
        let decoded = |rows: usize, explain: &str| {
            let zeros = format!("[{}0]", "0,".repeat(rows - 1));
            let body = format!(r#"{{"features": {{"{long}": {zeros}, "b": {zeros}}}, "explain": {explain}}}"#);
            decode_predict(&deployment, body.as_bytes())
        };
        assert_eq!(decoded(1_000, "true").unwrap().rows(), 1_000);
        assert_eq!(decoded(2_000, "false").unwrap().rows(), 2_000);
        for explain in ["true", r#"{"top": 1}"#] {
            let error = decoded(2_000, explain).unwrap_err();
            assert_eq!(error.code, ErrorCode::TooLarge);
            assert!(error.message.contains("the explanations of 2000 rows"), "{error}");
        }
    }

    #[test]
    fn a_regression_answers_a_value() {
        let answer = answer("minutes", r#"{"features": {"a": [1.5], "b": [2]}}"#);
        assert_eq!(answer["predictions"], json!([{"value": 3.5}]));
        assert_eq!(answer["id"].as_str().map(str::len), Some(36));
    }

    #[test]
    fn a_bad_row_fails_alone_and_says_why() {
        let answer = answer("delay", r#"{"features": {"a": [1, "x", 2], "b": [1, 1, null]}}"#);
        let predictions = answer["predictions"].as_array().unwrap();
        assert_eq!(predictions[0]["label"], "late");
        assert_eq!(predictions[1]["label"], Value::Null);
        assert_eq!(predictions[1]["scores"]["late"], Value::Null);
        assert_eq!(predictions[1]["status"]["code"], "type_mismatch");
        assert!(predictions[1]["status"]["error"].as_str().unwrap().contains("row 1 of 'a': 'x' is not a float64"));
        assert_eq!(predictions[2]["label"], "late");
        assert!(predictions[2].get("status").is_none());
    }

    #[test]
    fn a_request_that_cannot_be_understood_is_refused_by_name() {
        for (body, code, part) in [
            ("", ErrorCode::InvalidJson, "EOF"),
            ("{\"features\": {", ErrorCode::InvalidJson, "EOF"),
            ("[]", ErrorCode::InvalidArgument, "a list was sent, expected an object as the body"),
            ("{} x", ErrorCode::InvalidJson, "trailing"),
            (r#"{"feature": {}}"#, ErrorCode::InvalidArgument, "'feature'"),
            (r#"{"features": {"c": [1]}}"#, ErrorCode::UnknownFeature, "'c'"),
            (r#"{"features": {"a": 1}}"#, ErrorCode::TypeMismatch, "'a' is not a list"),
            (r#"{"features": {"a": [1], "a": [2]}}"#, ErrorCode::InvalidArgument, "'a' twice"),
            (r#"{"entities": {"origin": ["JFK"]}}"#, ErrorCode::UnknownEntity, "'origin'"),
            (r#"{"outputs": ["probability"]}"#, ErrorCode::InvalidArgument, "'probability'"),
            (r#"{"explain": {"top": 0}}"#, ErrorCode::InvalidArgument, "'explain' is {\"top\":0}"),
            (r#"{"explain": 3}"#, ErrorCode::InvalidArgument, "'explain' is 3"),
            (r#"{"id": 7}"#, ErrorCode::InvalidArgument, "the number 7 was sent, expected a string"),
            ("{\"id\": \"\u{1}\"}", ErrorCode::InvalidJson, "control character"),
        ] {
            let error = refusal(body);
            assert_eq!(error.code, code, "{body}: {error}");
            assert!(error.message.contains(part), "{body}: {error}");
        }
        let deep = format!("{}{}", r#"{"features": {"a": ["#, "[".repeat(100_000));
        assert_eq!(refusal(&deep).code, ErrorCode::InvalidJson);
    }

    #[test]
    fn a_score_that_is_no_number_has_a_status() {
        let answer =
            answer("minutes", r#"{"features": {"a": [1e308, 1], "b": [1e308, 2]}, "outputs": ["label", "margin"]}"#);
        let predictions = answer["predictions"].as_array().unwrap();
        assert_eq!(predictions[0]["value"], Value::Null);
        assert_eq!(predictions[0]["margin"], Value::Null);
        assert!(predictions[0]["status"]["error"].as_str().unwrap().contains("score is infinite"));
        assert_eq!(predictions[1], json!({"value": 3.0, "margin": 3.0}));
    }

    #[test]
    fn a_number_is_no_timestamp_because_it_has_no_unit() {
        let mut spec = sum_classifier("m", 1, &["a"]);
        spec.request_fields = vec![headrace_types::Field::new("planned", headrace_types::DType::TIMESTAMP)];
        let engine = Engine::new(EngineOptions::default());
        let deployment = engine.add_model(spec).unwrap();
        let body = br#"{"request": {"planned": ["2013-01-31T10:00:00Z", 1359626400, 1359626400000000, 1.5, null]}}"#;
        let request = decode_predict(&deployment, body).unwrap();
        assert_eq!(request.row_errors.iter().map(|found| found.row).collect::<Vec<_>>(), [1, 2, 3]);
        let error = &request.row_errors[0].error;
        assert!(error.message.contains("the number 1359626400 is not a timestamp"), "{error}");
        assert!(error.hint.contains("RFC 3339") && error.hint.contains("unit"), "{error}");
    }

    #[test]
    fn null_sections_and_members_count_as_absent() {
        let body =
            r#"{"id": null, "entities": null, "request": null, "outputs": null, "features": {"a": [1], "b": [2]}}"#;
        assert_eq!(answer("minutes", body)["predictions"], json!([{"value": 3.0}]));
    }

    #[test]
    fn deployments_are_listed_and_described() {
        let engine = engine();
        engine.add_model(sum_classifier("delay", 4, &["a", "b"])).unwrap();
        let listed = list_deployments(&engine);
        let delay = json!({"name": "delay", "model": "delay", "model_version": "4", "versions": ["3", "4"],
            "task": "classification", "feature_service": null, "ready": true, "reason": null});
        assert_eq!(listed["deployments"][0], delay);
        assert_eq!(listed["deployments"].as_array().map(Vec::len), Some(2));
        let described = describe_deployment(&engine, "delay").unwrap();
        assert_eq!(described["versions"], delay["versions"]);
        assert_eq!(described["features"][1], json!({"name": "b", "dtype": "float64"}));
        assert_eq!((&described["entities"], &described["classes"]), (&json!([]), &json!(["on_time", "late"])));
        assert_eq!(describe_deployment(&engine, "delai").unwrap_err().code, ErrorCode::UnknownModel);
    }

    #[test]
    fn a_time_limit_and_a_priority_are_read() {
        let engine = engine();
        let deployment = engine.deployment("minutes", None).unwrap();
        let decoded = |members: &str| decode_predict(&deployment, format!("{{{members}}}").as_bytes());
        let request = decoded(r#""timeout_ms": 250, "priority": 1"#).unwrap();
        assert_eq!(request.timeout, Some(Duration::from_millis(250)));
        assert_eq!(request.priority, Priority::of_level(1).unwrap());
        for nothing in [r#""timeout_ms": 0, "priority": 0"#, r#""timeout_ms": null, "priority": null"#, ""] {
            let request = decoded(nothing).unwrap();
            assert_eq!((request.timeout, request.priority), (None, Priority::default()), "{nothing}");
        }
        for wrong in [
            r#""timeout_ms": -1"#,
            r#""timeout_ms": 1.5"#,
            r#""timeout_ms": "9""#,
            r#""priority": 10"#,
            r#""priority": []"#,
        ] {
            assert_eq!(decoded(wrong).unwrap_err().code, ErrorCode::InvalidArgument, "{wrong}");
        }
        let mut late = decoded(r#""timeout_ms": 1, "features": {"a": [1], "b": [2]}"#).unwrap();
        let now = std::time::Instant::now();
        late.arrived(now.checked_sub(Duration::from_secs(1)).unwrap(), Some(now + Duration::from_secs(9)));
        assert_eq!(engine.predict_on(&deployment, &late).unwrap_err().code, ErrorCode::DeadlineExceeded);
    }

    #[test]
    fn rows_are_bounded_while_they_are_read() {
        let engine = Engine::new(EngineOptions { rows_max: 3, ..EngineOptions::default() });
        let deployment = engine.add_model(sum_regressor("small", 1, &["a"])).unwrap();
        assert!(decode_predict(&deployment, br#"{"features": {"a": [1, 2, 3]}}"#).is_ok());
        // What follows the fourth row is no value of the column, and is not reached.
        let error = decode_predict(&deployment, br#"{"features": {"a": [1, 2, 3, 4, 1e999]}}"#).unwrap_err();
        assert_eq!(error.code, ErrorCode::TooLarge, "{error}");
        let raw = [0u8; 4 * 8];
        assert_eq!(crate::oip::decode_infer(&deployment, Some(0), &raw).unwrap_err().code, ErrorCode::TooLarge);
        let tensor = br#"{"inputs": [{"name": "a", "shape": [4], "datatype": "INT64", "data": [1, 2, 3, 4]}]}"#;
        assert_eq!(crate::oip::decode_infer(&deployment, None, tensor).unwrap_err().code, ErrorCode::TooLarge);
    }

    #[test]
    fn a_request_full_of_wrong_values_is_refused_as_a_whole() {
        let wrong = |count: usize| format!(r#"{{"features": {{"a": [{}"#, vec![r#""""#; count].join(","));
        let error = refusal(&format!("{}, 1e999]}}}}", wrong(WRONG_VALUES_MAX + 1)));
        assert_eq!(error.code, ErrorCode::TypeMismatch);
        assert!(error.message.contains("the first: row 0 of 'a'") && error.message.len() < 500, "{error}");
        let engine = engine();
        let deployment = engine.deployment("delay", None).unwrap();
        let request = decode_predict(&deployment, format!("{}]}}}}", wrong(2_000)).as_bytes()).unwrap();
        assert_eq!(request.row_errors.len(), 2_000);
    }

    #[test]
    fn columns_of_different_length_are_refused_by_name() {
        let engine = engine();
        let deployment = engine.deployment("delay", None).unwrap();
        let request = decode_predict(&deployment, br#"{"features": {"a": [1, 2], "b": [1]}}"#).unwrap();
        let error = engine.predict_on(&deployment, &request).unwrap_err();
        assert_eq!(error.code, ErrorCode::LengthMismatch);
        assert!(error.message.contains("'b' has 1"), "{error}");
        let request = decode_predict(&deployment, br#"{"features": {"a": [1, 2]}}"#).unwrap();
        let error = engine.predict_on(&deployment, &request).unwrap_err();
        assert_eq!(error.code, ErrorCode::MissingColumn);
        assert!(error.message.contains("'b'"), "{error}");
    }
}
