//! `Embedded`: requests answered without a socket, for servers that Python brings.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use headrace_server::{Begun, EmbeddedLater, EmbeddedReply, EmbeddedRequest, ModelChange, ViewWrite};
use headrace_types::{Error, ErrorCode};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::engine::Engine;
use crate::error::{Outcome, error_of};
use crate::fork::ForkGuard;
use crate::serve::{self, make_write};

/// Answers HTTP requests without a socket.
#[pyclass(frozen, module = "headrace._native")]
#[derive(Debug)]
pub(crate) struct Embedded {
    inner: headrace_server::Embedded,
    fork: ForkGuard,
}

#[pymethods]
impl Embedded {
    #[new]
    #[pyo3(signature = (engine, body_bytes_max, writes=false, model_control=false))]
    fn new(engine: &Engine, body_bytes_max: usize, writes: bool, model_control: bool) -> Outcome<Self> {
        let engine = engine.checked()?.clone();
        let inner = headrace_server::Embedded::new(engine, body_bytes_max, writes, model_control);
        Ok(Self { inner, fork: ForkGuard::new() })
    }

    /// The reply `(status, headers, body)` to a request, or an `EmbeddedAnswer` where making it takes long.
    fn begin(
        &self,
        py: Python<'_>,
        method: &str,
        path: &str,
        headers: Vec<(PyBackedBytes, PyBackedBytes)>,
        body: PyBackedBytes,
    ) -> Outcome<Py<PyAny>> {
        self.fork.check("Embedded")?;
        let begun = py.detach(|| {
            let headers = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            self.inner.begin(EmbeddedRequest { method, path, headers, body: Bytes::from_owner(body) })
        });
        let waiting = |errand: Errand, later: EmbeddedLater| {
            let kind = errand.kind();
            EmbeddedAnswer { kind, held: Mutex::new(Some((errand, later))) }.into_py_any(py)
        };
        Ok(match begun {
            Begun::Answered(reply) => reply_of(py, &reply)?,
            Begun::Later(later) => waiting(Errand::None, later)?,
            Begun::Write(write, later) => waiting(Errand::Write(write), later)?,
            Begun::ChangeModel(change, later) => waiting(Errand::ChangeModel(change), later)?,
        })
    }
}

/// What the program around is to do first.
#[derive(Debug)]
enum Errand {
    None,
    Write(ViewWrite),
    ChangeModel(ModelChange),
}

impl Errand {
    fn kind(&self) -> &'static str {
        match self {
            Errand::None => "prediction",
            Errand::Write(_) => "write",
            Errand::ChangeModel(_) => "change_model",
        }
    }
}

/// An answer that takes long, or that the program around it makes.
#[pyclass(frozen, module = "headrace._native")]
#[derive(Debug)]
pub(crate) struct EmbeddedAnswer {
    kind: &'static str,
    held: Mutex<Option<(Errand, EmbeddedLater)>>,
}

#[pymethods]
impl EmbeddedAnswer {
    /// `prediction`, `write` or `change_model`.
    #[getter]
    fn kind(&self) -> &'static str {
        self.kind
    }

    /// Makes the answer, once, on a thread that may wait. The callbacks are those of `serve`.
    #[pyo3(signature = (write=None, change_model=None))]
    fn finish(&self, py: Python<'_>, write: Option<Py<PyAny>>, change_model: Option<Py<PyAny>>) -> Outcome<Py<PyAny>> {
        let taken = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((errand, later)) = taken else {
            return Err(Error::new(ErrorCode::Unavailable, "this answer was made already", "ask again").into());
        };
        let made = match (errand, write, change_model) {
            (Errand::Write(what), Some(write), _) => make_write(py, &write, what),
            (Errand::ChangeModel(what), _, Some(change)) => serve::change_model(py, &change, &what),
            _ => {
                let reply = py.detach(|| later.finish());
                return Ok(reply_of(py, &reply)?);
            }
        };
        let reply = later.told(made.map_err(|error| error_of(py, &error)));
        Ok(reply_of(py, &reply)?)
    }
}

fn reply_of(py: Python<'_>, reply: &EmbeddedReply) -> PyResult<Py<PyAny>> {
    let headers: Vec<_> = reply
        .headers
        .iter()
        .map(|(name, value)| (PyBytes::new(py, name.as_str().as_bytes()), PyBytes::new(py, value.as_bytes())))
        .collect();
    (reply.status, headers, PyBytes::new(py, &reply.body)).into_py_any(py)
}
