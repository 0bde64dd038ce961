//! A thread that serves connections: its own runtime, and each request from its first byte to its last on this thread.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use headrace_engine::Engine;
use headrace_types::Error;
use http::header::{CONNECTION, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::access::{Access, Peer, Permit, accepted};
use crate::arrival::{Arrival, request_id_of};
use crate::body::{discard_body, read_body};
use crate::budget::{Held, MemoryBudget, Share};
use crate::compress::{Encoding, compressed};
use crate::config::ServerConfig;
use crate::connection::{ConnectionState, Phase, TickLimits, WatchedStream};
use crate::counters::{Scrape, WorkerCounters};
use crate::errands::ErrandQueues;
use crate::grpc::{self, GrpcState};
use crate::handler::{Handled, Prediction, Reply, handle, handle_errand, handle_whole, routed};
use crate::later::{EngineResponse, Holds, InFlight, LONG_BODY_BYTES, Lane, Later, Made, Work, reply_later};
use crate::observe::Observer;
use crate::record::CallOf;
use crate::route::{ROUTE_NONE, ROUTE_PATHS, Route};

/// Bytes of a request's line and headers.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long a stopping worker leaves idle connections open: a request that is on its way is answered, and told to be the last one.
const DRAIN_IDLE_GRACE: Duration = Duration::from_millis(250);
/// How often a stopping worker looks whether its connections are done.
const DRAIN_TICK: Duration = Duration::from_millis(5);

/// What all connections of a worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) engine: Arc<Engine>,
    pub(crate) config: ServerConfig,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) budget: Arc<MemoryBudget>,
    /// None where requests are neither traced nor logged.
    pub(crate) observer: Option<Arc<Observer>>,
    pub(crate) errands: Arc<ErrandQueues>,
    ticks: Arc<AtomicU64>,
    open: Mutex<HashMap<u64, Open>>,
    pub(crate) lane: Lane,
    /// None where everybody may do everything.
    pub(crate) access: Option<Arc<Access>>,
}

#[derive(Debug)]
struct Open {
    state: OpenState,
    task: AbortHandle,
}

#[derive(Debug)]
enum OpenState {
    Http(Arc<ConnectionState>),
    Grpc(Arc<GrpcState>),
}

impl Open {
    /// Asks the connection to end when what it is asked now is answered; where it can only be cut off, when it is idle and `ends_idle`.
    fn end(&self, ends_idle: bool) {
        match &self.state {
            OpenState::Http(state) if ends_idle && state.phase() == Phase::Idle => self.task.abort(),
            OpenState::Http(_) => {}
            OpenState::Grpc(state) => state.end(),
        }
    }
}

/// What a listener's connections speak.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Speaks {
    Http,
    Grpc,
}

impl Worker {
    /// `turns` are those of requests that take long, of all workers together: as many as there are workers.
    pub(crate) fn new(
        scrape: &Scrape,
        config: ServerConfig,
        counters: Arc<WorkerCounters>,
        stopping: Arc<AtomicBool>,
        observer: Option<Arc<Observer>>,
        errands: Arc<ErrandQueues>,
        turns: Arc<Semaphore>,
    ) -> Arc<Self> {
        let (ticks, open) = (Arc::default(), Mutex::default());
        let lane = Lane::new(turns);
        let (engine, budget) = (Arc::clone(&scrape.engine), Arc::clone(&scrape.budget));
        let access = scrape.access.clone();
        Arc::new(Self { engine, config, counters, stopping, budget, observer, errands, ticks, open, lane, access })
    }

