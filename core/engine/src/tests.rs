//! The engine over a real plan and a real store: lookup, expressions, overrides, bad rows, new plans.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, Float64Array, Int32Array, NullArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use headrace_features::{EncodeOptions, LocalStore, Plan, StoreOptions, encode_rows};
use headrace_types::{Batch, Clock, Column, DType, ErrorCode, FeatureStatus, Field, Value, VirtualClock};
use serde_json::{Value as Json, json};

use crate::testing::sum_classifier;
use crate::*;

const HOUR_US: i64 = 3_600_000_000;
const NOW_US: i64 = 1_000 * HOUR_US;

fn plan_json() -> Json {
    let source =
        json!({"kind": "push", "event_ts": "event_ts", "created_ts": null, "available_after_us": null, "rename": {}});
    let fixed = json!({"kind": "push", "event_ts": null, "created_ts": null, "available_after_us": null, "rename": {}});
    let view = |entities: Json, fields: Json, ttl: Json, source: &Json| json!({"entities": entities, "fields": fields, "ttl_us": ttl, "online": true, "source": source, "description": "", "tags": {}, "owner": ""});
    let entity = |key: &str| json!({"join_keys": [{"name": key, "dtype": "string"}], "description": "", "tags": {}, "owner": ""});
    let feature = |view: &str, name: &str| json!({"view": view, "feature": name, "name": name});
    json!({
        "format": 1, "project": "flights",
        "entities": {"airport": entity("origin"), "plane": entity("tailnum")},
        "views": {
            "weather": view(json!(["airport"]), json!([{"name": "temp", "dtype": "float64"}, {"name": "wind", "dtype": "float64"}]),
                json!(3 * HOUR_US), &source),
            "planes": view(json!(["plane"]), json!([{"name": "year", "dtype": "int32"}]), json!(null), &fixed),
        },
        "on_demand_views": {"derived": {
            "inputs": [{"name": "departure", "dtype": "timestamp", "from": "request"}, {"name": "wind", "dtype": "float64", "from": "weather"},
                       {"name": "year", "dtype": "int32", "from": "planes"}],
            "fields": [
                {"name": "hour", "dtype": "int64", "expr": {"op": "hour", "args": [{"op": "col", "name": "departure"}]}},
                {"name": "wind2", "dtype": "float64", "expr": {"op": "mul", "args": [{"op": "col", "name": "wind"}, {"op": "lit", "dtype": "float64", "value": 2.0}]}},
                {"name": "age", "dtype": "int64", "expr": {"op": "sub", "args": [{"op": "lit", "dtype": "int64", "value": 2013}, {"op": "col", "name": "year"}]}},
            ], "description": "", "tags": {}, "owner": ""}},
        "services": {"risk": {"features": [
            feature("weather", "temp"), feature("derived", "hour"), feature("derived", "wind2"), feature("planes", "year"), feature("derived", "age"),
        ], "full_feature_names": false, "description": "", "tags": {}, "owner": ""}},
    })
}

fn plan(json: &Json) -> Arc<Plan> {
    Arc::new(Plan::from_json(&json.to_string()).unwrap())
}

fn filled_store(plan: &Plan) -> Arc<LocalStore> {
    let options = StoreOptions { bytes_max: 1 << 24, huge_pages: false };
    let store = LocalStore::create(plan, options).unwrap();
    let times = |times: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")) as ArrayRef;
    let weather = RecordBatch::try_from_iter([
        ("origin", Arc::new(StringArray::from(vec!["JFK", "LGA"])) as ArrayRef),
        ("__event_ts", times(vec![NOW_US - HOUR_US, NOW_US - 4 * HOUR_US])),
        ("__created_ts", times(vec![0, 0])),
        ("temp", Arc::new(Float64Array::from(vec![10.0, 11.0]))),
        ("wind", Arc::new(Float64Array::from(vec![Some(3.0), None]))),
    ]);
    let planes = RecordBatch::try_from_iter([
        ("tailnum", Arc::new(StringArray::from(vec!["N1", "N2"])) as ArrayRef),
        ("__event_ts", Arc::new(NullArray::new(2))),
        ("__created_ts", Arc::new(NullArray::new(2))),
        ("year", Arc::new(Int32Array::from(vec![Some(2000), None]))),
    ]);
    for (view, batch) in [("weather", weather.unwrap()), ("planes", planes.unwrap())] {
        let encoded = encode_rows(plan.view(view).unwrap(), &batch, &EncodeOptions::new(1, NOW_US, 0)).unwrap();
        assert_eq!(encoded.rows, 2);
        store.apply(&encoded.bytes).unwrap();
    }
    Arc::new(store)
}

