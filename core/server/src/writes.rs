//! Pushed rows and deleted keys, as a client sends them.

use headrace_engine::Engine;
use headrace_protocol::{ARROW_STREAM, DeletedKeys, PushedRows, decode_delete, decode_push_arrow, decode_push_json};
use headrace_types::{Error, ErrorCode, Result};
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use bytes::Bytes;

use crate::errands::ErrandQueue;

/// What is to be written.
#[derive(Debug)]
pub enum Write {
    Push(PushedRows),
    Delete(DeletedKeys),
}

/// A write of a view.
#[derive(Debug)]
pub struct ViewWrite {
    pub view: String,
    pub write: Write,
}

/// A queue for so many writes; 0 refuses all.
pub(crate) fn write_queue(writes_max: usize) -> ErrandQueue<ViewWrite> {
    ErrandQueue::new(writes_max, "writes", read_only)
}

/// Reads the rows of a push: an Arrow stream if the header says so, else JSON.
pub(crate) fn decode_push(engine: &Engine, view: &str, headers: &HeaderMap, body: &Bytes) -> Result<Write> {
    let plan = engine.plan()?;
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let rows = if content_type.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(ARROW_STREAM)) {
        decode_push_arrow(&plan, view, body.clone())?
    } else {
        decode_push_json(&plan, view, body)?
    };
    Ok(Write::Push(rows))
}

/// Reads the keys of a deletion.
pub(crate) fn decode_keys(engine: &Engine, view: &str, body: &[u8]) -> Result<Write> {
    Ok(Write::Delete(decode_delete(&*engine.plan()?, view, body)?))
}

fn read_only() -> Error {
    Error::new(
        ErrorCode::ReadOnly,
        "this server does not write",
        "start it with `headrace serve --writes`, or set writes = true under [server] in headrace.toml",
    )
}
