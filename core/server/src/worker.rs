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
use headrace_protocol::oip;
use headrace_types::{Error, ErrorCode};
use http::header::{ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::AbortHandle;

use crate::body::{discard_body, read_body};
use crate::budget::{Held, MemoryBudget, Share};
use crate::compress::{Encoding, compressed};
use crate::config::ServerConfig;
use crate::connection::{ConnectionState, Phase, TickLimits, WatchedStream};
use crate::counters::WorkerCounters;
use crate::handler::{Handled, Prediction, Reply, handle, handle_whole, handle_write, routed, waits};
use crate::route::{ROUTE_NONE, Route};
use crate::writes::WriteQueue;

/// Bytes of a request's line and headers.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 100;
/// Threads of a worker for requests whose models wait for other processes; further ones queue.
const WAITING_THREADS_MAX: usize = 64;
/// Requests of a worker and of one [`Kind`] that are put aside, those that queue included; further ones are refused.
const ASIDE_MAX: usize = 256;
/// A request with a larger body takes long to decode, and may to answer.
const LONG_BODY_BYTES: usize = 256 << 10;
/// How often a stopping worker looks whether its connections are done.
const DRAIN_TICK: Duration = Duration::from_millis(5);

/// What all connections of a worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) engine: Arc<Engine>,
    pub(crate) config: ServerConfig,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) stopping: Arc<AtomicBool>,
    budget: Arc<MemoryBudget>,
    writes: Arc<WriteQueue>,
    ticks: Arc<AtomicU64>,
    open: Mutex<HashMap<u64, Open>>,
    waiting: Lane,
    long: Lane,
}

/// Where requests of one kind are put aside.
#[derive(Debug)]
struct Lane {
    /// Of this worker.
    places: Arc<Semaphore>,
    /// A request that has one gets a thread.
    turns: Arc<Semaphore>,
}

impl Lane {
    fn new(turns: Arc<Semaphore>) -> Self {
        Self { places: Arc::new(Semaphore::new(ASIDE_MAX)), turns }
    }
}

#[derive(Debug)]
struct Open {
    state: Arc<ConnectionState>,
    task: AbortHandle,
}

impl Worker {
    /// `turns` are those of requests that take long, of all workers together: as many as there are workers.
    pub(crate) fn new(
        engine: Arc<Engine>,
        config: ServerConfig,
        counters: Arc<WorkerCounters>,
        stopping: Arc<AtomicBool>,
        budget: Arc<MemoryBudget>,
        writes: Arc<WriteQueue>,
        turns: Arc<Semaphore>,
    ) -> Arc<Self> {
        let (ticks, open) = (Arc::default(), Mutex::default());
        let waiting = Lane::new(Arc::new(Semaphore::new(WAITING_THREADS_MAX)));
        let long = Lane::new(turns);
        Arc::new(Self { engine, config, counters, stopping, budget, writes, ticks, open, waiting, long })
    }

