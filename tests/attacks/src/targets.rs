use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use headrace_cpu::testing::use_forged_snapshot;
use headrace_engine::testing::{sum_classifier, sum_regressor};
use headrace_engine::{Deployment, Engine, EngineOptions, PredictRequest, PredictResponse};
use headrace_features::{LocalStore, Plan, StoreOptions};
use headrace_models::{AnyModel, Features, FunctionCompiler, ModelFormat, Runtimes, load_model};
use headrace_protocol::{decode_predict, encode_predict, error_body, grpc, oip};
use headrace_stats::Profile;
use headrace_types::{Batch, Column, ColumnData, DType, Field, ScalarFunction};

/// One reader of hostile input. Its kept inputs lie in `tests/attacks/kept/NAME/`.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    /// Reads the input; what it answers does not matter, that it answers does.
    pub run: fn(&[u8]),
}

pub const TARGETS: &[Target] = &[
    Target { name: "grpc", run: grpc_messages },
    Target { name: "infer", run: infer },
    Target { name: "infer_tensors", run: infer_tensors },
    Target { name: "log_batch", run: log_batch },
    Target { name: "model_catboost_json", run: model_catboost_json },
    Target { name: "model_lightgbm_text", run: model_lightgbm_text },
    Target { name: "model_linear_json", run: model_linear_json },
    Target { name: "model_numba_function", run: model_numba_function },
    Target { name: "model_onnx", run: model_onnx },
    Target { name: "model_pipeline_safetensors", run: model_pipeline_safetensors },
    Target { name: "model_xgboost_json", run: model_xgboost_json },
    Target { name: "model_xgboost_ubj", run: model_xgboost_ubj },
    Target { name: "plan_json", run: plan_json },
    Target { name: "predict_json", run: predict_json },
    Target { name: "statistics", run: statistics },
    Target { name: "table_snapshot", run: table_snapshot },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// A file of statistics: a profile with all its sketches.
fn statistics(data: &[u8]) {
    let Ok(mut profile) = Profile::from_bytes(data) else { return };
    profile.to_json();
    let again = Profile::from_bytes(&profile.to_bytes()).expect("what was written can be read");
    assert_eq!(again.to_bytes(), profile.to_bytes());
    profile.merge(&profile.clone()).expect("columns of one type");
    profile.to_json();
}

/// A plan document, as `headrace apply` and every reader of `.headrace/plans` take it.
fn plan_json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(plan) = Plan::from_json(text) else { return };
    let again = Plan::from_json(plan.canonical_json()).expect("the canonical form of a plan is a plan");
    assert_eq!(plan.digest(), again.digest(), "the canonical form keeps the digest");
}

/// Keys of two parts and fields of every kind.
const STORED: &str = include_str!("stored_plan.json");

static STORED_PLAN: LazyLock<Plan> = LazyLock::new(|| Plan::from_json(STORED).expect("it is a plan"));

/// A value of the online store's log, without the checksum at its end, which is made here: else nothing would get past it.
fn log_batch(data: &[u8]) {
    let batch = [data, crc32fast::hash(data).to_le_bytes().as_slice()].concat();
    let options = StoreOptions { bytes_max: 8 << 20, huge_pages: false };
    let store = LocalStore::create(&STORED_PLAN, options).expect("an empty store fits");
    let Ok(first) = store.apply(&batch) else { return };
    let again = store.apply(&batch).expect("what could be applied once can be applied again");
    assert_eq!((again.inserted, again.replaced), (0, 0), "a batch applied again changes nothing: {first:?}, {again:?}");
    let plan = store.online_plan(&STORED_PLAN, "all").expect("the service is in the plan");
    let keys = [
        ("name".into(), Column::new(ColumnData::String(["a", "", "b"].map(String::from).into()))),
        ("number".into(), Column::new(ColumnData::Int64(vec![1, -1, i64::MAX]))),
    ];
    let keys = Batch::new(keys.into()).expect("the columns fit");
    let read = plan.read_columns(&keys, 0);
    drop(read);
}

/// The file of a table, with length and checksum made right, opened in both ways and used.
fn table_snapshot(data: &[u8]) {
    thread_local! {
        static PATH: PathBuf =
            std::env::temp_dir().join(format!("headrace-attack-{}-{:?}.table", std::process::id(), std::thread::current().id()));
    }
    PATH.with(|path| {
        use_forged_snapshot(data, path).expect("the temporary folder can be written");
        std::fs::remove_file(path).expect("the file is there");
    });
}