fn model() -> ModelSpec {
    let mut spec = sum_classifier("late", 1, &["temp", "hour", "wind2", "year", "age"]);
    spec.service = Some("risk".to_owned());
    for (feature, dtype) in [(1, "int64"), (3, "int32"), (4, "int64")] {
        spec.features[feature].dtype = dtype.parse().unwrap();
    }
    spec.join_keys = vec![Field::new("origin", DType::STRING), Field::new("tailnum", DType::STRING)];
    spec.request_fields = vec![Field::new("departure", DType::TIMESTAMP)];
    spec
}

fn engine() -> Engine {
    let clock: Arc<dyn Clock> = Arc::new(VirtualClock::new(NOW_US));
    let engine = Engine::new(EngineOptions { clock, rows_max: 1000, ..EngineOptions::default() });
    let plan = plan(&plan_json());
    engine.install(filled_store(&plan), plan).unwrap();
    engine.add_model(model()).unwrap();
    engine
}

fn batch(columns: &[(&str, DType, Vec<Value>)]) -> Batch {
    let column = |(name, dtype, values): &(&str, DType, Vec<Value>)| {
        ((*name).to_owned(), Column::from_values(*dtype, values.iter().cloned()).unwrap())
    };
    Batch::new(columns.iter().map(column).collect()).unwrap()
}

fn strings(values: &[&str]) -> Vec<Value> {
    values.iter().map(|text| if text.is_empty() { Value::Null } else { Value::String((*text).to_owned()) }).collect()
}

fn ask(origins: &[&str], tailnums: &[&str], departures: Vec<Value>) -> PredictRequest {
    PredictRequest {
        entities: batch(&[("origin", DType::STRING, strings(origins)), ("tailnum", DType::STRING, strings(tailnums))]),
        request: batch(&[("departure", DType::TIMESTAMP, departures)]),
        outputs: Outputs { margin: true, ..Outputs::default() },
        ..PredictRequest::default()
    }
}

#[test]
fn features_are_found_computed_and_summed() {
    let response =
        engine().predict("late", None, &ask(&["JFK"], &["N1"], vec![Value::Timestamp(5 * HOUR_US)])).unwrap();
    // temp 10 + hour 5 + wind 3 * 2 + year 2000 + age 13
    assert_eq!(response.margins, [2034.0]);
    assert_eq!((response.rows, response.model_version, response.labels[0]), (1, 1, 1));
    assert!(response.row_errors.is_empty());
    assert!(response.timing.total >= response.timing.lookup + response.timing.transform + response.timing.model);
}

#[test]
fn what_is_not_found_is_missing_and_still_predicted() {
    let departures = vec![Value::Timestamp(0); 4];
    // Too old weather and a null year; unknown keys; null keys; all found.
    let request = ask(&["LGA", "XXX", "", "JFK"], &["N2", "N9", "", "N1"], departures);
    let response = engine().predict("late", None, &request).unwrap();
    assert_eq!(response.margins, [0.0, 0.0, 0.0, 2029.0]);
    assert!(response.row_errors.is_empty());
}

#[test]
fn a_row_alone_has_the_bits_of_a_row_in_a_batch() {
    let engine = engine();
    let rows = 300;
    let origins: Vec<&str> = (0..rows).map(|row| ["JFK", "LGA", "XXX"][row % 3]).collect();
    let tailnums: Vec<&str> = (0..rows).map(|row| ["N1", "N2", ""][row / 3 % 3]).collect();
    let departures: Vec<Value> = (0..rows).map(|row| Value::Timestamp(row as i64 * HOUR_US)).collect();
    let together = engine.predict("late", None, &ask(&origins, &tailnums, departures.clone())).unwrap();
    for row in 0..rows {
        let alone = engine.predict(
            "late",
            None,
            &ask(&origins[row..=row], &tailnums[row..=row], vec![departures[row].clone()]),
        );
        assert_eq!(alone.unwrap().scores[1].to_bits(), together.scores[2 * row + 1].to_bits(), "{row}");
    }
}

