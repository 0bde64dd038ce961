use std::fmt;

use headrace_types::{Error, ErrorCode, Result};
use serde::{Deserialize, Serialize};

use crate::document::{Document, unsupported};
use crate::explained::ExplainerFile;
use crate::native::NativeModel;
use crate::parsed::Parsed;
use crate::{catboost, lightgbm, linear, pipeline, ubjson, xgboost};

/// A model file of more bytes is refused before it is read.
pub(crate) const MODEL_BYTES_MAX: u64 = 2 << 30;

/// The file formats that headrace reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelFormat {
    XgboostJson,
    XgboostUbj,
    LightgbmText,
    LinearJson,
    PipelineSafetensors,
    CatboostJson,
    /// Run by ONNX Runtime.
    Onnx,
    /// A Python class, run by worker processes.
    PythonClass,
    /// A Python function of one row, compiled by the process that loads it.
    NumbaFunction,
}

impl ModelFormat {
    pub const ALL: [ModelFormat; 9] = [
        ModelFormat::XgboostJson,
        ModelFormat::XgboostUbj,
        ModelFormat::LightgbmText,
        ModelFormat::LinearJson,
        ModelFormat::PipelineSafetensors,
        ModelFormat::CatboostJson,
        ModelFormat::Onnx,
        ModelFormat::PythonClass,
        ModelFormat::NumbaFunction,
    ];

    pub fn name(self) -> &'static str {
        match self {
            ModelFormat::XgboostJson => "xgboost-json",
            ModelFormat::XgboostUbj => "xgboost-ubj",
            ModelFormat::LightgbmText => "lightgbm-text",
            ModelFormat::LinearJson => "linear-json",
            ModelFormat::PipelineSafetensors => "pipeline-safetensors",
            ModelFormat::CatboostJson => "catboost-json",
            ModelFormat::Onnx => "onnx",
            ModelFormat::PythonClass => "python-class",
            ModelFormat::NumbaFunction => "numba-function",
        }
    }

    /// # Errors
    /// `unsupported_model` naming the format and the ones there are.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::new(
                ErrorCode::UnsupportedModel,
                format!("'{name}' is not a model format"),
                format!("use one of {names}"),
            )
        })
    }
}

impl fmt::Display for ModelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads a model that headrace evaluates itself from the bytes of its file.
///
/// # Errors
/// `corrupt_model`, `unsupported_model` or `newer_format`, naming what is wrong.
pub fn load_model(format: ModelFormat, bytes: &[u8]) -> Result<NativeModel> {
    load_explained(format, bytes, None)
}

/// As [`load_model`], of a file that can be read again for explanations.
pub(crate) fn load_explained(format: ModelFormat, bytes: &[u8], file: Option<ExplainerFile>) -> Result<NativeModel> {
    let compiled = NativeModel::compile(parse(format, bytes)?, file);
    compiled.map_err(|error| error.within(format!("{format} model")))
}

/// What the bytes of a file say, uncompiled.
///
/// # Errors
/// As [`load_model`].
pub(crate) fn parse(format: ModelFormat, bytes: &[u8]) -> Result<Parsed> {
    match format {
        ModelFormat::XgboostJson => Document::from_json_of_floats(bytes).and_then(|document| xgboost::parse(&document)),
        ModelFormat::XgboostUbj => ubjson::read(bytes).and_then(|document| xgboost::parse(&document)),
        ModelFormat::LightgbmText => lightgbm::parse(bytes),
        ModelFormat::LinearJson => Document::from_json(bytes).and_then(|document| linear::parse(&document)),
        ModelFormat::PipelineSafetensors => pipeline::parse(bytes),
        ModelFormat::CatboostJson => Document::from_json(bytes).and_then(|document| catboost::parse(&document)),
        ModelFormat::Onnx | ModelFormat::PythonClass | ModelFormat::NumbaFunction => {
            Err(unsupported("it needs a runtime", "open it as a model version, or with Model.from_bytes"))
        }
    }
    .map_err(|error| error.within(format!("{format} model")))
}