    /// Serves the connections that come through `streams` until the channel closes, then lets running requests end.
    pub(crate) fn run(self: &Arc<Self>, mut streams: UnboundedReceiver<TcpStream>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(WAITING_THREADS_MAX + self.config.threads_count())
            .build()?;
        let stopped = runtime.block_on(async {
            let limits = TickLimits::of(&self.config);
            let sweep = tokio::spawn(Arc::clone(self).sweep_every_tick(limits));
            let mut number = 0u64;
            while let Some(stream) = streams.recv().await {
                number += 1;
                if self.open_connection(number, stream).is_err() {
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

    fn open_connection(self: &Arc<Self>, number: u64, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let state = Arc::new(ConnectionState::new(Arc::clone(&self.ticks)));
        let closed = Closed { worker: Arc::clone(self), number };
        let served = serve_connection(Arc::clone(self), stream, Arc::clone(&state));
        let task = tokio::spawn(async move {
            let _closed = closed;
            served.await;
        });
        self.open().insert(number, Open { state, task: task.abort_handle() });
        Ok(())
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn sweep_every_tick(self: Arc<Self>, limits: TickLimits) {
        loop {
            tokio::time::sleep(limits.tick).await;
            self.ticks.fetch_add(1, Ordering::Relaxed);
            for connection in self.open().values().filter(|connection| connection.state.is_overdue(&limits)) {
                self.counters.timed_out_connections.fetch_add(1, Ordering::Relaxed);
                connection.task.abort();
            }
        }
    }

    /// Ends idle connections at once, and the others when they are idle or the drain timeout is over.
    async fn drain(&self) {
        let deadline = Instant::now() + self.config.drain_timeout;
        loop {
            let is_late = Instant::now() >= deadline;
            {
                let open = self.open();
                if open.is_empty() {
                    return;
                }
                for connection in open.values().filter(|open| is_late || open.state.phase() == Phase::Idle) {
                    connection.task.abort();
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

async fn serve_connection(worker: Arc<Worker>, stream: tokio::net::TcpStream, state: Arc<ConnectionState>) {
    let io = TokioIo::new(WatchedStream::new(stream, Arc::clone(&state)));
    let service = service_fn(|request: Request<Incoming>| {
        let (worker, state) = (Arc::clone(&worker), Arc::clone(&state));
        async move {
            state.enter(Phase::Handling);
            let response = serve_request(&worker, request).await;
            state.enter(Phase::Replied);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .header_read_timeout(None)
        .serve_connection(io, service);
    // A client that breaks off or sends what is not HTTP has been answered by hyper as far as it could be.
    drop(connection.await);
}

async fn serve_request(worker: &Worker, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let arrived = Instant::now();
    let counters = &worker.counters;
    let mut in_flight = InFlight::new(counters);
    let (head, body) = request.into_parts();
    let config = &worker.config;
    let accepted = Encoding::accepted(&head.headers);
    let mut share = Share::new(&worker.budget);
    let (route_index, reply) = match routed(&head.method, head.uri.path()) {
        Err(refusal) => {
            discard_body(body).await;
            (ROUTE_NONE, refusal)
        }
        Ok(route) => {
            let route_index = route.index();
            let body = read_body(&head.headers, body, config.body_bytes_max, config.body_timeout, &mut share).await;
            let reply = match body {
                Err(error) => Reply::error(&error),
                Ok(body) => {
                    let request = Received { route, headers: head.headers, body, arrived };
                    let reply;
                    (reply, share, in_flight) = reply_to(worker, request, share, in_flight).await;
                    reply
                }
            };
            (route_index, reply)
        }
    };
    let reply = compressed(reply, accepted).await;
    counters.record(route_index, reply.status, arrived.elapsed());
    drop(in_flight);
    // The request's bytes are gone here, the answer's stay until they are sent.
    share.release();
    share.take_anyway(reply.body.len());
    response_of(reply, share, worker.stopping.load(Ordering::Relaxed))
}

/// A request that came whole.
struct Received {
    route: Route,
    headers: HeaderMap,
    body: Bytes,
    arrived: Instant,
}

async fn reply_to(worker: &Worker, request: Received, share: Share, in_flight: InFlight) -> (Reply, Share, InFlight) {
    let panicked = || {
        worker.counters.panics.fetch_add(1, Ordering::Relaxed);
    };
    let Received { route, headers, body, arrived } = &request;
    if let Route::Push(_) | Route::Delete(_) = route {
        let reply = handle_write(&worker.engine, &worker.writes, route, headers, body, panicked).await;
        return (reply, share, in_flight);
    }
    let kind = if waits(&worker.engine, route) { Kind::Waits } else { Kind::Long };
    let work = if kind == Kind::Waits || body.len() > LONG_BODY_BYTES {
        Work::Whole(request)
    } else {
        match handle(&worker.engine, route, headers, body, *arrived, panicked) {
            Handled::Answered(reply) => return (reply, share, in_flight),
            Handled::Long(prediction) => Work::Answer(prediction),
        }
    };
    reply_aside(worker, Aside { work, kind, share, in_flight }).await
}

/// A request that is put aside, with what it holds: all of it stays until the thread has done, also when the client has gone.
struct Aside {
    work: Work,
    kind: Kind,
    share: Share,
    in_flight: InFlight,
}

/// Why a request is put aside. Those of one kind take neither places nor turns of the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// For another process, so that it needs no processor here meanwhile.
    Waits,
    /// It takes long here.
    Long,
}

impl Kind {
    fn lane(self, worker: &Worker) -> &Lane {
        match self {
            Kind::Waits => &worker.waiting,
            Kind::Long => &worker.long,
        }
    }

    /// That all places are taken.
    fn refusal(self) -> Error {
        let (what, hint) = match self {
            Kind::Waits => ("wait for models in other processes", "try again in a second, or raise [models] workers"),
            Kind::Long => (
                "take long: explanations, large bodies, or models that are Python functions",
                "try again in a second, or send fewer rows at a time",
            ),
        };
        Error::new(ErrorCode::Unavailable, format!("{ASIDE_MAX} requests of this thread {what}"), hint)
    }
}

enum Work {
    /// From decoding to the answer.
    Whole(Received),
    Answer(Box<Prediction>),
}

/// Handles a request on a thread of its own, so that this one goes on with its connections: one whose model waits for another process,
/// or one that takes long, when it is its turn.
async fn reply_aside(worker: &Worker, request: Aside) -> (Reply, Share, InFlight) {
    let lane = request.kind.lane(worker);
    let Ok(place) = Arc::clone(&lane.places).try_acquire_owned() else {
        return (Reply::error(&request.kind.refusal()), request.share, request.in_flight);
    };
    // The runtime has a thread for each turn, so that neither kind waits behind the other.
    let turn = Arc::clone(&lane.turns).acquire_owned().await;
    let (engine, counters) = (Arc::clone(&worker.engine), Arc::clone(&worker.counters));
    let handled = tokio::task::spawn_blocking(move || {
        let Aside { work, share, in_flight, .. } = request;
        let panicked = || {
            counters.panics.fetch_add(1, Ordering::Relaxed);
        };
        let reply = match work {
            Work::Whole(Received { route, headers, body, arrived }) => {
                handle_whole(&engine, &route, &headers, &body, arrived, panicked)
            }
            Work::Answer(prediction) => prediction.reply(&engine, panicked),
        };
        drop((turn, place));
        (reply, share, in_flight)
    });
    let _awaited = Awaited(handled.abort_handle());
    handled.await.unwrap_or_else(|_| {
        let reply = Reply::error(&Error::internal("the thread of a request was lost"));
        (reply, Share::new(&worker.budget), InFlight::new(&worker.counters))
    })
}

/// Takes a request whose client has gone out of the queue; one that a thread has begun runs to its end.
struct Awaited(AbortHandle);

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Counts a request as long as it is handled.
struct InFlight(Arc<WorkerCounters>);

impl InFlight {
    fn new(counters: &Arc<WorkerCounters>) -> Self {
        counters.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counters))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn response_of(reply: Reply, share: Share, stopping: bool) -> Response<Full<Bytes>> {
    let content_type = if reply.header_bytes.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = Response::new(Full::new(Bytes::from_owner(Held { bytes: reply.body, _share: share })));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(encoding) = reply.encoding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
    }
    if let Some(length) = reply.header_bytes {
        headers.insert(oip::HEADER_LENGTH, HeaderValue::from(length));
    }
    if let Some(value) = reply.allow.and_then(|method| HeaderValue::from_str(method.as_str()).ok()) {
        headers.insert(ALLOW, value);
    }
    if reply.status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if stopping {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