    /// Serves the connections that come through `streams` until the channel closes, then lets running requests end.
    pub(crate) fn run(self: &Arc<Self>, mut streams: UnboundedReceiver<(TcpStream, Speaks)>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(self.config.threads_count())
            .build()?;
        let stopped = runtime.block_on(async {
            let limits = TickLimits::of(&self.config);
            let sweep = tokio::spawn(Arc::clone(self).sweep_every_tick(limits));
            let mut number = 0u64;
            while let Some((stream, speaks)) = streams.recv().await {
                number += 1;
                if self.open_connection(number, stream, speaks, &limits).is_err() {
                    // The client has gone already.
                    self.counters.connections.fetch_sub(1, Ordering::Relaxed);
                }
            }
            sweep.abort();
            let stopped = Instant::now();
            self.drain().await;
            stopped
        });
        // A thread that waits for a model longer than that is left to end by itself.
        runtime.shutdown_timeout(self.config.drain_timeout.saturating_sub(stopped.elapsed()));
        Ok(())
    }

    fn open_connection(
        self: &Arc<Self>,
        number: u64,
        stream: TcpStream,
        speaks: Speaks,
        limits: &TickLimits,
    ) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let closed = Closed { worker: Arc::clone(self), number };
        let (state, task) = match speaks {
            Speaks::Http => {
                let state = Arc::new(ConnectionState::new(Arc::clone(&self.ticks)));
                let served = serve_http(Arc::clone(self), stream, Arc::clone(&state));
                (OpenState::Http(state), spawn_until(served, closed))
            }
            Speaks::Grpc => {
                let state = Arc::new(GrpcState::new(Arc::clone(&self.ticks), limits));
                let served = serve_grpc(Arc::clone(self), stream, Arc::clone(&state));
                (OpenState::Grpc(state), spawn_until(served, closed))
            }
        };
        self.open().insert(number, Open { state, task });
        Ok(())
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn sweep_every_tick(self: Arc<Self>, limits: TickLimits) {
        loop {
            tokio::time::sleep(limits.tick).await;
            self.ticks.fetch_add(1, Ordering::Relaxed);
            let is_overdue = |connection: &&Open| match &connection.state {
                OpenState::Http(state) => state.is_overdue(&limits),
                OpenState::Grpc(state) => state.is_overdue(&limits),
            };
            for connection in self.open().values().filter(is_overdue) {
                self.counters.timed_out_connections.fetch_add(1, Ordering::Relaxed);
                connection.task.abort();
            }
        }
    }

    /// Ends connections when they have had their last answer, idle ones after a grace, and all when the drain timeout is over.
    async fn drain(&self) {
        let began = Instant::now();
        let (deadline, idle_until) = (began + self.config.drain_timeout, began + DRAIN_IDLE_GRACE);
        loop {
            let now = Instant::now();
            let (is_late, ends_idle) = (now >= deadline, now >= idle_until);
            {
                let open = self.open();
                if open.is_empty() {
                    return;
                }
                for connection in open.values() {
                    if is_late {
                        connection.task.abort();
                    } else {
                        connection.end(ends_idle);
                    }
                }
            }
            tokio::time::sleep(DRAIN_TICK).await;
        }
    }
}

/// Takes a connection off the books when its task ends, however it ends.
struct Closed {
    worker: Arc<Worker>,
    number: u64,
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.worker.counters.connections.fetch_sub(1, Ordering::Relaxed);
        self.worker.open().remove(&self.number);
    }
}

fn spawn_until(served: impl Future<Output = ()> + Send + 'static, closed: Closed) -> AbortHandle {
    let task = tokio::spawn(async move {
        let _closed = closed;
        served.await;
    });
    task.abort_handle()
}

/// What carries a connection's bytes: TCP, or TLS over it.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for T {}

async fn serve_http(worker: Arc<Worker>, stream: tokio::net::TcpStream, state: Arc<ConnectionState>) {
    let Some((acceptor, peer)) = worker.greeting(&stream, Speaks::Http) else {
        return serve_connection(worker, stream, state, Arc::default()).await;
    };
    match acceptor {
        None => serve_connection(worker, stream, state, peer).await,
        // In a box, so that connections without TLS are no larger for it.
        Some(acceptor) => {
            let secured = async {
                if let Some((stream, peer)) = worker.secured(acceptor, stream).await {
                    serve_connection(Arc::clone(&worker), stream, state, peer).await;
                }
            };
            Box::pin(secured).await;
        }
    }
}

