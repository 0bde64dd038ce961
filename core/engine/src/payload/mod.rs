//! The payload log: what was served, kept for the proof that online equals offline and for whatever else looks back.
//!
//! ```text
//!   request -> hash of its keys -> (sampled) a chunk of columns -> ring -> writer thread -> DEPLOYMENT/HOUR/NODE-UUID.parquet
//! ```
//!
//! A request never waits: a chunk that the ring has no room for is dropped and its rows are counted. Whoever is sampled is sampled
//! always, because the choice is a hash of the entity key. The columns are in core/README.md.

mod arrays;
mod chunk;
mod log;
mod sample;
mod segment;
mod shape;

pub use log::{PayloadLog, PayloadOptions, PayloadStats};

pub(crate) use chunk::{Chunk, Head, ServedFeature, ServedStatus};
pub(crate) use shape::Shape;
