//! The HTTP server: one acceptor, and threads that each run their requests to completion.
//!
//! ```text
//!   listener -> acceptor -> worker 0..n: read head and body -> route -> decode -> engine -> encode -> write
//! ```
//!
//! Writes go through a bounded queue to the one thread that makes them ([`Writes`]) and wait there for their answer.
//!
//! An explanation, a request with a large body, and a prediction whose model is a Python function or waits for another process are put
//! aside, on threads of their own. Any other request never changes its thread: a prediction of a native model takes tens of microseconds, which is what waking
//! another thread costs. Every wait has a limit ([`ServerConfig`]), no input ends the process, and a panic ends its own request only.

mod body;
mod budget;
mod compress;
mod config;
mod connection;
mod counters;
mod handler;
mod open_files;
mod route;
mod scrape;
mod server;
mod worker;
mod writes;

pub use config::ServerConfig;
pub use server::{LocalAddrs, Server, ServerHandle};
pub use writes::{Write, WriteAnswer, WriteRequest, Writes};