async fn serve_grpc(worker: Arc<Worker>, stream: tokio::net::TcpStream, state: Arc<GrpcState>) {
    let Some((acceptor, peer)) = worker.greeting(&stream, Speaks::Grpc) else {
        return grpc::serve_connection(worker, stream, state, Arc::default()).await;
    };
    match acceptor {
        None => grpc::serve_connection(worker, stream, state, peer).await,
        Some(acceptor) => {
            let secured = async {
                if let Some((stream, peer)) = worker.secured(acceptor, stream).await {
                    grpc::serve_connection(Arc::clone(&worker), stream, state, peer).await;
                }
            };
            Box::pin(secured).await;
        }
    }
}

impl Worker {
    /// With what a connection begins where there is a policy: its TLS, if any, and who is at the other end.
    fn greeting(&self, stream: &tokio::net::TcpStream, speaks: Speaks) -> Option<(Option<TlsAcceptor>, Arc<Peer>)> {
        let acceptor = self.access.as_ref()?.tls(speaks);
        Some((acceptor, Arc::new(Peer { addr: stream.peer_addr().ok(), identity: None })))
    }

    async fn secured(
        &self,
        acceptor: TlsAcceptor,
        stream: tokio::net::TcpStream,
    ) -> Option<(TlsStream<tokio::net::TcpStream>, Arc<Peer>)> {
        accepted(self.access.as_ref()?, acceptor, stream, self.config.header_timeout).await
    }
}

async fn serve_connection(worker: Arc<Worker>, stream: impl Transport, state: Arc<ConnectionState>, peer: Arc<Peer>) {
    let io = TokioIo::new(WatchedStream::new(stream, Arc::clone(&state)));
    let service = service_fn(|request: Request<Incoming>| {
        let (worker, state, peer) = (Arc::clone(&worker), Arc::clone(&state), Arc::clone(&peer));
        async move {
            state.enter(Phase::Handling);
            let response = serve_request(&worker, &peer, request).await;
            state.enter(Phase::Replied);
            Ok::<_, Infallible>(response)
        }
    });
    // At most 100 headers, as hyper has it: told the same number, it would clear room for them twice a request.
    let connection =
        http1::Builder::new().max_header_size(HEAD_BYTES_MAX).header_read_timeout(None).serve_connection(io, service);
    // A client that breaks off or sends what is not HTTP has been answered by hyper as far as it could be.
    drop(connection.await);
}

async fn serve_request(worker: &Worker, peer: &Arc<Peer>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let arrived = Instant::now();
    let counters = &worker.counters;
    let mut holds = Holds { share: Share::new(&worker.budget), in_flight: InFlight::new(counters) };
    let (Parts { method, uri, headers, .. }, body) = request.into_parts();
    let record = worker.observer.as_ref().and_then(|observer| observer.begin(&headers, arrived));
    let request_id = request_id_of(&headers);
    let config = &worker.config;
    let accepted = Encoding::accepted(&headers);
    let routed = routed(&method, uri.path());
    let route_index = routed.as_ref().map_or(ROUTE_NONE, Route::index);
    let admitted = routed.and_then(|route| Ok((admitted(worker, &route, &method, &headers, peer)?, route)));
    let reply = match admitted {
        Err(refusal) => {
            discard_body(body).await;
            refusal
        }
        Ok((permit, route)) => {
            let body = read_body(&headers, body, config.body_bytes_max, config.body_timeout, &mut holds.share).await;
            match body {
                Err(error) => Reply::error(&error),
                Ok(body) => {
                    // What only shows something must not change it, whatever a client sends along.
                    let body = if method == Method::POST { body } else { Bytes::new() };
                    let (request_id, record) = (request_id.clone(), record.clone());
                    let arrival = Arrival { at: arrived, read: arrived.elapsed(), deadline: None, request_id, record };
                    let request = Received { route, permit, headers, body, arrival };
                    let reply;
                    (reply, holds) = reply_to(worker, request, holds).await;
                    reply
                }
            }
        }
    };
    let reply = compressed(reply, accepted).await;
    counters.record(route_index, reply.status, arrived.elapsed());
    if let (Some(observer), Some(record)) = (&worker.observer, record) {
        let named = request_id.as_ref().and_then(|id| id.to_str().ok());
        let call = CallOf::http(&method, uri.path(), ROUTE_PATHS[route_index], reply.status);
        observer.finish(&record, call, named, reply.error);
    }
    let Holds { mut share, in_flight } = holds;
    drop(in_flight);
    // The request's bytes are gone here, the answer's stay until they are sent.
    share.release();
    share.take_anyway(reply.body.len());
    response_of(reply, share, worker.stopping.load(Ordering::Relaxed), request_id)
}

