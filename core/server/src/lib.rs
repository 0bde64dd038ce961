//! The HTTP and gRPC server: one acceptor, and threads that each run their requests to completion.
//!
//! ```text
//!   listener -> acceptor -> worker 0..n: read head and body -> route -> decode -> engine -> encode -> write
//! ```
//!
//! [`Embedded`] answers the same requests without sockets, for programs that have a server of their own.
//!
//! Writes, and models to load or unload, go through bounded queues to the threads of the program around the server that run them
//! ([`Errands`]), and wait for their answer.
//!
//! An explanation and a request with a large body are put aside, on threads of their own; a prediction of a model that queues waits for its
//! turn ([`headrace_engine::Waiting`]). Any other request never changes its thread: a prediction of a native model takes tens of
//! microseconds, which is what waking another thread costs. Every wait has a limit ([`ServerConfig`]), no input ends the process, and a
//! panic ends its own request only.

mod access;
mod arrival;
mod body;
mod budget;
mod compress;
mod config;
mod connection;
mod counters;
mod embedded;
mod errands;
mod grpc;
mod handler;
mod later;
mod logs;
mod model_counters;
mod observe;
mod open_files;
mod process;
mod record;
mod repository;
mod ring;
mod route;
mod scrape;
mod server;
mod traces;
mod worker;
mod writes;

pub use config::ServerConfig;
pub use embedded::{Begun, Embedded, EmbeddedReply, EmbeddedRequest, Later as EmbeddedLater};
pub use errands::{Errand, ErrandAnswer, Errands};
pub use logs::{LogConfig, LogFormat, LogLevel, write_log};
pub use repository::ModelChange;
pub use server::{LocalAddrs, Server, ServerHandle};
pub use traces::{Endpoint, ExportHeaders, TracesConfig};
pub use writes::{ViewWrite, Write};
