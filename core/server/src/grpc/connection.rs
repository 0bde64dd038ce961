//! A connection: its handshake, its requests as they come, its end.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::Ping;
use h2::server::{Builder, Connection, SendResponse};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use super::state::GrpcState;
use super::unary::begin;
use crate::access::Peer;
use crate::connection::WatchedStream;
use crate::worker::{Transport, Worker};

/// Requests of a connection that may be open at a time.
const STREAMS_MAX: u32 = 256;
/// Bytes of a request's headers.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// Bytes that a client may send ahead of what is read, of one request and of all requests of a connection.
const WINDOW_BYTES: u32 = 1 << 20;
/// Requests that a client may give up before they are looked at; one more ends the connection (rapid reset).
const UNSEEN_RESETS_MAX: usize = 64;
/// Requests that broke the protocol and were reset; one more ends the connection.
const WRONG_STREAMS_MAX: usize = 256;
/// Requests that are taken before the first of them is answered, so that their answers leave together.
const TOGETHER_MAX: usize = 32;

/// For a connection that is one too many: empty settings, and a GOAWAY that asks the client to calm down.
pub(crate) const REFUSAL: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\
    \x00\x00\x1c\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0btoo_many_connections";

type Accepted = (Request<h2::RecvStream>, SendResponse<Bytes>);

pub(crate) async fn serve_connection(
    worker: Arc<Worker>,
    stream: impl Transport,
    state: Arc<GrpcState>,
    peer: Arc<Peer>,
) {
    let handshake = Builder::new()
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX)
        .max_local_error_reset_streams(Some(WRONG_STREAMS_MAX))
        .handshake(WatchedStream::new(stream, Arc::clone(&state)));
    // A client that does not speak HTTP/2 or breaks off has been answered as far as it could be.
    if let Ok(Ok(connection)) = tokio::time::timeout(worker.config.header_timeout, handshake).await {
        drop(serve_requests(&worker, connection, &state, &peer).await);
    }
}

async fn serve_requests(
    worker: &Arc<Worker>,
    mut connection: Connection<impl AsyncRead + AsyncWrite + Unpin, Bytes>,
    state: &Arc<GrpcState>,
    peer: &Arc<Peer>,
) -> Result<(), h2::Error> {
    let mut pings = connection.ping_pong();
    let mut ending = state.ending();
    let mut is_ending = false;
    let mut together: Vec<Accepted> = Vec::with_capacity(TOGETHER_MAX);
    loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                None => return Ok(()),
                Some(request) => together.push(request?),
            },
            () = state.pinged.notified() => {
                if let Some(pings) = &mut pings {
                    // One that is still on its way is enough. Its answer shows as bytes that come.
                    drop(pings.send_ping(Ping::opaque()));
                }
            }
            () = async { drop(ending.wait_for(|ending| *ending).await) }, if !is_ending => {
                is_ending = true;
                connection.graceful_shutdown();
            }
        }
        while !together.is_empty() && together.len() < TOGETHER_MAX {
            let Poll::Ready(Some(request)) = poll_fn(|cx| Poll::Ready(connection.poll_accept(cx))).await else { break };
            together.push(request?);
        }
        for (request, respond) in together.drain(..) {
            begin(worker, state, peer, request, respond);
        }
        // A client that always has more must not keep this thread's other connections waiting.
        tokio::task::coop::consume_budget().await;
    }
}