/// Who asks, where the server wants to know, and whether it may; what the body names is asked for later.
fn admitted(
    worker: &Worker,
    route: &Route,
    method: &Method,
    headers: &HeaderMap,
    peer: &Arc<Peer>,
) -> Result<Permit, Reply> {
    let Some(access) = &worker.access else { return Ok(Permit::Open) };
    let Some((action, resource)) = route.asks(method) else { return Ok(Permit::Nobody) };
    let permit = access.admit(headers, peer, action, resource.unwrap_or_default()).map_err(|refusal| {
        let retry_after_s = refusal.retry_after.map(|wait| wait.as_secs() + 1);
        Reply { retry_after_s, ..Reply::error(&refusal.error) }
    })?;
    if let Some(resource) = resource {
        permit.permit(action, resource).map_err(|error| Reply::error(&error))?;
    }
    Ok(permit)
}

/// A request that came whole.
struct Received {
    route: Route,
    permit: Permit,
    headers: HeaderMap,
    body: Bytes,
    arrival: Arrival,
}

async fn reply_to(worker: &Worker, request: Received, holds: Holds) -> (Reply, Holds) {
    let panicked = || {
        worker.counters.panics.fetch_add(1, Ordering::Relaxed);
    };
    let Received { route, permit, headers, body, arrival } = &request;
    if route.is_errand() {
        let reply = handle_errand(&worker.engine, &worker.errands, route, headers, body, panicked).await;
        return (reply, holds);
    }
    let later = if body.len() > LONG_BODY_BYTES {
        Later::Aside(Job::Whole(Box::new(request)))
    } else {
        match handle(&worker.engine, route, headers, body, arrival, permit, panicked) {
            Handled::Answered(reply) => return (reply, holds),
            Handled::Long(prediction) => Later::Aside(Job::Answer(prediction)),
            Handled::Queued(queued) => Later::Queued(queued),
        }
    };
    reply_later(worker, later, holds).await
}

enum Job {
    /// From decoding to the answer.
    Whole(Box<Received>),
    Answer(Box<Prediction>),
}

impl Work for Job {
    type Reply = Reply;

    fn run(self, engine: &Engine, panicked: impl Fn()) -> Made<Reply> {
        match self {
            Job::Whole(request) => {
                let Received { route, permit, headers, body, arrival } = &*request;
                handle_whole(engine, route, headers, body, arrival, permit, panicked)
            }
            Job::Answer(prediction) => prediction.made_whole(engine, panicked),
        }
    }

    fn reply(prediction: &Prediction, response: EngineResponse) -> Reply {
        prediction.told(response)
    }

    fn refused(error: Error) -> Reply {
        Reply::error(&error)
    }
}

fn response_of(reply: Reply, share: Share, stopping: bool, request_id: Option<HeaderValue>) -> Response<Full<Bytes>> {
    let mut told = HeaderMap::with_capacity(8);
    reply.tell_headers(request_id, &mut told);
    let mut response = Response::new(Full::new(Bytes::from_owner(Held { bytes: reply.body, _share: share })));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    *headers = told;
    if stopping {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
