//! Version folders: made as a whole, checked as a whole.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use headrace_models::{
    AnyModel, Features, GoldenRows, GoldenValue, LoadedModel, ModelDraft, ModelFolder, ModelFormat, PythonRuntime,
    Runtimes, Signature, Trainer, load_model,
};
use headrace_types::{DType, ErrorCode, Field, Result, Task, digest_json};

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("headrace-models-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn fixture(file: &str) -> Vec<u8> {
    let folder = Path::new("../../tests/models/fixtures");
    fs::read(folder.join(file)).unwrap()
}

fn draft() -> ModelDraft {
    let features = ["a", "b", "c", "d", "e"].map(|name| Field::new(name, DType::FLOAT64)).into();
    ModelDraft {
        task: Task::Classification,
        labels: Some(vec!["on time".into(), "late".into()]),
        format: ModelFormat::XgboostJson,
        settings: serde_json::Value::Null,
        golden: GoldenRows::from_json(&fixture("xgboost_binary.golden.json")).unwrap(),
        golden_tensors: None,
        signature: Signature { features, ..Signature::default() },
        metrics: serde_json::json!({"test": {"auc": 0.75}}),
        lineage: serde_json::json!({"dataset": {"rows": 600}}),
        trainer: Trainer { library: "xgboost".into(), version: "3.2.0".into() },
        created_at: "2026-01-01T00:00:00Z".into(),
    }
}

fn create(scratch: &Scratch, name: &str, draft: &ModelDraft) -> Result<LoadedModel> {
    ModelFolder::create(&scratch.0, name, draft, &fixture("xgboost_binary.xgb.json"))
}

/// A worker that answers 0 to all, and that can be started once for a folder.
const ONCE: &str = r#"
import json, os, socket, struct, sys
json.load(sys.stdin.buffer)
open(__file__ + ".started", "x").close()
connection = socket.socket(fileno=int(sys.argv[1]))
connection.sendall(struct.pack("<IQI", 12, 0, 0))
while message := connection.recv(4096):
    connection.sendall(struct.pack("<IQI", 12, struct.unpack_from("<Q", message, 4)[0], 0))
"#;

#[test]
fn a_python_class_that_starts_only_once_leaves_no_version() {
    let scratch = Scratch::new();
    let worker_file = scratch.0.join("once.py");
    fs::write(&worker_file, ONCE).unwrap();
    let python = PythonRuntime {
        python: Some("python3".into()),
        worker_file,
        workers: 1,
        batch_deadline: Duration::from_secs(20),
        start_deadline: Duration::from_secs(20),
        batch_bytes_max: 1 << 16,
        environment: vec![("PATH".into(), std::env::var("PATH").unwrap())],
        ..PythonRuntime::default()
    };
    let runtimes = Runtimes { python, ..Runtimes::default() };
    let zeros = |count: usize| vec![vec![Some(0.0); count]; 2];
    let of_a_class = ModelDraft {
        task: Task::Regression,
        labels: None,
        format: ModelFormat::PythonClass,
        settings: serde_json::json!({"module": "once", "class": "Once", "outputs": 1}),
        golden: GoldenRows {
            features: vec![vec![GoldenValue::Number(0.0); 5]; 2],
            margins: zeros(1),
            scores: zeros(1),
        },
        ..draft()
    };
    let error = ModelFolder::create_with(&scratch.0, "once", &of_a_class, b"", &[], &runtimes).unwrap_err();
    assert_eq!(error.code, ErrorCode::ModelFailed, "{error}");
    assert!(error.message.contains("FileExistsError"), "{error}");
    assert_eq!(fs::read_dir(scratch.0.join("once")).unwrap().count(), 0);
}

#[test]
fn a_folder_out_of_its_place_is_no_registered_version() {
    let scratch = Scratch::new();
    create(&scratch, "late", &draft()).unwrap();
    let home = scratch.0.join("late/1");
    assert_eq!(ModelFolder::open_registered(&home, &Runtimes::default()).unwrap().manifest.version, 1);
    for place in ["late/2", "other/1"] {
        let away = scratch.0.join(place);
        fs::create_dir_all(away.parent().unwrap()).unwrap();
        fs::rename(&home, &away).unwrap();
        let error = ModelFolder::open_registered(&away, &Runtimes::default()).unwrap_err();
        assert_eq!(error.code, ErrorCode::CorruptModel);
        assert!(error.message.contains(&format!("is {place}, its manifest says late/1")), "{error}");
        assert!(ModelFolder::open(&away).is_ok(), "by itself it is a sound model");
        fs::rename(&away, &home).unwrap();
    }
}

