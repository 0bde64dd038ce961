//! Functions that were written in Python, as the engine calls them: native code without the interpreter, or the interpreter itself.

use std::sync::Arc;

use headrace_expr::{BatchFunction, FunctionSpec};
use headrace_models::FunctionCompiler;
use headrace_types::{Column, DType, Error, ErrorCode, Result, ScalarFunction};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::error::{Failure, Outcome, error_of};
use crate::values::{column_of, list_of};

/// What `headrace.functions` compiles a function to: the arguments' words as ints and again as floats, which of them have a value,
/// and the place of the result, again twice. Zero means that a value was written; anything else is null.
type Entry = unsafe extern "C" fn(*const i64, *const f64, *const bool, *mut i64, *mut f64) -> i32;

/// Native code that Numba made, called on any thread without the interpreter's lock.
#[derive(Debug)]
pub(crate) struct CompiledFunction {
    entry: Entry,
    /// The code lives as long as this object.
    _owner: Py<PyAny>,
}

impl CompiledFunction {
    pub(crate) fn new(address: usize, owner: Py<PyAny>) -> Result<Self> {
        if address == 0 {
            let message = "the address of a compiled function is 0";
            return Err(Error::new(ErrorCode::TypeMismatch, message, "give that of a Numba cfunc"));
        }
        // SAFETY: an address that is not null, and by the contract of `Plan.bind_compiled`, whose one caller is `headrace.functions`, and
        // of `compile_function` in `headrace.runtimes`, that of a C function with the signature of `Entry`.
        let entry = unsafe { std::mem::transmute::<*const (), Entry>(std::ptr::with_exposed_provenance(address)) };
        Ok(Self { entry, _owner: owner })
    }
}

impl ScalarFunction for CompiledFunction {
    fn call(&self, words: &[u64], valid: &[bool]) -> Option<u64> {
        let mut result = 0u64;
        let place = &raw mut result;
        // SAFETY: `_owner` keeps the code in place. It reads one word and one flag for each parameter, which the engine gives in that
        // number, and writes one word; `i64`, `f64` and `u64` have the size and alignment of a word and every bit pattern is a value of
        // each. It neither keeps the pointers nor needs the interpreter.
        let status = unsafe {
            (self.entry)(words.as_ptr().cast(), words.as_ptr().cast(), valid.as_ptr(), place.cast(), place.cast())
        };
        (status == 0).then_some(result)
    }
}

/// `compile_function` of `headrace.runtimes`.
#[derive(Debug)]
pub(crate) struct PythonCompiler(pub(crate) Py<PyAny>);

impl FunctionCompiler for PythonCompiler {
    fn compile(&self, definition: &str) -> Result<Arc<dyn ScalarFunction>> {
        // A process that ends has no interpreter to attach to any more.
        let compiled = Python::try_attach(|py| {
            let made = self.0.bind(py).call1((definition,)).and_then(|made| made.extract::<(usize, Py<PyAny>)>());
            made.map_err(|error| error_of(py, &error))
        });
        let (address, owner) = compiled.unwrap_or_else(|| Err(interpreter_ended()))?;
        Ok(Arc::new(CompiledFunction::new(address, owner)?))
    }
}

fn interpreter_ended() -> Error {
    Error::new(ErrorCode::Unavailable, "the Python interpreter has ended", "send the request again")
}

/// A Python callable.
#[derive(Debug)]
pub(crate) struct PythonFunction {
    name: String,
    returns: DType,
    function: Py<PyAny>,
}

impl PythonFunction {
    pub(crate) fn new(spec: &FunctionSpec, function: Py<PyAny>) -> Self {
        Self { name: spec.name.clone(), returns: spec.returns, function }
    }

    fn call_python(&self, py: Python<'_>, arguments: &[Column], rows: usize) -> Outcome<Column> {
        let lists = arguments.iter().map(|column| list_of(py, column)).collect::<Outcome<Vec<_>>>()?;
        let result = self.function.bind(py).call1(PyTuple::new(py, lists)?)?;
        let mut row_errors = Vec::new();
        let column = column_of("result", self.returns, &result, &mut row_errors)?;
        if let Some(first) = row_errors.first() {
            let Error { message, hint, .. } = Error::clone(&first.error);
            return Err(self.failed(format!("gave a wrong value: {message}"), hint).into());
        }
        if column.len() != rows {
            let message = format!("gave {} values for {rows} rows", column.len());
            return Err(self.failed(message, "return one value for each row").into());
        }
        Ok(column)
    }

    fn failed(&self, what: impl std::fmt::Display, hint: impl Into<String>) -> Error {
        Error::new(ErrorCode::FunctionFailed, format!("function '{}' {what}", self.name), hint)
    }
}

impl BatchFunction for PythonFunction {
    fn call(&self, arguments: Vec<Column>, rows: usize) -> Result<Column> {
        // A process that ends has no interpreter to attach to any more.
        let outcome = Python::try_attach(|py| {
            self.call_python(py, &arguments, rows).map_err(|failure| match failure {
                Failure::Engine(error) if error.code == ErrorCode::FunctionFailed => error,
                Failure::Engine(error) => self.failed(format!("gave no column: {}", error.message), error.hint),
                Failure::Python(error) => {
                    let kind =
                        error.get_type(py).name().map_or_else(|_| "exception".to_owned(), |name| name.to_string());
                    let text: String = error.value(py).to_string().chars().take(TEXT_CHARACTERS_MAX).collect();
                    self.failed(format!("raised {kind}: {text}"), "correct the function, or what it was given")
                }
            })
        });
        outcome.unwrap_or_else(|| Err(interpreter_ended()))
    }
}

/// Of an exception's text, so that a message stays readable.
const TEXT_CHARACTERS_MAX: usize = 500;
