//! The words that every crate of headrace shares: types of values, errors, time, and the traits that keep siblings apart.
//!
//! `types` depends on nothing of headrace, so that a store, a model and a transport can meet without knowing each other.
//!
//! ```text
//!   server -> protocol, engine -> models, features -> expr -> types
//!                                     `-> native/cpu ----------^
//! ```

pub mod base64;
mod clock;
mod column;
mod datatype;
mod digest;
mod dtype;
mod error;
mod model;
mod online;
mod scalar_function;
mod schema;
mod tensor;
mod tensor_model;
mod timestamp;
mod value;
mod vocabulary;

pub use clock::{Clock, SystemClock, TimestampUs, VirtualClock};
pub use column::{Batch, Column, ColumnData};
pub use datatype::{Datatype, f32_of_bf16, f32_of_f16};
pub use digest::{canonical_json, digest_bytes, digest_json};
pub use dtype::{DType, ScalarType};
pub use error::{Error, ErrorCode, Result};
pub use model::{Model, Objective, Task};
pub use online::{EVENT_TS_ALWAYS, FeatureStatus, RowVersion};
pub use scalar_function::ScalarFunction;
pub use schema::{Field, Schema};
pub use tensor::{
    DIMENSIONS_MAX, Tensor, TensorInfo, TensorSignature, element_count, invalid_tensor, push_bytes_element,
};
pub use tensor_model::TensorModel;
pub use timestamp::{civil_from_days, days_from_civil, format_timestamp, parse_timestamp, timestamp_of_text};
pub use value::Value;
pub use vocabulary::{Unknown, Vocabulary, WORDS_MAX};