#[test]
fn a_draft_is_read_from_json_or_refused_by_what_is_wrong() {
    let text = serde_json::to_string(&draft()).unwrap();
    let scratch = Scratch::new();
    let read = ModelDraft::from_json(&text).unwrap();
    assert_eq!(create(&scratch, "a", &read).unwrap().manifest.signature, draft().signature);
    let error = ModelDraft::from_json(&text.replace("xgboost-json", "pickle")).unwrap_err();
    assert_eq!(error.code, ErrorCode::UnsupportedModel, "{error}");
    for (old, new, named) in [("\"trainer\"", "\"teacher\"", "teacher"), ("{", "", "draft of a model version")] {
        let error = ModelDraft::from_json(&text.replacen(old, new, 1)).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument, "{error}");
        assert!(error.message.contains(named), "{error}");
    }
}

#[test]
fn a_version_is_made_and_found_back() {
    let scratch = Scratch::new();
    let first = create(&scratch, "delay", &draft()).unwrap();
    let second = create(&scratch, "delay", &draft()).unwrap();
    assert_eq!((first.manifest.version, second.manifest.version), (1, 2));
    let opened = ModelFolder::open(scratch.0.join("delay/2")).unwrap();
    assert_eq!(opened.manifest, second.manifest);
    assert_eq!(opened.digest, second.digest);
    assert_eq!(opened.model.features_count(), 5);
    let text = fs::read_to_string(scratch.0.join("delay/2/model.json")).unwrap();
    assert_eq!(digest_json(&text).unwrap(), opened.digest);
    let names: Vec<_> =
        fs::read_dir(scratch.0.join("delay")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "nothing unfinished is left: {names:?}");
}

#[test]
fn only_folders_of_plain_numbers_are_versions() {
    let scratch = Scratch::new();
    for odd in ["007", "+8", "9 ", "4294967296", "-3", "1.0"] {
        fs::create_dir_all(scratch.0.join("delay").join(odd)).unwrap();
    }
    assert_eq!(create(&scratch, "delay", &draft()).unwrap().manifest.version, 1);
    fs::create_dir(scratch.0.join("delay/41")).unwrap();
    assert_eq!(create(&scratch, "delay", &draft()).unwrap().manifest.version, 42);
}

#[test]
fn versions_made_at_the_same_time_get_their_own_numbers() {
    let scratch = Scratch::new();
    let mut versions: Vec<u32> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| create(&scratch, "delay", &draft()).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap().manifest.version).collect()
    });
    versions.sort_unstable();
    let mut folders: Vec<u32> = fs::read_dir(scratch.0.join("delay"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    folders.sort_unstable();
    assert_eq!(folders, [1, 2, 3, 4]);
    for (folder, version) in folders.iter().zip(versions) {
        assert_eq!(*folder, version);
        let opened = ModelFolder::open(scratch.0.join(format!("delay/{folder}"))).unwrap();
        assert_eq!(opened.manifest.version, *folder);
    }
}

#[test]
fn a_model_that_does_not_reproduce_its_golden_rows_gets_no_version() {
    let scratch = Scratch::new();
    let mut wrong = draft();
    wrong.golden.margins[3][0] = Some(0.5);
    let error = create(&scratch, "delay", &wrong).unwrap_err();
    assert_eq!(error.code, ErrorCode::GoldenRowMismatch);
    assert!(error.message.contains("golden row 3"), "{error}");
    assert_eq!(fs::read_dir(scratch.0.join("delay")).unwrap().count(), 0);
    for name in ["", "..", "a/b", ".hidden", "a\0b"] {
        let error = create(&scratch, name, &draft()).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument, "{name:?}");
    }
}

