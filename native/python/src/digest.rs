//! Content digests, computed nowhere else.

use std::path::PathBuf;

use headrace_types::Error;
use pyo3::prelude::*;

use crate::error::{Outcome, detached, guarded};

/// The same JSON with sorted keys and without white space.
#[pyfunction]
pub(crate) fn canonical_json(text: &str) -> Outcome<String> {
    Ok(guarded(|| headrace_types::canonical_json(text))?)
}

/// The digest of the canonical form of a JSON text.
#[pyfunction]
pub(crate) fn digest_json(text: &str) -> Outcome<String> {
    Ok(guarded(|| headrace_types::digest_json(text))?)
}

#[pyfunction]
pub(crate) fn digest_bytes(py: Python<'_>, data: &[u8]) -> Outcome<String> {
    Ok(detached(py, || Ok(headrace_types::digest_bytes(data)))?)
}

/// The digest of a file's bytes.
#[pyfunction]
pub(crate) fn digest_file(py: Python<'_>, path: PathBuf) -> Outcome<String> {
    Ok(detached(py, || {
        let bytes = std::fs::read(&path).map_err(|error| Error::from(error).within(path.display()))?;
        Ok(headrace_types::digest_bytes(&bytes))
    })?)
}

/// The digest of the Rust sources that this module was built from; `native/python/build.rs` says over which files.
#[pyfunction]
pub(crate) fn source_digest() -> &'static str {
    env!("HEADRACE_SOURCE_DIGEST")
}