struct Served {
    engine: Engine,
    deployments: Vec<Arc<Deployment>>,
}

/// A classifier of named floats, and a regressor of other types; both are given all features, so that no store is needed.
static SERVED: LazyLock<Served> = LazyLock::new(|| {
    let engine = Engine::new(EngineOptions::default());
    let mut typed = sum_regressor("minutes", 1, &["flag", "small", "large", "single"]);
    let types = [DType::BOOL, DType::INT32, DType::INT64, DType::FLOAT32];
    typed.features =
        typed.features.into_iter().zip(types).map(|(field, dtype)| Field::new(field.name, dtype)).collect();
    let deployments = [sum_classifier("delay", 3, &["a", "b"]), typed]
        .map(|spec| engine.add_model(spec).expect("the signature fits the model"));
    Served { engine, deployments: deployments.into() }
});

fn predict(deployment: &Deployment, request: &PredictRequest) -> Option<PredictResponse> {
    SERVED.engine.predict_on(deployment, request).map_err(|error| error_body(&error)).ok()
}

/// The body of `POST /v1/deployments/NAME/predict`.
fn predict_json(data: &[u8]) {
    for deployment in &SERVED.deployments {
        match decode_predict(deployment, data) {
            Ok(request) => {
                if let Some(response) = predict(deployment, &request) {
                    let body = encode_predict(deployment, &response);
                    assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok(), "an answer is JSON");
                }
            }
            Err(error) => drop(error_body(&error)),
        }
    }
}

/// The body of `POST /v2/models/NAME/infer`, behind two bytes: how many bytes of it are JSON (little-endian; 65535: no header).
fn infer(data: &[u8]) {
    let Some((length, body)) = data.split_first_chunk::<2>() else { return };
    let header_bytes = Some(u16::from_le_bytes(*length)).filter(|bytes| *bytes != u16::MAX).map(usize::from);
    for deployment in &SERVED.deployments {
        match oip::decode_infer(deployment, header_bytes, body) {
            Ok(request) => {
                if let Some(response) = predict(deployment, &request.predict) {
                    drop(oip::encode_infer(deployment, &request, &response));
                }
            }
            Err(error) => drop(error_body(&error)),
        }
    }
}

/// The message of a gRPC call: a ModelInferRequest, a PredictRequest, a GetOnlineFeaturesRequest or a ServerReflectionRequest.
fn grpc_messages(data: &[u8]) {
    for deployment in &SERVED.deployments {
        let request = grpc::InferMessage::parse(data).and_then(|message| grpc::decode_infer(deployment, message));
        if let Ok(request) = request
            && let Some(response) = predict(deployment, &request.predict)
        {
            drop(grpc::encode_infer(&mut Vec::new(), deployment, &request, &response));
        }
        let request = grpc::PredictMessage::parse(data).and_then(|message| grpc::decode_predict(deployment, &message));
        if let Ok(request) = request
            && let Some(response) = predict(deployment, &request)
        {
            grpc::encode_predict(&mut Vec::new(), deployment, &response);
        }
    }
    drop(grpc::decode_online_features(&SERVED.engine, data));
    drop(grpc::encode_reflection(&mut Vec::new(), data));
}

/// Models of tensors: whole numbers, whole numbers as text, and bytes as they are.
static FIXTURES: LazyLock<Engine> = LazyLock::new(|| {
    let engine = Engine::new(EngineOptions::default());
    engine.add_fixtures().expect("their signatures are sound");
    engine
});

/// As `infer`, of models of tensors.
fn infer_tensors(data: &[u8]) {
    let Some((length, body)) = data.split_first_chunk::<2>() else { return };
    let header_bytes = Some(u16::from_le_bytes(*length)).filter(|bytes| *bytes != u16::MAX).map(usize::from);
    let body = Bytes::copy_from_slice(body);
    for deployment in FIXTURES.models() {
        match oip::decode(&deployment, header_bytes, &body) {
            Ok(oip::Infer::Tensors(infer)) => match FIXTURES.run_on(&deployment, &infer.request) {
                Ok(response) => drop(oip::encode_tensors(&deployment, &infer, &response)),
                Err(error) => drop(error_body(&error)),
            },
            Ok(oip::Infer::Rows(_)) => unreachable!("a fixture takes tensors"),
            Err(error) => drop(error_body(&error)),
        }
    }
}