#[test]
fn a_damaged_folder_is_refused_by_the_name_of_its_file() {
    let scratch = Scratch::new();
    create(&scratch, "delay", &draft()).unwrap();
    let folder = scratch.0.join("delay/1");
    for file in ["model.json", "model.xgb.json", "golden.json", "digest"] {
        let path = folder.join(file);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let at = bad.len() / 2;
        bad[at] = if bad[at] == b'1' { b'2' } else { b'1' };
        for damage in [Some(bad), Some(good[..good.len() / 2].to_vec()), None] {
            match damage {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let error = ModelFolder::open(&folder).unwrap_err();
            let expected = [ErrorCode::CorruptModel, ErrorCode::UnknownModelVersion];
            assert!(expected.contains(&error.code), "{file}: {error}");
            assert!(error.message.contains(file) && error.message.contains("delay/1"), "{file}: {error}");
        }
        fs::write(&path, good).unwrap();
    }
    ModelFolder::open(&folder).unwrap();
}

/// Writes a changed manifest with a digest that holds.
fn change_manifest(folder: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let path = folder.join("model.json");
    let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    let text = manifest.to_string();
    fs::write(&path, &text).unwrap();
    fs::write(folder.join("digest"), digest_json(&text).unwrap()).unwrap();
}

#[test]
fn a_manifest_that_contradicts_its_model_is_refused() {
    type Change = fn(&mut serde_json::Value);
    let cases: [(Change, ErrorCode, &str); 7] = [
        (|it| it["format"] = 2.into(), ErrorCode::NewerFormat, "format 2"),
        (|it| it["version"] = 0.into(), ErrorCode::CorruptModel, "'version' is 0"),
        (|it| it["model"]["format"] = "pickle".into(), ErrorCode::UnsupportedModel, "'pickle'"),
        (|it| it["model"]["file"] = "../secret".into(), ErrorCode::InvalidArgument, "'../secret' is not a plain name"),
        (
            |it| drop(it["signature"]["features"].as_array_mut().unwrap().pop()),
            ErrorCode::CorruptModel,
            "lists 4 features",
        ),
        (|it| drop(it["labels"].as_array_mut().unwrap().pop()), ErrorCode::CorruptModel, "1 labels"),
        (|it| it["task"] = "guessing".into(), ErrorCode::CorruptModel, "guessing"),
    ];
    for (change, code, message) in cases {
        let scratch = Scratch::new();
        create(&scratch, "delay", &draft()).unwrap();
        let folder = scratch.0.join("delay/1");
        change_manifest(&folder, change);
        let error = ModelFolder::open(&folder).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(message), "{error}");
    }
}

/// A model of two texts, `b` and `d`, of any of our formats.
fn texts(name: &str, format: ModelFormat) -> ModelDraft {
    let field = |name: &str| Field::new(name, if "bd".contains(name) { DType::STRING } else { DType::FLOAT64 });
    ModelDraft {
        format,
        labels: None,
        golden: GoldenRows::from_json(&fixture(&format!("{name}.golden.json"))).unwrap(),
        golden_tensors: None,
        signature: Signature { features: ["a", "b", "c", "d"].map(field).into(), ..Signature::default() },
        ..draft()
    }
}

#[test]
fn texts_and_numbers_are_the_same_in_signature_model_and_golden_rows() {
    let scratch = Scratch::new();
    let cases = [
        ("sklearn_text", ".safetensors", ModelFormat::PipelineSafetensors),
        ("lightgbm_text", ".txt", ModelFormat::LightgbmText),
        ("catboost_text", ".catboost.json", ModelFormat::CatboostJson),
    ];
    for (name, ending, format) in cases {
        let bytes = fixture(&format!("{name}{ending}"));
        let create = |draft: &ModelDraft| ModelFolder::create(&scratch.0, name, draft, &bytes);
        let good = texts(name, format);
        create(&good).unwrap();
        let refused = |draft: &ModelDraft, code: ErrorCode, message: &str| {
            let error = create(draft).unwrap_err();
            assert_eq!(error.code, code, "{name}: {error}");
            assert!(error.message.contains(message), "{name}: '{message}' was expected: {error}");
        };
        let mut wrong = good.clone();
        wrong.signature.features[2].dtype = DType::STRING;
        refused(&wrong, ErrorCode::UnsupportedModel, "feature 'c' is a string, the model takes a number there");
        wrong.signature.features[2].dtype = DType::TIMESTAMP;
        refused(&wrong, ErrorCode::UnsupportedModel, "feature 'c' is a timestamp, a model takes numbers and texts");
        // Stored numbers would be taken for the places of categories.
        let mut wrong = good.clone();
        wrong.signature.features[3].dtype = DType::INT64;
        if format == ModelFormat::LightgbmText {
            refused(&wrong, ErrorCode::CorruptModel, "golden row 0 has text as feature 'd', which is a int64");
        } else {
            refused(&wrong, ErrorCode::UnsupportedModel, "feature 'd' is a int64, the model takes text there");
        }
        let mut wrong = good.clone();
        wrong.golden.features[0][3] = GoldenValue::Missing(());
        wrong.golden.features[1][3] = GoldenValue::Number(0.0);
        refused(&wrong, ErrorCode::CorruptModel, "golden row 1 has a number as feature 'd', which is a string");
        let mut wrong = good.clone();
        wrong.golden.features[2][0] = GoldenValue::Text("x".into());
        refused(&wrong, ErrorCode::CorruptModel, "golden row 2 has text as feature 'a', which is a float64");
    }
}

