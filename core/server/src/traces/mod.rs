//! Traces of requests, in the data model of OpenTelemetry, sent to a collector by OTLP over HTTP.
//!
//! ```text
//!   request -> Record -> ring -> thread: spans -> POST /v1/traces
//! ```
//!
//! A request that is traced leaves one small record of what was measured anyway; spans are made of it on a thread of their own. The ring
//! is bounded: with a slow or dead collector traces are dropped and counted, and no request waits.

mod config;
mod context;
mod export;
mod ids;
mod message;
mod spans;

pub use config::{Endpoint, ExportHeaders, TracesConfig};
pub(crate) use context::{Parent, hex};
pub(crate) use export::Traces;
pub(crate) use ids::{new_span_id, new_trace_id};
