//! Where the runtimes of models are, from the dict that `headrace.runtimes` makes.

use std::sync::Arc;
use std::time::Duration;

use headrace_models::{OnnxRuntime, PythonRuntime, Runtimes};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{Outcome, type_mismatch};
use crate::functions::PythonCompiler;

/// Reads the keys of `headrace.runtimes.Runtimes`; by default what that finds in this Python.
pub(crate) fn runtimes_of(py: Python<'_>, given: Option<&Bound<'_, PyDict>>) -> Outcome<Runtimes> {
    let given = match given {
        Some(given) => given.clone(),
        None => py.import("headrace.runtimes")?.call_method0("find_runtimes")?.cast_into().map_err(PyErr::from)?,
    };
    let item = |name: &str| -> Outcome<Bound<'_, PyAny>> {
        given.get_item(name)?.ok_or_else(|| type_mismatch(format!("runtimes lack '{name}'"), "give it"))
    };
    let seconds = |name: &str| -> Outcome<Duration> {
        let seconds: f64 = item(name)?.extract()?;
        Duration::try_from_secs_f64(seconds)
            .map_err(|_| type_mismatch(format!("{name} is {seconds}"), "give a number of seconds that is not negative"))
    };
    Ok(Runtimes {
        onnx: OnnxRuntime { library: item("onnx_library")?.extract()?, threads: item("onnx_threads")?.extract()? },
        python: PythonRuntime {
            python: item("python")?.extract()?,
            worker_file: item("worker_file")?.extract()?,
            workers: item("workers")?.extract()?,
            batch_deadline: seconds("deadline_seconds")?,
            start_deadline: seconds("start_seconds")?,
            memory_bytes_max: item("memory_bytes_max")?.extract()?,
            address_bytes_max: item("address_bytes_max")?.extract()?,
            batch_bytes_max: item("batch_bytes_max")?.extract()?,
            environment: item("environment")?.extract()?,
        },
        functions: Some(Arc::new(PythonCompiler(item("compile_function")?.unbind()))),
    })
}
