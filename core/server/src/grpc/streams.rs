//! Calls of many messages: inference over a stream, health that is watched, and reflection.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::SendStream;
use h2::server::SendResponse;
use headrace_protocol::grpc::{STATUS_OK, decode_texts, encode_reflection, encode_stream_reply};
use headrace_types::{Error, ErrorCode, Result};
use http::HeaderMap;

use super::answer::{Answer, FRAME_HEAD_BYTES, Failure, answer_headers, compressed, framed, held, send_end, status_of};
use super::handler::{Call, Handled, NOT_SERVING, SERVICE_UNKNOWN, check_health, handle, health, health_answer};
use super::message::{Message, MessageReader};
use super::metadata::Opened;
use super::method::Method;
use super::state::{OpenRequest, Sending};
use super::unary::{CANCELLED, arrival_of, finish_record, stopping};
use crate::access::{Action, Permit};
use crate::budget::Share;
use crate::later::{Holds, reply_later};
use crate::worker::Worker;

/// How often a watched health is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// What begins a stream.
pub(super) struct StreamCall {
    pub(super) opened: Opened,
    pub(super) permit: Permit,
    /// Where requests are watched.
    pub(super) headers: Option<HeaderMap>,
}

/// Answers a stream until its end.
pub(super) async fn serve_stream(
    worker: Arc<Worker>,
    call: StreamCall,
    reader: MessageReader,
    mut respond: SendResponse<Bytes>,
    open: OpenRequest,
    holds: Holds,
) {
    let StreamCall { opened, permit, headers } = call;
    let Ok(stream) = respond.send_response(answer_headers(opened.encoding), false) else { return };
    let mut call = Stream { worker, opened, permit, reader, stream, open, headers };
    let mut ending = call.open.state().ending();
    let served = async {
        match opened.method {
            Method::ModelStreamInfer => call.infer(holds).await,
            Method::Watch => call.watch().await,
            _ => call.reflect().await,
        }
    };
    let end = tokio::select! {
        biased;
        end = served => end,
        () = async { drop(ending.wait_for(|ending| *ending).await) } => Err(End::Told(stopping())),
    };
    let status = match &end {
        Ok(()) => STATUS_OK,
        Err(End::Told(failure)) => failure.status,
        Err(End::Gone) => CANCELLED,
    };
    if opened.method != Method::ModelStreamInfer {
        call.worker.counters.grpc.record(opened.method as usize, status, opened.arrived.elapsed());
    }
    match end {
        Ok(()) => send_end(&mut call.stream, Ok(())),
        Err(End::Told(failure)) => send_end(&mut call.stream, Err(failure)),
        Err(End::Gone) => {}
    }
}

/// Why a stream ends before the client has ended it.
enum End {
    Told(Failure),
    /// The client has given it up, or takes nothing.
    Gone,
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Told(error.into())
    }
}

struct Stream {
    worker: Arc<Worker>,
    opened: Opened,
    permit: Permit,
    reader: MessageReader,
    stream: SendStream<Bytes>,
    open: OpenRequest,
    /// Where requests are watched.
    headers: Option<HeaderMap>,
}

