//! Model version folders, `models/NAME/VERSION/`: made as a whole or not at all, checked as a whole before use.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headrace_types::{
    DType, Error, ErrorCode, Field, Result, Task, Vocabulary, canonical_json, digest_bytes, digest_json,
};
use serde::{Deserialize, Serialize};

use crate::any::{AnyModel, Place, Source};
use crate::document::corrupt;
use crate::format::{MODEL_BYTES_MAX, ModelFormat};
use crate::golden::GoldenRows;
use crate::manifest::{self, Manifest, Signature, Trainer, check_name};
use crate::runtimes::Runtimes;
use crate::tensors::GoldenTensors;

const MANIFEST_FILE: &str = "model.json";
const GOLDEN_FILE: &str = "golden.json";
const DIGEST_FILE: &str = "digest";
/// `model.json` and `digest` of more bytes are refused.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;
const GOLDEN_BYTES_MAX: u64 = 256 << 20;
/// Versions that are tried when others register at the same time.
const CREATE_ATTEMPTS_MAX: u32 = 100;

/// A model version that is READY: digests hold and golden rows have been reproduced.
#[derive(Debug, Clone)]
pub struct LoadedModel {
    pub manifest: Manifest,
    /// The digest of the manifest, which names the other files by theirs.
    pub digest: String,
    pub model: AnyModel,
}

/// What a new version is made of, beside the model's file; the folder adds version, file names and digests.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelDraft {
    pub task: Task,
    #[serde(default)]
    pub labels: Option<Vec<String>>,
    pub format: ModelFormat,
    /// What the format needs to be told beside the file; null where that is nothing.
    #[serde(default)]
    pub settings: serde_json::Value,
    #[serde(default)]
    pub golden: GoldenRows,
    /// In the place of golden rows, of a model of tensors.
    #[serde(default)]
    pub golden_tensors: Option<GoldenTensors>,
    pub signature: Signature,
    #[serde(default)]
    pub metrics: serde_json::Value,
    #[serde(default)]
    pub lineage: serde_json::Value,
    pub trainer: Trainer,
    /// RFC 3339.
    pub created_at: String,
}

impl ModelDraft {
    /// # Errors
    /// `invalid_argument` when it is not JSON of this shape; `unsupported_model` for a format that is not known.
    pub fn from_json(text: &str) -> Result<Self> {
        let invalid = |error: serde_json::Error| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("the draft of a model version: {error}"),
                "give task, format, golden, signature, trainer and created_at; labels, metrics and lineage if known",
            )
        };
        let value: serde_json::Value = serde_json::from_str(text).map_err(invalid)?;
        if let Some(name) = value.get("format").and_then(serde_json::Value::as_str) {
            ModelFormat::from_name(name)?;
        }
        serde_json::from_value(value).map_err(invalid)
    }
}

/// The operations on a model version's folder.
#[derive(Debug)]
pub struct ModelFolder;

impl ModelFolder {
    /// Opens a version: verifies its digests, loads the model and replays its golden rows.
    ///
    /// # Errors
    /// `unknown_model_version` (no such folder), `corrupt_model`, `newer_format`, `unsupported_model` or
    /// `golden_row_mismatch`, each with the folder and the file that is wrong.
    pub fn open(folder: impl AsRef<Path>) -> Result<LoadedModel> {
        Self::open_with(folder, &Runtimes::default())
    }

    /// As [`open`](Self::open), with the runtimes of models that headrace does not evaluate itself.
    ///
    /// # Errors
    /// As [`open`](Self::open), and `unavailable` when the model's runtime is not there.
    pub fn open_with(folder: impl AsRef<Path>, runtimes: &Runtimes) -> Result<LoadedModel> {
        let folder = folder.as_ref();
        if !folder.join(MANIFEST_FILE).is_file() {
            return Err(Error::new(
                ErrorCode::UnknownModelVersion,
                format!("'{}' is not a model version: it has no {MANIFEST_FILE}", folder.display()),
                "give the folder models/NAME/VERSION of a registered model",
            ));
        }
        open(folder, runtimes).map_err(|error| error.within(format!("model folder '{}'", folder.display())))
    }

