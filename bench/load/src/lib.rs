//! A load generator for `headrace bench serve`: fixed connections, requests from a file, one thread.
//!
//! An open loop sends at Poisson times whether or not answers come, and counts each latency from the moment the request was due: a
//! server that stalls is charged for every request that it kept waiting (what coordinated omission leaves out).

mod arrivals;
mod connections;
mod grpc;
mod histogram;
mod http1;
mod options;
mod report;
mod requests;
mod run;

pub use arrivals::Arrivals;
pub use connections::{Connection, serve_connections};
pub use histogram::Histogram;
pub use options::{Options, Protocol};
pub use report::{Latencies, Report};
pub use requests::read_requests;
pub use run::run;
