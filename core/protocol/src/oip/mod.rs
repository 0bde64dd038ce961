//! The Open Inference Protocol over HTTP in Triton's dialect: JSON tensors, binary tensors behind the JSON, raw requests.
//!
//! A model with a feature service takes its join keys and request fields as inputs, one value a row, and any of its features by
//! name. A model without one takes one tensor `features` of `[rows, features]`, or its features by name. A model of tensors takes and
//! gives those of its signature.
//!
//! ```text
//!   bytes -> decode -> Infer (Rows or Tensors) -> the engine -> its response -> encode_infer, encode_tensors -> bytes
//! ```

pub(crate) mod datatype;
pub(crate) mod decode;
pub(crate) mod encode;
mod metadata;
mod plain;
mod settings;
pub(crate) mod tensors;
#[cfg(test)]
mod tests;

pub use decode::{Infer, InferRequest, decode, decode_infer};
pub use encode::{InferResponse, encode_infer, encode_tensors};
pub use metadata::{
    decode_index_request, is_ready, list_models, model_config, model_metadata, model_ready, repository_index,
    server_metadata, statistics,
};
pub use settings::decode_settings;
pub use tensors::TensorInfer;

use headrace_engine::Deployment;
use headrace_types::Task;

/// The input that carries all features of a model without a feature service.
pub(crate) const FEATURES_INPUT: &str = "features";

/// The output that explains margins: `[rows, features + 1]`, or `[rows, margins, features + 1]` for several. It is answered when it is
/// asked for by name, and not listed.
pub(crate) const CONTRIBUTIONS_OUTPUT: &str = "contributions";

/// The response header, and the request header, that tells how many bytes of the body are JSON.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// What a model can answer, in the order in which metadata lists it.
pub(crate) fn output_names(deployment: &Deployment) -> &'static [&'static str] {
    match deployment.task() {
        Task::Classification => &["label", "scores", "margin"],
        Task::MultiLabel => &["scores", "margin"],
        Task::Regression | Task::Ranking => &["value", "margin"],
        // Those of a model of tensors are in its signature.
        Task::Seq2seq | Task::Tensors => &[],
    }
}