    /// As [`open`](Self::open), for a folder in its place `models/NAME/VERSION`: a copy under another name is no version of that name.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with), and `corrupt_model` when the manifest tells another name or version than the folder.
    pub fn open_registered(folder: impl AsRef<Path>, runtimes: &Runtimes) -> Result<LoadedModel> {
        let folder = folder.as_ref();
        let loaded = Self::open_with(folder, runtimes)?;
        let (name, version) = place_of(folder);
        let manifest = &loaded.manifest;
        if name == manifest.name && version == manifest.version.to_string() {
            return Ok(loaded);
        }
        let message = format!(
            "model folder '{}' is {name}/{version}, its manifest says {}/{}",
            folder.display(),
            manifest.name,
            manifest.version
        );
        Err(Error::new(ErrorCode::CorruptModel, message, "move it back to its place, or register the model anew"))
    }

    /// Makes the next version of a model in the folder `models`. It is opened aside first, so a version that exists is
    /// READY. A Python class is then opened once more in its place, and taken away again if that fails.
    ///
    /// # Errors
    /// As [`open`](Self::open), `invalid_argument` for a name that is not plain, and `io`; no version is made then.
    pub fn create(models: impl AsRef<Path>, name: &str, draft: &ModelDraft, model: &[u8]) -> Result<LoadedModel> {
        Self::create_with(models, name, draft, model, &[], &Runtimes::default())
    }

    /// As [`create`](Self::create), with copies of further files, by their names in the folder, and the runtimes of models that headrace
    /// does not evaluate itself.
    ///
    /// # Errors
    /// As [`create`](Self::create), and `unavailable` when the model's runtime is not there.
    pub fn create_with(
        models: impl AsRef<Path>,
        name: &str,
        draft: &ModelDraft,
        model: &[u8],
        files: &[(String, PathBuf)],
        runtimes: &Runtimes,
    ) -> Result<LoadedModel> {
        check_name("model name", name)?;
        let parent = models.as_ref().join(name);
        fs::create_dir_all(&parent).map_err(|error| io(&parent, &error))?;
        for _ in 0..CREATE_ATTEMPTS_MAX {
            let version = next_version(&parent)?;
            let unfinished = Unfinished::create(&parent, version)?;
            let loaded = write(&unfinished.0, name, version, draft, model, files)
                .and_then(|()| Self::open_with(&unfinished.0, runtimes))?;
            let folder = parent.join(version.to_string());
            // Renaming onto a version that someone else has made meanwhile fails, since that folder is not empty.
            if fs::rename(&unfinished.0, &folder).is_ok() {
                return sync(&parent).and_then(|()| in_place(loaded, &folder, runtimes)).inspect_err(|_| {
                    // Back to the name that is removed, in one step: who reads the folder meanwhile sees all of it or nothing.
                    let _ = fs::rename(&folder, &unfinished.0);
                });
            }
        }
        Err(Error::new(
            ErrorCode::Unavailable,
            format!(
                "model '{name}': {CREATE_ATTEMPTS_MAX} versions were taken by others while this one was being made"
            ),
            "try again when fewer processes register versions of this model",
        ))
    }
}

/// The model of a folder that has been renamed to `folder`.
fn in_place(mut loaded: LoadedModel, folder: &Path, runtimes: &Runtimes) -> Result<LoadedModel> {
    if matches!(loaded.model, AnyModel::Python(_)) {
        // Workers go on reading their folder, which has another name now. Theirs end before others are started.
        drop(loaded);
        return ModelFolder::open_with(folder, runtimes);
    }
    explain_from(&mut loaded, folder);
    Ok(loaded)
}

