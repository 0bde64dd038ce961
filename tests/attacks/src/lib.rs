//! What a stranger can send us, and the code that reads it first.
//!
//! Each [`Target`] reads one kind of hostile input and must come back: with a value or with an error, never with a panic, an endless
//! loop or an allocation out of proportion to the input. `tests/replay.rs` runs the kept inputs through them in every test run;
//! `make fuzz` looks for new ones with libFuzzer. Both call the same functions, so that what one finds the other keeps.

mod targets;

pub use targets::{TARGETS, Target, target};
