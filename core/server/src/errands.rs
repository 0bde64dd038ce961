//! What a request asks of the program around the server: errands on their way to a thread that runs them, and an answer for each.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use headrace_types::{Error, ErrorCode, Result};
use tokio::sync::oneshot;

use crate::repository::ModelChange;
use crate::writes::ViewWrite;

/// All errands of a server.
#[derive(Debug)]
pub(crate) struct ErrandQueues {
    pub(crate) writes: ErrandQueue<ViewWrite>,
    pub(crate) models: ErrandQueue<ModelChange>,
}

/// What is to be done, and the way back to who asked for it.
#[derive(Debug)]
pub struct Errand<T> {
    pub what: T,
    pub answer: ErrandAnswer,
}

/// The way back to who asked.
#[derive(Debug)]
pub struct ErrandAnswer(oneshot::Sender<Result<Vec<u8>>>);

impl ErrandAnswer {
    /// Answers with the reply's body once the errand is done, or with why it is not. Who has gone hears nothing.
    pub fn send(self, answer: Result<Vec<u8>>) {
        drop(self.0.send(answer));
    }
}

/// The server's end of a bounded queue.
#[derive(Debug)]
pub(crate) struct ErrandQueue<T> {
    /// None where this server does not run such errands.
    sender: Option<SyncSender<Errand<T>>>,
    receiver: Mutex<Option<Receiver<Errand<T>>>>,
    /// In the plural.
    name: &'static str,
    /// Why none is run where that is so.
    refusal: fn() -> Error,
}

impl<T> ErrandQueue<T> {
    /// A queue for so many errands; 0 refuses all.
    pub(crate) fn new(errands_max: usize, name: &'static str, refusal: fn() -> Error) -> Self {
        let (sender, receiver) = match errands_max {
            0 => (None, None),
            _ => {
                let (sender, receiver) = sync_channel(errands_max);
                (Some(sender), Some(receiver))
            }
        };
        Self { sender, receiver: Mutex::new(receiver), name, refusal }
    }

    /// The other end, once.
    pub(crate) fn take(&self) -> Option<Errands<T>> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Errands { receiver, name: self.name })
    }

    /// # Errors
    /// Why none is run, where that is so.
    pub(crate) fn check(&self) -> Result<()> {
        if self.sender.is_none() { Err((self.refusal)()) } else { Ok(()) }
    }

    /// Queues an errand and waits for its answer.
    ///
    /// # Errors
    /// As [`check`](Self::check); `unavailable` when the queue is full or nobody runs it any more; the errand's.
    pub(crate) async fn run(&self, what: T) -> Result<Vec<u8>> {
        let sender = self.sender.as_ref().ok_or_else(self.refusal)?;
        let (answer, answered) = oneshot::channel();
        sender.try_send(Errand { what, answer: ErrandAnswer(answer) }).map_err(|error| match error {
            TrySendError::Full(_) => Error::new(
                ErrorCode::Unavailable,
                format!("too many {} are waiting", self.name),
                "try again in a second",
            ),
            TrySendError::Disconnected(_) => gone(self.name),
        })?;
        answered.await.unwrap_or_else(|_| Err(gone(self.name)))
    }
}

/// The errands that wait, for the thread that runs them.
#[derive(Debug)]
pub struct Errands<T> {
    receiver: Receiver<Errand<T>>,
    name: &'static str,
}

impl<T> Errands<T> {
    /// The next one; `Ok(None)` when none came in time.
    ///
    /// # Errors
    /// `unavailable`, the server is gone and no more will come.
    pub fn next(&self, timeout: Duration) -> Result<Option<Errand<T>>> {
        match self.receiver.recv_timeout(timeout) {
            Ok(errand) => Ok(Some(errand)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(gone(self.name)),
        }
    }
}

fn gone(name: &str) -> Error {
    Error::new(
        ErrorCode::Unavailable,
        format!("the server is stopping and takes no {name}"),
        "try again at another one",
    )
}