/// Name and version as the last two parts of the path say them.
fn place_of(folder: &Path) -> (String, String) {
    let part = |path: Option<&Path>| {
        path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    (part(folder.parent()), part(Some(folder)))
}

fn open(folder: &Path, runtimes: &Runtimes) -> Result<LoadedModel> {
    let text = read_text(folder, MANIFEST_FILE)?;
    let place = |error: Error| error.within(MANIFEST_FILE);
    let digest = digest_json(&text).map_err(|error| place(corrupt(error.message)))?;
    let expected = read_text(folder, DIGEST_FILE)?;
    if expected.trim() != digest {
        return Err(place(corrupt(format!("its digest is {digest}, the file 'digest' says '{}'", expected.trim()))));
    }
    let manifest = Manifest::from_json(&text).map_err(place)?;
    let golden = read_checked(folder, &manifest.golden.file, &manifest.golden.digest, GOLDEN_BYTES_MAX)?;
    let bytes = read_checked(folder, &manifest.model.file, &manifest.model.digest, MODEL_BYTES_MAX)?;
    for file in &manifest.model.files {
        read_checked(folder, &file.file, &file.digest, MODEL_BYTES_MAX)?;
    }
    let label = format!("{}/{}", manifest.name, manifest.version);
    let features = &manifest.signature.features;
    let home = Some(Place { name: &label, folder, features });
    let tensors = manifest.signature.tensors.as_ref();
    let source = Source { task: manifest.task, features_count: Some(features.len()), tensors, place: home, runtimes };
    let model = AnyModel::load(&manifest.model, &bytes, &source).map_err(|error| error.within(&manifest.model.file))?;
    drop(bytes);
    check_signature(&manifest, &model).map_err(place)?;
    let reproduced = match &model {
        AnyModel::Tensors(model) => GoldenTensors::from_json(&golden).and_then(|golden| golden.replay(&**model)),
        model => GoldenRows::from_json(&golden).and_then(|golden| golden.replay_of(model, features)),
    };
    reproduced.map_err(|error| error.within(&manifest.golden.file))?;
    Ok(LoadedModel { manifest, digest, model })
}

/// Tells a model that nobody else holds yet that its folder has this name now.
fn explain_from(loaded: &mut LoadedModel, folder: &Path) {
    if let AnyModel::Native(model) = &mut loaded.model
        && let Some(model) = Arc::get_mut(model)
    {
        model.explain_from(folder.join(&loaded.manifest.model.file));
    }
}

fn check_signature(manifest: &Manifest, model: &AnyModel) -> Result<()> {
    let (features, wanted) = (manifest.signature.features.len(), model.features_count());
    if features != wanted {
        return Err(corrupt(format!("the signature lists {features} features, the model takes {wanted}")));
    }
    for (input, field) in manifest.signature.features.iter().enumerate() {
        check_type(model.vocabulary(input), field)?;
    }
    if let (Task::Classification, Some(labels)) = (manifest.task, &manifest.labels) {
        let wanted = model.outputs_count().max(2);
        if labels.len() != wanted {
            return Err(corrupt(format!("there are {} labels, the model has {wanted} classes", labels.len())));
        }
    }
    Ok(())
}

/// Whether an input with this vocabulary can take such a feature.
///
/// # Errors
/// `unsupported_model` naming the feature.
pub fn check_type(vocabulary: Option<&Vocabulary>, field: &Field) -> Result<()> {
    let (problem, hint) = match field.dtype {
        DType::STRING if vocabulary.is_some() => return Ok(()),
        DType::STRING => (
            "the model takes a number there",
            "train on the text itself, in a column of categories, or encode it in an on-demand feature view",
        ),
        dtype if dtype.is_list() || !dtype.element().is_numeric() => {
            ("a model takes numbers and texts", "encode it as a number in an on-demand feature view")
        }
        _ if vocabulary.is_some_and(|vocabulary| !vocabulary.takes_codes) => {
            ("the model takes text there", "declare the feature as a string")
        }
        _ => return Ok(()),
    };
    let message = format!("feature '{}' is a {}, {problem}", field.name, field.dtype);
    Err(Error::new(ErrorCode::UnsupportedModel, message, hint))
}

fn io(path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorCode::Io, format!("'{}': {error}", path.display()), "check that the folder exists and may be used")
}

/// A file of the folder, refused when it is larger than `bytes_max`.
fn read(folder: &Path, name: &str, bytes_max: u64) -> Result<Vec<u8>> {
    let path = folder.join(name);
    let file = fs::File::open(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => corrupt(format!("file '{name}' is missing")),
        _ => io(&path, &error),
    })?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| io(&path, &error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(Error::new(
            ErrorCode::TooLarge,
            format!("file '{name}' has more than {bytes_max} bytes"),
            "train a smaller model, or give fewer golden rows",
        ));
    }
    Ok(bytes)
}

fn read_text(folder: &Path, name: &str) -> Result<String> {
    String::from_utf8(read(folder, name, MANIFEST_BYTES_MAX)?)
        .map_err(|error| corrupt(format!("file '{name}' is not UTF-8: {error}")))
}

fn read_checked(folder: &Path, name: &str, digest: &str, bytes_max: u64) -> Result<Vec<u8>> {
    let bytes = read(folder, name, bytes_max)?;
    let found = digest_bytes(&bytes);
    if found != digest {
        return Err(corrupt(format!("file '{name}' has digest {found}, the manifest says '{digest}'")));
    }
    Ok(bytes)
}

