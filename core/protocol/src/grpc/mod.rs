//! The Open Inference Protocol, the Common API, health and reflection as protobuf messages (`core/protocol/proto`).
//!
//! Requests of predictions and features are read in place, field by field: no message is built whose lists could be longer than the
//! request is worth. What is asked seldom is made of the JSON that HTTP answers, by the messages' descriptors.

mod column;
mod common;
mod control;
mod describe;
mod error;
mod infer;
mod sequences;
#[cfg(test)]
mod tests;
mod wire;

pub use common::{
    PredictMessage, decode_online_features, decode_predict, encode_number, encode_online_features, encode_predict,
};
pub use control::{SettingsMessage, decode_model_change, log_settings, trace_settings};
pub use describe::{decode_index_request, decode_texts, encode_json, encode_reflection, method_paths};
pub use error::{STATUS_OK, STATUS_UNIMPLEMENTED, status_code, status_name};
pub use infer::{InferMessage, decode, decode_infer, encode_infer, encode_stream_reply, encode_tensors};
pub use sequences::encode_sequences;
