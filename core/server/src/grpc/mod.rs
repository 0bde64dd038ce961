//! The gRPC listener's connections, on the same threads as HTTP's.
//!
//! ```text
//!   accept -> HTTP/2 (h2) -> stream: headers -> message -> decode -> engine -> encode -> message, trailers
//! ```
//!
//! A connection is one task. A request whose message has come with its headers is answered in place, before the next one is looked at: no
//! task is made for it, and the answers to requests that came together leave together. A request that must wait for its message, for
//! its turn or for another process gets a task of its own, which ends when the client gives the request up.

mod answer;
mod connection;
mod counters;
mod handler;
mod message;
mod metadata;
mod method;
mod state;
mod streams;
mod unary;

pub(crate) use connection::{REFUSAL, serve_connection};
pub(crate) use counters::GrpcCounters;
pub(crate) use state::GrpcState;
