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
//! Values are numbers (`int` in 64 bits, `float` in 64 bits), booleans, timestamps, strings, bytes and lists of these; any of
//! them may be null, an element of a list too, and NaN is a number. A narrower column is widened as it is read; an unsigned value
//! above `i64::MAX` reads as null. A result is cast to the declared type of its field.
//! - null in, null out, except `is_null`, `fill_null`, `coalesce`, the chosen branch of `if_else`, and `and`/`or` (Kleene logic).
//! - an int beside a float becomes a float. An int result that overflows is null; `div` is always a float division.
//! - `add`, `mul`, `min`, `max` of more than two values go from left to right, two at a time.
//! - `mod` has the sign of the divisor, as in Python; by the int 0 it is null, by the float 0 it is NaN.
//! - `round` takes halves to the even neighbour; `min`, `max` and `clip` of a NaN are NaN.
//! - a comparison with NaN is false, `ne` true. Strings and bytes compare by their bytes.
//! - parts of a time are of UTC, or of what the clocks of an IANA `zone` show, in the proleptic Gregorian calendar; Monday is day 0,
//!   January 1st is day of year 1, weeks are those of ISO 8601. The database of zones is compiled in.
//! - a time less a time is an int of microseconds; a time and an int of microseconds make a time.
//! - `truncate` of a day or longer gives the moment at which the clocks first show that midnight; one that they jump over counts with
//!   the offset before. Seconds, minutes and hours are cut with the offset in force.
//! - `cast` of a float to an int cuts the fraction; text that does not parse, and what does not fit the type, is null. A field takes
//!   numbers for numbers by itself; text is only read or written where `cast` says so.
//! - a string is characters (Unicode scalar values); a new one of more than [`TEXT_BYTES_MAX`] bytes is null, and so is a `split` into
//!   more than [`LIST_ITEMS_MAX`] parts. A string or bytes of that length among the elements of an input list reads as null.
//! - `bucketize` counts the boundaries at or below a number; NaN gives null.
//! - `hash` is XXH64 of UTF-8 bytes, of a bool's byte, or of the eight little-endian bytes of a number, seeded with the hash of the
//!   value before; it never changes. Both zeros and all NaN hash alike.
//! - `lookup` gives its default for a key that the map lacks; a null key gives null.
//! - `list_sum`, `list_mean`, `list_min`, `list_max` pass over null elements; without a value there is a sum, 0, and nothing else.
//! - `haversine` takes degrees and gives kilometres on a sphere of 6371.0088 km.
//!
//! An expression nested deeper than [`DEPTH_MAX`] levels is written as `{"op": "steps", "steps": [..]}`, in which `{"op": "ref",
//! "step": 0}` stands for the value of an earlier step, and the last step is the value.

mod cells;
mod column;
mod compile;
mod constant;
mod exec;
mod function;
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
pub use function::{BatchFunction, Function, FunctionCode, FunctionKind, FunctionSpec, Parameter};
pub use names::did_you_mean;
pub use program::Program;
pub use scratch::{Output, Scratch};
