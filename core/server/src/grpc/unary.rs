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

use super::answer::{Answer, Failure, compressed, held, send_unary, status_of};
use super::handler::{Call, Handled, handle};
use super::message::{Message, MessageReader};
use super::metadata::Opened;
use super::method::{METHOD_NONE, Method};
use super::state::{GrpcState, OpenRequest, Sending};
use super::streams::serve_stream;
use crate::access::{Peer, Permit};
use crate::budget::Share;
use crate::later::{Holds, InFlight, reply_later};
use crate::worker::Worker;

/// A call that is read and not answered.
struct Unary {
    worker: Arc<Worker>,
    opened: Opened,
    permit: Permit,
    respond: SendResponse<Bytes>,
    open: OpenRequest,
    holds: Holds,
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
    let permit = match admitted(worker, opened.method, &head.headers, peer) {
        Ok(permit) => permit,
        Err(error) => {
            let failure = Failure::from(error);
            worker.counters.grpc.record(opened.method as usize, failure.status, arrived.elapsed());
            return send_unary(respond, Err(failure), None);
        }
    };
    let open = OpenRequest::new(state);
    let holds = Holds { share: Share::new(&worker.budget), in_flight: InFlight::new(&worker.counters) };
    let mut reader = MessageReader::new(body, Arc::clone(state), opened.encoding, worker.config.body_bytes_max);
    if opened.method.is_stream() {
        tokio::spawn(serve_stream(Arc::clone(worker), opened, permit, reader, respond, open, holds));
        return;
    }
    let mut call = Unary { worker: Arc::clone(worker), opened, permit, respond, open, holds };
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
        let call = Call { opened: self.opened, permit: self.permit.clone(), message: bytes };
        match handle(&self.worker.engine, call, self.worker.stopping.load(Ordering::Relaxed), panicked) {
            Handled::Answered(answer) => self.finish(answer, is_compressed),
            Handled::Later(later) => {
                let Self { worker, opened, permit, mut respond, open, holds } = self;
                tokio::spawn(async move {
                    let (answer, holds) = tokio::select! {
                        done = reply_later(&worker, later, holds) => done,
                        // The client has given up: what has not begun is not begun.
                        _ = poll_fn(|cx| respond.poll_reset(cx)) => {
                            let elapsed = opened.arrived.elapsed();
                            return worker.counters.grpc.record(opened.method as usize, CANCELLED, elapsed);
                        }
                    };
                    Unary { worker, opened, permit, respond, open, holds }.finish(answer, is_compressed);
                });
            }
        }
    }

    fn finish(self, answer: Answer, is_compressed: bool) {
        let Self { worker, opened, respond, open, holds: Holds { mut share, in_flight }, .. } = self;
        let encoding = opened.encoding.filter(|_| is_compressed);
        worker.counters.grpc.record(opened.method as usize, status_of(&answer), opened.arrived.elapsed());
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

/// The status of a call that the client gave up.
pub(super) const CANCELLED: u8 = 1;

/// The end of streams when the server or the connection ends.
pub(super) fn stopping() -> Failure {
    let hint = "open the stream again, at another server if this one stops";
    Error::new(ErrorCode::Unavailable, "the connection is ending", hint).into()
}