#[test]
fn a_given_feature_replaces_the_stored_one_and_feeds_what_is_computed_from_it() {
    let engine = engine();
    let mut request = ask(&["JFK"], &["N1"], vec![Value::Timestamp(0)]);
    request.features = batch(&[("year", DType::INT64, vec![Value::Int(2010)])]);
    assert_eq!(engine.predict("late", None, &request).unwrap().margins, [10.0 + 6.0 + 2010.0 + 3.0]);
    // The plane's key finds nothing else, so it is not needed any more.
    request.features = batch(&[("year", DType::INT64, vec![Value::Null]), ("age", DType::INT64, vec![Value::Int(7)])]);
    request.entities.columns.pop();
    assert_eq!(engine.predict("late", None, &request).unwrap().margins, [10.0 + 6.0 + 7.0]);
    request.features.columns.remove(0);
    assert_eq!(engine.predict("late", None, &request).unwrap_err().code, ErrorCode::MissingColumn);
    let all = ["temp", "hour", "wind2", "year", "age"].map(|name| (name, DType::FLOAT64, vec![Value::Float64(1.0)]));
    let request = PredictRequest { features: batch(&all), outputs: request.outputs, ..PredictRequest::default() };
    assert_eq!(engine.predict("late", None, &request).unwrap().margins, [5.0]);
}

#[test]
fn no_rows_get_no_answers() {
    let engine = engine();
    let response = engine.predict("late", None, &ask(&[], &[], vec![])).unwrap();
    assert_eq!((response.rows, response.scores.len(), response.margins.len()), (0, 0, 0));
    let empty = ["temp", "hour", "wind2", "year", "age"].map(|name| (name, DType::FLOAT64, vec![]));
    let request = PredictRequest { features: batch(&empty), ..PredictRequest::default() };
    assert_eq!(engine.predict("late", None, &request).unwrap().rows, 0);
    let request = ask(&[], &[], vec![]);
    let lookup = FeatureRequest { entities: request.entities, request: request.request, row_errors: vec![] };
    let found = engine.get_online_features("risk", &lookup).unwrap();
    assert_eq!((found.columns.len(), found.statuses[4].len()), (5, 0));
}

#[test]
fn a_bad_row_fails_alone() {
    let departures = vec![Value::Timestamp(0), Value::Null, Value::Timestamp(0)];
    let mut request = ask(&["JFK", "JFK", "JFK"], &["N1", "N1", "N1"], departures);
    request.features = batch(&[("temp", DType::STRING, strings(&["", "", "warm"]))]);
    let response = engine().predict("late", None, &request).unwrap();
    assert_eq!(response.margins[0], 2019.0);
    assert!(response.margins[1].is_nan() && response.scores[4].is_nan());
    assert_eq!(response.labels, [1, NO_LABEL, NO_LABEL]);
    let told: Vec<(usize, &str)> = response.row_errors.iter().map(|error| (error.row, &*error.error.message)).collect();
    assert_eq!(told[0], (1, "row 1: request field 'departure' is null"));
    assert_eq!(told[1], (2, "row 2 of 'temp': 'warm' is not a float64"));
    assert_eq!(response.row_error(1).unwrap().error.code, ErrorCode::InvalidArgument);
    assert!(response.row_error(0).is_none());
}

