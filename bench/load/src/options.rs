//! What a run is told.

use std::net::SocketAddr;
use std::time::Duration;

#[derive(Debug, Clone)]
pub enum Protocol {
    Http1,
    /// One call at a time on each connection, to this path, such as `/inference.GRPCInferenceService/ModelInfer`.
    Grpc(String),
}

#[derive(Debug, Clone)]
pub struct Options {
    pub addr: SocketAddr,
    pub protocol: Protocol,
    pub connections: usize,
    /// Requests a second that come whether or not answers do; `None` for a closed loop, where each connection sends its next request
    /// when it has its answer.
    pub rate_per_s: Option<f64>,
    /// What is measured, after the warm-up.
    pub duration: Duration,
    pub warm_up: Duration,
    /// Of the arrivals.
    pub seed: u64,
}