/// Values that a comparison or a category may trip over; every feature of a row gets the same.
const AWKWARD: [f64; 10] =
    [0.0, -0.0, 1.0, -1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, f64::MIN_POSITIVE, 4_294_967_296.0];
/// Models of more features are not evaluated here: the input would cost more memory than the model file.
const FEATURES_MAX: usize = 10_000;

/// A loaded model must also survive being asked, by either type of feature, alone and in a batch.
fn evaluate(model: &AnyModel) {
    let (features_count, outputs_count) = (model.features_count(), model.outputs_count());
    if features_count.max(outputs_count) > FEATURES_MAX {
        return;
    }
    let batch: Vec<f64> = AWKWARD.iter().flat_map(|value| std::iter::repeat_n(*value, features_count)).collect();
    let single: Vec<f32> = batch.iter().map(|value| *value as f32).collect();
    let rows = AWKWARD.len();
    let mut together = vec![0.0; rows * outputs_count];
    model.margins_of(Features::Float64(&batch), rows, &mut together, 2).expect("the lengths fit");
    model.margins_of(Features::Float32(&single), rows, &mut together.clone(), 1).expect("the lengths fit");
    for row in 0..rows {
        let mut alone = vec![0.0; outputs_count];
        let features = &batch[row * features_count..(row + 1) * features_count];
        model.margins_of(Features::Float64(features), 1, &mut alone, 1).expect("the lengths fit");
        let batched = &together[row * outputs_count..(row + 1) * outputs_count];
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        assert!(alone.iter().zip(batched).all(|(a, b)| same(*a, *b)), "a row alone is the row in a batch");
    }
    model.scores(&mut together);
}

fn load(format: ModelFormat, data: &[u8]) {
    if let Ok(model) = load_model(format, data) {
        evaluate(&model.into());
    }
}

fn model_xgboost_json(data: &[u8]) {
    load(ModelFormat::XgboostJson, data);
}

fn model_xgboost_ubj(data: &[u8]) {
    load(ModelFormat::XgboostUbj, data);
}

fn model_lightgbm_text(data: &[u8]) {
    load(ModelFormat::LightgbmText, data);
}

/// In the place of Numba: a function that tells how many of its arguments have a value.
#[derive(Debug)]
struct CountsValues;

impl FunctionCompiler for CountsValues {
    fn compile(&self, definition: &str) -> headrace_types::Result<Arc<dyn ScalarFunction>> {
        assert!(serde_json::from_str::<serde_json::Value>(definition).is_ok(), "the compiler reads it as JSON");
        Ok(Arc::new(Self))
    }
}

impl ScalarFunction for CountsValues {
    fn call(&self, words: &[u64], valid: &[bool]) -> Option<u64> {
        assert_eq!(words.len(), valid.len());
        let count = valid.iter().filter(|valid| **valid).count() as u64;
        (count > 0).then_some(count)
    }
}

/// What is checked before the compiler, which then reads the source; `tests/models/test_numba_function.py` has the kept ones compiled.
fn model_numba_function(data: &[u8]) {
    let runtimes = Runtimes { functions: Some(Arc::new(CountsValues)), ..Runtimes::default() };
    if let Ok(model) = AnyModel::from_bytes(ModelFormat::NumbaFunction, data, None, None, &runtimes) {
        evaluate(&model);
    }
}

/// What is checked before ONNX Runtime, which is not there, would see the bytes.
fn model_onnx(data: &[u8]) {
    let loaded = AnyModel::from_bytes(ModelFormat::Onnx, data, None, None, &Runtimes::default());
    assert!(loaded.is_err(), "there is no ONNX Runtime here");
}

fn model_linear_json(data: &[u8]) {
    load(ModelFormat::LinearJson, data);
}

fn model_catboost_json(data: &[u8]) {
    load(ModelFormat::CatboostJson, data);
}

fn model_pipeline_safetensors(data: &[u8]) {
    load(ModelFormat::PipelineSafetensors, data);
}
