//! Statistics that are gathered in one pass and merged: sketches of one column of values, summaries of columns, profiles of frames.
//!
//! A sketch is a function of the values it has seen, never of their order or of how they were divided among sketches that
//! were merged later. Its bytes say so too: equal values give equal bytes. Of a summary, mean and variance may differ in their last
//! bits, and so may the counts of frequent values once there are too many distinct ones to count them all.
//! `tests/spec/reference_sketches.py` and `reference_summary.py` are the same in plain Python.

mod bytes;
mod column;
mod distinct;
mod hash;
mod moments;
mod numbers;
mod profile;
mod quantile;
mod summary;
mod top;

pub use column::Buffers;
pub use distinct::{DistinctSketch, EXACT_HASHES_MAX, PRECISION_BITS};
pub use hash::{hash_bytes, hash_float, hash_word};
pub use moments::Moments;
pub use profile::Profile;
pub use quantile::{BUCKETS_MAX, QuantileSketch, RELATIVE_ACCURACY};
pub use summary::{ColumnSummary, HISTOGRAM_BINS};
pub use top::{COUNTERS_MAX, SHOWN_BYTES_MAX, TopValues};
