//! Translation between the engine and the bytes of its transports. Nothing is computed here, and no socket is known.
//!
//! - [`decode_predict`] / [`encode_predict`], [`encode_sequences`]: the Common API, named columns in, labelled answers or sequences out;
//! - [`oip`]: the Open Inference Protocol in Triton's dialect, with binary tensors;
//! - [`grpc`]: the same and the Common API as protobuf messages;
//! - [`decode_online_features`] / [`encode_online_features`]: feature lookup in Feast's shape;
//! - [`decode_push_json`], [`decode_push_arrow`], [`decode_delete`]: rows to write;
//! - [`openapi`]: what a server answers, described;
//! - [`error_body`], [`http_status`]: what a refusal looks like.
//!
//! Everything that is read is hostile: sizes are checked before memory is reserved, depth and counts have limits, and the decoders
//! go straight into typed columns.

mod common;
mod error;
pub mod grpc;
mod json;
mod numbers;
pub mod oip;
mod online_features;
pub mod openapi;
mod sequences;
mod writes;

pub use common::{API_VERSION, decode_predict, describe_deployment, encode_predict, list_deployments};
pub use error::{error_body, http_status};
pub use json::ELEMENTS_MAX;
pub use online_features::{OnlineFeaturesRequest, decode_online_features, encode_online_features};
pub use sequences::encode_sequences;
pub use writes::{
    ARROW_STREAM, DeletedKeys, PushedRows, WRITE_ROWS_MAX, decode_delete, decode_push_arrow, decode_push_json,
};
