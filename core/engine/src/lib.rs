//! The request path: one call looks features up, computes on-demand features, runs the model and names the answer, all in this
//! process and on the calling thread.
//!
//! ```text
//!   PredictRequest -> inputs (names, lengths, types) -> online table -> expressions -> model -> scores, labels -> PredictResponse
//! ```
//!
//! A model of tensors takes and gives named tensors as they are: [`Engine::run_on`]. Of those of sequences, rows of texts or tokens may be
//! asked, too: [`Engine::predict_sequences`].
//!
//! An [`Engine`] holds one immutable snapshot of plan, store and models; installing a plan or adding a model swaps it whole.
//! Errors are of two kinds: a request that cannot be understood fails as one, a value that does not fit fails its row.

mod answer;
mod batching;
mod column_builder;
mod consistency;
mod deployment;
mod engine;
mod features;
mod fixtures;
mod histogram;
mod inputs;
mod metrics;
mod numbers;
mod payload;
mod predict;
mod request;
mod request_id;
mod response;
mod running;
mod scratch;
mod sequences;
mod served;
mod service;
mod settings;
mod tensors;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use batching::{BatchingOptions, QueueStats, RefusalReason};
pub use column_builder::{ColumnBuilder, coerce_column, mismatch, with_article};
pub use consistency::{ConsistencyReport, FeatureConsistency};
pub use deployment::{Deployment, ModelSpec, Section, ServedModel};
pub use engine::{Engine, EngineOptions, REQUEST_ROWS_MAX};
pub use features::{FeatureRequest, FeatureResponse, FeatureService};
pub use histogram::{Histogram, HistogramSnapshot};
pub use metrics::{FailureReason, MetricsSnapshot, ModelMetrics, Phase, TransportPhase};
pub use numbers::no_category;
pub use payload::{PayloadLog, PayloadOptions, PayloadStats};
pub use request::{Explain, Outputs, PredictRequest, Priority, ROW_ERRORS_TOLD, RowError, shortened};
pub use response::{Explanation, NO_LABEL, PredictResponse, Timing};
pub use running::{Submitted, Waiting};
pub use sequences::{Sequence, SequenceMembers, SequenceResponse};
pub use settings::{LogLevels, Settings};
pub use tensors::{TensorRequest, TensorResponse};
