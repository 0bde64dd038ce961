//! Where the runtimes of models are, from the dict that `headrace.runtimes` makes.

use headrace_models::{OnnxRuntime, Runtimes};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{Outcome, type_mismatch};

/// Reads `{"onnx_library", "onnx_threads"}`; what is not given is looked for in this Python.
pub(crate) fn runtimes_of(py: Python<'_>, given: Option<&Bound<'_, PyDict>>) -> Outcome<Runtimes> {
    let given = match given {
        Some(given) => given.clone(),
        None => py.import("headrace.runtimes")?.call_method0("find_runtimes")?.cast_into().map_err(PyErr::from)?,
    };
    let item = |name: &str| -> Outcome<Bound<'_, PyAny>> {
        given.get_item(name)?.ok_or_else(|| type_mismatch(format!("runtimes lack '{name}'"), "give it"))
    };
    Ok(Runtimes {
        onnx: OnnxRuntime { library: item("onnx_library")?.extract()?, threads: item("onnx_threads")?.extract()? },
    })
}
