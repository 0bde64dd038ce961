//! Writes on their way to the one thread that makes them: a bounded queue, and an answer for each.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use headrace_engine::Engine;
use headrace_protocol::{ARROW_STREAM, DeletedKeys, PushedRows, decode_delete, decode_push_arrow, decode_push_json};
use headrace_types::{Error, ErrorCode, Result};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use tokio::sync::oneshot;

use bytes::Bytes;

/// What is to be written.
#[derive(Debug)]
pub enum Write {
    Push(PushedRows),
    Delete(DeletedKeys),
}

/// A write of a view and the way back to who asked for it.
#[derive(Debug)]
pub struct WriteRequest {
    pub view: String,
    pub write: Write,
    pub answer: WriteAnswer,
}

/// The way back to who asked for a write.
#[derive(Debug)]
pub struct WriteAnswer(oneshot::Sender<Result<Vec<u8>>>);

impl WriteAnswer {
    /// Answers with a JSON object once the write is durable, or with why it is not. Who has gone hears nothing.
    pub fn send(self, answer: Result<Vec<u8>>) {
        drop(self.0.send(answer));
    }
}

/// The server's end of the queue.
#[derive(Debug)]
pub(crate) struct WriteQueue {
    /// None where this server does not write.
    sender: Option<SyncSender<WriteRequest>>,
    receiver: Mutex<Option<Receiver<WriteRequest>>>,
}

impl WriteQueue {
    /// A queue for so many writes; 0 refuses all.
    pub(crate) fn new(writes_max: usize) -> Self {
        if writes_max == 0 {
            return Self { sender: None, receiver: Mutex::new(None) };
        }
        let (sender, receiver) = sync_channel(writes_max);
        Self { sender: Some(sender), receiver: Mutex::new(Some(receiver)) }
    }

    /// The writer's end, once.
    pub(crate) fn take_writes(&self) -> Option<Writes> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Writes { receiver })
    }

    /// Queues a write and waits for its answer.
    ///
    /// # Errors
    /// `read_only` where this server does not write; `unavailable` when the queue is full or the writer is gone; the writer's.
    pub(crate) async fn write(&self, view: String, write: Write) -> Result<Vec<u8>> {
        let sender = self.sender.as_ref().ok_or_else(read_only)?;
        let (answer, answered) = oneshot::channel();
        sender.try_send(WriteRequest { view, write, answer: WriteAnswer(answer) }).map_err(|error| match error {
            TrySendError::Full(_) => {
                Error::new(ErrorCode::Unavailable, "too many writes are waiting", "try again in a second")
            }
            TrySendError::Disconnected(_) => gone(),
        })?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// # Errors
    /// `read_only` where this server does not write.
    pub(crate) fn check(&self) -> Result<()> {
        if self.sender.is_none() { Err(read_only()) } else { Ok(()) }
    }
}

/// The writes that wait, for the thread that makes them.
#[derive(Debug)]
pub struct Writes {
    receiver: Receiver<WriteRequest>,
}

impl Writes {
    /// The next one; `Ok(None)` when none came in time.
    ///
    /// # Errors
    /// `unavailable`, the server is gone and no more will come.
    pub fn next(&self, timeout: Duration) -> Result<Option<WriteRequest>> {
        match self.receiver.recv_timeout(timeout) {
            Ok(request) => Ok(Some(request)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }
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

fn gone() -> Error {
    Error::new(ErrorCode::Unavailable, "the server is stopping, and the write was not made", "try again at another one")
}
