//! The one place where an error of the engine becomes a Python exception.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use headrace_types::{Error, ErrorCode};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// What a function of this module fails with: an error of the engine, or an exception that Python has raised already.
#[derive(Debug)]
pub(crate) enum Failure {
    Engine(Error),
    Python(PyErr),
}

pub(crate) type Outcome<T> = Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Engine(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Failure::Python(error)
    }
}

impl From<std::convert::Infallible> for Failure {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Python(error) => error,
            Failure::Engine(error) => Python::attach(|py| exception(py, &error)),
        }
    }
}

/// Builds the exception with `headrace.errors.make_error`, which knows the class of each slug.
fn exception(py: Python<'_>, error: &Error) -> PyErr {
    static MAKE_ERROR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let made = MAKE_ERROR
        .get_or_try_init(py, || Ok::<_, PyErr>(py.import("headrace.errors")?.getattr("make_error")?.unbind()))
        .and_then(|make| make.bind(py).call1((error.code.slug(), &error.message, &error.hint)));
    match made {
        Ok(value) => PyErr::from_value(value),
        Err(broken) => broken,
    }
}

/// Runs work of the engine; a panic in it becomes an error with the slug `internal`, because a defect must not end the process.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Error::internal(panic_text(panic.as_ref()))))
}

/// [`guarded`] work that takes long: other Python threads run meanwhile.
pub(crate) fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    py.detach(|| guarded(work))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the engine panicked: {}", text.unwrap_or("without a message"))
}

/// An exception as an error of the engine: a `HeadraceError` keeps its parts, anything else is `internal`.
pub(crate) fn error_of(py: Python<'_>, error: &PyErr) -> Error {
    let value = error.value(py);
    let part = |name: &str| value.getattr(name).and_then(|part| part.extract::<String>());
    match (part("code"), part("message"), part("hint")) {
        (Ok(slug), Ok(message), Ok(hint)) => {
            Error::new(ErrorCode::of_slug(&slug).unwrap_or(ErrorCode::Internal), message, hint)
        }
        _ => Error::internal(text_of(py, error)),
    }
}

/// `type_mismatch`, the most frequent complaint about an argument.
pub(crate) fn type_mismatch(message: impl Into<String>, hint: impl Into<String>) -> Failure {
    Failure::Engine(Error::new(ErrorCode::TypeMismatch, message, hint))
}

/// An exception's text, for a message that adds the place to it.
pub(crate) fn text_of(py: Python<'_>, error: &PyErr) -> String {
    if error.is_instance_of::<PyException>(py) { error.value(py).to_string() } else { error.to_string() }
}