#[test]
fn columns_are_checked_by_name_length_and_number() {
    let engine = engine();
    let sound = || ask(&["JFK"], &["N1"], vec![Value::Timestamp(0)]);
    let refusal = |change: &dyn Fn(&mut PredictRequest)| {
        let mut request = sound();
        change(&mut request);
        engine.predict("late", None, &request).unwrap_err()
    };
    let error = refusal(&|request| drop(request.entities.columns.remove(0)));
    assert_eq!(error.code, ErrorCode::MissingColumn);
    assert!(error.message.contains("'origin'"), "{error}");
    let error = refusal(&|request| request.request = Batch::default());
    assert!(error.message.contains("'departure' (timestamp)"), "{error}");
    let error = refusal(&|request| request.request = batch(&[("departure", DType::TIMESTAMP, vec![Value::Null; 2])]));
    assert_eq!(error.code, ErrorCode::LengthMismatch);
    let error = refusal(&|request| request.entities.columns[1].0 = "origin".to_owned());
    assert_eq!(error.code, ErrorCode::InvalidArgument);
    let error = refusal(&|request| request.entities.columns[1].0 = "departure".to_owned());
    assert!(error.hint.contains("'request'"), "{error}");
    let error = engine.predict("late", None, &ask(&["JFK"; 1001], &["N1"; 1001], vec![Value::Null; 1001])).unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge);
    assert_eq!(engine.predict("lait", None, &sound()).unwrap_err().code, ErrorCode::UnknownModel);
    assert_eq!(engine.predict("late", Some(2), &sound()).unwrap_err().code, ErrorCode::UnknownModelVersion);
    let metrics = engine.deployment("late", None).unwrap().metrics().snapshot();
    assert_eq!((metrics.requests, metrics.failed_requests()), (0, 6));
}

#[test]
fn an_integer_time_and_text_keys_are_coerced() {
    let mut request = ask(&["JFK"], &["N1"], vec![]);
    request.request = batch(&[("departure", DType::INT64, vec![Value::Int(HOUR_US)])]);
    assert_eq!(engine().predict("late", None, &request).unwrap().margins, [2030.0]);
    request.request = batch(&[("departure", DType::STRING, strings(&["1970-01-01T02:00:00Z"]))]);
    assert_eq!(engine().predict("late", None, &request).unwrap().margins, [2031.0]);
}