fn next_version(parent: &Path) -> Result<u32> {
    let mut last: u32 = 0;
    for entry in fs::read_dir(parent).map_err(|error| io(parent, &error))? {
        let entry = entry.map_err(|error| io(parent, &error))?;
        last = last.max(entry.file_name().to_str().and_then(version_of).unwrap_or(0));
    }
    last.checked_add(1).ok_or_else(|| corrupt(format!("'{}' has no version number left", parent.display())))
}

/// The version of a folder of that name. `007` and `+7` are none: version 7 lies in `7`.
pub fn version_of(name: &str) -> Option<u32> {
    name.parse().ok().filter(|version: &u32| version.to_string() == name)
}

/// A folder that is removed again unless it was renamed.
struct Unfinished(PathBuf);

impl Unfinished {
    fn create(parent: &Path, version: u32) -> Result<Self> {
        let mut attempt = 0u32;
        loop {
            let path = parent.join(format!(".unfinished-{version}-{}-{attempt}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && attempt < CREATE_ATTEMPTS_MAX => {
                    attempt += 1;
                }
                Err(error) => return Err(io(&path, &error)),
            }
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // What remains after a failure here is hidden by its leading dot and never read.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(
    folder: &Path,
    name: &str,
    version: u32,
    draft: &ModelDraft,
    model: &[u8],
    files: &[(String, PathBuf)],
) -> Result<()> {
    let golden = match &draft.golden_tensors {
        Some(tensors) => serde_json::to_string(tensors),
        None => serde_json::to_string(&draft.golden),
    };
    let golden = golden.map_err(|error| Error::internal(error.to_string()))?;
    let module = draft.settings.get("module").and_then(serde_json::Value::as_str).unwrap_or("model");
    let class_file = format!("{module}.py");
    let model_file = match draft.format {
        ModelFormat::XgboostJson => "model.xgb.json",
        ModelFormat::XgboostUbj => "model.ubj",
        ModelFormat::LightgbmText => "model.txt",
        ModelFormat::LinearJson => "model.linear.json",
        ModelFormat::PipelineSafetensors => "model.safetensors",
        ModelFormat::CatboostJson => "model.catboost.json",
        ModelFormat::Onnx => "model.onnx",
        ModelFormat::PythonClass => &class_file,
        ModelFormat::NumbaFunction => "model.function.json",
    };
    check_name("model file", model_file)?;
    let files = files.iter().map(|(name, path)| copy(folder, name, path)).collect::<Result<Vec<_>>>()?;
    let manifest = Manifest {
        format: manifest::FORMAT,
        name: name.to_string(),
        version,
        task: draft.task,
        labels: draft.labels.clone(),
        model: manifest::ModelFile {
            file: model_file.to_string(),
            format: draft.format,
            digest: digest_bytes(model),
            files,
            settings: draft.settings.clone(),
        },
        signature: draft.signature.clone(),
        golden: manifest::FileReference { file: GOLDEN_FILE.to_string(), digest: digest_bytes(golden.as_bytes()) },
        metrics: draft.metrics.clone(),
        lineage: draft.lineage.clone(),
        trainer: draft.trainer.clone(),
        created_at: draft.created_at.clone(),
    };
    let text = serde_json::to_string(&manifest).map_err(|error| Error::internal(error.to_string()))?;
    let text = canonical_json(&text)?;
    write_synced(folder, model_file, model)?;
    write_synced(folder, GOLDEN_FILE, golden.as_bytes())?;
    write_synced(folder, MANIFEST_FILE, text.as_bytes())?;
    write_synced(folder, DIGEST_FILE, format!("{}\n", digest_bytes(text.as_bytes())).as_bytes())?;
    sync(folder)
}

/// Copies a file into the folder.
fn copy(folder: &Path, name: &str, path: &Path) -> Result<manifest::FileReference> {
    check_name("file of the model", name)?;
    let (parent, last) = (path.parent().unwrap_or(Path::new("")), path.file_name().and_then(|name| name.to_str()));
    let bytes = read(parent, last.unwrap_or_default(), MODEL_BYTES_MAX)?;
    write_synced(folder, name, &bytes)?;
    Ok(manifest::FileReference { file: name.to_string(), digest: digest_bytes(&bytes) })
}

fn write_synced(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    let written = fs::File::create_new(&path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| io(&path, &error))
}

/// Makes the names in a folder durable.
fn sync(folder: &Path) -> Result<()> {
    fs::File::open(folder).and_then(|file| file.sync_all()).map_err(|error| io(folder, &error))
}