impl Stream {
    /// One answer for each request, in their order. An error of one is told in its answer.
    async fn infer(&mut self, mut holds: Holds) -> Result<(), End> {
        let mut is_first = true; // it was admitted with the headers
        while let Some(message) = self.reader.next(&mut holds.share, self.worker.config.body_timeout).await? {
            let arrived = Instant::now();
            let opened = Opened { arrived, ..self.opened };
            let Message { bytes, is_compressed } = message;
            let counters = Arc::clone(&self.worker.counters);
            let panicked = || {
                counters.panics.fetch_add(1, Ordering::Relaxed);
            };
            if !std::mem::take(&mut is_first) {
                self.permit.again(Action::Predict)?;
            }
            let record = match (&self.worker.observer, &self.headers) {
                (Some(observer), Some(headers)) => observer.begin(headers, arrived),
                _ => None,
            };
            let arrival = arrival_of(&opened, record.clone());
            let call = Call { opened, permit: self.permit.clone(), message: bytes, arrival };
            let answer = match handle(&self.worker.engine, call, false, panicked) {
                Handled::Answered(answer) => answer,
                Handled::Later(later) => {
                    let answer;
                    (answer, holds) = tokio::select! {
                        done = reply_later(&self.worker, later, holds) => done,
                        _ = poll_fn(|cx| self.stream.poll_reset(cx)) => return Err(End::Gone),
                    };
                    answer
                }
            };
            counters.grpc.record(opened.method as usize, status_of(&answer), arrived.elapsed());
            finish_record(&self.worker, record.as_deref(), opened.method, &answer);
            holds.share.release();
            let wrapped = match &answer {
                Ok(message) => Ok(message.get(FRAME_HEAD_BYTES..).unwrap_or_default()),
                Err(failure) => Err(&failure.error),
            };
            let wrapped = framed(wrapped.map_or(0, <[u8]>::len) + 16, |out| {
                encode_stream_reply(out, wrapped);
                Ok(())
            });
            self.send(wrapped, is_compressed).await?;
            // Messages that have come already must not keep this thread's other connections waiting.
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }

    /// The health of what the first message names, and again whenever it has changed.
    async fn watch(&mut self) -> Result<(), End> {
        let message = self.first_message().await?;
        let [service, _] = decode_texts("HealthCheckRequest", &message)?;
        check_health(&self.permit, service)?;
        let mut told = None;
        loop {
            let status = if self.worker.stopping.load(Ordering::Relaxed) {
                NOT_SERVING
            } else {
                health(&self.worker.engine, service).unwrap_or(SERVICE_UNKNOWN)
            };
            if told.replace(status) != Some(status) {
                self.send(health_answer(status), false).await?;
            }
            tokio::select! {
                () = tokio::time::sleep(WATCH_INTERVAL) => {}
                _ = poll_fn(|cx| self.stream.poll_reset(cx)) => return Err(End::Gone),
            }
        }
    }

    async fn first_message(&mut self) -> Result<Bytes, End> {
        let mut share = Share::new(&self.worker.budget);
        let first = self.reader.next(&mut share, self.worker.config.body_timeout).await?;
        let none = || Error::new(ErrorCode::InvalidArgument, "the call has no message", "send one");
        Ok(first.ok_or_else(none)?.bytes)
    }

    async fn reflect(&mut self) -> Result<(), End> {
        self.permit.permit(Action::ReadMetadata, "")?;
        let mut share = Share::new(&self.worker.budget);
        while let Some(message) = self.reader.next(&mut share, self.worker.config.body_timeout).await? {
            let answer = framed(1024, |out| encode_reflection(out, &message.bytes));
            share.release();
            self.send(answer, message.is_compressed).await?;
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }

    /// Sends a message as fast as the client takes it.
    async fn send(&mut self, answer: Answer, is_compressed: bool) -> Result<(), End> {
        let message = answer.map_err(End::Told)?;
        let message = compressed(message, self.opened.encoding.filter(|_| is_compressed));
        let mut share = Share::new(&self.worker.budget);
        share.take_anyway(message.len());
        let mut rest = held(message, share, Sending::new(self.open.state(), None));
        let timeout = self.worker.config.write_timeout;
        while !rest.is_empty() {
            self.stream.reserve_capacity(rest.len());
            let capacity = match self.stream.capacity() {
                0 => {
                    let more = tokio::time::timeout(timeout, poll_fn(|cx| self.stream.poll_capacity(cx))).await;
                    let Ok(Some(Ok(more))) = more else { return Err(End::Gone) };
                    more
                }
                there => there,
            };
            let piece = rest.split_to(capacity.min(rest.len()));
            self.stream.send_data(piece, false).map_err(|_| End::Gone)?;
        }
        Ok(())
    }
}