#[test]
fn a_matrix_brings_all_features() {
    let matrix = Some(vec![1.0, 2.0, 3.0, 4.0, f64::NAN, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let outputs = Outputs { margin: true, ..Outputs::NONE };
    let response =
        engine().predict("late", None, &PredictRequest { matrix, outputs, ..PredictRequest::default() }).unwrap();
    assert_eq!(response.margins, [10.0, 0.0]);
    let request = PredictRequest { matrix: Some(vec![1.0]), ..PredictRequest::default() };
    assert_eq!(engine().predict("late", None, &request).unwrap_err().code, ErrorCode::LengthMismatch);
}

#[test]
fn a_model_follows_its_service_through_plans() {
    let engine = engine();
    let request = ask(&["JFK"], &["N1"], vec![Value::Timestamp(0)]);
    let before = engine.deployment("late", None).unwrap();

    // More features, in another order: the model goes on with its own.
    let mut more = plan_json();
    let features = more["services"]["risk"]["features"].as_array_mut().unwrap();
    features.reverse();
    features.push(json!({"view": "weather", "feature": "wind", "name": "wind"}));
    let changed = plan(&more);
    engine.install(filled_store(&changed), changed).unwrap();
    assert_eq!(engine.predict("late", None, &request).unwrap().margins, [2029.0]);

    // A feature has gone: the model is unavailable, by name, and comes back with it.
    let mut fewer = plan_json();
    fewer["services"]["risk"]["features"].as_array_mut().unwrap().remove(0);
    let changed = plan(&fewer);
    engine.install(filled_store(&changed), changed).unwrap();
    let error = engine.predict("late", None, &request).unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.message.contains("'temp'") && error.message.contains("'risk'"), "{error}");
    assert!(engine.models()[0].fault().is_some());
    // A request that began before sees none of this.
    assert_eq!(engine.predict_on(&before, &request).unwrap().margins, [2029.0]);

    let mut none = plan_json();
    none["services"] = json!({});
    let changed = plan(&none);
    engine.install(filled_store(&changed), changed).unwrap();
    assert!(engine.predict("late", None, &request).unwrap_err().message.contains("not applied"));
    let whole = plan(&plan_json());
    engine.install(filled_store(&whole), Arc::clone(&whole)).unwrap();
    assert_eq!(engine.predict("late", None, &request).unwrap().margins, [2029.0]);
    assert_eq!(engine.plan_digest().as_deref(), Some(whole.digest()));
}

#[test]
fn a_changed_type_or_key_is_a_misfit() {
    for (change, part) in [
        (
            &(|spec: &mut ModelSpec| spec.features[0].dtype = DType::FLOAT32) as &dyn Fn(&mut ModelSpec),
            "'temp' was a float32",
        ),
        (&|spec| drop(spec.join_keys.remove(0)), "'origin' (string)"),
        (&|spec| spec.request_fields[0].dtype = DType::INT64, "'departure' (timestamp)"),
    ] {
        let engine = engine();
        let mut spec = model();
        spec.version = 2;
        change(&mut spec);
        engine.add_model(spec).unwrap();
        let error = engine.deployment("late", Some(2)).unwrap_err();
        assert!(error.code == ErrorCode::Unavailable && error.message.contains(part), "{error}");
        // Without a version asked for, the highest one that is ready answers.
        assert_eq!(engine.deployment("late", None).unwrap().version(), 1);
        engine.remove_model("late", 1).unwrap();
        assert_eq!(engine.deployment("late", None).unwrap_err().code, ErrorCode::Unavailable);
    }
}

#[test]
fn versions_that_cannot_be_loaded_are_listed_until_they_are_loaded_or_forgotten() {
    let engine = engine();
    let damage = || headrace_types::Error::new(ErrorCode::CorruptModel, "damaged", "");
    engine.note_unloaded("late", 7, damage());
    engine.note_unloaded("late", 1, damage());
    let unloaded: Vec<(String, u32)> =
        engine.unloaded_models().into_iter().map(|(name, version, _)| (name, version)).collect();
    // Version 1 was loaded before and goes on answering.
    assert_eq!(unloaded, [("late".to_owned(), 7)]);
    assert!(engine.deployment("late", Some(1)).is_ok());
    engine.add_model(ModelSpec { version: 7, ..model() }).unwrap();
    assert!(engine.unloaded_models().is_empty());
    engine.forget_model("late", 1);
    assert!(engine.unloaded_models().is_empty());
    assert_eq!(engine.deployment("late", Some(1)).unwrap_err().code, ErrorCode::UnknownModelVersion);
    engine.forget_model("late", 7);
    engine.forget_model("nobody", 1);
    assert!(engine.models().is_empty());
    assert_eq!(engine.load_failures(), 2);
}

#[test]
fn the_highest_version_answers_until_it_is_removed() {
    let engine = engine();
    engine.add_model(ModelSpec { version: 12, ..model() }).unwrap();
    engine.add_model(ModelSpec { version: 3, ..model() }).unwrap();
    assert_eq!(engine.deployment("late", None).unwrap().version(), 12);
    engine.remove_model("late", 12).unwrap();
    assert_eq!(engine.deployment("late", None).unwrap().version(), 3);
    assert_eq!(engine.remove_model("late", 12).unwrap_err().code, ErrorCode::UnknownModelVersion);
    assert_eq!(engine.remove_model("lat", 1).unwrap_err().code, ErrorCode::UnknownModel);
    engine.remove_model("late", 3).unwrap();
    engine.remove_model("late", 1).unwrap();
    assert!(engine.models().is_empty());
}

#[test]
fn features_come_as_columns_with_statuses() {
    let request = ask(
        &["JFK", "LGA", "XXX", "JFK"],
        &["N1", "N2", "", "N1"],
        vec![Value::Timestamp(HOUR_US), Value::Timestamp(0), Value::Null, Value::Timestamp(0)],
    );
    let bad = RowError { row: 3, error: Arc::new(headrace_types::Error::internal("x")) };
    let ask = FeatureRequest { entities: request.entities, request: request.request, row_errors: vec![bad] };
    let response = engine().get_online_features("risk", &ask).unwrap();
    let names: Vec<&str> = response.features.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["temp", "hour", "wind2", "year", "age"]);
    use FeatureStatus::{Invalid, NotFound, NullValue, OutsideMaxAge, Present};
    assert_eq!(response.statuses[0], [Present, OutsideMaxAge, NotFound, Invalid]);
    assert_eq!(response.statuses[1], [Present, Present, NullValue, Invalid]);
    assert_eq!(response.statuses[3], [Present, NullValue, NotFound, Invalid]);
    assert_eq!(response.columns[0].value(0), Value::Float64(10.0));
    assert_eq!(response.columns[1].value(0), Value::Int(1));
    assert_eq!(response.columns[3].value(0), Value::Int(2000));
    for column in &response.columns {
        assert_eq!(column.value(3), Value::Null);
    }
    let error = engine().get_online_features("risc", &ask).unwrap_err();
    assert!(error.code == ErrorCode::UnknownFeatureService && error.hint.contains("'risk'"), "{error}");
    let stray =
        FeatureRequest { entities: batch(&[("wind", DType::FLOAT64, vec![Value::Null])]), ..FeatureRequest::default() };
    assert_eq!(engine().get_online_features("risk", &stray).unwrap_err().code, ErrorCode::UnknownEntity);
}

