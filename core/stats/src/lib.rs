//! Statistics that are gathered in one pass and merged: sketches of one column of values.
//!
//! A sketch is a function of the values it has seen, never of their order or of how they were divided among sketches that
//! were merged later. Its bytes say so too: equal values give equal bytes. `tests/spec/reference_sketches.py` is the same in
//! plain Python.

mod bytes;
mod distinct;
mod hash;
mod quantile;

pub use distinct::{DistinctSketch, EXACT_HASHES_MAX, PRECISION_BITS};
pub use hash::{hash_bytes, hash_float, hash_word};
pub use quantile::{BUCKETS_MAX, QuantileSketch, RELATIVE_ACCURACY};
