use std::collections::HashSet;

use headrace_types::{Error, ErrorCode, Field, Result, Task, TensorSignature};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document::corrupt;
use crate::format::ModelFormat;

/// The manifest format that this version writes and reads.
pub(crate) const FORMAT: u32 = 1;
/// Further files that a model version may have.
pub(crate) const FILES_MAX: usize = 1_000;

/// `model.json`: what a model version is, naming its other files by digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub name: String,
    pub version: u32,
    pub task: Task,
    /// Names of the classes, in the order of the outputs; absent where the task has none.
    #[serde(default)]
    pub labels: Option<Vec<String>>,
    pub model: ModelFile,
    pub signature: Signature,
    pub golden: FileReference,
    /// Measures by part of the training set, as the trainer wrote them.
    #[serde(default)]
    pub metrics: Value,
    /// Where the training set and the parameters came from, as the trainer wrote it.
    #[serde(default)]
    pub lineage: Value,
    pub trainer: Trainer,
    /// RFC 3339.
    pub created_at: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    pub file: String,
    pub format: ModelFormat,
    pub digest: String,
    /// Further files that the model needs, if its format has such.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileReference>,
    /// What its format needs to be told beside the file; null where that is nothing.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub settings: Value,
}

/// A file of the version's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReference {
    pub file: String,
    pub digest: String,
}

/// What goes in: features in the model's order and, where a service finds them, what it must be asked with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Signature {
    #[serde(default)]
    pub service: Option<String>,
    #[serde(default)]
    pub plan_digest: Option<String>,
    pub features: Vec<Field>,
    #[serde(default)]
    pub join_keys: Vec<Field>,
    #[serde(default)]
    pub request_fields: Vec<Field>,
    /// What a model of tensors takes and gives; it has no features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensors: Option<TensorSignature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trainer {
    pub library: String,
    pub version: String,
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// `corrupt_model` naming the entry; `newer_format` for a manifest of a later headrace; `unsupported_model` for a
    /// model format that this version does not know.
    pub fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|error| corrupt(format!("not JSON: {error}")))?;
        let format = value.get("format").and_then(Value::as_u64);
        if format.is_some_and(|format| format > FORMAT.into()) {
            return Err(Error::new(
                ErrorCode::NewerFormat,
                format!("the manifest has format {}, this headrace reads up to {FORMAT}", format.unwrap_or_default()),
                "upgrade headrace, or register the model again with this version",
            ));
        }
        if let Some(name) = value.pointer("/model/format").and_then(Value::as_str) {
            ModelFormat::from_name(name)?;
        }
        let manifest: Self = serde_json::from_value(value).map_err(|error| corrupt(error.to_string()))?;
        manifest.validate()?;
        Ok(manifest)
    }

    fn validate(&self) -> Result<()> {
        check_name("model name", &self.name)?;
        check_name("model file", &self.model.file)?;
        check_name("golden file", &self.golden.file)?;
        check_files(&self.model.files, [&self.model.file, &self.golden.file])?;
        if self.version == 0 {
            return Err(corrupt("'version' is 0; versions are counted from 1"));
        }
        let takes_tensors = matches!(self.task, Task::Tensors | Task::Seq2seq);
        if takes_tensors != self.signature.tensors.is_some() {
            return Err(corrupt("a signature has 'tensors' if the task is tensors or seq2seq, and only then"));
        }
        if takes_tensors && !(self.signature.features.is_empty() && self.model.format == ModelFormat::Onnx) {
            return Err(corrupt("a model of tensors has no features, and is an ONNX file"));
        }
        Ok(())
    }
}

/// Further files have plain names, each once, and none that the folder uses itself.
fn check_files(files: &[FileReference], taken: [&str; 2]) -> Result<()> {
    if files.len() > FILES_MAX {
        return Err(corrupt(format!("it lists {} files, {FILES_MAX} are the limit", files.len())));
    }
    let mut names: HashSet<&str> = taken.into_iter().chain(["model.json", "digest"]).collect();
    for file in files {
        check_name("file of the model", &file.file)?;
        if !names.insert(&file.file) {
            return Err(corrupt(format!("file '{}' is listed twice, or is one of the folder's own", file.file)));
        }
    }
    Ok(())
}

/// A name that is also the name of a file: it cannot lead out of its folder.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if name.is_empty() || name.len() > 128 || name.starts_with('.') || !name.bytes().all(is_plain) {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("{what} '{}' is not a plain name", name.escape_debug()),
            "use 1 to 128 letters, digits, '_', '-' and '.', not beginning with '.'",
        ));
    }
    Ok(())
}
