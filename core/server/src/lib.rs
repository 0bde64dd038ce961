//! The HTTP server: one acceptor, and threads that each run their requests to completion.
//!
//! ```text
//!   listener -> acceptor -> worker 0..n: read head and body -> route -> decode -> engine -> encode -> write
//! ```
//!
//! A request never changes its thread: a prediction of a native model takes tens of microseconds, which is what waking another
//! thread costs. Every wait has a limit ([`ServerConfig`]), no input ends the process, and a panic ends its own request only.

mod body;
mod budget;
mod config;
mod connection;
mod counters;
mod handler;
mod open_files;
mod route;
mod scrape;
mod server;
mod worker;

pub use config::ServerConfig;
pub use server::{LocalAddrs, Server, ServerHandle};
