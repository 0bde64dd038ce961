//! What the micro benches share: repeatable random numbers, and timing in blocks.
//!
//! These measure one kernel of the engine at a time, without Python, to steer work on that kernel. Figures that are compared
//! with other software come from `headrace bench`.
//!
//! ```text
//! cargo run --release -p headrace-micro --bin table
//! cargo run --release -p headrace-micro --bin trees
//! cargo run --release -p headrace-micro --bin payload
//! ```

mod random;
mod timing;

pub use random::Random;
pub use timing::{Timed, print_table, time_in_turns};
