//! ONNX Runtime through its C API, from a shared library that is opened at run time: nothing of it is needed to build or to start.
//!
//! ```text
//!   Library::open(path, threads) -> the process's one library, environment and thread pool
//!   Session::new(library, bytes) -> what goes in and what comes out, with types and shapes
//!   session.run(inputs, output)  -> any number of threads at once; tensors lie in the caller's memory
//!   session.run_tensors(inputs, outputs) -> tensors of any type; numbers stay where the library has put them
//! ```
//!
//! Why no wrapper crate: `ort` runs a session only through `&mut`, panics where a library is missing or too old, and asks for a newer
//! compiler than this workspace. What is used here is some forty functions of a table that only ever grows at its end.

mod api;
mod library;
mod session;
mod status;
mod tensors;

pub use library::Library;
pub use session::{ElementType, Output, Session, Shape, Tensor, ValueInfo, ValueType};