#[test]
fn writes_are_seen_by_the_next_request_and_time_ages_them() {
    let clock = Arc::new(VirtualClock::new(NOW_US));
    let engine = Engine::new(EngineOptions { clock: clock.clone(), ..EngineOptions::default() });
    let plan = plan(&plan_json());
    engine.install(filled_store(&plan), Arc::clone(&plan)).unwrap();
    engine.add_model(model()).unwrap();
    let request = ask(&["JFK"], &["N1"], vec![Value::Timestamp(0)]);
    assert_eq!(engine.predict("late", None, &request).unwrap().margins, [2029.0]);
    clock.set(NOW_US + 2 * HOUR_US + 1);
    assert_eq!(engine.predict("late", None, &request).unwrap().margins, [2013.0]);
    let newer = RecordBatch::try_from_iter([
        ("origin", Arc::new(StringArray::from(vec!["JFK"])) as ArrayRef),
        ("__event_ts", Arc::new(TimestampMicrosecondArray::from(vec![NOW_US]).with_timezone("UTC"))),
        ("__created_ts", Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC"))),
        ("temp", Arc::new(Float64Array::from(vec![1.0]))),
        ("wind", Arc::new(Float64Array::from(vec![0.0]))),
    ]);
    let encoded =
        encode_rows(plan.view("weather").unwrap(), &newer.unwrap(), &EncodeOptions::new(9, NOW_US, 0)).unwrap();
    engine.store().unwrap().apply(&encoded.bytes).unwrap();
    assert_eq!(engine.predict("late", None, &request).unwrap().margins, [2014.0]);
}

/// A folder of the test's own, removed with it.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("headrace-payload-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn logged(engine: &Engine, folder: &std::path::Path) -> Vec<RecordBatch> {
    engine.payload().unwrap().flush();
    let mut paths: Vec<_> = walk(folder).into_iter().filter(|path| path.extension().is_some()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let file = std::fs::File::open(path).unwrap();
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        reader.build().unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    paths.iter().flat_map(read).collect()
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn logging_engine(folder: &std::path::Path, change: impl FnOnce(&mut PayloadOptions)) -> Engine {
    let mut options = PayloadOptions { sample: 1.0, ..PayloadOptions::new(folder.to_owned()) };
    change(&mut options);
    let clock: Arc<dyn Clock> = Arc::new(VirtualClock::new(NOW_US));
    let payload = Some(Arc::new(PayloadLog::start(options).unwrap()));
    let engine = Engine::new(EngineOptions { clock, rows_max: 1000, payload, ..EngineOptions::default() });
    let plan = plan(&plan_json());
    engine.install(filled_store(&plan), plan).unwrap();
    engine.add_model(model()).unwrap();
    engine
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let (parent, child) = column.split_once('.').unwrap_or((column, ""));
    let mut array = Arc::clone(batch.column_by_name(parent).unwrap());
    if !child.is_empty() {
        array = Arc::clone(array.as_struct().column_by_name(child).unwrap());
    }
    array.as_string::<i32>().iter().map(|text| text.map(ToOwned::to_owned)).collect()
}

fn some(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|text| Some((*text).to_owned())).collect()
}

#[test]
fn lookups_and_predictions_are_logged_as_they_were_served() {
    let folder = Folder::new();
    let engine = logging_engine(&folder.0, |_| {});
    engine.payload().unwrap().note_applied(4);
    let mut asked = ask(&["JFK", "LGA"], &["N1", ""], vec![Value::Timestamp(5 * HOUR_US), Value::Null]);
    asked.id = Some("mine".to_owned());
    engine.predict("late", None, &asked).unwrap();
    asked.features = batch(&[("temp", DType::FLOAT64, vec![Value::Float64(1.0), Value::Null])]);
    engine.predict("late", None, &asked).unwrap();
    let lookup = FeatureRequest { entities: asked.entities, request: asked.request, row_errors: Vec::new() };
    engine.get_online_features("risk", &lookup).unwrap();
    let found = logged(&engine, &folder.0);
    assert_eq!(found.len(), 2, "one segment of the model, one of the service");
    let predicted = found.iter().find(|batch| batch.num_rows() == 4).unwrap();
    assert_eq!(texts(predicted, "request_id"), some(&["mine"; 4]));
    assert_eq!(texts(predicted, "deployment"), some(&["late"; 4]));
    assert_eq!(texts(predicted, "keys.origin"), some(&["JFK", "LGA", "JFK", "LGA"]));
    assert_eq!(texts(predicted, "keys.tailnum")[..2], [Some("N1".to_owned()), None]);
    assert_eq!(texts(predicted, "status"), some(&["ok", "invalid", "ok", "invalid"]));
    assert!(texts(predicted, "error")[1].as_ref().unwrap().contains("'departure' is null"));
    assert_eq!(texts(predicted, "outputs.temp__status"), some(&["PRESENT", "INVALID", "GIVEN", "GIVEN"]));
    assert_eq!(texts(predicted, "outputs.wind2__status"), some(&["PRESENT", "INVALID", "PRESENT", "INVALID"]));
    let served = found.iter().find(|batch| batch.num_rows() == 2).unwrap();
    assert_eq!(texts(served, "deployment"), some(&["risk", "risk"]));
    assert_eq!(texts(served, "request_id")[0].as_ref().unwrap().len(), 36);
    assert_eq!(texts(served, "outputs.temp__status"), some(&["PRESENT", "OUTSIDE_MAX_AGE"]));
    assert_eq!(texts(served, "outputs.year__status"), some(&["PRESENT", "NOT_FOUND"]));
    assert_eq!(texts(served, "outputs.hour__status"), some(&["PRESENT", "NULL_VALUE"]));
    assert_eq!(texts(served, "model"), [None, None]);
    let stats = engine.payload().unwrap().stats();
    assert_eq!((stats.written_rows, stats.waiting_rows, stats.waiting_bytes), (6, 0, 0));
    let wait = walk(&folder.0);
    assert!(wait.iter().all(|path| path.to_string_lossy().contains("/1970-02-11T16/lookup-")), "{wait:?}");
}

#[test]
fn rows_that_find_no_room_or_no_disk_are_counted_exactly() {
    let folder = Folder::new();
    let asked = ask(&["JFK", "LGA"], &["N1", "N2"], vec![Value::Timestamp(0), Value::Timestamp(0)]);
    let full = logging_engine(&folder.0, |options| options.memory_bytes_max = 0);
    for _ in 0..3 {
        full.predict("late", None, &asked).unwrap();
    }
    assert!(logged(&full, &folder.0).is_empty());
    let stats = full.payload().unwrap().stats();
    assert_eq!((stats.dropped_full_rows, stats.waiting_rows, stats.waiting_bytes), (6, 0, 0));
    let file = folder.0.join("taken");
    std::fs::write(&file, "").unwrap();
    let broken = logging_engine(&file, |_| {});
    broken.predict("late", None, &asked).unwrap();
    broken.payload().unwrap().flush();
    assert_eq!(broken.payload().unwrap().stats().dropped_io_rows, 2);
}

#[test]
fn an_id_as_large_as_a_body_is_dropped_and_counted() {
    let folder = Folder::new();
    let engine = logging_engine(&folder.0, |options| options.memory_bytes_max = 1 << 20);
    let mut asked = ask(&["JFK"], &["N1"], vec![Value::Timestamp(0)]);
    asked.id = Some("x".repeat(1 << 21));
    engine.predict("late", None, &asked).unwrap();
    asked.id = Some("y".repeat(1 << 16));
    engine.predict("late", None, &asked).unwrap();
    assert_eq!(texts(&logged(&engine, &folder.0)[0], "request_id"), [asked.id]);
    assert_eq!(engine.payload().unwrap().stats().dropped_full_rows, 1);
}

#[test]
fn a_key_is_sampled_always_or_never() {
    let folder = Folder::new();
    let engine = logging_engine(&folder.0, |options| options.sample = 0.5);
    let names: Vec<String> = (0..200).map(|number| format!("A{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for _ in 0..3 {
        engine.predict("late", None, &ask(&names, &["N1"; 200], vec![Value::Timestamp(0); 200])).unwrap();
    }
    let found = logged(&engine, &folder.0);
    let origins: Vec<_> = found.iter().flat_map(|batch| texts(batch, "keys.origin")).collect();
    let distinct: std::collections::BTreeSet<_> = origins.iter().collect();
    assert!((60..140).contains(&distinct.len()), "{}", distinct.len());
    assert_eq!(origins.len(), 3 * distinct.len());
}

#[test]
fn explanations_sum_to_margins_and_what_cannot_be_explained_is_refused_before_any_work() {
    use crate::testing::{PanickingModel, sum_regressor};
    let engine = Engine::new(EngineOptions::default());
    engine.add_model(sum_regressor("minutes", 1, &["a", "b", "c"])).unwrap();
    let outputs = Outputs::NONE.with("margin").unwrap();
    let matrix = Some(vec![1.0, -3.0, 2.0, f64::INFINITY, 1.0, 1.0]);
    let explain = Some(Explain { top: NonZeroUsize::new(2) });
    let request = PredictRequest { matrix, outputs, explain, ..PredictRequest::default() };
    let response = engine.predict("minutes", None, &request).unwrap();
    let found = response.explanation(0, 0).unwrap();
    assert_eq!(found.contributions, [(1, -3.0), (2, 2.0)]);
    assert_eq!((found.expected, found.others), (0.0, Some(1.0)));
    assert_eq!(response.explanation(1, 0), None, "the row has no finite score");
    let spec = ModelSpec { model: PanickingModel.into(), ..sum_regressor("opaque", 1, &["a"]) };
    engine.add_model(spec).unwrap();
    let request = PredictRequest { matrix: Some(vec![1.0]), explain, ..PredictRequest::default() };
    let error = engine.predict("opaque", None, &request).unwrap_err();
    assert_eq!(error.code, ErrorCode::UnsupportedModel);
    assert!(error.message.contains("model 'opaque' (headrace_test)"), "{error}");
}

#[test]
fn a_request_whose_deadline_has_passed_is_not_begun() {
    let engine = Engine::new(EngineOptions::default());
    engine.add_model(sum_classifier("m", 1, &["a"])).unwrap();
    let now = std::time::Instant::now();
    let late = PredictRequest { matrix: Some(vec![1.0]), deadline: Some(now), ..PredictRequest::default() };
    assert_eq!(engine.predict("m", None, &late).unwrap_err().code, ErrorCode::DeadlineExceeded);
    let early = PredictRequest { deadline: Some(now + std::time::Duration::from_secs(3600)), ..late };
    assert_eq!(engine.predict("m", None, &early).unwrap().rows, 1);
    let counted = engine.models()[0].metrics().snapshot();
    assert_eq!((counted.requests, counted.failed_requests()), (1, 1));
}

#[test]
fn a_model_that_was_unloaded_says_so() {
    let engine = Engine::new(EngineOptions::default());
    engine.add_model(sum_classifier("m", 1, &["a"])).unwrap();
    engine.unload_model("m").unwrap();
    let error = engine.deployment("m", None).unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownModel);
    assert!(error.message.contains("unloaded on request") && error.hint.contains("load it again"), "{error}");
    assert_eq!(engine.unload_model("n").unwrap_err().code, ErrorCode::UnknownModel);
    engine.add_model(sum_classifier("m", 1, &["a"])).unwrap();
    assert!(engine.deployment("m", None).is_ok());
}
