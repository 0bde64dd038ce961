//! Calls of one message and one answer.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use headrace_types::{Error, ErrorCode};
use http::{HeaderMap, Request};

use super::answer::{Answer, Failure, compressed, framed, held, send_unary, status_of};
use super::handler::{Call, Handled, handle, model_change};
use super::message::{Message, MessageReader};
use super::metadata::Opened;
use super::method::{METHOD_NONE, Method};
use super::state::{GrpcState, OpenRequest, Sending};
use super::streams::{StreamCall, serve_stream};
use crate::access::{Peer, Permit};
use crate::arrival::Arrival;
use crate::budget::Share;
use crate::handler::unpanicked;
use crate::later::{Holds, InFlight, reply_later};
use crate::record::{CallOf, Record};
use crate::worker::Worker;

/// A call that is read and not answered.
struct Unary {
    worker: Arc<Worker>,
    opened: Opened,
    permit: Permit,
    respond: SendResponse<Bytes>,
    open: OpenRequest,
    holds: Holds,
    record: Option<Arc<Record>>,
}

/// Answers a request at once if its message is there and its answer soon made; else goes on with it beside the connection.
pub(super) fn begin(
    worker: &Arc<Worker>,
    state: &Arc<GrpcState>,
    peer: &Arc<Peer>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let arrived = Instant::now();
    let (head, body) = request.into_parts();
    let opened = match Opened::of(&head, arrived) {
        Ok(opened) => opened,
        Err(failure) => {
            worker.counters.grpc.record(METHOD_NONE, failure.status, arrived.elapsed());
            return send_unary(respond, Err(failure), None);
        }
    };
    let observer = worker.observer.as_ref();
    let permit = match admitted(worker, opened.method, &head.headers, peer) {
        Ok(permit) => permit,
        Err(error) => {
            let record = observer.and_then(|observer| observer.begin(&head.headers, arrived));
            let failure = Failure::from(error);
            worker.counters.grpc.record(opened.method as usize, failure.status, arrived.elapsed());
            let answer = Err(failure);
            finish_record(worker, record.as_deref(), opened.method, &answer);
            return send_unary(respond, answer.map(Bytes::from), None);
        }
    };
    let open = OpenRequest::new(state);
    let holds = Holds { share: Share::new(&worker.budget), in_flight: InFlight::new(&worker.counters) };
    let mut reader = MessageReader::new(body, Arc::clone(state), opened.encoding, worker.config.body_bytes_max);
    if opened.method.is_stream() {
        // What the headers say of a trace counts for each of its messages.
        let call = StreamCall { opened, permit, headers: observer.is_some().then_some(head.headers) };
        tokio::spawn(serve_stream(Arc::clone(worker), call, reader, respond, open, holds));
        return;
    }
    let record = observer.and_then(|observer| observer.begin(&head.headers, arrived));
    let mut call = Unary { worker: Arc::clone(worker), opened, permit, respond, open, holds, record };
    match reader.only_now(&mut call.holds.share) {
        Some(message) => call.go_on(message),
        None => drop(tokio::spawn(async move {
            let message = reader.only(&mut call.holds.share, call.worker.config.body_timeout).await;
            call.go_on(message);
        })),
    }
}

/// Who asks, where the server wants to know.
fn admitted(worker: &Worker, method: Method, headers: &HeaderMap, peer: &Arc<Peer>) -> Result<Permit, Error> {
    let Some(access) = &worker.access else { return Ok(Permit::Open) };
    let Some(action) = method.action() else { return Ok(Permit::Nobody) };
    // The message tells what of; what the caller may do with it is asked then.
    access.admit(headers, peer, action, "").map_err(|refusal| refusal.error)
}

