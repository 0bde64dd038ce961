//! On-demand transforms of rows: an expression language that is compiled once and runs over one row or over columns.
//!
//! A feature that is computed at request time must have the same bits in the training set. So there is one compiler, one
//! instruction list and one scalar function for each operation, and a single row is a batch of length one.
//!
//! ```text
//!   JSON --compile--> instructions (typed, common subexpressions shared) --run--> columns
//! ```
//!
//! # The language
//! Values are numbers (`int` in 64 bits, `float` in 64 bits), booleans, timestamps, strings and bytes; any of them may be null,
//! and NaN is a number. A narrower column is widened as it is read; an unsigned value above `i64::MAX` reads as null. A result is
//! cast to the declared type of its field.
//! - null in, null out, except `is_null`, `fill_null`, `coalesce`, the chosen branch of `if_else`, and `and`/`or` (Kleene logic).
//! - an int beside a float becomes a float. An int result that overflows is null; `div` is always a float division.
//! - `mod` has the sign of the divisor, as in Python; by the int 0 it is null, by the float 0 it is NaN.
//! - `round` takes halves to the even neighbour; `min`, `max` and `clip` of a NaN are NaN.
//! - a comparison with NaN is false, `ne` true. Strings and bytes compare by their bytes.
//! - parts of a time are of UTC in the proleptic Gregorian calendar; Monday is day 0, January 1st is day of year 1.
//! - `cast` of a float to an int cuts the fraction; what does not fit the type is null.

mod cells;
mod column;
mod compile;
mod constant;
mod exec;
mod kernels;
mod kind;
mod literal;
mod names;
mod ops;
mod program;
mod scratch;
mod zone;

pub use cells::TEXT_BYTES_MAX;
pub use column::{ColumnSlice, ColumnView};
pub use compile::{DEPTH_MAX, INSTRUCTIONS_MAX, ProgramBuilder};
pub use exec::LIST_ITEMS_MAX;
pub use names::did_you_mean;
pub use program::Program;
pub use scratch::{Output, Scratch};
