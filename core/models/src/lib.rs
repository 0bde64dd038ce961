//! Model versions: folders that are checked before they are believed, and the loaders and runtimes behind them.
//!
//! A model file is hostile input. Every loader works from bytes in memory, checks each index, count and size before
//! using it, and answers `corrupt_model` (the file breaks its format's rules) or `unsupported_model` (the file is
//! sound, and asks for something that headrace does not do), naming the thing. No pickle is ever loaded.
//!
//! ```text
//!   bytes -> document (JSON, UBJSON) -> xgboost --+
//!   bytes -> document (JSON) -> catboost ---------+
//!   bytes -> lightgbm ----------------------------+-> Ensemble + Link = Parsed -> headrace_cpu::Forest + Link = NativeModel
//!   bytes -> linear ------------------------------------> linear model + Link ^
//!   bytes -> pipeline -> Preparation, and an ensemble, linear model or network ^
//!   bytes -> onnx_file (checks) -> headrace_onnx::Session = OnnxModel
//!   bytes -> onnx_file (checks) -> headrace_onnx::Session = OnnxTensors, of the tasks of tensors
//!   folder -> headrace_workers::WorkerPool = PythonModel
//!   bytes -> function (checks) -> the embedding process's FunctionCompiler = FunctionModel
//!   folder -> Manifest + digests + AnyModel (one of these) -> golden rows reproduced -> LoadedModel (READY)
//! ```

mod answers;
mod any;
mod catboost;
mod category_words;
mod city_hash;
mod document;
mod explained;
mod folder;
mod format;
mod function;
mod golden;
mod lightgbm;
mod linear;
mod link;
mod manifest;
mod native;
mod network;
mod onnx;
mod onnx_file;
mod parsed;
mod pipeline;
mod python;
mod runtimes;
mod sequences;
mod tensors;
mod ubjson;
mod vocabularies;
mod xgboost;
mod xgboost_tree;

pub use any::AnyModel;
pub use folder::{LoadedModel, ModelDraft, ModelFolder, check_type, version_of};
pub use format::{ModelFormat, load_model};
pub use function::FunctionModel;
pub use golden::{GoldenRows, GoldenValue};
pub use headrace_cpu::Features;
pub use manifest::{FileReference, Manifest, ModelFile, Signature, Trainer};
pub use native::NativeModel;
pub use onnx::OnnxModel;
pub use python::PythonModel;
pub use runtimes::{FunctionCompiler, OnnxRuntime, PythonRuntime, Runtimes};
pub use sequences::{INPUT_LENGTHS, INPUT_MASK, INPUT_TEXT, INPUT_TOKENS, SequenceInput, SequenceLayout};
pub use tensors::{GoldenCall, GoldenTensor, GoldenTensors, OnnxTensors};