fn contributions(model: &AnyModel) -> Result<Vec<f64>> {
    let mut contributions = vec![0.0; 6];
    model.contributions_of(Features::Float64(&[0.5, f64::NAN, -1.0, 2.0, 0.0]), 1, &mut contributions, 1)?;
    Ok(contributions)
}

#[test]
fn a_model_of_a_folder_has_no_explainer_until_it_is_asked_and_explains_as_one_of_bytes() {
    let scratch = Scratch::new();
    let created = create(&scratch, "delay", &draft()).unwrap().model;
    let opened = ModelFolder::open(scratch.0.join("delay/1")).unwrap().model;
    let of_bytes = AnyModel::from(load_model(ModelFormat::XgboostJson, &fixture("xgboost_binary.xgb.json")).unwrap());
    let expected = contributions(&of_bytes).unwrap();
    for model in [created, opened] {
        model.check_explainable().unwrap();
        assert_eq!(model.explainer_bytes(), 0);
        assert_eq!(contributions(&model).unwrap(), expected);
        assert_eq!(model.explainer_bytes(), of_bytes.explainer_bytes());
        fs::remove_file(scratch.0.join("delay/1/model.xgb.json")).unwrap_or_default();
        assert_eq!(contributions(&model).unwrap(), expected, "the file is read once");
        fs::write(scratch.0.join("delay/1/model.xgb.json"), fixture("xgboost_binary.xgb.json")).unwrap();
    }
}

#[test]
fn a_model_that_cannot_be_explained_says_so_alike_from_bytes_and_from_a_folder() {
    let text = String::from_utf8(fixture("xgboost_binary.xgb.json")).unwrap();
    let text = text.replace("\"sum_hessian\"", "\"sum_hessiam\"");
    let scratch = Scratch::new();
    let created = ModelFolder::create(&scratch.0, "delay", &draft(), text.as_bytes()).unwrap().model;
    let opened = ModelFolder::open(scratch.0.join("delay/1")).unwrap().model;
    let of_bytes = AnyModel::from(load_model(ModelFormat::XgboostJson, text.as_bytes()).unwrap());
    let expected = of_bytes.check_explainable().unwrap_err();
    assert_eq!(expected.code, ErrorCode::UnsupportedModel);
    assert!(expected.message.contains("has no covers"), "{expected}");
    for model in [&of_bytes, &created, &opened] {
        for error in [model.check_explainable().unwrap_err(), contributions(model).unwrap_err()] {
            assert_eq!(error.to_string(), expected.to_string());
        }
        assert_eq!(model.explainer_bytes(), 0);
    }
}

#[test]
fn a_file_that_is_gone_or_was_changed_is_told_at_the_first_explanation_and_may_come_back() {
    let scratch = Scratch::new();
    create(&scratch, "delay", &draft()).unwrap();
    let model = ModelFolder::open(scratch.0.join("delay/1")).unwrap().model;
    let file = scratch.0.join("delay/1/model.xgb.json");
    let good = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let error = contributions(&model).unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.message.contains("model.xgb.json") && error.message.contains("cannot be read"), "{error}");
    fs::create_dir(&file).unwrap();
    assert_eq!(contributions(&model).unwrap_err().code, ErrorCode::Unavailable);
    fs::remove_dir(&file).unwrap();
    for changed in [&good[..good.len() / 2], b"", &[&good[..], b" "].concat()] {
        fs::write(&file, changed).unwrap();
        let error = contributions(&model).unwrap_err();
        assert_eq!(error.code, ErrorCode::CorruptModel);
        assert!(error.message.contains("model.xgb.json' was changed since the model was loaded"), "{error}");
        model.check_explainable().unwrap();
    }
    assert_eq!(model.explainer_bytes(), 0);
    fs::write(&file, good).unwrap();
    contributions(&model).unwrap();
}