impl Unary {
    fn go_on(self, message: Result<Message, Error>) {
        let Message { bytes, is_compressed } = match message {
            Ok(message) => message,
            Err(error) => return self.finish(Err(error.into()), false),
        };
        let counters = Arc::clone(&self.worker.counters);
        let panicked = || {
            counters.panics.fetch_add(1, Ordering::Relaxed);
        };
        let arrival = arrival_of(&self.opened, self.record.clone());
        let call = Call { opened: self.opened, permit: self.permit.clone(), message: bytes, arrival };
        if call.opened.method.is_errand() {
            return drop(tokio::spawn(self.change_model(call, is_compressed)));
        }
        match handle(&self.worker.engine, call, self.worker.stopping.load(Ordering::Relaxed), panicked) {
            Handled::Answered(answer) => self.finish(answer, is_compressed),
            Handled::Later(later) => {
                let Self { worker, opened, permit, mut respond, open, holds, record } = self;
                tokio::spawn(async move {
                    let (answer, holds) = tokio::select! {
                        done = reply_later(&worker, later, holds) => done,
                        // The client has given up: what has not begun is not begun.
                        _ = poll_fn(|cx| respond.poll_reset(cx)) => {
                            return given_up(&worker, &opened, record.as_deref());
                        }
                    };
                    Unary { worker, opened, permit, respond, open, holds, record }.finish(answer, is_compressed);
                });
            }
        }
    }

    /// Has a model loaded or unloaded, and answers when that is done. It is done also where the client does not wait for it.
    async fn change_model(mut self, call: Call, is_compressed: bool) {
        let models = &self.worker.errands.models;
        let panicked = || {
            self.worker.counters.panics.fetch_add(1, Ordering::Relaxed);
        };
        let changed = match unpanicked(|| model_change(&call, models), panicked) {
            Err(error) => Err(error),
            Ok(change) => tokio::select! {
                changed = models.run(change) => changed,
                _ = poll_fn(|cx| self.respond.poll_reset(cx)) => {
                    return given_up(&self.worker, &self.opened, self.record.as_deref());
                }
            },
        };
        let answer = changed.map_err(Failure::from).and_then(|_| framed(0, |_| Ok(())));
        self.finish(answer, is_compressed);
    }

    fn finish(self, answer: Answer, is_compressed: bool) {
        let Self { worker, opened, respond, open, holds: Holds { mut share, in_flight }, record, .. } = self;
        let encoding = opened.encoding.filter(|_| is_compressed);
        worker.counters.grpc.record(opened.method as usize, status_of(&answer), opened.arrived.elapsed());
        finish_record(&worker, record.as_deref(), opened.method, &answer);
        drop(in_flight);
        // The request's bytes are gone here, the answer's stay until they are sent.
        share.release();
        let answer = answer.map(|message| {
            let message = compressed(message, encoding);
            share.take_anyway(message.len());
            let sending = Sending::new(&Arc::clone(open.state()), Some(open));
            held(message, share, sending)
        });
        send_unary(respond, answer, encoding);
    }
}

/// Notes a call whose client does not wait for its answer.
fn given_up(worker: &Worker, opened: &Opened, record: Option<&Record>) {
    worker.counters.grpc.record(opened.method as usize, CANCELLED, opened.arrived.elapsed());
    finish_record(worker, record, opened.method, &Err(cancelled()));
}

/// A message that has just been read.
pub(super) fn arrival_of(opened: &Opened, record: Option<Arc<Record>>) -> Arrival {
    let Opened { arrived, deadline, .. } = *opened;
    Arrival { at: arrived, read: arrived.elapsed(), deadline, request_id: None, record }
}

/// Hands the record of a call that has ended to those who report on it.
pub(super) fn finish_record(worker: &Worker, record: Option<&Record>, method: Method, answer: &Answer) {
    let (Some(observer), Some(record)) = (&worker.observer, record) else { return };
    let call = CallOf::Grpc { path: method.path(), code: status_of(answer) };
    observer.finish(record, call, None, answer.as_ref().err().map(|failure| failure.error.code));
}

/// The status of a call that the client gave up.
pub(super) const CANCELLED: u8 = 1;

fn cancelled() -> Failure {
    let error = Error::new(ErrorCode::Cancelled, "the client gave the call up", "");
    Failure { status: CANCELLED, error }
}

/// The end of streams when the server or the connection ends.
pub(super) fn stopping() -> Failure {
    let hint = "open the stream again, at another server if this one stops";
    Error::new(ErrorCode::Unavailable, "the connection is ending", hint).into()
}
